"""Stopping a server loses no request, takes no longer than it was given, and leaves nothing behind."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.process.client import Stream, UnixConnection, get, get_later, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.services.tafe_server import Running

ROOT = Path(__file__).resolve().parents[2]
APP = "tests.process.application:app"

pytestmark = pytest.mark.real


def _begun() -> None:
    """Give requests that were just sent the time to arrive; the server has no sign for it."""
    time.sleep(0.15)


def test_sigterm_finishes_a_request_in_flight_and_ends_with_status_0(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP)
    answer = get_later(running.port, "/sleep/0.8")
    _begun()
    running.signal(signal.SIGTERM)
    assert answer.result(5).status == 200
    assert answer.result().headers["Connection"] == "close"
    assert running.wait() == 0
    assert "Traceback" not in running.log()


def test_an_idle_server_stops_at_once(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP)
    began = time.monotonic()
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert time.monotonic() - began < 5  # not the graceful timeout


def test_during_the_drain_delay_requests_are_served_while_readiness_fails(
    tafe_serve: Callable[..., Running],
) -> None:
    running = tafe_serve(APP, "--drain-delay", "2s")
    running.signal(signal.SIGTERM)
    until(lambda: get(running.port, "/-/ready").status == 503, "unready", 1.5)
    assert json.loads(get(running.port, "/-/ready").body) == {"ready": False, "reasons": ["draining"]}
    assert get(running.port, "/-/live").status == 200
    answer = get(running.port)
    assert answer.status == 200
    assert answer.headers["Connection"] != "close"
    assert running.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        get(running.port)


def test_an_idle_keep_alive_connection_is_closed_and_does_not_hold_up_the_stop(
    tafe_serve: Callable[..., Running],
) -> None:
    running = tafe_serve(APP)
    with closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=5)) as connection:
        connection.request("GET", "/")
        connection.getresponse().read()
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        assert connection.sock.recv(1) == b""
        assert running.wait() == 0
    assert time.monotonic() - began < 5  # not the graceful timeout


@pytest.mark.parametrize("keep_alive", [False, True], ids=["a connection each", "keep-alive"])
def test_a_stop_under_load_loses_no_request_of_a_client_that_could_connect(
    tafe_serve: Callable[..., Running], keep_alive: bool
) -> None:
    running = tafe_serve(APP, "--drain-delay", "0.2s")
    stream = Stream(running.port, keep_alive=keep_alive)
    until(lambda: len(stream.answers) > 100, "loaded")
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    stream.stop()
    assert stream.failures == []
    assert {answer.status for answer in stream.answers} == {200}


def test_the_path_of_a_unix_socket_lives_until_the_server_is_drained(
    tafe_serve: Callable[..., Running], servers_dir: Path
) -> None:
    path = servers_dir / "drained.sock"
    running = tafe_serve(APP, "--bind", f"unix:{path}", "--drain-delay", "1.5s")
    running.signal(signal.SIGTERM)
    until(lambda: get(running.port, "/-/ready").status == 503, "unready", 1.2)
    with closing(UnixConnection(str(path), timeout=5)) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
    assert running.wait() == 0
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_sigint_and_sigquit_stop_at_once_whatever_is_in_flight(
    tafe_serve: Callable[..., Running], number: signal.Signals
) -> None:
    running = tafe_serve(APP)
    answer = get_later(running.port, "/sleep/9")
    _begun()
    began = time.monotonic()
    running.signal(number)
    assert running.wait() == 0
    assert time.monotonic() - began < 5  # nor the request's nine seconds
    assert answer.result(5).status == 503
    assert "Traceback" not in running.log()


def test_sigint_while_draining_ends_the_wait(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP)
    get_later(running.port, "/sleep/9")
    _begun()
    running.signal(signal.SIGTERM)
    until(lambda: "stopping" in running.log(), "stopping")
    began = time.monotonic()
    running.signal(signal.SIGINT)
    assert running.wait() == 0
    assert time.monotonic() - began < 5  # nor the request's nine seconds


def test_requests_that_outlive_the_graceful_timeout_are_cut(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP, "--graceful-timeout", "1.5s")
    slow = get_later(running.port, "/sleep/9")
    _begun()
    began = time.monotonic()
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert time.monotonic() - began < 5  # nor the request's nine seconds
    assert slow.result(5).status == 503
    assert "with 1 requests in flight" in running.log()


def test_a_worker_that_cannot_stop_is_killed_when_the_graceful_timeout_is_over(
    tafe_serve: Callable[..., Running],
) -> None:
    running = tafe_serve(APP, "--workers", "1", "--graceful-timeout", "1s")
    get_later(running.port, "/spin/9")
    _begun()
    began = time.monotonic()
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert time.monotonic() - began < 5  # nor the request's nine seconds
    assert "did not stop in time and is killed" in running.log()


SLOW_STOP = """
import time
from pathlib import Path
from tafe import lifecycle

class Pool:
    name, ready = "pool", False
    def open(self): self.ready = True
    def close(self): Path("closed").touch()

lifecycle.register(Pool())

class App:
    def __call__(self, environ, start_response):
        time.sleep(60)
    def worker_stop(self, *, deadline_s):
        Path("deadline").write_text(str(deadline_s))
        time.sleep(deadline_s)

app = App()
"""


@pytest.mark.parametrize(
    ("number", "in_flight", "low_s", "high_s"),
    [(signal.SIGTERM, False, 3.0, 3.8), (signal.SIGTERM, True, 0.5, 0.9), (signal.SIGINT, True, 1.5, 3.0)],
    ids=["idle", "busy", "quick"],
)
def test_stop_hooks_are_told_how_long_they_have_and_what_follows_them_is_done_in_time(
    tafe_serve: Callable[..., Running],
    tmp_path: Path,
    number: signal.Signals,
    in_flight: bool,
    low_s: float,
    high_s: float,
) -> None:
    (tmp_path / "slow_stop.py").write_text(SLOW_STOP)
    options = ["--workers", "1", "--graceful-timeout", "4s"]
    running = tafe_serve("slow_stop:app", *options, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    if in_flight:
        get_later(running.port, "/")
        _begun()
    running.signal(number)
    assert running.wait() == 0
    assert low_s < float((tmp_path / "deadline").read_text()) < high_s
    assert (tmp_path / "closed").exists()
    assert "is killed" not in running.log()


def test_a_request_that_has_arrived_in_part_is_waited_for(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP)
    with socket.create_connection(("127.0.0.1", running.port), timeout=5) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
        _begun()
        running.signal(signal.SIGTERM)
        until(lambda: "stopping" in running.log(), "stopping")
        client.sendall(b"\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
    assert running.wait() == 0


def test_a_connection_that_was_opened_before_the_stop_may_still_send_its_request(
    tafe_serve: Callable[..., Running],
) -> None:
    running = tafe_serve(APP)
    with socket.create_connection(("127.0.0.1", running.port), timeout=5) as client:
        _begun()
        running.signal(signal.SIGTERM)
        until(lambda: "stopping" in running.log(), "stopping")
        time.sleep(0.05)  # within the last call
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
    assert running.wait() == 0


def test_connections_that_nobody_had_accepted_at_the_stop_are_answered(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP)
    until(lambda: "ready after" in running.log(), "ready")
    for pid in running.worker_pids():
        os.kill(pid, signal.SIGSTOP)
    clients = [socket.create_connection(("127.0.0.1", running.port), timeout=5) for _ in range(400)]
    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    running.signal(signal.SIGTERM)
    until(lambda: "stopping" in running.log(), "stopping")
    for pid in running.worker_pids():
        os.kill(pid, signal.SIGCONT)
    for client in clients:
        with client:
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
    assert running.wait() == 0

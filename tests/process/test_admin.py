"""The admin process answers whatever the workers do, comes back when it dies, and gets in nobody's way."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.process.client import Answer, UnixConnection, get, get_later, until
from tests.process.scrape import Scrape, ask_often, workers
from tests.services.ports import free_port
from tests.services.processes import session_members

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.services.tafe_server import Running

APP = "tests.process.measured:app"
SOURCE = Path(__file__).with_name("measured.py")

pytestmark = pytest.mark.real


def serve(tafe_serve: Callable[..., Running], *options: str) -> tuple[Running, int]:
    port = free_port()
    running = tafe_serve(APP, "--admin", f"127.0.0.1:{port}", *options)
    running.wait_all_ready()
    return running, port


def admin_pid(running: Running, port: int) -> int:
    (found,) = set(running.worker_pids()) - {worker["pid"] for worker in workers(port)}
    return found


def test_it_answers_within_a_second_while_every_worker_holds_the_gil(tafe_serve: Callable[..., Running]) -> None:
    running, port = serve(tafe_serve, "--workers", "2")
    ask_often(running.port, ["/a"] * 3)
    until(lambda: Scrape(port).total("tafe_requests_total", route="GET /a") == 3, "counted")
    stuck = [get_later(running.port, "/hold/4") for _ in range(2)]
    # Both run in one worker, if it is the one that accepts twice; then the other goes on.
    until(lambda: max(worker["heartbeat_age_s"] for worker in workers(port)) > 1.5, "stuck")
    times_s = []
    for _ in range(3):
        began_s = time.monotonic()
        seen = Scrape(port)
        times_s.append(time.monotonic() - began_s)
    assert max(times_s) < 1
    assert seen.total("tafe_requests_total", route="GET /a") == 3
    assert max(s.value for s in seen.samples if s.name == "tafe_worker_heartbeat_age_seconds") > 1.5
    assert seen.values_of("tafe_worker_open_fds", "worker") == {"1", "2"}
    for answer in stuck:
        answer.result(20)


def test_workers_are_described(tafe_serve: Callable[..., Running]) -> None:
    running, port = serve(tafe_serve, "--workers", "2")
    ask_often(running.port, ["/a"] * 3)
    slow = get_later(running.port, "/sleep/0.5")
    until(lambda: sum(worker["in_flight"] for worker in workers(port)) == 1, "shown in flight")
    seen = workers(port)
    assert [worker["worker"] for worker in seen] == [1, 2]
    assert {worker["pid"] for worker in seen} < set(running.worker_pids())
    assert {worker["state"] for worker in seen} == {"ready"}
    assert {worker["generation"] for worker in seen} == {1}
    assert all(0 <= worker["heartbeat_age_s"] < 1 for worker in seen)
    slow.result(5)
    # Those of the test's own questions for readiness count too.
    until(lambda: sum(worker["requests"] for worker in workers(port)) >= 4, "counted")


def test_it_is_told_what_a_hub_is_stuck_in_until_it_turns_again(tafe_serve: Callable[..., Running]) -> None:
    running, port = serve(tafe_serve, "--workers", "1")
    stuck = get_later(running.port, "/spin/2.5")
    until(lambda: "stuck" in workers(port)[0], "shown stuck")
    (worker,) = workers(port)
    line = next(n for n, text in enumerate(SOURCE.read_text().splitlines(), 1) if "while time.monotonic()" in text)
    assert worker["stuck"]["route"] == "GET /spin/2.5"
    assert worker["stuck"]["line"] in {f"tests/process/measured.py:{number} spin" for number in (line, line + 1)}
    assert worker["stuck"]["cause"] == "python"
    assert 1 < worker["stuck"]["for_s"] < 2.5
    stuck.result(10)
    until(lambda: "stuck" not in workers(port)[0], "free again")


@pytest.mark.parametrize(
    ("method", "path", "status", "headers"),
    [
        ("GET", "/healthz", 200, {"Content-Type": "application/json"}),
        ("HEAD", "/metrics", 200, {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}),
        ("POST", "/metrics", 405, {"Allow": "GET, HEAD"}),
        ("DELETE", "/workers", 405, {"Allow": "GET, HEAD"}),
        ("GET", "/", 404, {}),
        ("GET", "/metrics/", 404, {}),
        ("GET", "/-/ready", 404, {}),
    ],
)
def test_paths_and_methods(
    admin: tuple[Running, int], method: str, path: str, status: int, headers: dict[str, str]
) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", admin[1], timeout=10)) as connection:
        connection.request(method, path)
        answer = Answer(connection.getresponse())
    assert answer.status == status
    assert {name: answer.headers[name] for name in headers} == headers
    if status == 404:
        assert json.loads(answer.body) == {"paths": ["/metrics", "/workers", "/figures", "/healthz", "/profile"]}


@pytest.fixture(scope="module")
def admin(servers_dir: Any) -> Any:
    """One server for questions that change nothing."""
    from tests.services.tafe_server import start_tafe

    port = free_port()
    folder = servers_dir / "admin"
    folder.mkdir()
    running = start_tafe(folder, APP, "--admin", f"127.0.0.1:{port}", "--workers", "1")
    until(lambda: "ready after" in running.log(), "ready")
    yield running, port
    running.stop()


def test_a_killed_admin_process_comes_back_with_the_same_counts_and_no_worker_notices(
    tafe_serve: Callable[..., Running],
) -> None:
    running, port = serve(tafe_serve, "--workers", "2")
    ask_often(running.port, ["/a"] * 7)
    until(lambda: Scrape(port).total("tafe_requests_total", route="GET /a") == 7, "counted")
    pids = {worker["pid"] for worker in workers(port)}
    for _ in range(2):
        victim = admin_pid(running, port)
        os.kill(victim, signal.SIGKILL)
        until(lambda victim=victim: len(set(running.worker_pids()) - pids - {victim}) == 1, "started again")
        assert Scrape(port).total("tafe_requests_total", route="GET /a") == 7
        assert f"the admin process {victim} was killed by SIGKILL and is started again" in running.log()
    assert {worker["pid"] for worker in workers(port)} == pids
    assert Scrape(port).value("tafe_worker_starts_total") == 2


def test_signals_to_the_whole_group_leave_it_to_the_arbiter(tafe_serve: Callable[..., Running]) -> None:
    running, port = serve(tafe_serve, "--workers", "1")
    slow = get_later(running.port, "/sleep/1")
    until(lambda: sum(worker["in_flight"] for worker in workers(port)) == 1, "in flight")
    for pid in session_members(running.pid):
        os.kill(pid, signal.SIGTERM)  # as systemd does
    until(lambda: [worker["state"] for worker in workers(port)] == ["draining"], "shown draining")
    assert slow.result(5).status == 200
    assert running.wait() == 0
    assert session_members(running.pid) == []
    assert "started again" not in running.log()
    with pytest.raises(ConnectionRefusedError):
        get(port, "/healthz")


def test_it_ends_when_the_arbiter_is_gone(tafe_serve: Callable[..., Running]) -> None:
    running, _ = serve(tafe_serve, "--workers", "1")
    running.signal(signal.SIGKILL)
    until(lambda: session_members(running.pid) == [], "gone")


def test_it_outlives_a_reload_and_holds_none_of_the_workers_listeners(tafe_serve: Callable[..., Running]) -> None:
    running, port = serve(tafe_serve, "--workers", "1")
    pid = admin_pid(running, port)
    running.signal(signal.SIGHUP)
    until(lambda: [worker["generation"] for worker in workers(port)] == [2], "reloaded")
    assert admin_pid(running, port) == pid
    assert _listening_ports(pid) == {port}
    (worker,) = workers(port)
    assert _listening_ports(worker["pid"]) == {running.port}


def _listening_ports(pid: int) -> set[int]:
    """The TCP ports that a process listens on, from proc(5)."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        target = os.readlink(f"/proc/{pid}/fd/{fd}")
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    with open(f"/proc/{pid}/net/tcp") as table:
        for line in table.readlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return found


def test_an_address_in_use_is_said_at_the_start(tafe_serve: Callable[..., Running]) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        running = tafe_serve(APP, "--admin", f"127.0.0.1:{taken}", wait_ready=False)
        assert running.wait() == 2
    assert f"tafe: --admin: cannot listen on 127.0.0.1:{taken}: another program listens there" in running.log()
    assert "--admin on the command line" in running.log() or "set by:" in running.log()


def test_it_can_listen_on_a_unix_socket_which_goes_with_the_server(
    tafe_serve: Callable[..., Running], servers_dir: Any
) -> None:
    path = servers_dir / "admin.sock"
    running = tafe_serve(APP, "--admin", f"unix:{path}", "--workers", "1")
    with closing(UnixConnection(str(path), 10)) as connection:
        connection.request("GET", "/healthz")
        assert Answer(connection.getresponse()).status == 200
    assert "there is no password" not in running.log()
    running.stop()
    assert not path.exists()


def test_an_address_that_others_reach_is_warned_about(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP, "--admin", f":{free_port()}", "--workers", "1")
    assert "can be read by whoever reaches this machine: there is no password" in running.log()


def test_without_the_setting_there_is_no_such_process(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP, "--workers", "1")
    running.wait_all_ready()
    assert len(running.worker_pids()) == 1

"""Requests that come while a stall keeps the loop from polling are queued from when they came, not from when it polled.

The stall is another greenlet's, which does meanwhile what clients would: so the test knows when that was.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
import gevent.socket
import pytest

from tafe import profiling
from tafe.server import WSGIServer
from tests.profiler.undisturbed import found, undisturbed
from tests.server.conftest import hello, read_answer

if TYPE_CHECKING:
    from profiler import Span
    from tests.server.conftest import Live, Serve

HELD_S = 0.05  # after it was sent
NEARLY_S = HELD_S / 2  # what must be left of that, on a machine that is busy
PATIENCE_S = 10.0  # for the watchdog to get a CPU
ASK = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def observer(tmp_path: Path) -> Iterator[profiling.SpanObserver]:
    yield profiling.start(str(tmp_path), 10.0, {})
    profiling.stop()


@pytest.fixture
def spans(observer: profiling.SpanObserver, serve: Serve) -> tuple[Live, list[Span]]:
    """A server that is profiled, and the spans of its requests."""
    noted: list[Span] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        noted.append(environ["tafe.span"])
        environ["wsgi.input"].read()
        return hello(environ, start_response)

    live = serve(application, observer=observer)
    profiling.follow(live.server)
    return live, noted


def stalling(act: Callable[[], object], until: Callable[[], object] = lambda: True) -> tuple[float, float, float]:
    """When a stall began, when `act` was done in it, and when it ended."""
    times: list[float] = []

    def stall() -> None:
        times.append(time.perf_counter())
        act()
        times.append(time.perf_counter())
        begun_s = times[-1]
        while time.perf_counter() < begun_s + HELD_S or not (until() or time.perf_counter() > begun_s + PATIENCE_S):
            pass
        times.append(time.perf_counter())

    gevent.sleep(0.001)  # the loop polls, so that all is as in a server that had nothing to do
    gevent.spawn(stall).join()
    before_s, after_s, end_s = times
    return before_s, after_s, end_s


def check(span: Span, times: tuple[float, float, float]) -> None:
    before_s, after_s, end_s = times
    assert before_s <= span.started_s
    found(span.started_s <= after_s + NEARLY_S)
    assert span.queued_s >= end_s - after_s - NEARLY_S
    assert span.blamed is not None
    # A machine that is busy may make others slow as well.
    ((record, cost_s),) = [(record, cost_s) for record, cost_s in span.blamed if record.length_s >= HELD_S]
    assert cost_s <= record.end_s - before_s


@undisturbed
def test_on_an_open_connection(spans: tuple[Live, list[Span]]) -> None:
    live, noted = spans
    with live.connect() as client:
        client.sendall(ASK)
        read_answer(client)
        times = stalling(lambda: client._sock.send(ASK))
        read_answer(client)
        check(noted[-1], times)
        client.sendall(ASK)
        read_answer(client)
    found(noted[-1].queued_s < NEARLY_S)  # what comes later is not asked about
    gevent.sleep(0)
    found(live.server._serving.callback == live.server.serve_readable)


@undisturbed
def test_on_new_connections_that_one_turn_each_is_taken_from_the_queue(spans: tuple[Live, list[Span]]) -> None:
    live, noted = spans
    live.server.max_accept = 1  # as a worker among several has it
    clients = [socket.socket() for _ in range(5)]

    def all_ask() -> None:
        for client in clients:
            client.connect(live.server.address)
            client.send(ASK)

    times = stalling(all_ask)
    for client in clients:
        with gevent.socket.socket(fileno=client.detach()) as green:
            read_answer(green)
    for span in noted[-len(clients) :]:
        check(span, times)


@pytest.mark.parametrize(
    "pieces",
    [(ASK[:10], ASK[10:]), (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n", b"body")],
    ids=["head", "body"],
)
@undisturbed
def test_what_comes_in_pieces_is_ready_with_its_last(
    pieces: tuple[bytes, bytes], spans: tuple[Live, list[Span]]
) -> None:
    live, noted = spans
    with live.connect() as client:
        client.sendall(pieces[0])
        gevent.sleep(0.005)
        times = stalling(lambda: client._sock.send(pieces[1]))
        read_answer(client)
        check(noted[-1], times)


@undisturbed
def test_of_pipelined_requests_none_is_ready_before_it_came(spans: tuple[Live, list[Span]]) -> None:
    live, noted = spans
    with live.connect() as client:
        times = stalling(lambda: client._sock.send(2 * ASK))
        answers = b""
        while answers.count(b"hello world") < 2:
            answers += client.recv(65536)
    check(noted[-2], times)
    assert noted[-1].started_s >= times[0]


@undisturbed
def test_on_a_unix_socket_from_when_the_watchdog_saw_it(
    spans: tuple[Live, list[Span]], observer: profiling.SpanObserver, tmp_path: Path
) -> None:
    tcp, noted = spans
    path = str(tmp_path / f"{len(noted)}")
    listener = gevent.socket.socket(gevent.socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    server = WSGIServer(listener, tcp.server.application, observer=observer)
    server.start()
    profiling.follow(server)
    try:
        with gevent.socket.socket(gevent.socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(ASK)
            read_answer(client)
            (connection,) = server._connections
            asked = profiling._session
            assert asked is not None
            idle_since_s = connection.expires_s - server.idle_timeout_s  # type: ignore[union-attr]

            def seen() -> float:
                return asked.came_s(connection.raw, idle_since_s)  # type: ignore[union-attr]

            before_s, _, end_s = stalling(lambda: client._sock.send(ASK), seen)
            seen_s = seen()
            read_answer(client)
        found(seen_s)
        assert before_s <= seen_s < end_s
        assert noted[-1].started_s >= seen_s - 1e-6
        found(noted[-1].started_s < seen_s + 1e-6)
        assert noted[-1].queued_s >= end_s - seen_s
    finally:
        server.stop(timeout=0.2)
        listener.close()

"""A client that leaves in the middle: its request's time is accounted for, and nobody else's is changed by that."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
import gevent.socket
import pytest

from tafe import profiling
from tafe.connection import Connection
from tests.server.conftest import hello, read_answer

if TYPE_CHECKING:
    from profiler import Span
    from tests.server.conftest import Live, Serve

ASK = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n"
CLIENT_LEFT = 499
PIECE = bytes(100_000)


def reset(client: gevent.socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


class Application:
    """`/asks` waits until its client has left, `/streams` sends until that fails; anything else answers."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.spans.append(environ["tafe.span"])
        if environ["PATH_INFO"] == "/asks":
            while not environ["tafe.client_gone"]():
                gevent.sleep(0.001)
        elif environ["PATH_INFO"] == "/streams":
            start_response("200 OK", [])
            return iter(lambda: PIECE, b"")
        return hello(environ, start_response)


@pytest.fixture
def profiled(tmp_path: Path, serve: Serve) -> Iterator[tuple[Live, list[Span]]]:
    observer = profiling.start(str(tmp_path), 10.0, {})
    application = Application()
    yield serve(application, observer=observer), application.spans
    profiling.stop()


@pytest.mark.parametrize(("path", "outcome"), [("/asks", CLIENT_LEFT), ("/streams", 200)])
def test_a_request_whose_client_left_ends_and_its_times_add_up(
    path: str, outcome: int, profiled: tuple[Live, list[Span]]
) -> None:
    live, spans = profiled
    client = live.connect()
    client.sendall(ASK % path.encode())
    with gevent.Timeout(10):
        while not spans:
            gevent.sleep(0.001)
        with live.connect() as other:  # somebody else is served meanwhile
            other.sendall(ASK % b"/other")
            read_answer(other)
            reset(client)
            while live.server.in_flight:
                gevent.sleep(0.001)
            other.sendall(ASK % b"/other")  # in the greenlet of the one that left, most likely
            read_answer(other)
    left, *others = spans
    for span in spans:
        assert span.running_s > 0.0
        assert span.total_s == pytest.approx(span.running_s + span.waiting_s + span.queued_s, abs=1e-9)
    assert left.waiting_s > 0.0
    assert not left.error, "that a client leaves is no fault of ours"
    assert [span._out_s for span in others] == [0.0, 0.0], "they never waited"
    figures = profiling.figures(all_at_once=True)
    served = {route: (found.requests, found.outcomes) for route, found in figures.routes.items()}
    unusual = {} if outcome == 200 else {outcome: 1}
    assert served == {f"GET {path}": (1, unusual), "GET /other": (2, {})}
    assert figures.dropped == figures.failures == 0


def test_a_reset_during_a_stall_is_no_end_of_what_the_client_sends(profiled: tuple[Live, list[Span]]) -> None:
    live, spans = profiled
    profiling.follow(live.server)
    client = live.connect()
    client.sendall(ASK % b"/asks")
    while not spans:
        gevent.sleep(0.001)
    (connection,) = live.server._connections
    assert isinstance(connection, Connection)

    def stall() -> None:
        reset(client)
        begun_s = time.perf_counter()
        while time.perf_counter() < begun_s + 0.05:
            pass

    gevent.sleep(0.001)  # the loop polls, so that it is the stall that hides the reset
    gevent.spawn(stall).join()
    while not connection.eof and not connection.gone:
        gevent.sleep(0.001)
    assert connection.gone
    assert not connection.eof

"""A slow reader of a whole answer: the hub sends what is left of it, and the request's greenlet is free."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent import socket

from tafe.limits import KIB, Limits
from tafe.states import State
from tests.server.conftest import Live, Serve, read_answer, read_to_end
from tests.server.test_load import only_connection, wait_for

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SMALL = b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = bytes(range(256)) * 32 * KIB  # 8 MiB, more than the sockets' buffers take


def large(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"small" if environ["PATH_INFO"] == "/small" else BODY]


def slow_reader(live: Live, requests: bytes = GET) -> socket.socket:
    """A client that has asked, and whose answer waits for it."""
    wanted = live.server.connections + 1
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
    client.settimeout(5)
    client.connect(live.server.address)
    client.sendall(requests)
    wait_for(lambda: live.server.connections == wanted)
    wait_for(lambda: all(connection._state is State.SENDING for connection in live.server._connections))
    return client


def test_its_greenlet_serves_the_next_request_meanwhile(serve: Serve) -> None:
    live = serve(large, limits=Limits(in_flight=2))
    readers = [slow_reader(live) for _ in range(5)]
    with live.connect() as client:
        client.sendall(SMALL)
        assert read_answer(client)[1] == b"small"
    assert live.server.greenlets.created == 1
    assert (live.server.in_flight, live.server.max_in_flight) == (5, 7), "they count, and take nobody's place"
    for reader in readers:
        assert read_answer(reader)[1] == BODY
        reader.close()
    wait_for(lambda: not live.server.connections)
    assert (live.server.in_flight, live.server.max_in_flight) == (0, 2)


def test_what_it_asked_for_next_is_answered_when_it_has_taken_all(serve: Serve) -> None:
    live = serve(large)
    with slow_reader(live, GET + SMALL) as client:
        client.sendall(SMALL)
        client.shutdown(socket.SHUT_WR)
        answers = read_to_end(client)
    head, _, rest = answers.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(BODY) in head
    assert rest.startswith(BODY)
    assert rest.count(b"\r\n\r\nsmall") == 2


def test_the_connection_is_kept_for_the_next_request(serve: Serve) -> None:
    live = serve(large)
    with slow_reader(live) as client:
        assert read_answer(client)[1] == BODY
        wait_for(lambda: only_connection(live)._state is State.IDLE)
        client.sendall(SMALL)
        assert read_answer(client)[1] == b"small"


@pytest.mark.parametrize(
    "limits", [Limits(write_timeout_s=0.1), Limits(request_timeout_s=0.1)], ids=["write", "request"]
)
def test_one_that_takes_nothing_is_given_up(serve: Serve, limits: Limits) -> None:
    live = serve(large, limits=limits)
    with slow_reader(live) as client:
        wait_for(lambda: not live.server.connections)
        assert len(read_to_end(client)) < len(BODY)
    assert (live.server.in_flight, live.server.max_in_flight) == (0, limits.in_flight)


def test_one_that_takes_some_now_and_then_is_not_given_up(serve: Serve) -> None:
    live = serve(large, limits=Limits(write_timeout_s=0.2))
    taken = 0
    with slow_reader(live) as client:
        for _ in range(5):
            gevent.sleep(0.1)
            until = taken + 1536 * KIB  # the kernel announces room when a third of its buffer is free
            while taken < until:
                taken += len(client.recv(64 * KIB))
        wait_for(lambda: live.server.connections == 1)
        while taken < len(BODY):
            taken += len(client.recv(64 * KIB))
    assert taken > len(BODY), "with the head"


def test_one_that_leaves_is_forgotten(serve: Serve) -> None:
    live = serve(large)
    client = slow_reader(live)
    client.close()  # with unread data: a reset
    wait_for(lambda: not live.server.connections)
    assert (live.server.in_flight, live.server.max_in_flight) == (0, Limits().in_flight)


def test_stopping_waits_for_it_and_then_gives_it_up(serve: Serve) -> None:
    live = serve(large)
    with slow_reader(live) as patient, slow_reader(live) as gone:
        stopping = gevent.spawn(live.server.stop, 0.5)
        assert read_answer(patient)[1] == BODY
        assert patient.recv(1) == b"", "closed after its answer"
        stopping.get(timeout=3)
        assert len(read_to_end(gone)) < len(BODY)
    assert (live.server.in_flight, live.server.connections) == (0, 0)

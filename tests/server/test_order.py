"""Whose request is served when: the order of arrival, and who may keep others from their turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from gevent.queue import SimpleQueue

from tafe.limits import Limits
from tests.server.conftest import Live, Serve, read_answer, read_to_end

LARGE = bytes(8 * 1024 * 1024)  # more than the sockets' buffers of a connection take


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def none_in_flight(live: Live) -> None:
    """The last answer may be read before its greenlet is through."""
    with gevent.Timeout(3):
        while live.server.in_flight:
            gevent.sleep(0.005)


@contextmanager
def connected(live: Live, count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(live.connect()) for _ in range(count)]


class Application:
    """Notes the order; `/wait` waits for `go`; `/large`, and `/stream` in pieces, is more than an idle client takes."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.go = Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        self.seen.append(path)
        if path == "/wait":
            self.go.wait()
        if path == "/stream":
            start_response("200 OK", [("Content-Length", str(len(LARGE)))])
            return (LARGE[at : at + 65536] for at in range(0, len(LARGE), 65536))
        start_response("200 OK", [])
        if path == "/body":
            return [b"%d" % len(environ["wsgi.input"].read())]
        return [LARGE] if path == "/large" else [b"ok"]


def test_requests_that_came_while_the_hub_was_busy_are_served_in_the_order_of_their_arrival(serve: Serve) -> None:
    application = Application()
    with connected(serve(application), 20) as clients:
        for client in clients:
            client.sendall(get("/first"))
            read_answer(client)
        application.seen.clear()
        for turn in range(3):
            for number, client in enumerate(clients):  # no send of these waits, so the hub does not run in between
                client.sendall(get(f"/{turn}/{number}"))
            for client in clients:
                read_answer(client)
    assert application.seen == [f"/{turn}/{number}" for turn in range(3) for number in range(20)]


@pytest.mark.parametrize("newcomer_first", [True, False])
def test_what_was_begun_goes_on_before_a_new_request_begins(serve: Serve, newcomer_first: bool) -> None:
    """A newcomer in the same turn of the loop does not take what is given back from those who wait for it already."""
    pool: SimpleQueue[int] = SimpleQueue()
    pool.put(1)
    took: list[str] = []
    database, driver = socket.socketpair()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        connection = pool.get()
        took.append(environ["PATH_INFO"])
        if environ["PATH_INFO"] == "/first":
            driver.recv(1)
        pool.put(connection)
        start_response("200 OK", [])
        return [b"ok"]

    with database, driver, connected(serve(app), 4) as clients:
        *early, newcomer = clients
        for client, path in zip(early, ("/first", "/second", "/third"), strict=True):
            client.sendall(get(path))
            gevent.sleep(0.01)  # the turns of the loop in which it comes to wait
        if newcomer_first:
            newcomer.sendall(get("/new"))
            database.sendall(b"x")
        else:
            database.sendall(b"x")
            newcomer.sendall(get("/new"))
        for client in clients:
            read_answer(client)
    assert took == ["/first", "/second", "/third", "/new"]


@pytest.mark.parametrize("path", ["/large", "/stream"])
def test_clients_that_do_not_read_keep_nobody_from_being_served(serve: Serve, path: str) -> None:
    live = serve(Application(), limits=Limits(in_flight=2))
    with connected(live, 4) as slow, live.connect() as quick:
        for client in slow:
            client.sendall(get(path))
        quick.sendall(get("/quick"))
        assert read_answer(quick)[1] == b"ok"
        for client in slow:
            assert read_answer(client)[1] == LARGE
    none_in_flight(live)
    assert live.server.max_in_flight == 2


def test_clients_that_do_not_send_their_body_keep_nobody_from_being_served(serve: Serve) -> None:
    live = serve(Application(), limits=Limits(in_flight=2))
    with connected(live, 4) as slow, live.connect() as quick:
        for client in slow:
            client.sendall(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n0")
        quick.sendall(get("/quick"))
        assert read_answer(quick)[1] == b"ok"
        for client in slow:
            client.sendall(bytes(99_999))
            assert read_answer(client)[1] == b"100000"
    none_in_flight(live)
    assert live.server.max_in_flight == 2


def test_no_more_requests_run_at_once_than_allowed_however_they_follow_each_other(serve: Serve) -> None:
    most = running = 0

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        nonlocal most, running
        running += 1
        most = max(most, running)
        gevent.sleep(0.001)
        running -= 1
        start_response("200 OK", [])
        return [b"ok"]

    live = serve(app, limits=Limits(in_flight=3))

    def ask() -> None:
        with live.connect() as client:
            for _ in range(20):
                client.sendall(get("/"))
                read_answer(client)

    gevent.joinall([gevent.spawn(ask) for _ in range(12)], raise_error=True)
    assert most == 3


def test_who_was_given_up_while_it_waited_does_not_take_the_turn_of_the_next(serve: Serve) -> None:
    application = Application()
    live = serve(application, limits=Limits(in_flight=1, request_timeout_s=0.3))
    with connected(live, 3) as (first, second, third):
        first.sendall(get("/wait"))
        second.sendall(get("/second"))
        assert b" 503 " in read_to_end(second)  # the first, as old, was told to stop in the same moment
        third.sendall(get("/third"))
        assert read_answer(third)[1] == b"ok"
    assert application.seen == ["/wait", "/third"]

"""Requests that outlive their deadline or their client."""

from __future__ import annotations

import socket as std_socket
from typing import Any

import gevent
import pytest
from gevent.event import Event

from tafe import overdue
from tafe.body import ClientGone
from tafe.errors import RequestTimeout
from tafe.limits import Limits
from tests.server.conftest import Live, Serve, hello, read_to_end

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SHORT = Limits(request_timeout_s=0.03)


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overdue, "GRACE_S", 0.03)


class Stubborn:
    """An application that goes on whatever is thrown at it, until `release` is set."""

    def __init__(self, *first: bytes) -> None:
        self.first = first
        self.release = Event()
        self.thrown: list[str] = []
        self.at_the_end: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response("200 OK", [])
        for piece in self.first:
            write(piece)
        while not self.release.is_set():
            try:
                self.release.wait()
            except BaseException as error:
                self.thrown.append(type(error).__name__)
        try:
            write(b"too late")
        except ClientGone:
            self.at_the_end.append("discarded")
        return []


def wait_for(condition: Any) -> None:
    with gevent.Timeout(3):
        while not condition():
            gevent.sleep(0.005)


def test_code_that_swallows_its_end_is_answered_for_and_counted_until_it_ends(serve: Serve, caplog: Any) -> None:
    app = Stubborn()
    live = serve(app, limits=SHORT)
    answer = live.ask(GET)
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"Connection: close" in answer
    assert app.thrown == ["RequestTimeout"], "told once"
    assert (live.server.overdue, live.server.in_flight) == (1, 1)
    assert "goes on after its deadline" in caplog.text
    app.release.set()
    wait_for(lambda: not live.server.in_flight)
    assert (live.server.overdue, app.at_the_end) == (0, ["discarded"])
    assert live.server.connections == 0


def test_a_begun_answer_is_broken_off_and_not_ended(serve: Serve) -> None:
    app = Stubborn(b"abc")
    live = serve(app, limits=SHORT)
    assert live.ask(GET).endswith(b"3\r\nabc\r\n")
    with pytest.raises(ConnectionResetError):
        live.ask(b"GET / HTTP/1.0\r\n\r\n")
    assert live.server.overdue == 2
    app.release.set()
    wait_for(lambda: not live.server.overdue)


def test_a_rollback_that_takes_a_moment_is_not_overdue(serve: Serve) -> None:
    ended: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        try:
            gevent.sleep(5)
        except RequestTimeout:
            gevent.sleep(0.01)
            ended.append("rolled back")
            raise
        return hello(environ, start_response)

    live = serve(app, limits=SHORT)
    assert live.ask(GET).startswith(b"HTTP/1.1 504 ")
    assert ended == ["rolled back"]
    assert live.server.overdue == 0


def test_the_next_request_on_other_connections_is_not_hit(serve: Serve) -> None:
    stubborn = Stubborn()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        return (stubborn if environ["PATH_INFO"] == "/" else hello)(environ, start_response)

    live = serve(app, limits=SHORT)
    assert live.ask(GET).startswith(b"HTTP/1.1 504 ")
    other = b"GET /other HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert live.ask(other).startswith(b"HTTP/1.1 200 ")
    stubborn.release.set()
    wait_for(lambda: not live.server.overdue)
    assert live.ask(other).startswith(b"HTTP/1.1 200 ")


def leave(live: Live, *, how: str) -> None:
    """A client asks, and leaves before it is answered."""
    with std_socket.create_connection(live.server.address) as client:
        client.sendall(GET)
        gevent.sleep(0.02)
        if how == "reset":
            client.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_application_may_ask_whether_its_client_is_gone(serve: Serve, how: str) -> None:
    seen: list[bool] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        gone = environ["tafe.client_gone"]
        seen.append(gone())
        wait_for(gone)
        seen.append(gone())
        return hello(environ, start_response)

    live = serve(app)
    leave(live, how=how)
    wait_for(lambda: not live.server.in_flight and not live.server.connections)
    assert seen == [False, True]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_event_stream_ends_at_the_first_write_after_its_client_has_left(serve: Serve, how: str) -> None:
    told = Event()
    ended: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/event-stream; charset=utf-8")])
        sent = 0
        try:
            yield b"data: 0\n\n"
            told.wait()
            while True:
                sent += 1
                yield b"data: more\n\n"
        finally:
            ended.append(sent)

    live = serve(app)
    leave(live, how=how)
    gevent.sleep(0.02)
    told.set()
    wait_for(lambda: ended)
    assert ended == [1]
    assert live.server.connections == 0


def test_any_other_stream_is_sent_whole_to_a_client_that_has_only_ended_its_side(serve: Serve) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"first"
        gevent.sleep(0.02)
        yield b"second"

    answer = serve(app).ask(GET, half_close=True)
    assert b"first" in answer
    assert answer.endswith(b"second\r\n0\r\n\r\n")


def test_a_client_that_takes_nothing_is_given_up_by_the_deadline_even_if_that_is_swallowed(serve: Serve) -> None:
    ended: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response("200 OK", [])
        for _ in range(3):
            try:
                while True:
                    write(b"x" * 1_000_000)
            except BaseException as error:
                ended.append(type(error).__name__)
        return []

    live = serve(app, limits=Limits(request_timeout_s=0.05, write_timeout_s=0))
    with live.connect() as client:
        client.sendall(GET)
        wait_for(lambda: ended and not live.server.in_flight)
        assert ended == ["RequestTimeout", "ClientGone", "ClientGone"]
        assert live.server.overdue == 0
        read_to_end(client)

"""The access log of a live server: one right line for each request, whatever became of it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event

from tafe import log_writer, overdue
from tafe.access_log import AccessLog
from tafe.errors import UsageError
from tafe.limits import Limits
from tests.server.conftest import Serve, echo, hello, read_answer
from tests.server.test_overdue import Stubborn
from tests.server.test_wsgi import application

GET = b"GET /a?b=1 HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "GATHER_S", 0.005)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AccessLog]:
    log = AccessLog(str(tmp_path / "access.log"))
    yield log
    log.close()


@pytest.fixture
def lines(log: AccessLog, tmp_path: Path) -> Lines:
    """What was logged so far; closes the log."""

    def read() -> list[dict[str, Any]]:
        gevent.sleep(0.02)  # the answer is read by the client before its request ends
        log.close()
        return [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]

    return read


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def explode() -> Iterator[bytes]:
    yield b"abc"
    raise ValueError("midway")


def test_each_answer_of_a_connection_has_a_line_in_order(serve: Serve, log: AccessLog, lines: Lines) -> None:
    serve(hello, log=log).ask(GET + GET.replace(b"/a", b"/b") + LAST)
    found = lines()
    assert [one["path"] for one in found] == ["/a", "/b", "/last"]
    assert {(one["method"], one["status"], one["bytes"], one["remote_addr"]) for one in found} == {
        ("GET", 200, 27, "127.0.0.1")
    }
    assert len({one["request_id"] for one in found}) == 3
    assert all(0 <= one["duration_ms"] < 1000 for one in found)


@pytest.mark.parametrize(
    ("app", "request_", "status", "sent"),
    [
        (application("200 OK", [], [b"ab", b"cd"]), LAST, 200, 4),
        (application("200 OK", [], lambda: iter([b"ab", b"", b"cdef"])), LAST, 200, 6),
        (application("200 OK", [], lambda: iter([b"ab", b"cd"])), LAST.replace(b"1.1", b"1.0"), 200, 4),
        (hello, LAST.replace(b"GET", b"HEAD"), 200, 0),
        (application("200 OK", [], lambda: iter([b"ab"])), LAST.replace(b"GET", b"HEAD"), 200, 0),
        (application("304 Not Modified", [], [b"surplus"]), LAST, 304, 0),
        (application("204 No Content", [], []), LAST, 204, 0),
        (application("200 OK", [("Content-Length", "3")], [b"surplus"]), LAST, 200, 3),
        (application("200 OK", [("Content-Length", "3")], [b"sur", b"plus", b"!"]), LAST, 200, 3),
        (application("200 OK", [("Content-Length", "9")], [b"short"]), LAST, 200, 5),
        (application("200 OK", [], explode), LAST, 200, 3),
        (echo, b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\n12345", 200, 5),
    ],
)
def test_status_and_bytes_are_those_that_were_sent(
    serve: Serve, log: AccessLog, lines: Lines, app: Any, request_: bytes, status: int, sent: int
) -> None:
    answer = serve(app, log=log).ask(request_)
    (one,) = lines()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert (one["status"], one["bytes"]) == (status, sent)


def test_an_answer_that_broke_off_says_so(serve: Serve, log: AccessLog, lines: Lines) -> None:
    serve(application("200 OK", [], explode), log=log).ask(LAST)
    assert lines()[0]["fault"] == "the answer broke off"


def test_a_failed_and_a_late_application_have_their_status(serve: Serve, log: AccessLog, lines: Lines) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/late":
            gevent.sleep(5)
        raise ValueError("broken")

    live = serve(app, log=log, limits=Limits(request_timeout_s=0.03))
    live.ask(LAST)
    live.ask(LAST.replace(b"last", b"late"))
    assert [(one["path"], one["status"]) for one in lines()] == [("/last", 500), ("/late", 504)]


def test_a_client_that_left_before_its_answer_is_logged_as_499(serve: Serve, log: AccessLog, lines: Lines) -> None:
    left = Event()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        left.wait()
        start_response("200 OK", [])
        return [b"too late"] if environ["PATH_INFO"] == "/a" else iter([b"too ", b"late"])

    live = serve(app, log=log)
    for request in (GET, LAST):
        client = live.connect()
        client.sendall(request)
        gevent.sleep(0.01)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its end is a reset
        client.close()
    gevent.sleep(0.01)
    left.set()
    found = lines()
    assert [one["path"] for one in found] == ["/a", "/last"]
    assert {(one["status"], one["bytes"], one["fault"]) for one in found} == {(499, 0, "the client left")}


def test_hostile_bytes_from_the_wire_stay_in_their_field(serve: Serve, log: AccessLog, lines: Lines) -> None:
    agent = b'x"}\\\xff\t{"status":200'
    live = serve(hello, log=log)
    live.ask(LAST.replace(b"/last", b'/a"%22%0a\\').replace(b"Host", b"User-Agent: " + agent + b"\r\nHost"))
    (one,) = lines()
    assert (one["path"], one["user_agent"]) == ('/a"%22%0a\\', agent.decode("latin-1"))


def test_an_application_that_empties_its_environ_costs_a_line_and_nothing_else(
    serve: Serve, log: AccessLog, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        path = environ["PATH_INFO"]
        if path == "/a":
            environ.clear()
        return hello(environ, start_response)

    live = serve(app, log=log)
    with live.connect() as client:
        for _ in range(2):
            client.sendall(GET)
            assert read_answer(client)[1].startswith(b"{")
    live.ask(LAST)
    found = lines()
    assert sum(one.get("lost", 0) for one in found) == 2
    assert [one["path"] for one in found if "path" in one] == ["/last"]
    assert caplog.text.count("could not be made") == 1


def test_several_servers_share_a_log_and_a_stubborn_application_is_logged_once(
    serve: Serve, log: AccessLog, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overdue, "GRACE_S", 0.03)
    stubborn = Stubborn()
    serve(hello, log=log).ask(LAST)
    live = serve(stubborn, log=log, limits=Limits(request_timeout_s=0.03))
    assert live.ask(GET).startswith(b"HTTP/1.1 504 ")
    stubborn.release.set()
    while live.server.in_flight:
        gevent.sleep(0.005)
    assert [one["path"] for one in lines()] == ["/last", "/a"]


def test_a_request_that_cannot_be_read_has_a_line_with_status_peer_and_reason(
    serve: Serve,
    log: AccessLog,
    lines: Lines,
) -> None:
    answer = serve(hello, log=log).ask(b'GET /"x HTTP/1.1\r\n\r\n')
    (one,) = lines()
    assert (one["status"], one["remote_addr"], one["method"], one["path"]) == (400, "127.0.0.1", None, None)
    assert one["fault"] == "Host is missing (RFC 9112, 3.2)"
    assert one["bytes"] == len(body_of(answer)) > 0


@pytest.mark.parametrize(
    ("limits", "request_", "status", "path"),
    [
        (Limits(head_timeout_s=0.02), b"GET / HT", 408, None),
        (Limits(body_timeout_s=0.02), POST + b"12345", 408, "/body"),
        (Limits(body_bytes=5), POST, 413, "/body"),
    ],
)
def test_a_request_that_the_server_refuses_has_a_line(
    serve: Serve,
    log: AccessLog,
    lines: Lines,
    limits: Limits,
    request_: bytes,
    status: int,
    path: str | None,
) -> None:
    answer = serve(hello, log=log, limits=limits).ask(request_)
    (one,) = lines()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert (one["status"], one["path"], one["bytes"]) == (status, path, len(body_of(answer)))


def test_a_request_that_waited_for_its_turn_too_long_has_a_line(serve: Serve, log: AccessLog, lines: Lines) -> None:
    stubborn = Stubborn()
    live = serve(stubborn, log=log, spawn=1, limits=Limits(request_timeout_s=0.03))
    first = gevent.spawn(live.ask, LAST.replace(b"last", b"first"))
    gevent.sleep(0.01)
    assert live.ask(LAST).startswith(b"HTTP/1.1 503 ")
    stubborn.release.set()
    first.get(timeout=5)
    assert ("/last", 503, "the server is busy") in [(one["path"], one["status"], one.get("fault")) for one in lines()]


def test_a_client_that_leaves_within_its_body_has_a_line(serve: Serve, log: AccessLog, lines: Lines) -> None:
    live = serve(hello, log=log)
    with live.connect() as client:
        client.sendall(POST + b"12345")
        gevent.sleep(0.01)
    (one,) = lines()
    assert (one["path"], one["status"], one["bytes"], one["fault"]) == ("/body", 499, 0, "the client left")


def test_the_body_of_an_error_counts(serve: Serve, log: AccessLog, lines: Lines) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise ValueError("broken")

    live = serve(app, log=log)
    bodies = [len(body_of(live.ask(request))) for request in (LAST, LAST.replace(b"1.1", b"1.0"))]
    assert [(one["status"], one["bytes"]) for one in lines()] == [(500, size) for size in bodies]


@pytest.mark.parametrize(("first", "status", "sent"), [((), 504, None), ((b"abc",), 200, 3)])
def test_who_is_answered_in_the_applications_place_is_logged_then_and_once(
    serve: Serve,
    log: AccessLog,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
    first: tuple[bytes, ...],
    status: int,
    sent: int | None,
) -> None:
    monkeypatch.setattr(overdue, "GRACE_S", 0.03)
    stubborn = Stubborn(*first)
    live = serve(stubborn, log=log, limits=Limits(request_timeout_s=0.03))
    answer = live.ask(GET)
    stubborn.release.set()
    while live.server.in_flight:
        gevent.sleep(0.005)
    (one,) = lines()
    assert (one["status"], one["bytes"]) == (status, len(body_of(answer)) if sent is None else sent)
    assert one["fault"] in ("the request took too long", "the answer broke off")
    assert one["duration_ms"] < 1000


@pytest.mark.parametrize("takes_all", [True, False])
def test_a_slow_reader_is_logged_with_what_it_took(serve: Serve, log: AccessLog, lines: Lines, takes_all: bool) -> None:
    size = 8_000_000
    live = serve(application("200 OK", [], [b"x" * size]), log=log)
    with live.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(GET)
        gevent.sleep(0.05)
        if takes_all:
            assert len(read_answer(client)[1]) == size
    gevent.sleep(0.02)
    (one,) = lines()
    assert one["status"] == 200
    assert (one["bytes"] == size) is takes_all
    assert ("fault" in one) is not takes_all
    assert one["duration_ms"] > 50


def test_a_file_that_cannot_be_opened_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be written to .*: No such file or directory"):
        AccessLog(str(tmp_path / "no" / "access.log"))

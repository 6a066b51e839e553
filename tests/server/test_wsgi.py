"""What an application does, right or wrong, and what the client sees of it."""

from __future__ import annotations

import signal
from typing import Any

import gevent
import pytest

from tests.server.conftest import Serve, hello, read_answer

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def application(status: str, headers: list[tuple[str, str]], body: Any) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, list(headers))
        return body() if callable(body) else body

    return app


def split(answer: bytes) -> tuple[bytes, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return head + b"\r\n", body


def test_a_list_is_counted_and_sent_at_once(serve: Serve) -> None:
    head, body = split(serve(application("200 OK", [], [b"ab", b"", b"cd"])).ask(LAST))
    assert b"Content-Length: 4\r\n" in head
    assert body == b"abcd"


def test_an_unsized_iterable_is_chunked_in_1_1_and_ends_with_the_connection_in_1_0(serve: Serve) -> None:
    live = serve(application("200 OK", [], lambda: iter([b"ab", b"", b"cd"])))
    head, body = split(live.ask(LAST))
    assert b"Transfer-Encoding: chunked\r\n" in head
    assert body == b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"
    head, body = split(live.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"))
    assert b"ransfer-" not in head
    assert b"Connection: close\r\n" in head
    assert body == b"abcd"


def test_an_empty_answer_has_a_length(serve: Serve) -> None:
    for body in ([], [b""], ()):
        head, rest = split(serve(application("200 OK", [], body)).ask(LAST))
        assert b"Content-Length: 0\r\n" in head
        assert rest == b""


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_some_statuses_have_no_body_whatever_is_returned(serve: Serve, status: str) -> None:
    live = serve(application(status, [("ETag", '"1"')], [b"surplus"]))
    head, body = split(live.ask(GET + LAST))
    assert body.startswith(b"HTTP/1.1 " + status.encode())
    assert b"Content-Length" not in head
    assert b"surplus" not in body


def test_head_gets_the_head_of_get_without_the_body(serve: Serve) -> None:
    head, body = split(serve(application("200 OK", [], [b"abcd"])).ask(HEAD))
    assert b"Content-Length: 4\r\n" in head
    assert body == b""
    head, body = split(serve(application("200 OK", [("Content-Length", "9")], [])).ask(HEAD))
    assert b"Content-Length: 9\r\n" in head
    assert body == b""
    head, body = split(serve(application("200 OK", [], lambda: iter([b"x"]))).ask(HEAD))
    assert body == b""


def test_a_longer_body_than_declared_never_lands_in_the_next_answer(serve: Serve) -> None:
    for body in ([b"abcdef"], lambda: iter([b"ab", b"cdef"])):
        live = serve(application("200 OK", [("Content-Length", "3")], body))
        assert split(live.ask(GET + GET))[1] == b"abc", "cut, and the connection closed"


def test_a_shorter_body_than_declared_breaks_the_connection(serve: Serve) -> None:
    head, body = split(serve(application("200 OK", [("Content-Length", "9")], [b"abc"])).ask(GET + GET))
    assert b"Content-Length: 9\r\n" in head
    assert body == b"abc"


def test_a_failure_before_the_head_is_a_500_without_internals(serve: Serve, caplog: Any) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        raise ValueError("secret")

    answer = serve(app).ask(GET)
    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"secret" not in answer
    assert b'"request_id":"' in answer
    assert "ValueError: secret" in caplog.text


def test_a_failure_midway_is_seen_by_the_client(serve: Serve) -> None:
    def body() -> Any:
        yield b"abc"
        raise ValueError("midway")

    live = serve(application("200 OK", [], body))
    answer = live.ask(GET)
    assert answer.endswith(b"3\r\nabc\r\n"), "no last chunk"
    with pytest.raises(ConnectionResetError):
        live.ask(b"GET / HTTP/1.0\r\n\r\n")


def test_close_is_called_once_whatever_happens(serve: Serve) -> None:
    class Body:
        def __init__(self, *pieces: Any) -> None:
            self.pieces = iter(pieces)
            self.closed = 0

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            piece = next(self.pieces)
            if isinstance(piece, Exception):
                raise piece
            return piece

        def close(self) -> None:
            self.closed += 1

    for body in (Body(b"a"), Body(), Body(ValueError()), Body(b"a", ValueError()), Body("text")):
        serve(application("200 OK", [], body)).ask(LAST)
        assert body.closed == 1


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        ("200 OK", [("X-A", "a\r\nInjected: 1")], [b"x"]),
        ("200 OK", [("X-A\r\n", "a")], [b"x"]),
        ("200 OK", [("X-A", 1)], [b"x"]),
        ("200 OK", [["X-A", "1"]], [b"x"]),
        ("200 OK", [(b"X-A", b"1")], [b"x"]),
        ("200 OK", [("Transfer-Encoding", "chunked")], [b"x"]),
        ("200 OK", [("Content-Length", "-1")], [b"x"]),
        ("200 OK", [("Content-Length", "1"), ("Content-Length", "2")], [b"x"]),
        ("200 OK\r\nX: y", [], [b"x"]),
        ("OK", [], [b"x"]),
        (200, [], [b"x"]),
        ("200 OK", [("X-A", "\u20ac")], [b"x"]),
        ("200 OK", [], ["text"]),
        ("200 OK", [], "text"),
        ("200 OK", [], [b"a", "b"]),
        ("200 OK", [], None),
    ],
)
def test_what_pep_3333_does_not_allow_is_a_500(serve: Serve, status: Any, headers: Any, body: Any) -> None:
    answer = serve(application(status, headers, body)).ask(GET)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"Injected" not in answer


def test_an_application_that_never_calls_start_response_is_a_500(serve: Serve) -> None:
    assert serve(lambda environ, start_response: [b"x"]).ask(GET).startswith(b"HTTP/1.1 500 ")
    assert serve(lambda environ, start_response: []).ask(GET).startswith(b"HTTP/1.1 500 ")


def test_exc_info_replaces_the_head_before_it_is_sent_and_raises_afterwards(serve: Serve) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        import sys

        start_response("200 OK", [("X-First", "1")])
        if environ["PATH_INFO"] == "/late":
            yield b"abc"
        try:
            raise KeyError("late")
        except KeyError:
            start_response("500 Oops", [("X-Second", "2")], sys.exc_info())
        yield b"error page"

    live = serve(app)
    head, _ = split(live.ask(LAST))
    assert head.startswith(b"HTTP/1.1 500 Oops\r\n")
    assert b"X-First" not in head
    assert live.ask(LAST.replace(b"GET /", b"GET /late")).endswith(b"3\r\nabc\r\n")


def test_start_response_twice_is_an_error(serve: Serve) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        start_response("200 OK", [])
        return []

    assert serve(app).ask(GET).startswith(b"HTTP/1.1 500 ")


def test_write_sends_at_once(serve: Serve) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response("200 OK", [("Content-Length", "6")])
        write(b"abc")
        return [b"def"]

    assert split(serve(app).ask(LAST))[1] == b"abcdef"


def test_chunks_arrive_as_they_are_made(serve: Serve) -> None:
    release = gevent.event.Event()

    def body() -> Any:
        yield b"first"
        release.wait()
        yield b"second"

    live = serve(application("200 OK", [], body))
    with live.connect() as client:
        client.sendall(GET)
        seen = b""
        while b"first" not in seen:
            seen += client.recv(1000)
        assert b"second" not in seen
        release.set()
        while b"0\r\n\r\n" not in seen:
            seen += client.recv(1000)


def test_a_large_answer_to_a_slow_reader_arrives_whole(serve: Serve) -> None:
    big = bytes(range(256)) * 40_000
    live = serve(application("200 OK", [], [big]))
    with live.connect() as client:
        client.sendall(GET)
        gevent.sleep(0.05)
        assert read_answer(client)[1] == big


def test_the_application_may_close_and_may_name_its_own_server_and_date(serve: Serve) -> None:
    headers = [
        ("Connection", "close"),
        ("Server", "mine"),
        ("Date", "today"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b"),
    ]
    head, _ = split(serve(application("200 OK", headers, [b"x"])).ask(GET))
    assert head.count(b"Connection: close") == 1
    assert head.count(b"Server: ") == head.count(b"Date: ") == 1
    assert head.count(b"Set-Cookie") == 2


def test_the_environ_is_complete(serve: Serve) -> None:
    seen: dict[str, Any] = {}

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        seen.update(environ)
        return hello(environ, start_response)

    live = serve(app, environ={"extra": 1})
    live.ask(b"GET /p?q=1 HTTP/1.1\r\nHost: a\r\nX-Request-Id: abc-1\r\nConnection: close\r\n\r\n")
    assert seen["REMOTE_ADDR"] == "127.0.0.1"
    assert seen["REMOTE_PORT"].isdigit()
    assert seen["SERVER_PORT"] == str(live.server.server_port)
    assert seen["tafe.request_id"] == "abc-1"
    assert seen["extra"] == 1
    assert seen["wsgi.multithread"] is True
    live.ask(b'GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: "forged\r\nConnection: close\r\n\r\n')
    assert seen["tafe.request_id"] not in ('"forged', "abc-1")


def test_a_trusted_proxy_and_nobody_else_says_that_the_client_came_over_tls(serve: Serve) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return [environ["wsgi.url_scheme"].encode()]

    forwarded = LAST.replace(b"Host", b"X-Forwarded-Proto: https\r\nHost")
    assert split(serve(app).ask(forwarded))[1] == b"https"
    assert split(serve(app).ask(LAST))[1] == b"http"
    assert split(serve(app).ask(forwarded.replace(b"-P", b"_P")))[1] == b"http"
    assert split(serve(app, trusted_peers=["10.0.0.1"]).ask(forwarded))[1] == b"http"


@pytest.mark.parametrize("error", [SystemExit(3), gevent.GreenletExit(), gevent.Timeout(1), GeneratorExit()])
def test_no_exception_of_a_request_ends_the_server(serve: Serve, error: BaseException) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/":
            raise error
        return hello(environ, start_response)

    live = serve(app)
    assert live.ask(GET).startswith(b"HTTP/1.1 50")
    assert live.ask(LAST.replace(b"GET /", b"GET /ok")).startswith(b"HTTP/1.1 200")
    assert live.server.in_flight == 0


def test_a_keyboard_interrupt_is_the_applications_own_where_ctrl_c_does_not_raise_one(serve: Serve) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        raise KeyboardInterrupt

    live = serve(app)
    before = signal.signal(signal.SIGINT, lambda *_: None)  # as in a worker, where the loop takes the signal
    try:
        assert live.ask(GET).startswith(b"HTTP/1.1 500 ")
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_logged_traceback_names_causes_and_has_no_underlines(serve: Serve, caplog: Any) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        try:
            {}["inner"]
        except KeyError as error:
            raise ValueError("outer") from error

    serve(app).ask(GET)
    text = caplog.text
    assert text.index("KeyError: 'inner'") < text.index("direct cause") < text.index("ValueError: outer")
    assert "^^^" not in text
    assert caplog.records[-1].exc_info[1].args == ("outer",)

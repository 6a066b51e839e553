"""What a handler returns, as the client gets it."""

from __future__ import annotations

import io
import logging
import re
from http import HTTPStatus
from typing import Any
from wsgiref.validate import validator

import pytest

import tafe
from apps import hello


def answer_to(value: Any, method: str = "GET") -> Any:
    app = tafe.App()
    app.get("/x")(lambda: value)
    return app.test_client().request(method, "/x")


@pytest.mark.parametrize(
    ("value", "status", "content_type", "body"),
    [
        ({"a": 1}, 200, "application/json", b'{"a":1}'),
        ([1, "a"], 200, "application/json", b'[1,"a"]'),
        ([], 200, "application/json", b"[]"),
        (5, 200, "application/json", b"5"),
        (1.5, 200, "application/json", b"1.5"),
        (True, 200, "application/json", b"true"),
        ("é", 200, "text/plain; charset=utf-8", "é".encode()),
        ("", 200, "text/plain; charset=utf-8", b""),
        (b"\xff", 200, "application/octet-stream", b"\xff"),
        (None, 204, None, b""),
        (({"a": 1}, 201), 201, "application/json", b'{"a":1}'),
        ((None, 404), 404, None, b""),
        (("gone", HTTPStatus.GONE), 410, "text/plain; charset=utf-8", b"gone"),
        ((b"x", 599), 599, "application/octet-stream", b"x"),
        (tafe.Response({"a": 1}, 202, {"X-A": "b"}), 202, "application/json", b'{"a":1}'),
        (tafe.Response("<p>", headers={"content-type": "text/html"}), 200, "text/html", b"<p>"),
    ],
)
def test_a_returned_value_becomes_an_answer(value: Any, status: int, content_type: str | None, body: bytes) -> None:
    answer = answer_to(value)
    assert (answer.status, answer.header("Content-Type"), answer.body) == (status, content_type, body)
    assert answer.header("Content-Length") == (None if status == 204 else str(len(body)))
    head = answer_to(value, "HEAD")
    assert (head.status_line, head.headers, head.body) == (answer.status_line, answer.headers, b"")


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_content_is_sent_without_a_body(status: int) -> None:
    answer = answer_to(({"a": 1}, status))
    assert (answer.status, answer.body, answer.header("Content-Length")) == (status, b"", None)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({1, 2}, "set cannot be answered"),
        (object(), "object cannot be answered"),
        (range(3), "range cannot be answered"),
        ((5j, 200), "complex cannot be answered"),
        (("a",), "not as 1 parts"),
        (("a", 200, {}), "not as 3 parts"),
        (("a", "200"), "a status is a whole number from 200 to 599, not '200'"),
        (("a", True), "not True"),
        (("a", 100), "not 100"),
        (("a", 600), "not 600"),
        ("\ud800", "surrogates not allowed"),
    ],
)
def test_what_cannot_be_answered_is_a_logged_500(value: Any, says: str, caplog: pytest.LogCaptureFixture) -> None:
    answer = answer_to(value)
    assert answer.status == 500
    assert set(answer.json()["error"]) == {"status", "code", "message", "request_id"}
    assert says in caplog.text
    assert "GET /x" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "b\r\nSet-Cookie: c=d"),
        ("X-A", "b\nc"),
        ("X-A", "b\0"),
        ("X-A", "\x7f"),
        ("X-A", "\u20ac"),
        ("X-A", " b"),
        ("X-A", "b\t"),
        ("X A", "b"),
        ("X-A:", "b"),
        ("", "b"),
        ("X-Ä", "b"),
        ("X-A\r\nX-B", "b"),
        ("Transfer-Encoding", "chunked"),
        ("connection", "close"),
        ("Content-Length", "5"),
        ("X-A", 5),
        (b"X-A", "b"),
        ("X-A", None),
    ],
)
def test_a_header_that_may_not_be_sent_is_refused_where_it_is_set(name: Any, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        tafe.Response("x", headers={name: value})
    with pytest.raises((TypeError, ValueError)):
        tafe.Response("x", headers=[(name, value)])
    response = tafe.Response("x")
    before = response.headers
    for set_it in (response.add_header, response.set_header):
        with pytest.raises((TypeError, ValueError)):
            set_it(name, value)
    assert response.headers == before


def test_a_body_that_is_nothing_sendable_is_refused() -> None:
    with pytest.raises(TypeError, match="complex cannot be a body"):
        tafe.Response(5j)  # type: ignore[arg-type]


def test_headers_are_added_and_replaced_whatever_their_case() -> None:
    response = tafe.Response("x", headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    response.set_header("content-type", "text/html")
    response.add_header("Vary", "Accept\tx, é")
    assert response.headers == (
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("content-type", "text/html"),
        ("Vary", "Accept\tx, é"),
    )
    assert response.header("SET-COOKIE") == "a=1"
    assert response.header("X") is None


def test_a_response_shows_itself_in_one_line() -> None:
    assert repr(tafe.Response({"a": 1}, 201)) == "<Response 201 7 bytes>"
    assert repr(tafe.Response(iter(["x"]))) == "<Response 200 stream>"


def test_every_answer_satisfies_the_wsgi_validator_of_the_standard_library() -> None:
    app = tafe.App()

    @app.post("/json")
    def json(body: dict[str, Any]) -> Any:
        return body

    @app.get("/stream")
    def stream() -> Any:
        yield "a"
        yield b"b"

    @app.get("/deferred")
    def deferred(request: tafe.Request) -> Any:
        request.defer(lambda: None)
        return "x"

    app.get("/none")(lambda: None)
    app.get("/fails")(lambda: 1 / 0)
    strict = validator(app)
    started: list[str] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        started.append(status)
        return lambda data: None

    for method, path, body in (
        ("POST", "/json", b'{"a":1}'),
        ("POST", "/json", b"{"),
        ("GET", "/stream", b""),
        ("HEAD", "/stream", b""),
        ("GET", "/deferred", b""),
        ("GET", "/none", b""),
        ("GET", "/fails", b""),
        ("GET", "/nothing", b""),
        ("PUT", "/json", b""),
        ("OPTIONS", "/json", b""),
    ):
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "SCRIPT_NAME": "",
            "QUERY_STRING": "",
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": "application/json",
            "SERVER_NAME": "x",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        started.clear()
        result: Any = strict(environ, start_response)
        list(result)
        result.close()
        assert len(started) == 1


def test_errors_have_the_documented_shape_and_the_requests_id() -> None:
    app = tafe.App()

    @app.get("/x")
    def handler() -> None:
        raise tafe.HTTPError(409, "taken", field="name", headers={"X-Why": "because"})

    answer = app.test_client().get("/x", environ={"tafe.request_id": "abc-1"})
    assert answer.status_line == "409 Conflict"
    assert answer.header("X-Why") == "because"
    assert answer.json() == {
        "error": {"status": 409, "code": "conflict", "message": "taken", "field": "name", "request_id": "abc-1"}
    }


def test_a_request_without_the_servers_id_gets_one_of_its_own() -> None:
    ids = {tafe.App().test_client().get("/x").json()["error"]["request_id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


def test_nothing_internal_is_shown_to_the_client(caplog: pytest.LogCaptureFixture) -> None:
    app = tafe.App()

    @app.get("/users/{name}")
    def handler(name: str) -> None:
        raise KeyError("s3cret")

    with caplog.at_level(logging.DEBUG):
        answer = app.test_client().get("/users/joe?token=t0ken", environ={"tafe.request_id": "r-7"})
    assert answer.json() == {
        "error": {"status": 500, "code": "internal_error", "message": "internal error", "request_id": "r-7"}
    }
    [record] = caplog.records
    assert record.name == "tafe.app"
    message = record.getMessage()
    assert message.startswith("GET /users/{name}: KeyError in ")
    assert f"handler ({__file__}:" in message
    assert message.endswith("(request r-7)")
    assert "t0ken" not in caplog.text
    assert record.exc_info


def test_the_hello_application_answers_the_27_bytes_that_benchmarks_compare() -> None:
    answer = hello.app.test_client().get("/hello")
    assert (answer.status, answer.body) == (200, b'{"message":"hello, world!"}')
    assert len(answer.body) == 27

"""What a handler can ask of a request."""

from __future__ import annotations

import io
from typing import Any

import pytest

import tafe
from tafe.errors import UsageError


def asked(question: Any, url: str = "/x", method: str = "POST", **parts: Any) -> Any:
    """What `question(request)` returns inside a handler, or the error's answer."""
    app = tafe.App(max_body_bytes=parts.pop("max_body_bytes", 1000))
    found: list[Any] = []
    app.route("/{rest:path}", methods=[method])(lambda request: found.append(question(request)))
    answer = app.test_client().request(method, url, **parts)
    return found[0] if found else answer.json()["error"]


def test_method_path_route_and_client_address() -> None:
    assert asked(lambda r: (r.method, r.path, r.client_addr), "/a%20b/%C3%A9?x=1", "PUT") == (
        "PUT",
        "/a b/é",
        "127.0.0.1",
    )
    assert asked(lambda r: (r.route.label, r.route.template, dict(r.path_params)), "/a/b") == (
        "POST /{rest}",
        "/{rest:path}",
        {"rest": "a/b"},
    )
    assert asked(repr) == "<Request POST /{rest}>"


def test_headers_are_found_whatever_their_case() -> None:
    headers = {"X-Name": "a", "Content-Type": "text/plain", "X-Empty": ""}
    names = ("x-name", "X-NAME", "content-type", "Content-Length", "x-empty", "nope")
    assert asked(lambda r: [r.header(name) for name in names], headers=headers) == [
        "a",
        "a",
        "text/plain",
        None,
        "",
        None,
    ]
    assert asked(lambda r: r.header("nope", "default")) == "default"


def test_the_query_is_a_dictionary_of_lists() -> None:
    assert asked(lambda r: r.query, "/x?a=1&b=%20+&a=2&c&=d") == {"a": ["1", "2"], "b": ["  "], "c": [""], "": ["d"]}
    assert asked(lambda r: r.query, "/x") == {}
    assert asked(lambda r: r.query, "/x?a=1&%FF=1")["field"] == "query"


def test_the_id_is_the_servers_or_made_once() -> None:
    assert asked(lambda r: r.request_id, environ={"tafe.request_id": "abc"}) == "abc"
    first, second = asked(lambda r: (r.request_id, r.request_id))
    assert first == second


def test_state_belongs_to_one_request() -> None:
    def question(request: tafe.Request) -> Any:
        fresh = not vars(request.state)
        request.state.seen = True
        return fresh, request.state.seen

    assert asked(question) == (True, True)
    assert asked(question) == (True, True)


def test_nobody_can_write_to_what_requests_share() -> None:
    app = tafe.App()

    @app.get("/x")
    def handler(request: tafe.Request) -> None:
        request.path_params["user"] = "joe"  # type: ignore[index]

    assert app.test_client().get("/x").status == 500


def test_the_body_is_read_once_and_kept() -> None:
    assert asked(lambda r: (r.body(), r.body()), body=b"abc") == (b"abc", b"abc")
    assert asked(lambda r: (r.body(), r.json(), r.json()["a"]), body=b'{"a":1}') == (b'{"a":1}', {"a": 1}, 1)
    assert asked(lambda r: r.body()) == b""


@pytest.mark.parametrize(
    ("length", "chunked", "body", "expected"),
    [
        ("3", False, b"abcdef", b"abc"),
        ("0", False, b"abc", b""),
        ("", False, b"abc", b""),
        (None, False, b"abc", b""),
        (None, True, b"abc", b"abc"),
        (None, True, b"x" * 10, b"x" * 10),
        ("10", False, b"x" * 10, b"x" * 10),
        ("11", False, b"x" * 11, 413),
        (None, True, b"x" * 11, 413),
        ("9" * 5000, False, b"", 413),
        ("5", False, b"abc", 400),
        ("-1", False, b"abc", 400),
        ("+3", False, b"abc", 400),
        ("3x", False, b"abc", 400),
        ("\u0663", False, b"abc", 400),
    ],
)
def test_the_body_ends_where_it_was_declared_to(
    length: str | None, chunked: bool, body: bytes, expected: bytes | int
) -> None:
    environ: dict[str, Any] = {"wsgi.input": io.BytesIO(body)}
    if length is not None:
        environ["CONTENT_LENGTH"] = length
    if chunked:
        environ["wsgi.input_terminated"] = True
    result = asked(lambda r: r.body(), environ=environ, max_body_bytes=10)
    if isinstance(expected, bytes):
        assert result == expected
    else:
        assert (result["status"], result["field"]) == (expected, "body")


def test_a_body_too_large_is_refused_before_it_is_read() -> None:
    class Untouched:
        def read(self, size: int) -> bytes:
            pytest.fail("the body was read")

    environ = {"wsgi.input": Untouched(), "CONTENT_LENGTH": "1001"}
    error = asked(lambda r: r.body(), environ=environ)
    assert (error["status"], error["code"], error["message"]) == (413, "body_too_large", "the body may have 1000 bytes")


def test_a_body_that_comes_in_pieces_is_put_together() -> None:
    class Dripping(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 2))

    assert asked(lambda r: r.body(), environ={"wsgi.input": Dripping(b"abcde"), "CONTENT_LENGTH": "5"}) == b"abcde"


@pytest.mark.parametrize("limit", [0, -1, "1", 1.5, True])
def test_a_limit_that_is_no_size_is_an_error(limit: Any) -> None:
    with pytest.raises(UsageError, match="max_body_bytes"):
        tafe.App(max_body_bytes=limit)


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    assert asked(lambda r: hasattr(r, "user")) is False

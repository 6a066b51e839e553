"""The application of the corpus: it reports as JSON what it saw, or makes the mistake that the path asks for.

A plain WSGI application, so that any WSGI server can be asked (`compare.py`). `X-Saw` marks an answer as its own;
what a server says by itself does not have it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

JSON = [("Content-Type", "application/json"), ("X-Saw", "1")]
OWN = [("X-Saw", "1")]


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """`/mistake/NAME` and `/answer/NAME` choose from the table below; every other path is echoed."""
    path = environ["PATH_INFO"]
    other = BEHAVIOURS.get(path)
    if other is not None:
        answer: Iterable[bytes] = other(environ, start_response)
        return answer
    body = b"" if path == "/unread" else read(environ, path)
    start_response("200 OK", JSON)
    return [report(environ, body)]


def read(environ: dict[str, Any], path: str) -> bytes:
    """The body, in the way the path asks for."""
    source = environ["wsgi.input"]
    if path == "/lines":
        return b"|".join(source)
    if path == "/pieces":
        return b"".join(iter(lambda: source.read(3), b""))
    if path == "/beyond":  # asks for more than there is, again and again
        return bytes(source.read(1_000_000) + source.read(10) + source.read() + source.readline())
    return bytes(source.read())


def report(environ: dict[str, Any], body: bytes) -> bytes:
    """What a case may ask about."""
    shown = {
        key: value
        for key, value in environ.items()
        if key.startswith(("HTTP_", "CONTENT_")) or key in ("SERVER_PROTOCOL", "SCRIPT_NAME", "wsgi.url_scheme")
    }
    saw = {
        "method": environ["REQUEST_METHOD"],
        "path": environ["PATH_INFO"],
        "query": environ["QUERY_STRING"],
        "target": environ.get("RAW_URI", ""),
        "body": body.decode("latin-1"),
        "environ": shown,
    }
    return json.dumps(saw, sort_keys=True).encode("ascii")


def _static(status: Any, headers: Any, body: Any) -> Callable[[dict[str, Any], Any], Any]:
    """Answers the same whatever is asked; `body` may be made anew by a function."""

    def behaviour(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, list(headers) if isinstance(headers, list) else headers)
        return body() if callable(body) else body

    return behaviour


def _pieces(*pieces: Any) -> Callable[[], Iterator[Any]]:
    """An iterable without a length; an exception among the pieces is raised."""

    def generate() -> Iterator[Any]:
        for piece in pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    return generate


def _silent(body: list[bytes]) -> Callable[[dict[str, Any], Any], list[bytes]]:
    return lambda environ, start_response: body


def _raising(environ: dict[str, Any], start_response: Any) -> Any:
    raise ValueError("before start_response")


def _twice(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", OWN)
    start_response("200 OK", OWN)
    return [b"abc"]


def _replacing(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [*OWN, ("X-First", "1")])
    try:
        raise KeyError("replaced")
    except KeyError:
        start_response("503 Replaced", [*OWN, ("X-Second", "2")], sys.exc_info())
    return [b"second"]


def _too_late(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", OWN)
    yield b"abc"
    try:
        raise KeyError("late")
    except KeyError:
        start_response("503 Replaced", OWN, sys.exc_info())
    yield b"second"


def _writing(environ: dict[str, Any], start_response: Any) -> Any:
    write = start_response("200 OK", [*OWN, ("Content-Length", "6")])
    write(b"abc")
    return [b"def"]


BEHAVIOURS: dict[str, Callable[[dict[str, Any], Any], Any]] = {
    "/answer/empty": _static("200 OK", OWN, []),
    "/answer/stream": _static("200 OK", OWN, _pieces(b"abc", b"", b"defg")),
    "/answer/empty-stream": _static("200 OK", OWN, _pieces()),
    "/answer/sized-stream": _static("200 OK", [*OWN, ("Content-Length", "7")], _pieces(b"abc", b"defg")),
    "/answer/tuple": _static("200 OK", OWN, (b"abc", b"", b"defg")),
    "/answer/write": _writing,
    "/answer/close": _static("200 OK", [*OWN, ("Connection", "close")], [b"abc"]),
    "/answer/cookies": _static("200 OK", [*OWN, ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], [b"abc"]),
    "/answer/own-date": _static("200 OK", [*OWN, ("Date", "Thu, 01 Jan 2026 00:00:00 GMT")], [b"abc"]),
    "/answer/no-reason": _static("200 ", OWN, [b"abc"]),
    "/answer/599": _static("599 Whatever It Is", OWN, [b"abc"]),
    "/answer/204": _static("204 No Content", OWN, []),
    "/answer/304": _static("304 Not Modified", [*OWN, ("ETag", '"1"')], []),
    "/mistake/304-sized": _static("304 Not Modified", [*OWN, ("Content-Length", "1234")], []),
    "/answer/exc-info": _replacing,
    "/mistake/204-body": _static("204 No Content", OWN, [b"surplus"]),
    "/mistake/204-length": _static("204 No Content", [*OWN, ("Content-Length", "7")], [b"surplus"]),
    "/mistake/304-body": _static("304 Not Modified", OWN, [b"surplus"]),
    "/mistake/304-stream": _static("304 Not Modified", OWN, _pieces(b"sur", b"plus")),
    "/mistake/short": _static("200 OK", [*OWN, ("Content-Length", "10")], [b"abc"]),
    "/mistake/short-stream": _static("200 OK", [*OWN, ("Content-Length", "10")], _pieces(b"ab", b"c")),
    "/mistake/short-empty": _static("200 OK", [*OWN, ("Content-Length", "10")], []),
    "/mistake/long": _static("200 OK", [*OWN, ("Content-Length", "3")], [b"abcHTTP/1.1 200 OK\r\n\r\n"]),
    "/mistake/long-stream": _static("200 OK", [*OWN, ("Content-Length", "3")], _pieces(b"ab", b"cd", b"ef")),
    "/mistake/long-zero": _static("200 OK", [*OWN, ("Content-Length", "0")], [b"abc"]),
    "/mistake/header-crlf": _static("200 OK", [("X-A", "a\r\nX-Injected: 1")], [b"abc"]),
    "/mistake/header-lf": _static("200 OK", [("X-A", "a\nX-Injected: 1")], [b"abc"]),
    "/mistake/header-cr": _static("200 OK", [("X-A", "a\rX-Injected: 1")], [b"abc"]),
    "/mistake/header-nul": _static("200 OK", [("X-A", "a\0b")], [b"abc"]),
    "/mistake/header-name-crlf": _static("200 OK", [("X-A: 1\r\nX-Injected", "1")], [b"abc"]),
    "/mistake/header-name-empty": _static("200 OK", [("", "1")], [b"abc"]),
    "/mistake/header-name-space": _static("200 OK", [("X A", "1")], [b"abc"]),
    "/mistake/header-name-colon": _static("200 OK", [("X-A:", "1")], [b"abc"]),
    "/mistake/header-int": _static("200 OK", [("X-A", 1)], [b"abc"]),
    "/mistake/header-bytes": _static("200 OK", [(b"X-A", b"1")], [b"abc"]),
    "/mistake/header-euro": _static("200 OK", [("X-A", "\u20ac")], [b"abc"]),
    "/mistake/header-list": _static("200 OK", [["X-A", "1"]], [b"abc"]),
    "/mistake/headers-tuple": _static("200 OK", (("X-A", "1"),), [b"abc"]),
    "/mistake/status-crlf": _static("200 OK\r\nX-Injected: 1", OWN, [b"abc"]),
    "/mistake/status-int": _static(200, OWN, [b"abc"]),
    "/mistake/status-word": _static("OK", OWN, [b"abc"]),
    "/mistake/transfer-encoding": _static("200 OK", [("Transfer-Encoding", "chunked")], [b"3\r\nabc\r\n0\r\n\r\n"]),
    "/mistake/two-lengths": _static("200 OK", [("Content-Length", "3"), ("Content-Length", "4")], [b"abc"]),
    "/mistake/signed-length": _static("200 OK", [("Content-Length", "+3")], [b"abc"]),
    "/mistake/no-start": _silent([b"abc"]),
    "/mistake/no-start-empty": _silent([]),
    "/mistake/twice": _twice,
    "/mistake/raises": _raising,
    "/mistake/raises-first": _static("200 OK", OWN, _pieces(ValueError("first"))),
    "/mistake/raises-midway": _static("200 OK", OWN, _pieces(b"abc", ValueError("midway"))),
    "/mistake/raises-midway-sized": _static(
        "200 OK", [*OWN, ("Content-Length", "9")], _pieces(b"abc", ValueError("midway"))
    ),
    "/mistake/exc-info-late": _too_late,
    "/mistake/text": _static("200 OK", OWN, "text"),
    "/mistake/text-piece": _static("200 OK", OWN, _pieces("text")),
    "/mistake/text-midway": _static("200 OK", OWN, _pieces(b"abc", "text")),
    "/mistake/none": _static("200 OK", OWN, None),
    "/mistake/number": _static("200 OK", OWN, 42),
}

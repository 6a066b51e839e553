"""The application of the corpus: it reports as JSON what it saw, or makes the mistake that the path asks for.

A plain WSGI application, so that any WSGI server can be asked (`compare.py`). `X-Saw` marks an answer as its own;
what a server says by itself does not have it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

JSON = [("Content-Type", "application/json"), ("X-Saw", "1")]
OWN = [("X-Saw", "1")]
_SHOWN = ("SERVER_PROTOCOL", "SCRIPT_NAME", "RAW_URI", "REQUEST_URI", "wsgi.url_scheme", "wsgi.input_terminated")


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """`/mistake/NAME`, `/answer/NAME` and their like choose from the table below; every other path is echoed."""
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
    if path == "/hints":  # the forms of readline and readlines that take a bound
        return b"|".join([source.readline(3), source.readline(100), *source.readlines(5), b"", *source.readlines()])
    if path == "/pieces":
        return b"".join(iter(lambda: source.read(3), b""))
    if path == "/beyond":  # asks for more than there is, again and again
        return bytes(source.read(1_000_000) + source.read(10) + source.read() + source.readline())
    return bytes(source.read())


def report(environ: dict[str, Any], body: bytes) -> bytes:
    """What a case may ask about."""
    shown = {key: value for key, value in environ.items() if key.startswith(("HTTP_", "CONTENT_")) or key in _SHOWN}
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


class _Closing:
    """A result that must be closed once; `/closed` tells of every one so far."""

    opened: ClassVar[set[_Closing]] = set()
    twice: ClassVar[int] = 0

    def __init__(self, *pieces: Any) -> None:
        self._pieces = _pieces(*pieces)()
        self.opened.add(self)

    def __iter__(self) -> Iterator[Any]:
        return self._pieces

    def close(self) -> None:
        """Count; `__iter__` having been called or not."""
        if self in self.opened:
            self.opened.remove(self)
        else:
            type(self).twice += 1


def _all_closed(environ: dict[str, Any], start_response: Any) -> Any:
    _wait_until(lambda: not _Closing.opened)
    start_response("200 OK", OWN)
    return [b"%d open, %d closed twice" % (len(_Closing.opened), _Closing.twice)]


def _wait_until(what: Callable[[], Any]) -> None:
    deadline_s = time.monotonic() + 2
    while not what() and time.monotonic() < deadline_s:
        time.sleep(0.005)


_unnoticed: set[int] = set()  # requests that wait for their client's end


def _until_gone(environ: dict[str, Any], start_response: Any) -> Any:
    """Read the body, which tells the client that this has begun, and wait for the client's end."""
    number = id(environ)
    _unnoticed.add(number)
    try:
        environ["wsgi.input"].read()
    except OSError:  # gone already
        _unnoticed.discard(number)
    is_gone = environ.get("tafe.client_gone", lambda: False)
    _wait_until(is_gone)
    if is_gone():
        _unnoticed.discard(number)
    start_response("200 OK", OWN)
    return []


def _events_until_gone(environ: dict[str, Any], start_response: Any) -> Any:
    """Likewise; nothing but sending tells this one."""
    number = id(environ)
    _unnoticed.add(number)
    start_response("200 OK", [*OWN, ("Content-Type", "text/event-stream")])
    try:
        environ["wsgi.input"].read()
        for _ in range(400):
            yield b"data: more\n\n"
            time.sleep(0.005)
    except (GeneratorExit, OSError):
        _unnoticed.discard(number)
        raise


def _noticed(environ: dict[str, Any], start_response: Any) -> Any:
    _wait_until(lambda: not _unnoticed)
    start_response("200 OK", OWN)
    return [b"%d unnoticed" % len(_unnoticed)]


def _file(at: int, *headers: tuple[str, str]) -> Callable[[dict[str, Any], Any], Any]:
    """Ten digits from a file, from `at` on."""

    def behaviour(environ: dict[str, Any], start_response: Any) -> Any:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by whoever sends it
        file.write(b"0123456789")
        file.seek(at)
        start_response("200 OK", [*OWN, *headers])
        return environ["wsgi.file_wrapper"](file)

    return behaviour


def _late(environ: dict[str, Any], start_response: Any) -> Any:
    time.sleep(3)
    start_response("200 OK", OWN)
    return [b"late"]


def _late_midway(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", OWN)
    yield b"abc"
    time.sleep(3)
    yield b"late"


def _stubborn(environ: dict[str, Any], start_response: Any) -> Any:
    """Goes on whatever is thrown at it."""
    deadline_s = time.monotonic() + 2.5
    while (left_s := deadline_s - time.monotonic()) > 0:
        try:
            time.sleep(left_s)
        except BaseException:
            continue
    start_response("200 OK", OWN)
    return [b"too late"]


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
    "/answer/file": _file(0),
    "/answer/file-range": _file(3, ("Content-Length", "4")),
    "/answer/events": _static(
        "200 OK", [*OWN, ("Content-Type", "text/event-stream")], _pieces(b"data: 1\n\n", b"data: 2\n\n")
    ),
    "/answer/late": _late,
    "/answer/late-midway": _late_midway,
    "/answer/stubborn": _stubborn,
    "/gone/request": _until_gone,
    "/gone/events": _events_until_gone,
    "/gone": _noticed,
    "/close/all": _static("200 OK", OWN, lambda: _Closing(b"abc", b"defg")),
    "/close/none": _static("200 OK", OWN, _Closing),
    "/close/204": _static("204 No Content", OWN, _Closing),
    "/close/long": _static("200 OK", [*OWN, ("Content-Length", "3")], lambda: _Closing(b"abcdefg")),
    "/close/short": _static("200 OK", [*OWN, ("Content-Length", "9")], lambda: _Closing(b"abc")),
    "/close/raises-first": _static("200 OK", OWN, lambda: _Closing(ValueError("first"))),
    "/close/raises-midway": _static("200 OK", OWN, lambda: _Closing(b"abc", ValueError("midway"))),
    "/close/text": _static("200 OK", OWN, lambda: _Closing("text")),
    "/close/no-start": lambda environ, start_response: _Closing(b"abc"),
    "/closed": _all_closed,
    "/mistake/100": _static("100 Continue", OWN, []),
    "/mistake/101": _static("101 Switching Protocols", [*OWN, ("Connection", "close")], []),
    "/mistake/103": _static("103 Early Hints", [*OWN, ("Link", "</a.css>; rel=preload")], []),
    "/mistake/file-short": _file(0, ("Content-Length", "20")),
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

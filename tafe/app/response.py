"""An answer: a status, headers and a body of known length or a stream.

Everything a handler may return becomes a `Response` here. Headers are checked where they are set, in the handler's
own stack: a line break in a value would let a stranger write headers (response splitting).
The connection belongs to the server: hop-by-hop headers are refused (PEP 3333), and Content-Length is set here for
every body that is not a stream.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from tafe.app.jsontext import encode

STATUS_LINES: dict[int, str] = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}

JSON_HEADER = ("Content-Type", "application/json")  # no charset: RFC 8259 knows only UTF-8
# Content-Length headers of small answers: a tuple that is always the same one is looked up by its server without
# hashing new strings. 4,096 cover nearly every JSON answer, in 0.5 MiB.
LENGTH_HEADERS = [("Content-Length", str(length)) for length in range(4096)]
_TEXT_HEADER = ("Content-Type", "text/plain; charset=utf-8")
_BYTES_HEADER = ("Content-Type", "application/octet-stream")

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
# RFC 9110, 5.5: no control characters but tab, and no white space at either end.
_BAD_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]|\A[ \t]|[ \t]\Z")
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}) | frozenset(
    {"proxy-authenticate", "proxy-authorization"}
)

# RFC 9110, 15.3.5 and 15.4.5: these never have content.
NO_BODY = frozenset({204, 304})

Body = bytes | str | dict[str, Any] | list[Any] | int | float | bool | None | Iterable[bytes | str]
Headers = Mapping[str, str] | Iterable[tuple[str, str]]


class Response:
    """What the client gets, once: a hook may change it, so make one a request.

    `body`: dict, list, int, float or bool is written as JSON, str as text, bytes as they are, None is empty; any
    other iterable of bytes or str is streamed, one chunk an item. `status`: 200 to 599. `headers` may name a
    Content-Type, which wins over the one that follows from the body.
    Raises `TypeError` or `ValueError` when a part of it cannot be sent.
    """

    __slots__ = ("_body", "_headers", "_status", "stream")

    def __init__(self, body: Body = None, status: int = 200, headers: Headers | None = None) -> None:
        self._headers: list[tuple[str, str]] = []
        self.status = status
        self._body, self.stream, default_type = _read_body(body)
        if headers is not None:
            for name, value in headers.items() if isinstance(headers, Mapping) else headers:
                self.add_header(name, value)
        if default_type is not None and self.header("Content-Type") is None:
            self._headers.insert(0, default_type)

    def __repr__(self) -> str:
        size = "stream" if self.stream is not None else f"{len(self._body)} bytes"
        return f"<Response {self._status} {size}>"

    @property
    def status(self) -> int:
        """The status code, 200 to 599."""
        return self._status

    @status.setter
    def status(self, status: int) -> None:
        if type(status) is not int and not isinstance(status, HTTPStatus):
            raise TypeError(f"a status is a whole number from 200 to 599, not {status!r}")
        if not 200 <= status <= 599:
            raise ValueError(f"a status is a whole number from 200 to 599, not {status}")
        self._status = int(status)

    @property
    def status_line(self) -> str:
        """Code and reason phrase, as `start_response` wants them."""
        return STATUS_LINES.get(self._status) or f"{self._status} Unknown"

    @property
    def body(self) -> bytes:
        """The body; empty for a stream."""
        return self._body

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers set so far, in order; change them with `set_header` and `add_header`."""
        return tuple(self._headers)

    def header(self, name: str) -> str | None:
        """The first value of a header, whatever its case."""
        lower = name.lower()
        return next((value for known, value in self._headers if known.lower() == lower), None)

    def add_header(self, name: str, value: str) -> None:
        """Add a header beside those of the same name (Set-Cookie, Vary ...)."""
        check_header(name, value)
        if self.stream is None and name.lower() == "content-length":
            raise ValueError("Content-Length follows from the body; only a streamed answer may set it")
        self._headers.append((name, value))

    def set_header(self, name: str, value: str) -> None:
        """Set a header in the place of those of the same name."""
        lower = name.lower()
        self._headers = [pair for pair in self._headers if pair[0].lower() != lower]
        self.add_header(name, value)

    def wsgi_headers(self) -> list[tuple[str, str]]:
        """A fresh list for `start_response`, with Content-Length where the length is known and allowed."""
        if self.stream is not None or self._status in NO_BODY:
            return list(self._headers)
        return [*self._headers, ("Content-Length", str(len(self._body)))]

    def close(self) -> None:
        """Close a stream that will not be sent."""
        close = getattr(self.stream, "close", None)
        if close is not None:
            close()


def check_header(name: object, value: object) -> None:
    """Raise if a header cannot be sent by an application."""
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"a header is two strings, not {name!r}: {value!r}")
    if _TOKEN.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not a header name")
    if name.lower() in _HOP_BY_HOP:
        raise ValueError(f"the header {name} belongs to the connection, which is the server's")
    if _BAD_IN_VALUE.search(value) is not None:
        raise ValueError(
            f"the value of the header {name} has a control character, one outside Latin-1, or a space at an end"
        )


def as_response(answer: Any) -> Response:
    """What a handler or a hook returned, as a `Response`; `TypeError` or `ValueError` if it cannot be one."""
    if isinstance(answer, Response):
        return answer
    if answer is None:
        return Response(None, 204)
    if type(answer) is tuple:
        if len(answer) != 2:
            raise TypeError(f"a tuple is answered as (body, status), not as {len(answer)} parts; use tafe.Response")
        body, status = answer
        return Response(_sendable(body), status)
    return Response(_sendable(answer))


def _sendable(body: Any) -> Any:
    """Refuse iterables that a handler hardly means to stream (a set, a row object); a Response may hold them."""
    if body is None or isinstance(body, bytes | str | dict | list | int | float | Iterator):
        return body
    raise TypeError(
        f"{type(body).__name__} cannot be answered; return a dict, list, number, str, bytes, None, an iterator of "
        "bytes or str, a tuple (body, status), or a tafe.Response"
    )


def _read_body(body: Any) -> tuple[bytes, Iterable[bytes | str] | None, tuple[str, str] | None]:
    """Bytes or a stream, and the Content-Type that follows."""
    if isinstance(body, bytes):
        return body, None, _BYTES_HEADER
    if isinstance(body, str):
        return body.encode(), None, _TEXT_HEADER
    if body is None:
        return b"", None, None
    if isinstance(body, dict | list | int | float):
        return encode(body), None, JSON_HEADER
    if isinstance(body, Iterable):
        return b"", body, _BYTES_HEADER
    raise TypeError(f"{type(body).__name__} cannot be a body")

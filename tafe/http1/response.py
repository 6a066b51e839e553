"""A response's head: from a WSGI status and header list to bytes.

Status lines and header lines are checked once and remembered by value, as in `head.py`. What PEP 3333 forbids an
application to send (hop-by-hop fields, control characters, anything but str) is an error of the application and
raised as such from `start_response`. Framing is decided by the caller (`wsgi.py`); this module renders it.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import Any, Final

# -- what a header list contains, as bits
HAS_LENGTH: Final = 1
HAS_DATE: Final = 2
HAS_SERVER: Final = 4
WANTS_CLOSE: Final = 8
NO_BODY: Final = 16  # 204 and 304 have none (RFC 9110, 6.4.1)
_DROPPED: Final = 32
EVENTS: Final = 64  # server-sent events

_MAX_REMEMBERED: Final = 4096  # lines of at most 256 bytes: about 2 MiB a worker
_MAX_LINE: Final = 256
_STATUS: Final = re.compile(r"([1-9][0-9]{2}) [\t -~\x80-\xff]*")
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
# Fields of one hop, which only the server may set (PEP 3333; RFC 9110, 7.6.1). `Connection: close` is listened to.
_HOP_BY_HOP: Final = frozenset(
    (
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


class NotTextError(TypeError, UnicodeError):
    """A header that is no str. The second base is what pywsgi raises, for who catches it."""


Head = tuple[bytes, int, int, int]  # status line and field lines, bits, declared length or -1, status
heads: dict[tuple[Any, ...], Head] = {}  # by (status, *headers): `Exchange.start_response` looks here first
_statuses: dict[str, tuple[bytes, int]] = {}
_lines: dict[tuple[str, str], tuple[bytes, int, int]] = {}

END: Final = b"\r\n"
END_CLOSE: Final = b"Connection: close\r\n\r\n"
END_KEEP_ALIVE: Final = b"Connection: keep-alive\r\n\r\n"  # HTTP/1.0 wants to be told
CHUNKED_LINE: Final = b"Transfer-Encoding: chunked\r\n"


def render(status: str, headers: list[tuple[str, str]]) -> Head:
    """Return the rendered head. Raises TypeError or ValueError naming what PEP 3333 does not allow.

    The whole is remembered if every line of it was known, so that values used once never fill the table.
    """
    known = _statuses.get(status) if type(status) is str else None
    line, bits = known or _status_line(status)
    if type(headers) is not list:
        raise TypeError(f"headers must be a list, not {type(headers).__name__} (PEP 3333)")
    parts = [line]
    length = -1
    all_known = known is not None
    for header in headers:
        try:
            rendered = _lines.get(header)
        except TypeError:
            rendered = None
        if rendered is None:
            all_known = False
            rendered = _header_line(header)
        if rendered[1]:
            if rendered[1] & HAS_LENGTH:
                if bits & HAS_LENGTH and length != rendered[2]:
                    raise ValueError("two different Content-Length headers")
                length = rendered[2]
            bits |= rendered[1]
            if rendered[1] & (_DROPPED | HAS_LENGTH):
                continue  # the caller writes the length, so that it is there once and true
        parts.append(rendered[0])
    if length > 0 and bits & NO_BODY:
        # pywsgi's error, word for word and as bytes, for who catches it. RFC 9110, 8.6: a 204 must not have one.
        message = f"Invalid Content-Length for {status[:3]} response: '{length}' (must be absent or zero)"
        raise AssertionError(message.encode("ascii"))
    head = (b"".join(parts), bits, length, int(status[:3]))
    if all_known:
        if len(heads) >= _MAX_REMEMBERED:
            heads.clear()
        heads[(status, *headers)] = head
    return head


def _status_line(status: object) -> tuple[bytes, int]:
    if not isinstance(status, str):
        raise TypeError(f"status must be str, not {type(status).__name__} (PEP 3333)")
    match = _STATUS.fullmatch(status)
    if match is None:
        _refuse_newline(status, "status")
        raise ValueError(f"status must be like '200 OK', not {status!r:.80}")
    if status[0] == "1":
        # Clients go on waiting for the final answer (RFC 9110, 15.2), and would take the next request's for it.
        raise ValueError(f"status {match[1]} is not the final one of an answer; it must be 200 or above")
    bits = NO_BODY if match[1] in ("204", "304") else 0
    known = (b"HTTP/1.1 " + status.encode("latin-1") + b"\r\n", bits)
    if len(_statuses) < _MAX_REMEMBERED and len(status) <= _MAX_LINE:
        _statuses[status] = known
    return known


def _header_line(header: Any) -> tuple[bytes, int, int]:
    if not isinstance(header, tuple) or len(header) != 2:
        raise TypeError(f"a header must be a tuple (name, value), not {header!r:.80} (PEP 3333)")
    name, value = header
    if not isinstance(name, str) or not isinstance(value, str):
        raise NotTextError(f"header name and value must be str: {header!r:.80} (PEP 3333)")
    if not _NAME.fullmatch(name):
        _refuse_newline(name, "header name")
        raise ValueError(f"bad header name {name!r:.80}")
    value = value.strip(" \t")
    if not _VALUE.fullmatch(value):
        _refuse_newline(value, "header value")
        raise UnicodeError(f"header {name}: the value holds a control character or a character outside latin-1")
    line = f"{name}: {value}\r\n".encode("latin-1")
    rendered = (line, *_meaning(name.lower(), value))
    if len(line) <= _MAX_LINE:
        if len(_lines) >= _MAX_REMEMBERED:
            _lines.clear()
        _lines[header] = rendered
    return rendered


def _refuse_newline(text: str, where: str) -> None:
    """Name the attempt to split an answer, in pywsgi's words."""
    if "\r" in text or "\n" in text:
        raise ValueError(f"carriage return or newline in {where}")


def _meaning(name: str, value: str) -> tuple[int, int]:
    """(bits, declared length or -1) of one field."""
    if name == "content-length":
        if not (value.isascii() and value.isdigit() and len(value) <= 18):
            raise ValueError(f"Content-Length must be a plain number, not {value!r:.40}")
        return HAS_LENGTH, int(value)
    if name == "connection":
        close = "close" in [option.strip() for option in value.lower().split(",")]
        return (_DROPPED | WANTS_CLOSE) if close else _DROPPED, -1
    if name == "content-type":
        return EVENTS if value.lower().startswith("text/event-stream") else 0, -1
    if name == "date":
        return HAS_DATE, -1
    if name == "server":
        return HAS_SERVER, -1
    if name in _HOP_BY_HOP:
        raise ValueError(f"header {name} belongs to the connection, which is the server's (PEP 3333)")
    return 0, -1


length_ends: dict[int, bytes] = {}


def length_end(length: int) -> bytes:
    """The last lines of a head that declares `length` and keeps an HTTP/1.1 connection."""
    end = b"Content-Length: %d\r\n\r\n" % length
    if len(length_ends) < _MAX_REMEMBERED:
        length_ends[length] = end
    return end


def own_lines(now_s: float) -> bytes:
    """The `Server` and `Date` lines (RFC 9110, 6.6.1) at `now_s` of `time.time()`."""
    return f"Server: tafe\r\nDate: {formatdate(now_s, usegmt=True)}\r\n".encode("ascii")


def own_lines_without(bits: int, own: bytes) -> bytes:
    """What of `own_lines` an application that set `bits` has not set itself."""
    server, _, date = own.partition(b"\r\n")
    return (b"" if bits & HAS_SERVER else server + b"\r\n") + (b"" if bits & HAS_DATE else date)

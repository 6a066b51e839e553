"""A request's head: from the bytes before the empty line to a WSGI environ, or a `Refusal`.

Design: the same clients and proxies send the same lines again and again, so each line is checked and translated once
and then remembered by its raw bytes. A remembered line costs one dictionary look-up; a new one is checked with single
regular expressions over the whole line. That is both stricter and cheaper than a C parser that calls back for
each header (figures in DESIGN.md). The memory is bounded: a full table is emptied, long lines are never kept.

Rules are those of RFC 9110 and 9112, the strict side wherever a proxy in front could read the same bytes otherwise:
no bare CR or LF, no folding, no space before the colon, exactly one Host, one length and of one kind.
Knows no sockets, and never looks at a body.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from tafe.http1.refusal import Refusal
from tafe.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

# -- what a head asked for, as bits; `parse_head` returns their union
HOST: Final = 1
LENGTH: Final = 2  # CONTENT_LENGTH is in the environ, digits only
CHUNKED: Final = 4
CLOSE: Final = 8
KEEP_ALIVE: Final = 16
EXPECT: Final = 32  # Expect: 100-continue
HTTP_1_0: Final = 64
ABSOLUTE: Final = 128  # the target names the authority, which overrides Host
DROPPED: Final = 256  # a field that the application never sees
HEAD: Final = 1024  # the method is HEAD: the answer has no body
REQUEST_ID: Final = 2048  # X-Request-Id is there, once, and well-formed
HTTPS: Final = 4096  # X-Forwarded-Proto says that the client's side of the proxy is TLS

_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!-~]+) HTTP/([0-9])\.([0-9])")
_FIELD_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BAD_VALUE: Final = re.compile(rb"[^\t -~\x80-\xff]")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_AUTHORITY: Final = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?"
)
_MAX_REQUEST_ID: Final = 128
_REQUEST_ID_VALUE: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,%d}" % _MAX_REQUEST_ID)
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})|%00")

# Tables of remembered lines. 4,096 lines of at most 256 bytes are about 2 MiB a worker; both numbers leave room for
# every field that does not change from request to request, and a flood of new ones only empties the table.
_MAX_REMEMBERED: Final = 4096
_MAX_LINE: Final = 256
_MAX_NAME: Final = 64
_MAX_TARGETS: Final = 1024  # an environ of 1.5 KiB each
_Field = tuple[str, str, int]  # environ key, value, bits

# Fields that say how the message is framed, where a second one makes the message ambiguous (RFC 9112, 6.3 and 3.2).
ONCE: Final = {
    "HTTP_HOST": "Host",
    "CONTENT_LENGTH": "Content-Length",
    "HTTP_TRANSFER_ENCODING": "Transfer-Encoding",
    "CONTENT_TYPE": "Content-Type",
}
_ABOUT_THE_WHOLE: Final = HOST | HTTP_1_0 | CHUNKED | ABSOLUTE
_COOKIES: Final = ("HTTP_COOKIE", "HTTP_COOKIE2")  # fields whose own separator is the semicolon


class HeadParser:
    """Parses the heads of one server's requests.

    `base`: what every environ of that server holds. `name`: the observer's, for method and path; remembered with them.
    """

    __slots__ = (
        "_base",
        "_fields",
        "_max_field_bytes",
        "_max_fields",
        "_name",
        "_names",
        "_targets",
        "_underscores",
        "limits",
        "name",
    )

    def __init__(self, base: dict[str, Any], limits: Limits, name: Callable[[str, str], str] | None = None) -> None:
        # Placeholders for what `Connection` fills in: a copied dictionary that need not grow is copied twice as fast.
        self._base = {"REMOTE_ADDR": "", "REMOTE_PORT": "", "tafe.request_id": "", "tafe.client_gone": "", **base}
        self.limits = limits
        self._name = name
        self.name = ""  # of the head that was parsed last
        self._max_fields = limits.header_count
        self._max_field_bytes = limits.header_field_bytes
        self._underscores = limits.underscores
        self._targets: dict[bytes, tuple[dict[str, Any], int, str]] = {}  # by request line
        self._fields: dict[bytes, _Field] = {}  # by field line
        self._names: dict[bytes, str] = {}  # by field name: those whose lines differ

    def parse(self, head: bytes) -> tuple[dict[str, Any], int]:
        """Return the environ for `head`, which ends before the empty line's CRLF CRLF, and what it asked for, as bits.

        Raises `Refusal`. Lines are judged in order, then the head as a whole.
        """
        lines = head.split(b"\r\n")
        first = lines.pop(0)
        target = self._targets.get(first)
        if target is None:
            target = self._read_request_line(first)
        known, asked, self.name = target
        environ = known.copy()
        count = len(environ)
        fields = self._fields
        for line in lines:
            field = fields.get(line)
            if field is None:
                field = self._read_field(line)
            key, value, bits = field
            if bits:
                if bits & DROPPED:
                    continue
                asked |= bits
            environ.setdefault(key, value)
            count += 1
            if len(environ) != count:  # it was there
                count -= 1
                if key in ONCE:
                    raise Refusal(400, f"{ONCE[key]} is repeated")
                asked &= ~_ONLY_ONCE.get(key, 0)
                environ[key] += ("; " if key in _COOKIES else ",") + value  # RFC 9110, 5.3; RFC 6265, 5.4
        if asked & _ABOUT_THE_WHOLE != HOST:
            _check_whole(environ, asked)
        if len(lines) > self._max_fields:
            raise Refusal(431, f"more than {self.limits.header_count} header fields")
        return environ, asked

    def check_request_line(self, line: bytes) -> None:
        """Raise `Refusal` if it is not one."""
        if line not in self._targets:
            self._read_request_line(line)

    def check_field(self, line: bytes) -> _Field:
        """Environ key, value and bits of a field line. Raises `Refusal`."""
        return self._fields.get(line) or self._read_field(line)

    def _read_request_line(self, line: bytes) -> tuple[dict[str, Any], int, str]:
        if len(line) > self.limits.request_line_bytes:
            raise Refusal(414, f"the request line is longer than {self.limits.request_line_bytes} bytes")
        parts, asked = _read_request_line(line)
        environ = self._base.copy()
        environ.update(parts)
        name = ""
        if self._name is not None:
            name = self._name(parts["REQUEST_METHOD"], parts["PATH_INFO"])
            environ["tafe.span"] = None  # another placeholder; the last, so that it takes no other key's place
        target = (environ, asked, name)
        if len(line) <= _MAX_LINE:
            if len(self._targets) >= _MAX_TARGETS:
                self._targets.clear()
            self._targets[line] = target
        return target

    def _read_field(self, line: bytes) -> _Field:
        """Check one field line and translate it; remember it where that is worth it."""
        if len(line) > self._max_field_bytes:
            raise Refusal(431, f"a header field is longer than {self._max_field_bytes} bytes")
        name, colon, raw_value = line.partition(b":")
        key = self._names.get(name)
        if key is None or not colon:
            key = _read_name(name, colon, line)
            if len(name) <= _MAX_NAME:
                if len(self._names) >= _MAX_REMEMBERED:
                    self._names.clear()
                self._names[name] = key
        value = raw_value.strip(b" \t")
        text = value.decode("latin-1")
        if not text.isprintable() and _BAD_VALUE.search(value):  # the first is quick, and knows too few characters
            raise Refusal(400, "a header value holds a control character (RFC 9110, 5.5)")
        check = _SPECIAL.get(key)
        if b"_" in name and (self._underscores != "keep" or key in _ACTED_ON):
            # CGI gives `X_Forwarded_For` and `X-Forwarded-For` one name: the first must not speak for the second,
            # and whatever the setting, none is kept that would frame the message or be acted on here.
            if self._underscores == "refuse":
                raise Refusal(400, "a header name holds an underscore")
            bits = DROPPED
        else:
            bits = 0 if check is None else check(value)
        field = (key, text, bits)
        if len(line) <= _MAX_LINE and key not in _NOT_REMEMBERED:
            if len(self._fields) >= _MAX_REMEMBERED:
                self._fields.clear()
            self._fields[line] = field
        return field


def _check_whole(environ: dict[str, Any], asked: int) -> None:
    """Rules that no single line can break."""
    if not asked & (HOST | HTTP_1_0):
        raise Refusal(400, "Host is missing (RFC 9112, 3.2)")
    if asked & ABSOLUTE:
        environ["HTTP_HOST"] = _split_absolute(environ["RAW_URI"].encode("ascii"))[0]
    if asked & CHUNKED:
        if asked & LENGTH:
            raise Refusal(400, "both Content-Length and Transfer-Encoding (RFC 9112, 6.1)")
        if asked & HTTP_1_0:
            raise Refusal(400, "Transfer-Encoding in HTTP/1.0 (RFC 9112, 6.1)")


def _read_request_line(line: bytes) -> tuple[dict[str, str], int]:
    """Method, target and version as environ entries, and bits."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise _request_line_refusal(line)
    method_b, target, major, minor = match.groups()
    if major != b"1" or minor not in b"01":
        raise Refusal(505, "the version must be HTTP/1.1 or HTTP/1.0")
    method = method_b.decode("ascii")
    asked = (HTTP_1_0 if minor == b"0" else 0) | (HEAD if method == "HEAD" else 0)
    if method == "CONNECT":
        raise Refusal(501, "CONNECT is for proxies")
    if b"#" in target:
        raise Refusal(400, "the target holds a fragment (RFC 9112, 3.2)")
    raw = target.decode("ascii")
    path = target
    if not target.startswith(b"/"):
        if target == b"*":
            if method != "OPTIONS":
                raise Refusal(400, "the target * is for OPTIONS only (RFC 9112, 3.2.4)")
        else:
            path = _split_absolute(target)[1]
            asked |= ABSOLUTE
    path, _, query = path.partition(b"?")
    if b"%" in path:
        if _BAD_ESCAPE.search(path):
            raise Refusal(400, "the path holds a bad percent escape")
        path = unquote_to_bytes(path)
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path.decode("latin-1"),
        "QUERY_STRING": query.decode("ascii"),
        "RAW_URI": raw,
        "REQUEST_URI": raw,
        "SERVER_PROTOCOL": "HTTP/1.0" if minor == b"0" else "HTTP/1.1",
    }
    return environ, asked


def _request_line_refusal(line: bytes) -> Refusal:
    """Say what is wrong with a request line that did not match."""
    words = line.split(b" ")
    if not _FIELD_NAME.fullmatch(words[0]):
        return Refusal(400, "the method is not a token (RFC 9110, 9.1)")
    if len(words) == 3 and re.fullmatch(rb"[!-~]+", words[1]) and re.fullmatch(rb"HTTP/[0-9]+(\.[0-9]+)?", words[2]):
        if len(words[0]) > 32:
            return Refusal(501, "no method is that long (RFC 9112, 3)")
        return Refusal(505, "the version must be HTTP/1.1 or HTTP/1.0")
    return Refusal(400, "the request line is not 'METHOD target HTTP/1.1' (RFC 9112, 3)")


def _split_absolute(target: bytes) -> tuple[str, bytes]:
    """`http://authority/path` into authority and origin form (RFC 9112, 3.2.2)."""
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise Refusal(400, "the target is neither a path nor an http URL (RFC 9112, 3.2)")
    cut = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
    authority, path = rest[:cut], rest[cut:]
    if not _good_authority(authority):
        raise Refusal(400, "the target's authority is malformed")
    return authority.decode("ascii"), path if path.startswith(b"/") else b"/" + path


def _good_authority(value: bytes) -> bool:
    match = _AUTHORITY.fullmatch(value)
    return match is not None and int(match[1] or 0) <= 65535


def _read_name(name: bytes, colon: bytes, line: bytes) -> str:
    if not colon or not _FIELD_NAME.fullmatch(name):
        if line[:1] in (b" ", b"\t"):
            raise Refusal(400, "a header line is folded (RFC 9112, 5.2)")
        if name.rstrip(b" \t") != name:
            raise Refusal(400, "space before the colon of a header (RFC 9112, 5.1)")
        raise Refusal(400, "a header line is not 'name: value' (RFC 9112, 5)")
    key = name.decode("ascii").upper().replace("-", "_")
    if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = "HTTP_" + key
    return key


def _host(value: bytes) -> int:
    if not _good_authority(value):
        raise Refusal(400, "Host is malformed (RFC 9112, 3.2)")
    return HOST


def _content_length(value: bytes) -> int:
    if not _DIGITS.fullmatch(value):
        if value.isdigit() and len(value.lstrip(b"0")) > 18:
            raise Refusal(413, "the body is larger than any limit")
        raise Refusal(400, "Content-Length is not a plain number (RFC 9110, 8.6)")
    return LENGTH


def _transfer_encoding(value: bytes) -> int:
    if value.lower() != b"chunked":
        if value.lower().rpartition(b",")[2].strip() == b"chunked":
            raise Refusal(501, "no transfer coding but chunked is understood (RFC 9112, 6.1)")
        raise Refusal(400, "Transfer-Encoding does not end in chunked (RFC 9112, 6.3)")
    return CHUNKED


def _connection(value: bytes) -> int:
    bits = 0
    for option in value.lower().split(b","):
        if option.strip() == b"close":
            bits |= CLOSE
        elif option.strip() == b"keep-alive":
            bits |= KEEP_ALIVE
    return bits


def _expect(value: bytes) -> int:
    if value.lower() != b"100-continue":
        raise Refusal(417, "the only expectation understood is 100-continue (RFC 9110, 10.1.1)")
    return EXPECT


def _forwarded_proto(value: bytes) -> int:
    return HTTPS if value.lower() == b"https" else 0


def _request_id(value: bytes) -> int:
    # The first test is quick, and knows the commonest ids.
    good = (value.isalnum() and len(value) <= _MAX_REQUEST_ID) or _REQUEST_ID_VALUE.fullmatch(value)
    return REQUEST_ID if good else 0


_SPECIAL: Final = {
    "HTTP_HOST": _host,
    "CONTENT_LENGTH": _content_length,
    "HTTP_TRANSFER_ENCODING": _transfer_encoding,
    "HTTP_CONNECTION": _connection,
    "HTTP_EXPECT": _expect,
    "HTTP_X_REQUEST_ID": _request_id,
    "HTTP_X_FORWARDED_PROTO": _forwarded_proto,
}
# Secrets must not stay in a table; and what is new with each request is nothing to remember.
_NOT_REMEMBERED: Final = frozenset(
    ("HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION", "HTTP_COOKIE", "HTTP_X_REQUEST_ID")
)
# Whatever the setting for underscores, these are not kept where the name has one.
_ACTED_ON: Final = frozenset((*ONCE, *_SPECIAL, "HTTP_X_FORWARDED_FOR"))
# What a client could say before or after its proxy does: nobody is believed who is contradicted.
_ONLY_ONCE: Final = {"HTTP_X_REQUEST_ID": REQUEST_ID, "HTTP_X_FORWARDED_PROTO": HTTPS}

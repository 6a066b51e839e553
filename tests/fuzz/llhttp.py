"""llhttp's reading of the same bytes, through httptools: the parser of Node.js, the most used one that is not ours."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import httptools

# What llhttp refuses and the RFCs have a recipient take. A message with one of these is not held against us.
_STRICTER = [
    re.compile(rb"[ \t][;=]|[;=][ \t]"),  # blanks around the marks of a chunk extension (RFC 9112, 7.1.1; 9110, 5.6.3)
    re.compile(rb"(?i)chunked *\t"),  # a tab behind the value of Transfer-Encoding (RFC 9112, 5.1)
]
# llhttp has a list of methods and refuses others; to us any token is the application's business.
METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "PROPFIND"}


@dataclass
class Message:
    """One request as llhttp reads it."""

    method: str = ""
    target: bytes = b""
    version: str = ""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False
    upgrade: bool = False  # llhttp hands the connection over behind the head, and reads no body

    @property
    def environ(self) -> dict[str, str]:
        """The fields as WSGI names them; names with an underscore are left out."""
        environ: dict[str, str] = {}
        for name, value in self.headers:
            if b"_" in name:
                continue
            key = name.decode("ascii").upper().replace("-", "_")
            key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key
            text = value.strip(b" \t").decode("latin-1")
            joiner = "; " if key == "HTTP_COOKIE" else ","
            environ[key] = environ[key] + joiner + text if key in environ else text
        return environ


class _Events:
    """httptools' callbacks."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.parser = httptools.HttpRequestParser(self)
        self._in_head = False

    def on_message_begin(self) -> None:
        self.messages.append(Message())
        self._in_head = True

    def on_url(self, target: bytes) -> None:
        self.messages[-1].target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else it is a trailer
            self.messages[-1].headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self.messages[-1].method = self.parser.get_method().decode("ascii")
        self.messages[-1].version = "HTTP/" + self.parser.get_http_version()
        self.messages[-1].upgrade = self.parser.should_upgrade()

    def on_body(self, data: bytes) -> None:
        self.messages[-1].body += data

    def on_message_complete(self) -> None:
        self.messages[-1].complete = True


def read(data: bytes) -> tuple[list[Message], str]:
    """The messages in `data` as far as llhttp reads, and why it stopped, if it did."""
    events = _Events()
    try:
        events.parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        return events.messages, "upgrade"
    except httptools.HttpParserError as error:
        return events.messages, f"{type(error).__name__}: {error}"
    return events.messages, ""


def is_stricter_on(data: bytes) -> bool:
    """llhttp may refuse `data` for more than the RFCs do."""
    return any(pattern.search(data) for pattern in _STRICTER)

"""A head that comes in pieces, or one that is to be refused: judged line by line, in the order of its bytes.

However the bytes are cut, the outcome is the same, since every rule has a place in the stream at which it strikes:
a line that is too long or a head that is too large at the first byte too many, a bare LF where it stands, everything
else at the end of its line. `HeadParser.parse`, which sees whole heads only, accepts what this accepts; what it
refuses is judged here once more, so that the first fault decides the status.
"""

from __future__ import annotations

from typing import Final

from tafe.http1.head import DROPPED, ONCE, HeadParser
from tafe.http1.refusal import Refusal

MAX_EMPTY_LINES: Final = 4  # before a request line; RFC 9112, 2.2 asks for one, which old browsers sent after a body


class UnfinishedHead:
    """One head, as far as it was received. Bounded by `head_bytes` and one read."""

    __slots__ = ("_at", "_empty_lines", "_fields", "_once", "_parser", "data")

    def __init__(self, parser: HeadParser) -> None:
        self._parser = parser
        self.data = b""  # received, without empty lines before the request line
        self._at = 0  # where the line begins that was not judged yet
        self._fields = -1  # field lines judged; -1: not even the request line
        self._once: tuple[str, ...] = ()  # fields seen that may not come again
        self._empty_lines = 0

    def add(self, piece: bytes) -> bool:
        """Take what came. True if the head is complete; raises `Refusal` where a rule strikes."""
        data = self.data = self.data + piece
        limits = self._parser.limits
        while True:
            at = self._at
            newline = data.find(b"\n", at)
            end = len(data) if newline < 0 else newline
            self._check_length(end - at, len(data) if newline < 0 else newline + 1)
            if newline < 0:
                return False
            if data[end - 1 : end] != b"\r":
                raise Refusal(400, "a line ends in a bare LF (RFC 9112, 2.2)")
            line = data[at : end - 1]
            if not line and self._fields < 0:
                data = self.data = data[end + 1 :]
                self._empty_lines += 1
                if self._empty_lines > MAX_EMPTY_LINES:
                    raise Refusal(400, "too many empty lines before the request line (RFC 9112, 2.2)")
                continue
            self._at = end + 1
            if not line:
                return True
            if self._fields < 0:
                self._parser.check_request_line(line)
            elif self._fields == limits.header_count:
                raise Refusal(431, f"more than {limits.header_count} header fields")
            else:
                self._check_field(line)
            self._fields += 1

    def _check_length(self, line_bytes: int, head_bytes: int) -> None:
        """`line_bytes` of the current line, its CR included; `head_bytes` up to its end. The nearer bound decides."""
        limits = self._parser.limits
        bound = limits.request_line_bytes if self._fields < 0 else limits.header_field_bytes
        too_long = line_bytes > bound + 1
        if head_bytes > limits.head_bytes and not (too_long and self._at + bound + 1 < limits.head_bytes):
            raise Refusal(431, f"the head is longer than {limits.head_bytes} bytes")
        if too_long and self._fields < 0:
            raise Refusal(414, f"the request line is longer than {bound} bytes")
        if too_long:
            raise Refusal(431, f"a header field is longer than {bound} bytes")

    def _check_field(self, line: bytes) -> None:
        key, _, bits = self._parser.check_field(line)
        if key in ONCE and not bits & DROPPED:
            if key in self._once:
                raise Refusal(400, f"{ONCE[key]} is repeated")
            self._once += (key,)

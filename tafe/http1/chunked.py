"""The chunked transfer coding, decoded strictly (RFC 9112, 7.1), whatever way the bytes are cut.

`ChunkedDecoder.feed` takes bytes as they arrive and returns the body bytes they complete; `done` says that the
terminating chunk and its trailers were read, and `rest` holds what followed (the next pipelined request).
Strict: sizes are plain hexadecimal, lines end in CRLF, extensions and trailers are checked, bounded and dropped.
"""

from __future__ import annotations

import enum
import re
from typing import Final

from tafe.http1.refusal import Refusal
from tafe.limits import Limits

MAX_LINE_BYTES: Final = 256  # a chunk's size line with its extensions; nobody sends more than a few bytes

_SIZE_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,16})((?:[ \t]*;[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
    rb"(?:[ \t]*=[ \t]*(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+|\"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*\"))?)*)"
)
_TRAILER_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t -~\x80-\xff]*")
# Fields that must be known before the body; a proxy that merges trailers would read them where we do not.
_NOT_IN_TRAILERS: Final = (b"content-length", b"transfer-encoding", b"host")


class _State(enum.Enum):
    """Where the next byte belongs. SIZE -> DATA -> DATA_END -> SIZE ...; a size of zero -> TRAILER -> DONE."""

    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILER = enum.auto()
    DONE = enum.auto()


# As module constants they cost a tenth of an enum's attribute.
_SIZE: Final = _State.SIZE
_DATA: Final = _State.DATA
_DATA_END: Final = _State.DATA_END
_TRAILER: Final = _State.TRAILER
_DONE: Final = _State.DONE


class ChunkedDecoder:
    """Decodes one body. What was sound before a fault is handed out first, so that the cut makes no difference."""

    __slots__ = (
        "_body_bytes",
        "_buffer",
        "_extension_bytes",
        "_fault",
        "_left",
        "_limits",
        "_state",
        "_trailer_bytes",
        "rest",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._body_bytes = 0  # announced by the sizes so far
        self._state = _SIZE
        self._fault: Refusal | None = None  # raised by the next `feed`
        self._buffer = b""  # bytes of an incomplete line
        self._left = 0  # bytes of the current chunk still to come
        self._extension_bytes = 0
        self._trailer_bytes = 0
        self.rest = b""

    @property
    def done(self) -> bool:
        """The whole body was read."""
        return self._state is _DONE

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pieces of body that `data` completes, in order.

        Raises `Refusal` (400; 413 at a size that makes the body too large) for a fault that no piece came before; else
        the next call does, even with no bytes.
        """
        pieces: list[bytes] = []
        try:
            if self._fault is not None:
                raise self._fault
            self._decode(data, pieces)
        except Refusal as fault:
            if not pieces:
                raise
            self._fault = fault
        return pieces

    @property
    def faulty(self) -> bool:
        """The next `feed` will raise."""
        return self._fault is not None

    def _decode(self, data: bytes, pieces: list[bytes]) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        at = 0
        end = len(data)
        while at < end and self._state is not _DONE:
            if self._state is _DATA:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _DATA_END
                continue
            newline = data.find(b"\n", at, at + self._line_bound())
            if newline < 0:
                self._keep_incomplete(data[at:])
                return
            if newline == at or data[newline - 1] != 0x0D:
                raise Refusal(400, "a chunk line does not end in CRLF (RFC 9112, 7.1)")
            self._take_line(data[at : newline - 1])
            at = newline + 1
            stop = at + self._left
            if self._left and data[stop : stop + 2] == b"\r\n":  # nearly always: the whole chunk, and its end
                pieces.append(data[at:stop])
                at = stop + 2
                self._left = 0
                self._state = _SIZE
        if self._state is _DONE:
            self.rest = data[at:]

    def _line_bound(self) -> int:
        """Bytes in which the current line must end."""
        if self._state is _DATA_END:
            return 2
        return self._limits.trailer_bytes + 2 if self._state is _TRAILER else MAX_LINE_BYTES

    def _keep_incomplete(self, line: bytes) -> None:
        if len(line) >= self._line_bound():
            raise Refusal(400, "a chunk line or trailer is too long")
        self._buffer = line

    def _take_line(self, line: bytes) -> None:
        if self._state is _SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise Refusal(400, "a chunk size line is malformed (RFC 9112, 7.1)")
            if match[2]:
                self._extension_bytes += len(match[2])
                if self._extension_bytes > self._limits.chunk_extension_bytes:
                    raise Refusal(400, "the chunk extensions are too long")
            self._left = int(match[1], 16)
            self._body_bytes += self._left
            if self._limits.body_bytes and self._body_bytes > self._limits.body_bytes:
                raise Refusal(413, f"the body is larger than {self._limits.body_bytes} bytes")
            self._state = _DATA if self._left else _TRAILER
        elif self._state is _DATA_END:
            if line:
                raise Refusal(400, "a chunk is longer than its size (RFC 9112, 7.1)")
            self._state = _SIZE
        elif not line:
            self._state = _DONE
        else:
            self._trailer_bytes += len(line) + 2
            if self._trailer_bytes > self._limits.trailer_bytes:
                raise Refusal(400, "the trailers are too long")
            match = _TRAILER_LINE.fullmatch(line)
            if match is None:
                raise Refusal(400, "a trailer is malformed (RFC 9112, 7.1.2)")
            if match[1].lower() in _NOT_IN_TRAILERS:
                raise Refusal(400, "a trailer tells what must come before the body (RFC 9110, 6.5.1)")

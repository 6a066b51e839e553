"""`wsgi.input`: what an application reads a request's body from.

Three kinds. No body: `EMPTY`, one object for all. A small declared body was gathered before the request got its
greenlet: an `io.BytesIO`. A large, chunked or expected one is a `StreamInput`: it reads from the socket only when the
application asks, so a slow application slows its client down, and never holds more than one piece.
`StreamInput` runs in the request's greenlet. A body that breaks off raises; it never looks like a clean end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Final

from greenlet import GreenletExit

from tafe.http1.chunked import ChunkedDecoder
from tafe.http1.refusal import Refusal
from tafe.limits import Limits
from tafe.turns import Turn

RECEIVE_BYTES: Final = 64 * 1024  # a read of a streamed body; a large socket buffer's worth

_FEW_PIECES: Final = 4  # of one receive, from chunks of at least a quarter of it: to copy them costs more than a call


class ClientGone(ConnectionError):
    """The client broke off or stopped taking part; nobody is left to answer."""


class EmptyInput:
    """A body of no bytes."""

    __slots__ = ()

    def read(self, size: int = -1, /) -> bytes:  # noqa: ARG002 - PEP 3333's signature
        """Return b""."""
        return b""

    def readline(self, size: int = -1, /) -> bytes:  # noqa: ARG002
        """Return b""."""
        return b""

    def readlines(self, hint: int = -1, /) -> list[bytes]:  # noqa: ARG002
        """Return no lines."""
        return []

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over no lines."""
        return iter(())


EMPTY: Final = EmptyInput()


class LengthSource:
    """A declared body, in pieces. `receive(size)` returns 1 to `size` bytes or raises `ClientGone`."""

    __slots__ = ("_receive", "left")

    def __init__(self, receive: Callable[[int], bytes], length: int) -> None:
        self._receive = receive
        self.left = length

    def more(self, wanted: int) -> bytes:
        """The next piece, at most `wanted` bytes; b"" at the end."""
        if not self.left:
            return b""
        piece = self._receive(min(self.left, wanted))
        self.left -= len(piece)
        return piece


class ChunkedSource:
    """A chunked body, in pieces. Raises `Refusal` for a malformed one and for one beyond `limits`."""

    __slots__ = ("_at", "_decoder", "_pieces", "_receive", "_unread")

    def __init__(self, receive: Callable[[int], bytes], unread: Callable[[bytes], None], limits: Limits) -> None:
        self._receive = receive
        self._unread = unread
        self._decoder = ChunkedDecoder(limits)
        self._pieces: list[bytes] = []  # of the body that was received and not taken, the last first ...
        self._at = 0  # ... and how much of the next was taken

    @property
    def left(self) -> int:
        """0 when the body was read whole, else an unknown number: 1."""
        return 0 if self._decoder.done and not self._pieces else 1

    def more(self, wanted: int) -> bytes:
        """The next piece, at most `wanted` bytes; b"" at the end. What comes before a fault is handed out first."""
        decoder = self._decoder
        while not self._pieces:
            if decoder.done:
                return b""
            pieces = decoder.feed(b"" if decoder.faulty else self._receive(RECEIVE_BYTES))
            # Many small ones are put together once, in place of a round through here for each; large ones stay.
            self._pieces = pieces[::-1] if len(pieces) < _FEW_PIECES else [b"".join(pieces)]
            if decoder.rest:
                self._unread(decoder.rest)
                decoder.rest = b""
        at = self._at
        piece = self._pieces[-1]
        if len(piece) - at > wanted:
            self._at = at + wanted
            return piece[at : self._at]
        self._at = 0
        self._pieces.pop()
        return piece[at:]


class StreamInput:
    """A body read from the connection as the application asks for it (PEP 3333, "Input and Error Streams")."""

    __slots__ = ("_ahead", "_at", "_before_first", "_source", "_turn", "broken")

    def __init__(
        self,
        source: LengthSource | ChunkedSource,
        before_first: Callable[[], None] | None = None,
        turn: Turn | None = None,
    ) -> None:
        self._source = source
        self._turn = turn  # shared after each piece: a quick client must not keep the hub
        self._before_first = before_first  # sends 100 Continue: not before somebody wants the body
        self._ahead = b""  # the last piece, while lines are read from it ...
        self._at = 0  # ... from here on
        self.broken = False  # the body ended early or was malformed: the connection cannot be used again

    @property
    def left(self) -> int:
        """Bytes of the body not received yet; 1 or more where the number is unknown."""
        return self._source.left

    def read(self, size: int | None = -1, /) -> bytes:
        """Return exactly `size` bytes, fewer only at the end of the body; all of it for -1 or None."""
        if size is None or size < 0:
            pieces = [self._take_ahead()]
            while piece := self._more(RECEIVE_BYTES):
                pieces.append(piece)
            return b"".join(pieces)
        first = self._take_ahead(size) or (self._more(size) if size else b"")
        if len(first) == size or not first:
            return first
        pieces = [first]
        missing = size - len(first)
        while missing and (piece := self._more(missing)):
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return bytes up to and with the next newline, at most `size` of them; b"" at the end of the body."""
        missing = sys.maxsize if size is None or size < 0 else size
        pieces: list[bytes] = []
        while missing:
            if self._at == len(self._ahead):
                self._ahead = self._more(RECEIVE_BYTES)
                self._at = 0
                if not self._ahead:
                    break
            end = self._ahead.find(b"\n", self._at) + 1
            piece = self._take_ahead(min(missing, (end or len(self._ahead)) - self._at))
            pieces.append(piece)
            missing -= len(piece)
            if piece.endswith(b"\n"):
                break
        return b"".join(pieces)

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Return lines, about `hint` bytes of them if it is positive."""
        lines: list[bytes] = []
        held = 0
        while line := self.readline():
            lines.append(line)
            held += len(line)
            if hint is not None and 0 < hint <= held:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over lines."""
        return iter(self.readline, b"")

    def can_be_skipped(self, bound: int, read_ahead: int) -> bool:
        """May the connection carry another request after this one? The rest of the body must be little.

        While a client waits for 100 Continue nobody knows whether the body will come (RFC 9110, 10.1.1), unless all of
        it is among the `read_ahead` bytes: the client sent those before it could see any answer.
        """
        if self.broken:
            return False
        if self._before_first is not None:
            return type(self._source) is LengthSource and self._source.left <= read_ahead
        return self._source.left <= bound

    def discard(self, bound: int, read_ahead: int) -> bool:
        """Read up to `bound` further bytes and forget them; True if that was the rest of the body."""
        if not self.can_be_skipped(bound, read_ahead):
            return False
        self._before_first = None
        try:
            while bound > 0 and (piece := self._more(RECEIVE_BYTES)):
                bound -= len(piece)
        except (ClientGone, Refusal, GreenletExit):  # the last when the server stops
            return False
        return not self._source.left

    def _take_ahead(self, size: int = sys.maxsize) -> bytes:
        at = self._at
        self._at = min(len(self._ahead), at + size)
        return self._ahead[at : self._at]

    def _more(self, wanted: int) -> bytes:
        if self._before_first is not None:
            before_first, self._before_first = self._before_first, None
            before_first()
        if self._turn is not None:
            self._turn.share()
        try:
            return self._source.more(min(wanted, RECEIVE_BYTES))
        except BaseException:
            self.broken = True
            raise

"""A server in this process and a client that feeds it piece by piece.

Either each piece is read before the next is sent, so that the server sees exactly that cut; or the client hurries, so
that pieces arrive while a request runs, and the application makes others wait in between: every order of events that
a network and a scheduler may bring about.

The connection is real, but for its other end being a socket pair, so that nothing but the order of events matters.
"""

from __future__ import annotations

import _socket
import array
import fcntl
import re
import termios
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import gevent

from tafe.http1.refusal import Refusal
from tafe.limits import Limits
from tafe.server import WSGIServer

HANG_S = 5.0
LIMITS = Limits(body_bytes=256 * 1024)
HELD_BYTES = LIMITS.pipelined_bytes + 64 * 1024  # what is read ahead, and one read more
_TURNS = 20  # of the loop; what one piece causes is done after three or four
_SCRUB = [
    (re.compile(rb"\r\nDate: [^\r]*"), b""),
    (re.compile(rb"HTTP/1\.1 100 Continue\r\n\r\n"), b""),  # may be left out if the body is there (RFC 9110, 10.1.1)
    # The words of a refusal tell what was noticed first, which the cut may decide; its status must be the same.
    (re.compile(rb'(HTTP/1\.1 [45][0-9]{2})[^\r]*\r\n(?:[^\r]+\r\n)*\r\n(?:\{"error":\{[^}]*\}\})?'), rb"<\1>"),
]


@dataclass
class Seen:
    """A request as the application saw it."""

    method: str
    target: str
    environ: dict[str, str]
    version: str
    body: bytes = b""
    end: str = "running"  # whole, or the exception's name


@dataclass
class Outcome:
    """All that came of one connection's bytes."""

    seen: list[Seen] = field(default_factory=list)
    sent: bytes = b""  # by the server, without what may differ

    @property
    def statuses(self) -> list[int]:
        """Of the answers, as far as they can be told without knowing where bodies end."""
        return [int(status) for status in re.findall(rb"<?HTTP/1\.1 ([0-9]{3})", self.sent)]


class Live:
    """One server for many connections, one after the other."""

    def __init__(self) -> None:
        self.server = WSGIServer(("127.0.0.1", 0), self._application, log=None, limits=LIMITS)
        self.server.start()
        self._outcome = Outcome()
        self._reading = "all"
        self._yields = 0

    def stop(self) -> None:
        self.server.stop(timeout=0.2)

    def run(self, pieces: Iterable[bytes], reading: str = "all", *, turns: int = _TURNS, yields: int = 0) -> Outcome:
        """Feed `pieces`, half-close, and return what came of it. Raises AssertionError for what must never be.

        `turns`: of the loop that a piece is given at most; `yields`: how often the application waits for a turn.
        """
        outcome = self._outcome = Outcome()
        self._reading = reading
        self._yields = yields
        ours, theirs = _pair()
        try:
            with gevent.Timeout(HANG_S):
                self.server.do_handle(theirs, ("127.0.0.1", 1))
                for piece in pieces:
                    self._send(ours, theirs, piece, outcome, turns)
                ours.shutdown(_socket.SHUT_WR)
                while self._receive(ours, outcome):
                    gevent.sleep(0)
                while self.server.connections or self.server.in_flight:
                    gevent.sleep(0)
        except gevent.Timeout:
            raise AssertionError(f"hangs: {self.server._connections}, sent so far: {outcome.sent[-300:]!r}") from None
        finally:
            ours.close()
        assert self.server.gathered_bytes == 0
        assert not self.server.waiting
        for pattern, replacement in _SCRUB:
            outcome.sent = pattern.sub(replacement, outcome.sent)
        return outcome

    def _send(self, ours: Any, theirs: Any, piece: bytes, outcome: Outcome, turns: int) -> None:
        view = memoryview(piece)
        while view:
            try:
                view = view[ours.send(view) :]
            except BlockingIOError:
                self._receive(ours, outcome)
                gevent.sleep(0)
            except OSError:
                return  # the server has closed
            for _ in range(turns):
                gevent.sleep(0)
                if not self._receive(ours, outcome) or (turns == _TURNS and not _unread_bytes(theirs)):
                    break
            for connection in self.server._connections:
                assert connection.read_ahead <= HELD_BYTES

    def _receive(self, ours: Any, outcome: Outcome) -> bool:
        """Take what the server has sent; False at its end."""
        while True:
            try:
                data = ours.recv(65536)
            except BlockingIOError:
                return True
            except ConnectionResetError:
                return False
            if not data:
                return False
            outcome.sent += data

    def _application(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        fields = {key: value for key, value in environ.items() if key.startswith(("HTTP_", "CONTENT_"))}
        seen = Seen(environ["REQUEST_METHOD"], environ["RAW_URI"], fields, environ["SERVER_PROTOCOL"])
        self._outcome.seen.append(seen)
        source = environ["wsgi.input"]
        for _ in range(self._yields):
            gevent.sleep(0)
        try:
            if self._reading == "all":
                seen.body = source.read()
            elif self._reading == "pieces":
                while piece := source.read(3):
                    seen.body += piece
            elif self._reading == "lines":
                for line in source:
                    seen.body += line
            seen.end = "whole"
        except (ConnectionError, Refusal) as error:
            seen.end = type(error).__name__
            raise
        except BaseException as error:
            seen.end = f"unexpected {error!r}"
            raise
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d bytes of %b" % (len(seen.body), seen.target.encode("ascii"))]


def _pair() -> tuple[_socket.socket, _socket.socket]:
    ours, theirs = _socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def _unread_bytes(sock: Any) -> int:
    """What has arrived at a socket and was not read; 0 for a closed one."""
    if sock.fileno() < 0:
        return 0
    count = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.FIONREAD, count)
    return count[0]

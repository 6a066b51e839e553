"""A client's socket: watched, read, written and closed on gevent's loop, with one deadline at a time.

One persistent read watcher calls `on_readable` on the hub. It is level-triggered, so it must not stay active with
nobody taking what it announces: `_pause` stops it at end of file, when enough is read ahead, and while a request's
greenlet reads by itself. `receive` and `write` are for that greenlet and wait in it; everything else runs on the hub.
Knows bytes, not HTTP; what to do with them is its subclass's (`connection.py`).
"""

from __future__ import annotations

import _socket
import enum
import os
import struct
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import greenlet

from tafe.body import ClientGone
from tafe.deadlines import NEVER

if TYPE_CHECKING:
    from tafe.server import WSGIServer
    from tafe.wsgi import Exchange

_READ: Final = 1  # libev's EV_READ and EV_WRITE
_WRITE: Final = 2
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 s


class Wait(enum.IntEnum):
    """Does the request's greenlet wait for its client, and for which deadline?"""

    NOT = 0
    PROGRESS = 1  # for the client to take or send something
    WHOLE = 2  # the request's own comes first, or none


class Rest:
    """What a slow reader has yet to take of an answer whose request is over: all that is left of it."""

    __slots__ = ("ended", "expires_s", "view", "watcher")

    def __init__(self, view: memoryview, expires_s: float) -> None:
        self.view = view
        self.expires_s = expires_s  # the request's own deadline, or NEVER
        self.ended: Callable[[int], None] | None = None  # told how many bytes were not taken
        self.watcher: Any = None  # for room, from when the request's greenlet is through


class Transport:
    """A socket of the server's loop. Subclasses define `on_readable` and `expired`."""

    __slots__ = (
        "_buffer",
        "_paused",
        "_recv",
        "_rest",
        "_sock",
        "_watcher",
        "eof",
        "expires_s",
        "gone",
        "queued_s",
        "remote_addr",
        "remote_port",
        "send",
        "server",
        "waits",
    )

    def __init__(self, server: WSGIServer, sock: _socket.socket, address: Any) -> None:
        self.server = server
        self.remote_addr: str = address[0] if isinstance(address, tuple) else ""  # a unix socket has none
        self.remote_port: str = str(address[1]) if isinstance(address, tuple) else ""
        self.eof = False  # the client will send no more
        self.gone = False  # nothing can be sent any more: reset by the client, or closed by us
        self.send = sock.send  # non-blocking: may take less than all, or raise BlockingIOError
        self._sock = sock
        self._recv = sock.recv
        self._buffer = b""  # received, and not used yet
        self._paused = False  # the watcher is stopped
        self._rest: Rest | None = None
        self.waits = Wait.NOT  # a greenlet waits in `receive` or `write`
        self.queued_s = NEVER  # Deadlines' own
        self.expires_s = monotonic() + server.idle_timeout_s
        server.deadlines.queue(self)
        self._watcher = server.loop.io(sock.fileno(), _READ)
        self._watcher.start(server.take_readable, self)

    def on_readable(self) -> None:
        raise NotImplementedError

    def finish(self, exchange: Exchange) -> None:
        """The request's answer was sent, or given up (called by it)."""
        raise NotImplementedError

    def rest_ended(self) -> None:
        """The rest of the answer was sent, or given up (called by `_send_rest`)."""
        raise NotImplementedError

    def expired(self) -> None:
        """The current deadline has passed (called by `Deadlines`)."""
        raise NotImplementedError

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._watcher.stop()

    def _resume(self) -> None:
        if self._paused and not self.eof and not self.gone:
            self._paused = False
            self._watcher.start(self.server.take_readable, self)

    def expire_in(self, timeout_s: float) -> None:
        """Make `timeout_s` from now the current deadline; 0: have none."""
        self.expires_s = monotonic() + timeout_s if timeout_s else NEVER
        self.server.deadlines.queue(self)

    @property
    def raw(self) -> _socket.socket:
        """The socket, to ask the kernel about it."""
        return self._sock

    # -- for the request's greenlet

    @property
    def read_ahead(self) -> int:
        """Bytes received and not used yet."""
        return len(self._buffer)

    def receive(self, size: int) -> bytes:
        """Wait for 1 to `size` bytes; the watcher is paused. Raises `ClientGone`."""
        if self._buffer:
            data, self._buffer = self._buffer[:size], self._buffer[size:]
            return data
        while not self.eof and not self.gone:
            try:
                data = self._recv(size)
            except BlockingIOError:
                self._wait(_READ, self.server.limits.body_timeout_s)
            except OSError:
                self.gone = True
            else:
                if data:
                    return data
                self.eof = True
        raise ClientGone("the body broke off")

    def _unread(self, data: bytes) -> None:
        """Bytes beyond a chunked body are the beginning of the next request."""
        self._buffer = data + self._buffer

    def client_gone(self) -> bool:
        """`environ["tafe.client_gone"]`: has the client reset the connection, or ended its side of it?

        Few clients end their side and wait on (they still get their answer), so most likely nobody is there any more.
        """
        if self._paused and not self.eof and not self.gone:
            self._look()  # a body was streamed, or enough is read ahead: nobody watches the socket
        return self.eof or self.gone

    def write(self, data: bytes) -> None:
        """Send all of `data`, waiting for room as often as needed. Raises `ClientGone`."""
        try:
            sent = self.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.gone = True
            raise ClientGone(str(error)) from error
        if sent != len(data):
            self._write_rest(memoryview(data)[sent:])

    def write_both(self, head: bytes, body: bytes) -> None:
        """As `write`, of two pieces that are too large to be joined: a slow reader's would be held twice."""
        try:
            sent = self._sock.sendmsg((head, body))
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.gone = True
            raise ClientGone(str(error)) from error
        if sent < len(head):
            self._write_rest(memoryview(head)[sent:])
            sent = len(head)
        self._write_rest(memoryview(body)[sent - len(head) :])

    def write_last(self, data: bytes, body: bytes = b"") -> None:
        """Send the last of an answer, `body` after `data` without joining them. Raises `ClientGone`.

        What finds no room is kept for the hub, which sends it as the client takes it (`_send_rest`): the request's
        greenlet need not wait for a slow reader, and nothing but these bytes is held for it.
        """
        try:
            sent = self._sock.sendmsg((data, body)) if body else self.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.gone = True
            raise ClientGone(str(error)) from error
        if sent != len(data) + len(body):
            left = memoryview(body)[sent - len(data) :] if sent > len(data) else memoryview(data[sent:] + body)
            self._rest = Rest(left, self.expires_s)

    def write_file(self, fd: int, offset: int, size: int) -> int:
        """Have the kernel send up to `size` bytes of a file, waiting for room; 0 at its end. Raises `ClientGone`."""
        while True:
            try:
                return os.sendfile(self._sock.fileno(), fd, offset, size)
            except BlockingIOError:
                self._wait(_WRITE, self.server.limits.write_timeout_s)
            except OSError as error:
                self.gone = True
                raise ClientGone(str(error)) from error

    def _write_rest(self, view: memoryview) -> None:
        while view:
            self._wait(_WRITE, self.server.limits.write_timeout_s)
            try:
                view = view[self.send(view) :]
            except BlockingIOError:
                continue
            except OSError as error:
                self.gone = True
                raise ClientGone(str(error)) from error

    def pause(self) -> None:
        """Let everybody else have a turn: the loop polls once before this greenlet goes on.

        A timer, since callbacks queued by callbacks run in the same batch, up to fifty times, without a poll.
        """
        server = self.server
        again = server.loop.timer(0)
        again.start(greenlet.getcurrent().switch)
        try:
            server.hub.switch()
        finally:
            again.stop()
            again.close()

    def _wait(self, event: int, timeout_s: float) -> None:
        """Let others run until the socket is ready. `expired` ends it after `timeout_s` without."""
        if self.gone:
            raise ClientGone("the client was given up")
        server = self.server
        request_expires_s = self.expires_s
        watcher = server.loop.io(self._sock.fileno(), event)
        watcher.start(greenlet.getcurrent().switch)
        self.waits = Wait.WHOLE
        server.lend_place()
        if timeout_s and monotonic() + timeout_s < request_expires_s:
            self.waits = Wait.PROGRESS
            self.expire_in(timeout_s)
        try:
            server.hub.switch()
        finally:
            watcher.stop()
            watcher.close()
            if self.waits is Wait.PROGRESS:
                self.expires_s = request_expires_s
            self.waits = Wait.NOT
            server.max_in_flight -= 1

    # -- for the hub, when the request's greenlet is through

    def _begin_rest(self, rest: Rest) -> None:
        """Send what is left of the answer. The request counts until then, without keeping others from their turn."""
        self.server.in_flight += 1
        self.server.lend_place()
        rest.watcher = self.server.loop.io(self._sock.fileno(), _WRITE)
        rest.watcher.start(self._send_rest, rest)
        self._await_room(rest)

    def _await_room(self, rest: Rest) -> None:
        timeout_s = self.server.limits.write_timeout_s
        self.expires_s = min(monotonic() + timeout_s, rest.expires_s) if timeout_s else rest.expires_s
        self.server.deadlines.queue(self)

    def _send_rest(self, rest: Rest) -> None:
        """There is room: one send, and then it is others' turn."""
        try:
            rest.view = rest.view[self.send(rest.view) :]
        except BlockingIOError:
            return
        except OSError:
            self.gone = True
        if rest.view and not self.gone:
            self._await_room(rest)
        else:
            self._drop_rest(rest)
            self.rest_ended()

    def _drop_rest(self, rest: Rest) -> None:
        self._rest = None
        if rest.ended is not None:
            rest.ended(len(rest.view))
        if rest.watcher is not None:
            rest.watcher.stop()
            rest.watcher.close()
            self.server.max_in_flight -= 1
            self.server.in_flight -= 1

    # -- the end

    def _close_socket(self) -> None:
        self.gone = True
        self.server.deadlines.forget(self)
        self._watcher.stop()
        self._watcher.close()
        self._sock.close()

    def _has_unread(self) -> bool:
        """The socket holds bytes; to close it now would reset the connection and lose them."""
        try:
            return bool(self._recv(1, _socket.MSG_PEEK))
        except OSError:
            return False

    def _look(self) -> None:
        """Notice the end that a stopped watcher does not tell of."""
        try:
            self.eof = not self._recv(1, _socket.MSG_PEEK)
        except BlockingIOError:
            pass
        except OSError:
            self.gone = True

    def _reset_when_closed(self) -> None:
        """Have `close` send a reset in place of an orderly end."""
        self._sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _RESET_ON_CLOSE)

    def _shutdown(self) -> bool:
        """End our side, so that the client reads the end of the answer; False if there is no other side."""
        try:
            self._sock.shutdown(_socket.SHUT_WR)
        except OSError:
            return False
        return not self.eof

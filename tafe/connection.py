"""One client connection: its state, what was read from it, and the writing of answers.

A connection is not a greenlet. One persistent read watcher calls `_on_readable` on the hub; only a complete head (with
a small body) takes a greenlet. An idle keep-alive connection is this object, its socket and its watcher.

States and their successors are in `SUCCESSORS`. The watcher is level-triggered, so it must not stay active with
nobody taking what it announces: it is stopped at end of file, when enough is read ahead of a running request, and
while a request's greenlet reads the body itself.
End of file while a request runs is a half-close: the answer is still owed. Only a reset means that the client left.

Knows how bytes become a request (`http1`, `body`), not how a request becomes an answer (`wsgi`).
"""

from __future__ import annotations

import _socket
import enum
import io
import logging
import struct
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import greenlet

from tafe.body import EMPTY, ChunkedSource, ClientGone, LengthSource, StreamInput
from tafe.deadlines import NEVER
from tafe.errors import RequestTimeout
from tafe.http1.head import CHUNKED, EXPECT, HTTP_1_0, LENGTH, parse_head
from tafe.http1.refusal import Refusal, plain_response
from tafe.wsgi import DISCARD_BYTES, Exchange

if TYPE_CHECKING:
    from tafe.server import WSGIServer

_READ: Final = 1  # libev's EV_READ and EV_WRITE
_WRITE: Final = 2
_CR: Final = 13
HEAD_RECEIVE_BYTES: Final = 16 * 1024  # a head and a small body in one call; Python allocates this much each time
LINGER_S: Final = 2.0  # how long a refused client may still send: lingering close as in RFC 9112, 9.6
LINGER_BYTES: Final = 1024 * 1024  # ... and how much
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 s

_log = logging.getLogger("tafe.server")


class State(enum.IntEnum):
    """What a connection is doing."""

    IDLE = 0  # nothing of a next request was read
    HEAD = 1  # part of a head
    BODY = 2  # a small declared body is being gathered
    WAITING = 3  # complete, and the worker runs as many requests as it may
    RUNNING = 4  # a greenlet has it
    LINGERING = 5  # answered for good; what still comes is thrown away
    CLOSED = 6


SUCCESSORS: Final[dict[State, frozenset[State]]] = {
    State.IDLE: frozenset({State.HEAD, State.BODY, State.WAITING, State.RUNNING, State.LINGERING, State.CLOSED}),
    State.HEAD: frozenset({State.BODY, State.WAITING, State.RUNNING, State.LINGERING, State.CLOSED}),
    State.BODY: frozenset({State.WAITING, State.RUNNING, State.LINGERING, State.CLOSED}),
    State.WAITING: frozenset({State.RUNNING, State.CLOSED}),
    State.RUNNING: frozenset({State.IDLE, State.HEAD, State.LINGERING, State.CLOSED}),
    State.LINGERING: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}


class Connection:
    """A client's connection. Methods run on the hub; `receive`, `write` and `finish` in the request's greenlet."""

    __slots__ = (
        "_body",
        "_buffer",
        "_environ",
        "_missing",
        "_paused",
        "_recv",
        "_send",
        "_sock",
        "_state",
        "_watcher",
        "eof",
        "exchange",
        "expires_s",
        "gone",
        "queued_s",
        "remote_addr",
        "remote_port",
        "server",
        "write_waits",
    )

    def __init__(self, server: WSGIServer, sock: _socket.socket, address: Any) -> None:
        # -- for the connection's life
        self.server = server
        self._sock = sock
        self._recv = sock.recv
        self._send = sock.send
        self.remote_addr: str = address[0] if address else ""  # a unix socket has none
        self.remote_port: str = str(address[1]) if address else ""
        self._state = State.IDLE
        self._buffer = b""  # read, and not yet part of a request that runs
        self.eof = False  # the client will send no more
        self.gone = False  # the client reset the connection: nothing can be sent
        self._paused = False  # the watcher is stopped
        self.queued_s = NEVER  # Deadlines' own
        # -- for the current request
        self.exchange: Exchange | None = None
        self._environ: dict[str, Any] | None = None  # while its body is gathered ...
        self._body: list[bytes] = []  # ... in pieces
        self._missing = 0  # bytes of it still to come
        self.write_waits = False  # the greenlet waits for room in the socket buffer
        self.expires_s = monotonic() + server.idle_timeout_s
        server.deadlines.queue(self)
        self._watcher = server.loop.io(sock.fileno(), _READ)
        self._watcher.start(self._on_readable)

    # -- reading

    def _on_readable(self) -> None:
        try:
            data = self._recv(HEAD_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._on_reset()
            return
        state = self._state
        if not data:
            self._on_eof()
        elif state is State.IDLE:
            self._start_head(data)
        elif state is State.HEAD:
            self._more_head(data)
        elif state is State.BODY:
            self._more_body(data)
        elif state is State.LINGERING:
            self._missing -= len(data)
            if self._missing <= 0:
                self.close()
        else:
            self._buffer += data
            if len(self._buffer) >= self.server.limits.pipelined_bytes:
                self._pause()

    def _start_head(self, data: bytes) -> None:
        """First bytes of a request; usually all of it."""
        end = data.find(b"\r\n\r\n")
        if end > 0 and data[0] != _CR:
            self._begin(data, end)
            return
        self._state = State.HEAD
        self._buffer = b""
        timeout_s = self.server.limits.head_timeout_s
        if timeout_s:
            self._expire_in(timeout_s)
        self._more_head(data)

    def _more_head(self, data: bytes) -> None:
        seen = len(self._buffer)
        data = self._buffer + data if seen else data
        while data[:2] == b"\r\n":  # RFC 9112, 2.2: empty lines before a request line are ignored
            data = data[2:]
            seen = 0
        self._buffer = data
        end = data.find(b"\r\n\r\n", max(0, seen - 3))
        try:
            if end > 0:
                self._begin(data, end)
            else:
                self._check_incomplete(data)
        except Refusal as refusal:
            self.refuse(refusal)

    def _check_incomplete(self, data: bytes) -> None:
        """Refuse early what can no longer become a good head."""
        limits = self.server.limits
        line_end = data.find(b"\r\n")
        if line_end < 0 and len(data) > limits.request_line_bytes + 1:
            raise Refusal(414, f"the request line is longer than {limits.request_line_bytes} bytes")
        if len(data) > limits.head_bytes:
            raise Refusal(431, f"the head is longer than {limits.head_bytes} bytes")
        if data.count(b"\n") != data.count(b"\r\n"):
            raise Refusal(400, "a line ends in a bare LF (RFC 9112, 2.2)")

    def _begin(self, data: bytes, end: int) -> None:
        """A whole head is there: parse it, then run the request or gather its body."""
        server = self.server
        environ = server.environ.copy()
        try:
            if end > server.limits.head_bytes:
                self._check_incomplete(data[: end + 1])
            asked = parse_head(data[:end], environ, server.limits)
        except Refusal as refusal:
            self.refuse(refusal)
            return
        environ["REMOTE_ADDR"] = self.remote_addr
        environ["REMOTE_PORT"] = self.remote_port
        environ["tafe.request_id"] = server.request_id(environ)
        self._buffer = data[end + 4 :]
        exchange = self.exchange = Exchange(self, environ, asked)
        if asked & (LENGTH | CHUNKED):
            self._begin_body(exchange, environ, asked)
        else:
            environ["wsgi.input"] = EMPTY
            self._run(exchange)

    def _begin_body(self, exchange: Exchange, environ: dict[str, Any], asked: int) -> None:
        """Gather a small declared body; hand anything else to the greenlet as a stream."""
        server = self.server
        limits = server.limits
        length = int(environ["CONTENT_LENGTH"]) if asked & LENGTH else -1
        if limits.body_bytes and length > limits.body_bytes:
            self.refuse(Refusal(413, f"the body is larger than {limits.body_bytes} bytes"))
            return
        expects = length != 0 and asked & EXPECT and not asked & HTTP_1_0
        gathers = 0 <= length <= limits.gathered_body_bytes and not expects
        if gathers and server.gathered_bytes + length <= limits.gathered_total_bytes:
            if len(self._buffer) >= length:
                environ["wsgi.input"] = io.BytesIO(self._buffer[:length])
                self._buffer = self._buffer[length:]
                self._run(exchange)
                return
            self._state = State.BODY
            self._body = [self._buffer]
            self._missing = length - len(self._buffer)
            server.gathered_bytes += length
            self._buffer = b""
            self._expire_in(limits.body_timeout_s)
            return
        source = (
            ChunkedSource(self.receive, self._unread, limits.body_bytes)
            if length < 0
            else LengthSource(self.receive, length)
        )
        environ["wsgi.input"] = StreamInput(source, self._send_continue if expects else None)
        self._pause()  # the greenlet reads by itself, as fast as the application asks
        self._run(exchange)

    def _more_body(self, data: bytes) -> None:
        missing = self._missing
        self._body.append(data[:missing])
        self._missing -= min(missing, len(data))
        if self._missing:
            self._expire_in(self.server.limits.body_timeout_s)
            return
        exchange = self.exchange
        assert exchange is not None
        body = b"".join(self._body)
        self._body = []
        self.server.gathered_bytes -= len(body)
        self._buffer = data[missing:]
        exchange.environ["wsgi.input"] = io.BytesIO(body)
        self._run(exchange)

    def _unread(self, data: bytes) -> None:
        """Bytes beyond a chunked body are the beginning of the next request."""
        self._buffer = data + self._buffer

    def _on_eof(self) -> None:
        """The client sends no more: it may still wait for the answer of what runs."""
        self.eof = True
        if self._state in (State.WAITING, State.RUNNING):
            self._pause()
        else:
            self.close()

    def _on_reset(self) -> None:
        self.gone = True
        if self._state in (State.WAITING, State.RUNNING):
            self._pause()
        else:
            self.close()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._watcher.stop()

    def _resume(self) -> None:
        if self._paused and not self.eof and not self.gone:
            self._paused = False
            self._watcher.start(self._on_readable)

    # -- running

    def _run(self, exchange: Exchange) -> None:
        """Give the request its greenlet, or its place in the queue."""
        server = self.server
        timeout_s = server.limits.request_timeout_s
        if timeout_s:
            self._expire_in(timeout_s)
        else:
            self.expires_s = NEVER
        if server.in_flight >= server.limits.in_flight:
            self._state = State.WAITING
            server.waiting.append(self)
            return
        self._state = State.RUNNING
        server.in_flight += 1
        server.greenlets.dispatch(exchange)

    def run_waiting(self) -> None:
        """Its turn has come."""
        exchange = self.exchange
        if self._state is State.WAITING and exchange is not None:
            self._state = State.RUNNING
            self.server.in_flight += 1
            self.server.greenlets.dispatch(exchange)

    def finish(self, exchange: Exchange) -> None:
        """The answer was sent or given up; the next request may come. In the request's greenlet."""
        server = self.server
        body = exchange.environ["wsgi.input"]
        if type(body) is StreamInput and (body.left or body.broken):
            exchange.keep = exchange.keep and not self.gone and body.discard(DISCARD_BYTES)
        server.in_flight -= 1
        server.requests += 1
        self.exchange = None
        if server.waiting:
            server.start_waiting()
        if self._state is State.CLOSED:
            return
        if self.gone or not exchange.keep:
            self._close_after(exchange, body)
            return
        self._state = State.IDLE
        self.expires_s = monotonic() + server.idle_timeout_s
        if self.queued_s > self.expires_s:
            server.deadlines.queue(self)
        if self._buffer:
            server.loop.run_callback(self._next_pipelined)
        elif self.eof:
            self.close()
        elif self._paused:
            self._resume()

    def _next_pipelined(self) -> None:
        """A further request was read already; others got their turn first."""
        if self._state is not State.IDLE:
            return
        data = self._buffer
        self._buffer = b""
        self._start_head(data)
        self._go_on_reading()

    def _go_on_reading(self) -> None:
        """Read on, if what was read so far is not enough and more can come."""
        if self._state in (State.HEAD, State.BODY) and self.eof:
            self.close()
        elif self._state is not State.CLOSED and not self._streams():
            self._resume()

    def _streams(self) -> bool:
        """The request's greenlet reads the body itself."""
        return self.exchange is not None and type(self.exchange.environ.get("wsgi.input")) is StreamInput

    def _close_after(self, exchange: Exchange, body: object) -> None:
        """Close without destroying an answer that is still on its way."""
        if exchange.reset and not self.gone:
            self._sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _RESET_ON_CLOSE)
        elif not self.gone and (self._buffer or (type(body) is StreamInput and body.left)):
            self._linger()
            return
        self.close()

    def expired(self) -> None:
        """The current deadline has passed (called by `Deadlines`)."""
        state = self._state
        if state is State.HEAD:
            self.refuse(Refusal(408, "the head took too long"))
        elif state is State.BODY:
            self.refuse(Refusal(408, "the body took too long"))
        elif state in (State.IDLE, State.LINGERING):
            self.close()
        elif state is State.WAITING:
            self.refuse(Refusal(503, "the server is busy"))
        elif state is State.RUNNING and self.exchange is not None and self.exchange.greenlet is not None:
            error: BaseException = (
                ClientGone("the client takes or sends nothing") if self.write_waits else RequestTimeout()
            )
            self.exchange.greenlet.throw(error)

    # -- for the request's greenlet

    def receive(self, size: int) -> bytes:
        """Wait for 1 to `size` bytes of the body. Raises `ClientGone`."""
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

    def write(self, data: bytes) -> None:
        """Send all of `data`, waiting for room as often as needed. Raises `ClientGone`."""
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.gone = True
            raise ClientGone(str(error)) from error
        if sent != len(data):
            self._write_rest(memoryview(data)[sent:])

    def _write_rest(self, view: memoryview) -> None:
        while view:
            self._wait(_WRITE, self.server.limits.write_timeout_s)
            try:
                view = view[self._send(view) :]
            except BlockingIOError:
                continue
            except OSError as error:
                self.gone = True
                raise ClientGone(str(error)) from error

    def _wait(self, event: int, timeout_s: float) -> None:
        """Let others run until the socket is ready. Raises `ClientGone` after `timeout_s` without."""
        server = self.server
        deadline_s = self.expires_s
        watcher = server.loop.io(self._sock.fileno(), event)
        watcher.start(greenlet.getcurrent().switch)
        if timeout_s and monotonic() + timeout_s < deadline_s:
            self.write_waits = True
            self._expire_in(timeout_s)
        try:
            server.hub.switch()
        finally:
            watcher.stop()
            watcher.close()
            self.write_waits = False
            self.expires_s = deadline_s

    def _send_continue(self) -> None:
        self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # -- the end

    def refuse(self, refusal: Refusal) -> None:
        """Answer with an error of the server's own, and close."""
        self._leave_gathering()
        exchange, self.exchange = self.exchange, None
        head_only = exchange is not None and exchange.no_body
        try:
            self._send(plain_response(refusal.status, refusal.message, head_only=head_only))
        except OSError:
            self.close()
            return
        self.server.refused += 1
        self._linger()

    def _linger(self) -> None:
        """Close our side, and read on for a moment: closing with unread data would reset what we just sent."""
        try:
            self._sock.shutdown(_socket.SHUT_WR)
        except OSError:
            self.close()
            return
        if self.eof:
            self.close()
            return
        self._state = State.LINGERING
        self._buffer = b""
        self._missing = LINGER_BYTES
        self._expire_in(LINGER_S)
        self._resume()

    def close_if_idle(self) -> bool:
        """Close unless a request was begun; True if closed."""
        idle = self._state is State.IDLE and not self._buffer and not self._has_unread()
        if idle:
            self.close()
        return idle

    def _has_unread(self) -> bool:
        """Bytes have arrived that nobody has read: closing now would reset the connection."""
        try:
            return bool(self._recv(1, _socket.MSG_PEEK))
        except OSError:
            return False

    def close(self) -> None:
        """Close now. A running request's writes fail from here on."""
        if self._state is State.CLOSED:
            return
        self._leave_gathering()
        self._state = State.CLOSED
        self.gone = True
        self.expires_s = NEVER
        self._watcher.stop()
        self._watcher.close()
        self._sock.close()
        self.server.forget(self)

    def _leave_gathering(self) -> None:
        if self._state is State.BODY:
            self.server.gathered_bytes -= self._missing + sum(map(len, self._body))
            self._body = []

    def _expire_in(self, timeout_s: float) -> None:
        self.expires_s = monotonic() + timeout_s if timeout_s else NEVER
        self.server.deadlines.queue(self)

    def __repr__(self) -> str:
        """State, client and what is held, in one line."""
        held = f", {len(self._buffer)} bytes read ahead" if self._buffer else ""
        return f"<Connection {self._state.name} {self.remote_addr}:{self.remote_port}{held}>"

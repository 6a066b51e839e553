"""One client connection: its state, and how what was read from it becomes a request.

A connection is not a greenlet. Only a complete head (with a small body) takes a greenlet; an idle keep-alive
connection is this object, its socket and its watcher. States and their successors are in `states.py`.
End of file while a request runs is a half-close: the answer is still owed. Only a reset means that the client left.

`on_readable`, `_begin`, `_run` and `finish` are passed by every request: what every request does comes first there,
whatever is rare is asked for in one test and done elsewhere. Reading and writing bytes is `transport.py`'s; how a
request becomes an answer is `wsgi.py`'s.
"""

from __future__ import annotations

import io
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from greenlet import getcurrent

from tafe import outcomes, overdue
from tafe.body import ChunkedSource, LengthSource, StreamInput
from tafe.deadlines import NEVER
from tafe.http1.head import CHUNKED, EXPECT, HTTP_1_0, HTTPS, LENGTH, REQUEST_ID
from tafe.http1.refusal import Refusal, body_size, plain_response
from tafe.http1.unfinished import UnfinishedHead
from tafe.outcomes import BROKE_OFF, LEFT, STOPPED
from tafe.states import State
from tafe.transport import Transport
from tafe.turns import Turn
from tafe.wsgi import DISCARD_BYTES, NOT_PLAIN, Exchange

if TYPE_CHECKING:
    import _socket

    from tafe.server import WSGIServer

LINGER_S: Final = 2.0  # how long a refused client may still send: lingering close as in RFC 9112, 9.6
LINGER_BYTES: Final = 1024 * 1024  # ... and how much

_UNUSUAL: Final = NOT_PLAIN | LENGTH | CHUNKED | REQUEST_ID | HTTPS
_IDLE: Final = State.IDLE  # as module constants they cost a tenth of an enum's attribute
_RUNNING: Final = State.RUNNING


class Connection(Transport):
    """A client's connection. Its methods run on the hub, but for `finish`: in the request's greenlet."""

    __slots__ = ("_body", "_head", "_missing", "_state", "exchange")

    def __init__(self, server: WSGIServer, sock: _socket.socket, address: Any) -> None:
        self._state = _IDLE
        self.exchange: Exchange | None = None  # the current request, from its head to the end of its answer
        self._head: UnfinishedHead | None = None  # of a request that comes in pieces
        self._body: bytearray | None = None  # of one that is being gathered: pieces in a list could be tiny, and many
        self._missing = 0  # bytes still to come of it; or, lingering, bytes still to be thrown away
        super().__init__(server, sock, address)

    # -- reading

    def on_readable(self) -> None:
        try:
            data = self._recv(self.server.receive_bytes)
        except BlockingIOError:
            return
        except OSError:
            self.gone = True
            self._on_end()
            return
        if not data:
            self.eof = True
            self._on_end()
        elif self._state is _IDLE:
            head, end, rest = data.partition(b"\r\n\r\n")
            if end:
                self._begin(head, rest, data)
            else:
                self._start_head(data)
        else:
            self._on_more(data)

    def _start_head(self, data: bytes) -> None:
        """The beginning of a request that is not just a good head."""
        self._state = State.HEAD
        self._buffer = b""
        self._head = UnfinishedHead(self.server.head_parser)
        self.expire_in(self.server.limits.head_timeout_s)
        self._more_head(data)

    def _on_more(self, data: bytes) -> None:
        """Bytes for anything but a new request."""
        state = self._state
        if state is State.HEAD:
            self._more_head(data)
        elif state is State.BODY:
            self._more_body(data)
        elif state is State.LINGERING:
            self._missing -= len(data)
            if self._missing <= 0:
                self._pause()  # closing now could reset what the client has not read yet; the deadline will
        else:
            self._buffer += data
            if len(self._buffer) >= self.server.limits.pipelined_bytes:
                self._pause()

    def _on_end(self) -> None:
        """The client sends no more. It may still wait for the answer of what runs."""
        if self._state in (State.NEXT, State.WAITING, State.RUNNING, State.SENDING):
            self._pause()
        else:
            self.close()

    def _more_head(self, data: bytes) -> None:
        head = self._head
        assert head is not None
        try:
            if head.add(data):
                self._head = None
                data, _, rest = head.data.partition(b"\r\n\r\n")
                self._begin(data, rest, None)
        except Refusal as refusal:
            self.refuse(refusal)

    def _begin(self, head: bytes, rest: bytes, unjudged: bytes | None) -> None:
        """A whole head is there, and perhaps more: parse it, then run the request or gather its body.

        `unjudged` is both together, unless `UnfinishedHead` has accepted every line already.
        """
        server = self.server
        try:
            environ, asked = server.head_parser.parse(head)
        except Refusal as refusal:
            if unjudged is None:
                self.refuse(refusal)
            else:
                self._start_head(unjudged)  # which finds the first fault, or what else is unusual about it
            return
        self._buffer = rest
        if server.make_environ is not None:
            environ = server.make_environ(environ)
        environ["REMOTE_ADDR"] = self.remote_addr
        environ["REMOTE_PORT"] = self.remote_port
        server.request_number = number = server.request_number + 1
        request_id = environ["tafe.request_id"] = f"{server.id_prefix}{number}"
        environ["tafe.client_gone"] = self.client_gone
        exchange = self.exchange = Exchange(self, environ, server.head_parser.name, request_id)
        if server.answer_log is not None:
            exchange.begun_s = monotonic()
        if asked & _UNUSUAL:
            if asked & REQUEST_ID:
                exchange.request_id = environ["tafe.request_id"] = environ["HTTP_X_REQUEST_ID"]  # a proxy's
            if asked & HTTPS and self.remote_addr in server.trusted_peers:
                environ["wsgi.url_scheme"] = "https"
            if asked & NOT_PLAIN:
                exchange.note(asked)
            if asked & (LENGTH | CHUNKED):
                self._begin_body(exchange, environ, asked)
                return
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
        if gathers and len(self._buffer) >= length:
            environ["wsgi.input"] = io.BytesIO(self._buffer[:length])
            self._buffer = self._buffer[length:]
            self._run(exchange)
        elif gathers and server.gathered_bytes + length <= limits.gathered_total_bytes:
            self._state = State.BODY
            self._body = bytearray(self._buffer)
            self._missing = length - len(self._buffer)
            server.gathered_bytes += length
            self._buffer = b""
            self.expire_in(limits.body_timeout_s)
        else:
            source = (
                ChunkedSource(self.receive, self._unread, limits) if length < 0 else LengthSource(self.receive, length)
            )
            exchange.stream = StreamInput(source, self._send_continue if expects else None, Turn(self))
            environ["wsgi.input"] = exchange.stream
            exchange.plain = False
            self._pause()  # the greenlet reads by itself, as fast as the application asks
            self._run(exchange)

    def _more_body(self, data: bytes) -> None:
        missing = self._missing
        gathered = self._body
        assert gathered is not None
        gathered += data[:missing]
        self._missing -= min(missing, len(data))
        if self._missing:
            self.expire_in(self.server.limits.body_timeout_s)
            return
        exchange = self.exchange
        assert exchange is not None
        self._body = None
        self.server.gathered_bytes -= len(gathered)
        self._buffer = data[missing:]
        exchange.environ["wsgi.input"] = io.BytesIO(gathered)
        self._run(exchange)

    def _send_continue(self) -> None:
        self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # -- running

    def _run(self, exchange: Exchange) -> None:
        """Give the request its greenlet, or its place in the queue."""
        server = self.server
        if server.request_timeout_s:
            self.expire_in(server.request_timeout_s)
        else:
            self.expires_s = NEVER
        if server.in_flight < server.max_in_flight:
            server.in_flight += 1
            self._state = _RUNNING
            server.greenlets.dispatch(exchange)
        else:
            self._state = State.WAITING
            server.waiting.append(self)

    def run_waiting(self) -> None:
        """Its turn has come, and its place is taken; if it was given up meanwhile, the next may have it."""
        server = self.server
        exchange = self.exchange
        if self._state is State.WAITING and exchange is not None:
            self._state = _RUNNING
            server.greenlets.dispatch(exchange)
        else:
            server.in_flight -= 1
            if server.waiting:
                server.start_waiting()

    def finish(self, exchange: Exchange) -> None:
        """The answer was sent or given up; the next request may come. In the request's greenlet."""
        server = self.server
        server.in_flight -= 1
        self.exchange = None
        if server.answer_log is not None:
            outcomes.finished(server.answer_log, exchange, self._rest)
        # Rare: told to close; read ahead; watcher stopped (end of file, streamed body); others wait; a slow reader.
        if not exchange.keep or self._buffer or self._paused or server.waiting or self._rest or server.closes_idle:
            self._finish_rare(exchange)
            return
        self._state = _IDLE
        self.expires_s = expires_s = monotonic() + server.idle_timeout_s
        if self.queued_s > expires_s:
            server.deadlines.queue(self)

    def _finish_rare(self, exchange: Exchange) -> None:
        server = self.server
        if server.waiting:
            server.start_waiting()
        if exchange.overdue:
            server.overdue -= 1
            return
        if self._state is State.CLOSED:
            return
        stream = exchange.stream
        if stream is not None and (stream.left or stream.broken):
            self.exchange, exchange.greenlet, self.expires_s = exchange, getcurrent(), NEVER  # as if it still ran
            exchange.keep = exchange.keep and not self.gone and stream.discard(DISCARD_BYTES, self.read_ahead)
            self.exchange = exchange.greenlet = None
        if self.gone or not exchange.keep:
            self._close_after(exchange)
        elif self._rest is not None:
            self._state = State.SENDING
            self._begin_rest(self._rest)
        else:
            self._go_on()

    def rest_ended(self) -> None:
        """A slow reader has taken the whole answer, or cannot any more."""
        if self.gone:
            self.close()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """To the next request."""
        server = self.server
        if self._buffer:
            self._state = State.NEXT
            self.expires_s = NEVER
            server.loop.run_callback(self._next_pipelined)
        elif self.eof:
            self.close()
        else:
            self._state = _IDLE
            self.expire_in(server.limits.idle_timeout_s)
            self._resume()
            if server.closes_idle:
                self.close_if_idle()

    def _next_pipelined(self) -> None:
        """A further request was read already; others got their turn first."""
        if self._state is State.NEXT:
            self._start_head(self._buffer)
            self._go_on_reading()

    def _go_on_reading(self) -> None:
        if self._state in (State.HEAD, State.BODY) and self.eof:
            self.close()  # what was read is not enough, and no more can come
        elif self._state is not State.CLOSED and (self.exchange is None or self.exchange.stream is None):
            self._resume()  # else the request's greenlet reads the body itself

    def expired(self) -> None:
        """The current deadline has passed (called by `Deadlines`)."""
        state = self._state
        if state is State.HEAD and self._head is not None and not self._head.data:
            self.close()  # nothing but an empty line after the last request: no request to answer
        elif state is State.HEAD:
            self.refuse(Refusal(408, "the head took too long"))
        elif state is State.BODY:
            self.refuse(Refusal(408, "the body took too long"))
        elif state in (State.IDLE, State.LINGERING, State.SENDING):
            self.close()
        elif state is State.WAITING:
            self.refuse(Refusal(503, "the server is busy"))
        elif self.exchange is not None and self.exchange.greenlet is not None:
            overdue.stop(self, self.exchange, self.exchange.greenlet)

    # -- the end

    def refuse(self, refusal: Refusal) -> None:
        """Answer with an error of the server's own, and close."""
        self._leave_gathering()
        self._head = None
        exchange, self.exchange = self.exchange, None
        head_only = exchange is not None and exchange.no_body
        self.server.refused += 1
        answer = plain_response(refusal.status, refusal.message, head_only=head_only)
        outcomes.refused(self.server.answer_log, self, exchange, refusal, body_size(answer))
        try:
            self.send(answer)
        except OSError:
            self.close()
        else:
            self._linger()

    def break_off(self, exchange: Exchange) -> None:
        """End an answer in the middle, so that the client can tell."""
        self.exchange = None
        outcomes.ended(self.server.answer_log, exchange, BROKE_OFF)
        if exchange.breaks_by_reset():
            self._reset_when_closed()
        self.close()

    def _close_after(self, exchange: Exchange) -> None:
        """Close without destroying an answer that is still on its way."""
        if exchange.reset and not self.gone:
            self._reset_when_closed()
        elif not self.gone and not self.eof:
            self._linger()  # the client may be sending more just now, even if it asked us to close
            return
        self.close()

    def _linger(self) -> None:
        """Close our side, and read on for a moment: closing with unread data would reset what we just sent."""
        if not self._shutdown():
            self.close()
            return
        self._state = State.LINGERING
        self._buffer = b""
        self._missing = LINGER_BYTES
        self.expire_in(LINGER_S)
        self._resume()

    def close_if_idle(self) -> None:
        """Close unless a request was begun, be it that nobody has read of it yet."""
        if self._state is _IDLE and not self._has_unread():
            self.close()

    def close(self) -> None:
        """Close now. A running request's writes fail from here on."""
        if self._state is not State.CLOSED:
            self._leave_gathering()
            if self.exchange is not None and self.exchange.greenlet is None:  # it will never run
                outcomes.ended(self.server.answer_log, self.exchange, STOPPED if self.server.closes_idle else LEFT)
            if self._rest is not None:
                self._drop_rest(self._rest)
            self._state = State.CLOSED
            self._close_socket()
            self.server.forget(self)

    def _leave_gathering(self) -> None:
        if self._body is not None:
            self.server.gathered_bytes -= self._missing + len(self._body)
            self._body = None

    def __repr__(self) -> str:
        """State, client and what is held, in one line."""
        held = f", {len(self._buffer)} bytes read ahead" if self._buffer else ""
        return f"<Connection {self._state.name} {self.remote_addr}:{self.remote_port}{held}>"

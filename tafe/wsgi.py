"""One request: the application is called, its answer is framed and sent, its mistakes are answered for.

An `Exchange` lives from a complete head to the last byte of the answer and runs in one greenlet. What is framed how
(RFC 9112, 6.3), in the order of the branches:
1. 1xx, 204, 304 and answers to HEAD: no body, whatever the application returns;
2. a declared Content-Length: as declared; a shorter body breaks the connection, a longer one is cut and logged, so
   that the next answer can never land inside this one;
3. a list or tuple: its bytes are all there, so they are counted and sent at once;
4. HTTP/1.1: chunked; a failure midway leaves out the last chunk, so that the client sees the break;
5. HTTP/1.0: until the connection is closed; a failure midway resets it.

Knows the connection only as something to write to; sockets and waiting are `connection.py`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol

import greenlet
from greenlet import getcurrent

from tafe.access_format import CLIENT_LEFT
from tafe.body import ClientGone, StreamInput
from tafe.errors import HTTPError, RequestTimeout, Unavailable
from tafe.files import SENDFILE_BYTES, FileWrapper
from tafe.http1 import head as asked_for
from tafe.http1 import response
from tafe.http1.refusal import body_size, plain_response, text_response
from tafe.outcomes import BROKE_OFF, LEFT
from tafe.turns import Turn

if TYPE_CHECKING:
    from tafe.connection import Connection

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType]
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

# An unread body up to this much is read and thrown away so that the connection can be kept: less than what a new
# connection costs both sides; nginx's and Go's bounds are of this order (Go: 256 KiB).
DISCARD_BYTES: Final = 64 * 1024
# A body up to this is copied to its head: 0.2 us; 64 KiB take 4 us, a second buffer in the same call 0.4 us.
JOINED_BYTES: Final = 16 * 1024

# What a head may ask for that decides how it is answered; each of these is rare between a proxy and its server.
NOT_PLAIN: Final = (
    asked_for.CHUNKED | asked_for.CLOSE | asked_for.EXPECT | asked_for.HTTP_1_0 | asked_for.ABSOLUTE | asked_for.HEAD
)


_BYTES: Final = (bytes, bytearray)  # the second is not in PEP 3333, but pywsgi takes it
# What the quick way asks for, as globals: an attribute of a module costs three times as much.
_heads: Final = response.heads
_length_ends: Final = response.length_ends
_length_end: Final = response.length_end
_HAS_LENGTH: Final = response.HAS_LENGTH
_log = logging.getLogger("tafe.server")


READY_THIS_TURN: Final = -1


class Observer(Protocol):
    """Told of every request's begin and end, in the request's greenlet. Costs nothing when absent."""

    def name(self, method: str, path: str, /) -> str:
        """What requests for this path are known by; not asked for each of them."""
        ...

    def begin(self, name: str, request_id: str, ready_ns: int, /) -> Any:
        """A request starts in this greenlet; what is returned is its `tafe.span`, and given back to `end`.

        `ready_ns`: when it was there, by `time.perf_counter_ns`; `READY_THIS_TURN`: when this turn's poll returned.
        """
        ...

    def end(self, span: Any, failed: bool = False, unusual: int = 0, /) -> None:
        """The request's answer was sent, or given up; `failed`: by a fault of ours, status 5xx or none.

        `unusual`: the status, if it is not 2xx; else, and if nothing was sent, 0.
        """
        ...


class _NotStarted(Exception):
    """The application returned something to send without having called start_response."""


class Exchange:
    """One request and its answer. `run` is the request's greenlet."""

    __slots__ = (
        "_chunked", "_declared", "_endless", "begun_s", "body_bytes", "connection", "environ", "fault", "greenlet",
        "head", "http_1_0", "keep", "name", "no_body", "overdue", "plain", "request_id", "reset", "started", "status",
        "stream", "told_to_stop",
    )  # fmt: skip

    def __init__(self, connection: Connection, environ: dict[str, Any], name: str, request_id: str) -> None:
        self.connection = connection
        self.environ = environ
        self.name = name  # what the observer calls its path
        self.request_id = request_id
        self.plain = True  # HTTP/1.1, kept, with a body in the answer and none left unread: decides the quick way
        self.keep = True  # the connection is kept afterwards
        self.head: response.Head | None = None  # rendered by start_response, not sent yet
        self.started = False  # the head was sent
        self.greenlet: greenlet.greenlet | None = None  # while it runs
        self.http_1_0 = False
        self.no_body = False  # the answer has none: HEAD, 204, 304 ...
        self.reset = False  # close with a reset: the only way to tell an HTTP/1.0 client that the answer broke off
        self.stream: StreamInput | None = None  # the body, if read as the application asks; environ's may be replaced
        self.told_to_stop = False  # its deadline has passed, and its greenlet was told
        self.overdue = False  # ... and went on: the connection has answered in its place
        self.status = 0  # sent to the client; 0: nothing yet
        self._chunked = False
        self._endless = False  # server-sent events: no end that a client which sends no more could wait for
        self._declared = -1  # Content-Length, or -1
        self.body_bytes = 0  # sent, without chunk sizes
        self.begun_s = 0.0  # by monotonic(), when the head was complete; set where answers are logged
        self.fault = ""  # what went wrong that the status does not tell, in words for the log

    def note(self, asked: int) -> None:
        """The head asked for something of `NOT_PLAIN`."""
        self.plain = False
        self.http_1_0 = bool(asked & asked_for.HTTP_1_0)
        self.no_body = bool(asked & asked_for.HEAD)
        if asked & (asked_for.CLOSE | asked_for.HTTP_1_0):
            self.keep = asked & (asked_for.CLOSE | asked_for.KEEP_ALIVE) == asked_for.KEEP_ALIVE

    def run(self) -> None:
        """Call the application and answer; never raises."""
        connection = self.connection
        server = connection.server
        self.greenlet = getcurrent()
        tell_begin = server.tell_begin
        span = None
        if tell_begin is not None:
            try:
                span = self.environ["tafe.span"] = tell_begin(self.name, self.request_id, READY_THIS_TURN)
            except Exception:  # noqa: BLE001 - whatever it raised, requests go on without it
                server.drop_observer()
        try:
            result = server.current_application(self.environ, self.start_response)
            head = self.head
            if type(result) is list and len(result) == 1 and head is not None and self.plain and not server.draining:
                body = result[0]
                bits = head[1]
                if (not bits or (bits == _HAS_LENGTH and head[2] == len(body))) and type(body) is bytes:
                    self.head = None
                    self.started = True
                    self.status = head[3]
                    size = len(body)
                    end = _length_ends.get(size) or _length_end(size)
                    if size <= JOINED_BYTES:
                        connection.write_last(b"".join((head[0], server.own_lines, end, body)))
                    else:
                        connection.write_last(b"".join((head[0], server.own_lines, end)), body)
                    self.body_bytes = size
                else:
                    self._send_result(result)
            else:
                self._send_result(result)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it ends here: above is the hub
            self._fail(error)
        tell_end = server.tell_end
        if span is not None and tell_end is not None:
            try:
                if 200 <= self.status < 300:
                    tell_end(span)
                else:
                    tell_end(span, not 100 <= self.status < 500, self.status)
            except Exception:  # noqa: BLE001 - as above
                server.drop_observer()
        self.greenlet = None
        connection.finish(self)

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """PEP 3333's `start_response`. Raises TypeError or ValueError for what may not be sent."""
        if exc_info is not None:
            try:
                if self.started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.head is not None or self.started:
            raise RuntimeError("start_response was called twice without exc_info (PEP 3333)")
        try:
            self.head = _heads[(status, *headers)] if type(headers) is list else None
        except (KeyError, TypeError):
            self.head = None
        if self.head is None:
            self.head = response.render(status, headers)
        return self._write

    def _send_result(self, result: Iterable[bytes]) -> None:
        try:
            if type(result) in (list, tuple) and not self.started and self._declared < 0:
                for piece in result:
                    if not isinstance(piece, _BYTES):
                        raise _not_bytes(piece)
                whole = b"".join(result)
                self._send(whole, length=len(whole))
            elif type(result) is not FileWrapper or not self._send_file(result):
                turn = Turn(self.connection)
                for piece in result:
                    if piece or not isinstance(piece, _BYTES):
                        self._send(piece)
                        turn.share()
            self._finish_body(sized=type(result) in (list, tuple))
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()

    def _send_file(self, wrapper: FileWrapper) -> bool:
        """Have the kernel send a file; False, and nothing done, if it cannot."""
        found = wrapper.plain_file()
        if found is None or self.head is None:
            return False
        fd, offset, size = found
        self._start(b"", size)
        left = 0 if self.no_body else size if self._declared < 0 else min(size, self._declared)
        turn = Turn(self.connection)
        while left and (sent := self.connection.write_file(fd, offset, min(left, SENDFILE_BYTES))):
            offset += sent
            left -= sent
            self.body_bytes += sent
            turn.share()
        return True

    def _write(self, data: bytes) -> None:
        """PEP 3333's `write`. Raises AssertionError for a body where there can be none, as pywsgi does."""
        status = self.head[3] if self.head is not None else self.status
        if data and (status in (204, 304)):
            raise AssertionError(f"The {status} response must have no body")
        self._send(data)

    def _send(self, data: bytes, *, length: int = -1) -> None:
        """Send a piece of body, the head before the first. `length`: of the whole, if known."""
        if not isinstance(data, _BYTES):
            raise _not_bytes(data)
        if self._endless and self.connection.client_gone():
            raise ClientGone("the client has left its event stream")
        if not self.started:
            if self.head is None:
                raise _NotStarted
            self._start(data, length)
        elif self.no_body or not data:
            pass  # an empty chunk would end the body
        elif self._chunked:
            self.connection.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self.connection.write(self._cut(data))
        if not self.no_body:
            self.body_bytes += len(data)

    def _start(self, data: bytes, length: int) -> None:
        """Decide the framing, and send the head with the first piece."""
        assert self.head is not None
        line, bits, declared, status = self.head
        if bits & response.NO_BODY:
            self.no_body = True
            declared = -1
            if data:
                self.connection.server.report(self, AssertionError(f"The {status} response must have no body"))
        elif declared < 0 and (length > 0 or (length == 0 and not self.no_body)):
            declared = length
        self._declared = declared
        self._endless = bool(bits & response.EVENTS)
        body = b""
        if not self.no_body:
            if declared >= 0:
                body = self._cut(data)
            elif self.http_1_0:
                self.keep = False
                body = data
            else:
                self._chunked = True
                line += response.CHUNKED_LINE
                body = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        self.head = None
        self.started = True
        self.status = status
        head = line + self._last_lines(bits, declared)
        if len(body) <= JOINED_BYTES:
            self.connection.write(head + body)
        else:
            self.connection.write_both(head, body)

    def _last_lines(self, bits: int, length: int) -> bytes:
        """The server's own lines, the length, and whether the connection is kept."""
        server = self.connection.server
        stream = self.stream
        skips = stream is None or stream.can_be_skipped(DISCARD_BYTES, self.connection.read_ahead)
        if bits & response.WANTS_CLOSE or server.draining or not skips:
            self.keep = False
        own = server.own_lines
        if bits & (response.HAS_DATE | response.HAS_SERVER):
            own = response.own_lines_without(bits, own)
        if length >= 0:
            own += b"Content-Length: %d\r\n" % length
        if not self.keep:
            return own + response.END_CLOSE
        return own + (response.END_KEEP_ALIVE if self.http_1_0 else response.END)

    def _cut(self, data: bytes) -> bytes:
        """What of `data` the declared length leaves room for."""
        room = self._declared - self.body_bytes
        if self._declared < 0 or len(data) <= room:
            return data
        self.keep = False
        if room >= 0:
            _log.error("%s: the body is longer than its Content-Length of %d; cut", self, self._declared)
        return data[: max(room, 0)]

    def _finish_body(self, *, sized: bool) -> None:
        if not self.started:
            self._send(b"", length=0 if sized or self.http_1_0 else -1)
        if self.no_body:
            return
        if self._chunked:
            self.connection.write(b"0\r\n\r\n")
        elif self.body_bytes < self._declared:
            self.keep = False
            self.fault = BROKE_OFF
            _log.error("%s: the body ended after %d of %d bytes", self, self.body_bytes, self._declared)
        elif self._declared >= 0:
            self.body_bytes = self._declared  # what was too much was cut

    def _fail(self, error: BaseException) -> None:
        """Answer for what the application raised, or break the answer off."""
        self.keep = False
        if isinstance(error, ClientGone):
            self.fault = LEFT
            if not self.body_bytes:
                self.status = CLIENT_LEFT
            return
        if isinstance(error, HTTPError) and error.status < 500:
            status, message = error.status, error.message
        elif isinstance(error, Unavailable):
            status, message = 503, "not available now"
        elif isinstance(error, RequestTimeout):
            status, message = 504, "the request took too long"
            _log.warning("%s: timed out", self)
        elif isinstance(error, greenlet.GreenletExit):
            status, message = 503, "the server is stopping"
            _log.warning("%s: ended, for the server is stopping", self)
        elif isinstance(error, _NotStarted):
            status, message = 500, "internal error"
            _log.error("%s: the application did not call start_response (PEP 3333)", self)  # a traceback shows nothing
        else:
            status, message = 500, "internal error"
            self.connection.server.report(self, error)
        if self.started:
            self.reset = self.breaks_by_reset()
            self.fault = BROKE_OFF
            return
        try:
            request_id = self.environ.get("tafe.request_id", "")
            make = text_response if self.http_1_0 else plain_response
            answer = make(status, _harmless(message), head_only=self.no_body, request_id=request_id)
            self.connection.write(answer)
            self.status = status
            self.body_bytes = body_size(answer)
        except (ClientGone, RequestTimeout, greenlet.GreenletExit):
            self.fault = LEFT

    def breaks_by_reset(self) -> bool:
        """Nothing but a reset can tell the client that the answer broke off: it has neither chunks nor a length."""
        return not self._chunked and self._declared < 0 and not self.no_body

    def __repr__(self) -> str:
        """Method, path and request id; never the query string."""
        environ = self.environ
        path = environ["PATH_INFO"].encode("ascii", "backslashreplace").decode("ascii")
        return f"{environ['REQUEST_METHOD']} {path!r:.200} [{environ.get('tafe.request_id', '')}]"


def _not_bytes(piece: object) -> TypeError:
    return TypeError(f"the application's answer must be bytes, not {type(piece).__name__} (PEP 3333)")


def _harmless(message: str) -> str:
    """`message` without what would end a JSON string."""
    return message.encode("ascii", "replace").decode("ascii").replace("\\", "/").replace('"', "'")

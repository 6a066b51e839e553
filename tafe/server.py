"""`WSGIServer`: listens, accepts, and holds what the connections of one worker share.

It takes the arguments of `gevent.pywsgi.WSGIServer` (`dropin.py` says what they mean here) and can be used alone:

    server = tafe.WSGIServer(("127.0.0.1", 8000), application)
    server.serve_forever()

Up to the accept it is gevent's (`accepting.py`), everything after that is ours (`connection.py`). TLS belongs to the
load balancer; with TLS arguments each client gets a relay (`tls.py`), off the way of plain connections.
"""

from __future__ import annotations

import _socket
import collections
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Collection
from time import monotonic
from typing import Any, Final

import gevent

from tafe import lifecycle
from tafe.accepting import Accepting
from tafe.body import EMPTY
from tafe.connection import Connection
from tafe.deadlines import NEVER, Deadlines
from tafe.dropin import answer_log, check_handler_class, in_flight_bound, text_log
from tafe.errors import UsageError
from tafe.files import FileWrapper
from tafe.greenlets import GreenletPool
from tafe.http1 import response
from tafe.http1.head import HeadParser
from tafe.limits import Limits
from tafe.outcomes import AnswerLog
from tafe.shared import Shared
from tafe.tls import TlsRelay
from tafe.tracebacks import log_exception
from tafe.wsgi import Application, Exchange, Observer

# Only a proxy on this machine, as in gunicorn's forwarded_allow_ips; anybody else could claim to come over TLS.
TRUSTED_PEERS: Final = ("127.0.0.1", "::1", "")
RECEIVE_BYTES: Final = 16 * 1024  # a head and a small body in one call; Python allocates this much each time
_NODELAY_FAMILIES: Final = (_socket.AF_INET, _socket.AF_INET6)

_log = logging.getLogger("tafe.server")


class WSGIServer(Shared, Accepting):
    """A WSGI server on gevent's loop, a greenlet a request.

    `listener`: an address as gevent takes it, or a bound socket. `environ`: added to every request's environ.
    `limits`: see `limits.py`. `trusted_peers`: addresses of proxies whose X-Forwarded-Proto decides `wsgi.url_scheme`
    ("": whoever comes through a unix socket). `observer`: told of every request. The others are pywsgi's, see
    `dropin.py`. Raises `UsageError` for what cannot be honoured.
    """

    # pywsgi's: a class to make environs of, in place of dict; read when the server starts.
    environ_class: type[dict[str, Any]] = dict

    def __init__(
        self,
        listener: Any,
        application: Application | None = None,
        backlog: int | None = None,
        spawn: Any = "default",
        log: Any = "default",
        error_log: Any = "default",
        handler_class: Any = None,
        environ: dict[str, Any] | None = None,
        *,
        limits: Limits | None = None,
        trusted_peers: Collection[str] = TRUSTED_PEERS,
        observer: Observer | None = None,
        **ssl_args: Any,
    ) -> None:
        check_handler_class(handler_class)
        bound = in_flight_bound(spawn)
        super().__init__(listener, backlog=backlog, **ssl_args)
        # -- for the server's life
        if application is not None:
            self.current_application = application
        elif type(self).application is WSGIServer.application:
            self.current_application = _no_application
        else:  # a subclass has one
            self.current_application = self.application
        self.limits = limits or Limits()
        self.idle_timeout_s = self.limits.idle_timeout_s or NEVER
        self.trusted_peers = frozenset(trusted_peers)
        self._observer = observer
        self.tell_begin = self.tell_end = None
        if observer is not None:
            self.tell_begin, self.tell_end = observer.begin, observer.end
        self.hub = gevent.get_hub()
        self.loop = self.hub.loop
        self.deadlines = Deadlines(monotonic, _LoopTimer(self))
        self.error_log = text_log(error_log, errors=True)
        self.log: Any = None if log in ("default", None) else text_log(log, errors=False)
        self.answer_log: AnswerLog | None = answer_log(self.log)
        self.greenlets: GreenletPool = GreenletPool(self.hub, Exchange.run)
        self.environ = self._base_environ(environ)
        if self.environ["wsgi.multiprocess"]:
            self.max_accept = 1
        self._make_parser()
        self.request_timeout_s = self.limits.request_timeout_s
        self.max_in_flight = self.limits.in_flight if bound is None else min(bound, self.limits.in_flight)
        self.id_prefix = f"{os.urandom(5).hex()}-"  # of the ids of requests that come without one
        self.request_number = 0
        self.receive_bytes = min(
            RECEIVE_BYTES, self.limits.head_bytes
        )  # so that no head that came at once is too large
        self.own_lines = response.own_lines(time.time())
        self._second: Any = None  # the timer that renews `own_lines`
        # libev calls the watchers of one turn last in, first out: who was served last, and so asks again last, would be
        # served last again, and miss every other turn. So they only queue here, and are served when all have.
        self.readable: list[Connection] = []
        self.take_readable = self.readable.append
        self._serving: Any = None  # the watcher that serves them
        # -- what the connections share
        self._connections: set[Connection | TlsRelay] = set()
        self.waiting: collections.deque[Connection] = collections.deque()  # complete requests, in order of arrival
        self.in_flight = 0  # requests that have a greenlet
        self.overdue = 0  # requests that go on although their deadline has passed and their client was answered
        self.gathered_bytes = 0  # promised by bodies being gathered
        self.refused = 0  # requests answered without asking the application
        self.draining = False  # every answer from now on closes its connection
        self.closes_idle = False  # ... and so does whoever has none to wait for

    @property
    def application(self) -> Application:
        """What is asked for answers; may be replaced while serving."""
        return self.current_application

    @application.setter
    def application(self, application: Application) -> None:
        self.current_application = application

    # -- lifecycle

    def init_socket(self) -> None:
        """Bind if an address was given, and complete the environ with it."""
        super().init_socket()
        if self.socket.family in _NODELAY_FAMILIES:
            self.socket.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        if self._second is None:
            lifecycle.add_teller(self._origin)
            self._second = self.loop.timer(1.0, 1.0, ref=False)
            self._second.start(self._renew_own_lines)
            # Just before the next poll, after gevent's own watcher of this kind, which runs the callbacks: what was
            # begun goes on first. Else a newcomer would take the database connection that somebody else waits for.
            self._serving = self.loop.prepare(ref=False, priority=-1)
            self._serving.start(self.serve_readable)
            self._at_once = self.loop.timer(0, ref=False)
        host, port = self.address[:2] if isinstance(self.address, tuple) else ("localhost", "")
        self.environ.setdefault("SERVER_NAME", str(host))
        self.environ.setdefault("SERVER_PORT", str(port))
        self._make_parser()

    def _make_parser(self) -> None:
        name = None if self._observer is None else self._name_of
        self.head_parser = HeadParser(self.environ, self.limits, name)
        self.make_environ = None
        if self.environ_class is not dict:
            self.make_environ = self.environ_class

    def begin_drain(self) -> None:
        """From now every answer says `Connection: close`, and connections without a request are closed."""
        self.draining = self.closes_idle = True
        for connection in list(self._connections):
            connection.close_if_idle()

    def stop(self, timeout: float | None = None) -> None:
        """Stop listening, let running requests finish for `timeout` seconds (default 1), then close all connections."""
        self.close()
        self.begin_drain()
        deadline_s = monotonic() + (self.stop_timeout if timeout is None else timeout)
        while self.in_flight and monotonic() < deadline_s:
            gevent.sleep(min(0.01, max(0.0, deadline_s - monotonic())))
        for connection in list(self._connections):
            if connection.exchange is not None and connection.exchange.greenlet is not None:
                gevent.kill(connection.exchange.greenlet)
        gevent.sleep(0)
        for connection in list(self._connections):
            connection.close()
        self.deadlines.stop()
        self.greenlets.close()
        lifecycle.remove_teller(self._origin)
        if self._second is not None:
            self._second.stop()
            self._second.close()
            self._second = None
            self._serving.stop()
            self._serving.close()
            self._serving = None
            self._at_once.stop()
            self._at_once.close()

    # -- for the accept loop

    def do_handle(self, sock: _socket.socket, address: Any) -> None:
        """Take a new connection."""
        self._connections.add(
            Connection(self, sock, address) if self.ssl_args is None else TlsRelay(self, sock, address)
        )
        self.opened()

    def take_over(self, relay: TlsRelay, sock: _socket.socket, address: Any) -> None:
        """A client has shaken hands: what it sends comes from `sock` now."""
        self._connections.discard(relay)
        self._connections.add(Connection(self, sock, address))

    def handle(self, *_args: Any) -> None:
        """gevent asks that it exists; `do_handle` takes its place."""
        raise NotImplementedError

    # -- for connections and exchanges

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._connections)

    @property
    def requests(self) -> int:
        """Requests answered or given up; one whose body is still coming counts already."""
        return self.request_number - self.in_flight - len(self.waiting)

    def _origin(self) -> lifecycle.Origin | None:
        """For `lifecycle.origin`: the request that the current greenlet answers."""
        current = gevent.getcurrent()
        for connection in self._connections if gevent.get_hub() is self.hub else ():
            if connection.exchange is not None and connection.exchange.greenlet is current:
                environ = connection.exchange.environ
                route = environ.get("tafe.route") or f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
                return lifecycle.Origin(route, environ["tafe.request_id"])
        return None

    def forget(self, connection: Connection | TlsRelay) -> None:
        """A connection was closed."""
        self._connections.discard(connection)
        self.closed()

    def start_waiting(self) -> None:
        """Start the request that has waited longest, on the next loop turn, if there is room."""
        if self.in_flight < self.max_in_flight:
            self.in_flight += 1  # at once, so that no newcomer takes the place
            self.loop.run_callback(self.waiting.popleft().run_waiting)

    def lend_place(self) -> None:
        """A request waits for its client: slow clients, however many, are not to keep the others from being served.

        It gets its place back by itself, whoever has it meanwhile. What it holds is bounded by the connections.
        """
        self.max_in_flight += 1
        if self.waiting:
            self.start_waiting()

    def serve_by(self, serve: Callable[[], None] | None) -> None:
        """Have `serve` called, each turn, in place of `serve_readable`; None: no more."""
        if self._serving is not None:
            self._serving.callback = serve or self.serve_readable

    def serve_readable(self) -> None:
        """In the order in which the bytes arrived: the list has the last ones first."""
        readable = self.readable
        if not readable:
            return
        while readable:
            connection = readable.pop()
            try:
                connection.on_readable()
            except Exception:  # noqa: BLE001 - a fault of ours; bytes that are left unread would be announced for ever
                self.hub.handle_error(connection, *sys.exc_info())
                connection.close()
        if self.loop._callbacks:  # noqa: SLF001 - what the requests queued must not wait until the poll wakes
            self._at_once.start(_nothing)

    def _name_of(self, method: str, path: str) -> str:
        if self._observer is None:
            return ""
        try:
            return self._observer.name(method, path)
        except Exception:  # noqa: BLE001 - whatever it raised, requests go on without it
            self.drop_observer()
            return ""

    def drop_observer(self) -> None:
        """The observer raised: it is told no more."""
        self._observer = self.tell_begin = self.tell_end = None
        _log.exception("the observer failed and is switched off")

    def report(self, exchange: Exchange, error: BaseException) -> None:
        """Tell the operator what went wrong in an application: by logging or, where none was set up, as gevent does.

        gevent's way, `Hub.handle_error`, prints to stderr; it is also where pywsgi's users listen for errors.
        """
        if _log.hasHandlers():
            log_exception(_log, error, "%s: %s", exchange, type(error).__name__)
        elif not isinstance(error, SystemExit | KeyboardInterrupt):  # those end a request, not the server
            from gevent.pywsgi import SecureEnviron  # an environ that shows no value

            self.hub.handle_error(SecureEnviron(exchange.environ), type(error), error, error.__traceback__)
        else:
            self.hub.print_exception(exchange, type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self.hub.handle_system_error(
                type(error), error
            )  # somebody pressed Ctrl-C; else it is the application's own

    def drop_log(self) -> None:
        """The access log raised: nothing is written to it any more."""
        self.log = self.answer_log = None
        _log.exception("the access log failed and is switched off")

    def _renew_own_lines(self) -> None:
        self.own_lines = response.own_lines(time.time())

    def _base_environ(self, extra: dict[str, Any] | None) -> dict[str, Any]:
        environ: dict[str, Any] = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "SERVER_SOFTWARE": "tafe",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http" if self.ssl_args is None else "https",
            "wsgi.errors": self.error_log,
            "wsgi.multithread": True,  # requests interleave wherever one waits
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.input": EMPTY,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }
        environ.update(extra or {})
        return environ


class _LoopTimer:
    """A one-shot timer of gevent's loop, as `Deadlines` wants it."""

    def __init__(self, server: WSGIServer) -> None:
        self._server = server
        self._timer: Any = None

    def start(self, delay_s: float) -> None:
        self.stop()
        self._timer = self._server.loop.timer(delay_s)
        self._timer.start(self._server.deadlines.run)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None


def _no_application(environ: dict[str, Any], start_response: Any) -> list[bytes]:  # noqa: ARG001
    raise UsageError("no application was given", try_="tafe.WSGIServer(address, application)")


def _nothing() -> None:
    """What a timer calls that is there to end a poll."""

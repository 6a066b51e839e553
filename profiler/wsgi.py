"""A WSGI middleware: the profiler for `gunicorn -k gevent`, `gevent.pywsgi` and any other server on gevent.

    app = profiler.wsgi.Middleware(app, directory="profile/")

A request is a span from the call of the application to the `close` of what it returned, so a streamed response counts
to its end. It is an error when the application raises, or answers 5xx.
The session is installed by the first request of a process: after the fork, in the hub's thread, whether the server
loaded the application before it forked (`--preload`) or after. A session that is open already is used as it is.
What is called outside gevent's greenlets (a test client, a threaded server) is passed through, as is a request that
the server, or another middleware, has begun a span for.

PEP 3333 is kept: `start_response` goes through with its `exc_info` and returns the server's own `write`; blocks go
through one by one as they are made; the application's `close` is called once, whatever the server does; a body keeps
its length, and a `wsgi.file_wrapper` stays the object that the server looks for.

After a stall a request is queued from when the kernel had its last bytes, if the server shows its socket (gunicorn and
pywsgi do) and that is TCP: known in steps of the kernel's clock, the later end of which counts.
Limits: else it is queued from when the loop knew of it: when its poll returned. What the server did before it called
the application is part of the span as far as it was in the same slice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from typing import Any

from gevent.hub import Hub
from greenlet import getcurrent

from profiler.arrivals import last_s
from profiler.errors import ProfilerError
from profiler.model import Span, Turn
from profiler.options import ANY_ROUTE, check
from profiler.routes import Routes, route_of
from profiler.session import Session, current, install

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

SPAN = "profiler.span"
"""The key of the request's span in `environ`; its `route` may be re-assigned, as by a framework that knows better."""

_ROUTE = re.compile(r"[A-Z]+ /.*", re.DOTALL)  # what a request is called here
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")  # what is safe in a log, and has room for any trace id


class Middleware:
    """A WSGI application around `application`; `profiler.install` says what the options mean.

    `directory` is where each worker's file goes. `route` names the route of a request from its environ; by default the
    method and path, with numbers, UUIDs and long tokens replaced by `{}`. The options are for the session that the
    middleware installs: where one is open already they have no effect.
    What the profiler cannot do (write the directory, run on libuv) is said once in `wsgi.errors`, and stops no request.
    Raises ProfilerError for an option that cannot be meant, such as an objective of what is no route; with `route` any
    name is one.
    """

    def __init__(
        self,
        application: Application,
        directory: str | os.PathLike[str] | None = None,
        *,
        slow_slice_ms: float = 10.0,  # as in profiler.install
        objectives: Mapping[str, float] | None = None,
        worker: str | int | None = None,
        route: Callable[[Environ], str] | None = None,
    ) -> None:
        called: list[tuple[str, Any]] = [("the application", application), *([("route", route)] if route else [])]
        for name, given in called:
            if not callable(given):
                raise ProfilerError(
                    f"{name} is {given!r}, and cannot be called", "give a function, or an object like one"
                )
        check(directory, slow_slice_ms, objectives)
        if route is None:
            _check_routes(objectives or {})
        self.application = application
        self._options: dict[str, Any] = {
            "directory": directory,
            "slow_slice_ms": slow_slice_ms,
            "objectives": objectives,
            "worker": worker,
        }
        self._routes = Routes()
        self._named = route
        self._tried_in = 0  # the process that installed a session, or tried to
        self._number = count(1)
        self._ended_in_s = 0.0  # the slice in which a request ended last

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        session = current()
        if session is None or getcurrent().parent is not session.hub:
            session = self._session(session, environ)
        if session is None:
            return self.application(environ, start_response)
        slice_s, _, around = session.peek()
        if around is not None:
            return self.application(environ, start_response)
        # What follows another request in one slice may have come while that ran: from when it was ready is not known.
        ready_ns = 0 if slice_s == self._ended_in_s else session.turn.ready_ns
        if ready_ns and session.turn.since_ns:
            ready_ns = _came_ns(environ, session.turn)
        span = session.begin(self._route(environ), self._request_id(environ), ready_ns)
        environ[SPAN] = span
        request = _Request(self, session, span)

        def started(status: str, headers: Any, exc_info: Any = None) -> Any:
            request.failed = status.startswith("5")
            return start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)

        try:
            body = self.application(environ, started)
        except BaseException:
            request.failed = True
            request.close()
            raise
        return _followed(body, environ.get("wsgi.file_wrapper"), request)

    def ended(self, session: Session, span: Span, *, failed: bool) -> None:
        """End a request's span."""
        session.end(span, failed)
        self._ended_in_s = session.peek()[0]

    def _session(self, session: Session | None, environ: Environ) -> Session | None:
        """The session that this call is for; None if it is for none."""
        hub = _hub_above()
        if hub is None:
            return None
        if session is None and self._tried_in != os.getpid():
            self._tried_in = os.getpid()
            try:
                session = install(**self._options)
            except ProfilerError as error:
                environ["wsgi.errors"].write(f"profiler: not profiling: {error}\n")
        return session if session is not None and session.hub is hub else None

    def _route(self, environ: Environ) -> str:
        if self._named is not None:
            try:
                return self._named(environ)
            except Exception as error:  # noqa: BLE001 - a request is more than its name
                self._named = None
                environ["wsgi.errors"].write(f"profiler: route= raised, and is not asked any more: {error!r}\n")
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        if mounted_at := environ.get("SCRIPT_NAME"):
            path = mounted_at + path
        try:
            return self._routes.known[method][path]
        except KeyError:
            return self._routes.remember(method, path)

    def _request_id(self, environ: Environ) -> str:
        given = environ.get("HTTP_X_REQUEST_ID")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return str(given)
        return f"{os.getpid()}-{next(self._number)}"


def _check_routes(routes: Iterable[str]) -> None:
    """Raise ProfilerError for what no request is called unless somebody else names it."""
    for route in routes:
        if route == ANY_ROUTE:
            continue
        if not _ROUTE.fullmatch(route):
            raise ProfilerError(
                f"{route!r} is no route of an objective",
                f"give METHOD /PATH as the report shows it, or {ANY_ROUTE!r} for any other route",
            )
        called = route_of(*route.split(" ", 1))
        if called != route:
            raise ProfilerError(f"no request has the route {route!r}", f"reports call it {called!r}")


class _Request:
    """One request, until its body is closed."""

    __slots__ = ("_ended", "_middleware", "_session", "_span", "closes", "failed")

    def __init__(self, middleware: Middleware, session: Session, span: Span) -> None:
        self._middleware = middleware
        self._session = session
        self._span = span
        self._ended = False
        self.failed = False
        self.closes: Callable[[], object] | None = None  # what the application's body has for it

    def close(self) -> None:
        if self._ended:
            return
        self._ended = True
        try:
            if self.closes is not None:
                self.closes()
        except BaseException:
            self.failed = True
            raise
        finally:
            self._middleware.ended(self._session, self._span, failed=self.failed)


class _Body:
    """What the application returned, followed to its `close`."""

    def __init__(self, body: Iterable[bytes], request: _Request) -> None:
        self._body = body
        self._request = request
        self.close = request.close

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._body
        except GeneratorExit:  # the server had enough
            raise
        except BaseException:
            self._request.failed = True
            raise


class _SizedBody(_Body):
    """A server may make Content-Length of a body of one block."""

    def __len__(self) -> int:
        return len(self._body)  # type: ignore[arg-type]


def _followed(body: Iterable[bytes], file_wrapper: object, request: _Request) -> Iterable[bytes]:
    request.closes = getattr(body, "close", None)
    if isinstance(file_wrapper, type) and isinstance(body, file_wrapper):
        try:
            body.close = request.close  # type: ignore[attr-defined]
        except AttributeError:  # it has slots: the server will read it like any other body
            pass
        else:
            return body
    return _SizedBody(body, request) if hasattr(body, "__len__") else _Body(body, request)


def _came_ns(environ: Environ, turn: Turn) -> int:
    """When a request came that a stall may have kept in the kernel's queue; when the poll returned, if unknown."""
    sock = environ.get("gunicorn.socket")
    if sock is None:  # pywsgi's input reads from a file on it
        sock = getattr(getattr(getattr(environ.get("wsgi.input"), "rfile", None), "raw", None), "_sock", None)
    sock = getattr(sock, "_sock", None)  # gevent's has the native one
    came_ns = int(last_s(sock) * 1e9) if sock is not None else 0
    return min(max(came_ns, turn.since_ns), turn.ready_ns) if came_ns else turn.ready_ns


def _hub_above() -> Any:
    """The hub that runs the current greenlet; None outside gevent's greenlets."""
    above = getcurrent().parent
    while above is not None and not isinstance(above, Hub):
        above = above.parent
    return above

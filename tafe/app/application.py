"""The application object: routes, hooks, and one WSGI call.

A request goes: find the route, name it to the profiler, `before` hooks, bind the parameters, call the handler, make
an answer of what it returned or raised, `after` hooks, send. The common case, a dict without hooks, skips what it does
not need. Runs on any WSGI server; gevent is imported only where a route has a timeout, a hook a deadline, or work is
deferred under a TAFE worker.
BaseException (GreenletExit, SystemExit, KeyboardInterrupt) goes through to the server, except a `gevent.Timeout` that
the application let escape: that is a mistake of the handler's and becomes a logged 500.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from tafe.app import routing
from tafe.app.binding import check_hook, compile_call, name_of, where
from tafe.app.failures import Failures
from tafe.app.hooks import START_DEADLINE_S, STOP_DEADLINE_S, DeferredWork, WorkerHooks
from tafe.app.jsontext import encode
from tafe.app.request import Request
from tafe.app.response import JSON_HEADER, LENGTH_HEADERS, NO_BODY, Response
from tafe.app.routing import Route, RouteInfo
from tafe.app.streaming import Chunks, Sending, prepare
from tafe.errors import UsageError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from tafe.app.testing import TestClient

H = TypeVar("H", bound=Callable[..., Any])
E = TypeVar("E", bound=BaseException)

# nginx's client_max_body_size has the same default; a JSON body of that size takes some 10 ms of the hub to parse.
MAX_BODY_BYTES = 1024 * 1024

_SMALL = len(LENGTH_HEADERS)
_NO_PARAMS: Mapping[str, Any] = MappingProxyType({})  # shared by requests, so nobody may write to it


class App:
    """A WSGI application made of handlers.

    `max_body_bytes`: the largest body that `body`, `request.body()` and `request.json()` read; beyond it 413.
    """

    def __init__(self, *, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        if type(max_body_bytes) is not int or max_body_bytes < 1:
            raise UsageError(f"max_body_bytes={max_body_bytes!r} is not a size", allowed="1 or more, in bytes")
        self._max_body_bytes = max_body_bytes
        self._table = routing.Table()
        self._static = self._table.static
        self._before: list[Callable[[Request], Any]] = []
        self._after: list[Callable[[Request, Response], Any]] = []
        self._failures = Failures()
        self._worker_hooks = WorkerHooks()
        self._deferred = DeferredWork()

    def __repr__(self) -> str:
        return f"<App {len(self.routes())} routes>"

    # Registration

    def route(self, template: str, *, methods: Iterable[str], timeout_s: float | None = None) -> Callable[[H], H]:
        """Serve a path with the decorated function.

        `template`: as in `/users/{id:int}`; types int, float, uuid, str (the default) and path. `timeout_s`: seconds
        that the handler and the making of a streamed answer may take together, then 504; None: no limit.
        `UsageError` for what cannot be served.
        """

        def register(fn: H) -> H:
            set_by = f"handler {name_of(fn)} ({where(fn)})"
            if timeout_s is not None:
                _check_seconds("timeout_s", timeout_s, set_by)
            checked = routing.check_methods(methods, set_by)
            segments = routing.parse(template, set_by)
            call = compile_call(fn, segments, set_by, timeout_s)
            self._table.add(
                checked,
                segments,
                [Route(m, template, routing.label_of(m, segments), name_of(fn), where(fn), call) for m in checked],
            )
            return fn

        return register

    def get(self, template: str, *, timeout_s: float | None = None) -> Callable[[H], H]:
        """Serve GET, and HEAD with it."""
        return self.route(template, methods=("GET",), timeout_s=timeout_s)

    def post(self, template: str, *, timeout_s: float | None = None) -> Callable[[H], H]:
        """Serve POST."""
        return self.route(template, methods=("POST",), timeout_s=timeout_s)

    def put(self, template: str, *, timeout_s: float | None = None) -> Callable[[H], H]:
        """Serve PUT."""
        return self.route(template, methods=("PUT",), timeout_s=timeout_s)

    def patch(self, template: str, *, timeout_s: float | None = None) -> Callable[[H], H]:
        """Serve PATCH."""
        return self.route(template, methods=("PATCH",), timeout_s=timeout_s)

    def delete(self, template: str, *, timeout_s: float | None = None) -> Callable[[H], H]:
        """Serve DELETE."""
        return self.route(template, methods=("DELETE",), timeout_s=timeout_s)

    def before(self, fn: H) -> H:
        """Call `fn(request)` before every handler, also where there is none; an answer other than None is final."""
        check_hook(fn, 1, "a before hook takes the request")
        self._before.append(fn)
        return fn

    def after(self, fn: H) -> H:
        """Call `fn(request, response)` with every answer, errors too; an answer other than None replaces it."""
        check_hook(fn, 2, "an after hook takes the request and the response")
        self._after.append(fn)
        return fn

    def error(self, kind: type[E]) -> Callable[[Callable[[E, Request], Any]], Callable[[E, Request], Any]]:
        """Answer exceptions of a type with `fn(exc, request)`, which returns what a handler may return."""

        def register(fn: Callable[[E, Request], Any]) -> Callable[[E, Request], Any]:
            check_hook(fn, 2, "an error handler takes the exception and the request")
            self._failures.register(kind, fn)
            return fn

        return register

    @overload
    def on_start(self, fn: H) -> H: ...
    @overload
    def on_start(self, *, deadline_s: float = ...) -> Callable[[H], H]: ...
    def on_start(self, fn: H | None = None, *, deadline_s: float = START_DEADLINE_S) -> H | Callable[[H], H]:
        """Call `fn()` in each worker before it is ready; if it raises or outlives `deadline_s`, the start fails."""
        return _worker_hook(fn, self._worker_hooks.add_start, deadline_s)

    @overload
    def on_stop(self, fn: H) -> H: ...
    @overload
    def on_stop(self, *, deadline_s: float = ...) -> Callable[[H], H]: ...
    def on_stop(self, fn: H | None = None, *, deadline_s: float = STOP_DEADLINE_S) -> H | Callable[[H], H]:
        """Call `fn()` in each worker when the last request is answered; the last registered goes first."""
        return _worker_hook(fn, self._worker_hooks.add_stop, deadline_s)

    # For the worker and tools

    def worker_start(self) -> None:
        """Run the start hooks; raises what one of them raised, or `TimeoutError` naming it.

        Called again after a failure, it goes on with the hook that failed.
        """
        self._worker_hooks.run_start()

    def worker_stop(self, deadline_s: float = STOP_DEADLINE_S) -> None:
        """Wait for deferred work, run the stop hooks, end the threads of `tafe.offload`; failures are logged.

        `deadline_s`: seconds for the first two together. Deferred work has what the stop hooks do not need by their
        own deadlines, and at least half; a job never has more than 30 s.
        """
        end_s = time.monotonic() + deadline_s
        self._deferred.join(deadline_s - min(self._worker_hooks.stop_deadline_s, deadline_s / 2))
        self._worker_hooks.run_stop(end_s)
        offloading = sys.modules.get("tafe.offloading")  # absent if the application has no use for it
        if offloading is not None:
            offloading.offload.close()

    def routes(self) -> list[RouteInfo]:
        """Every handler with its methods, template and `file:line`, in order of registration."""
        return self._table.listing()

    def test_client(self) -> TestClient:
        """A client that calls this application without a server."""
        from tafe.app.testing import TestClient

        return TestClient(self)

    # One request

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        method = environ["REQUEST_METHOD"]
        params: Mapping[str, Any]
        path = environ.get("PATH_INFO", "")
        methods = self._static.get(path)
        if methods is not None and method in methods:
            route, params = methods[method], _NO_PARAMS
        else:
            route, params = self._table.find(method, path)
        request = Request(environ, route, params, self._max_body_bytes)
        span = environ.get("tafe.span")
        if span is not None:
            span.route = route.label
        else:
            environ["tafe.route"] = route.label  # for the log of slow queries
        try:
            answer = self._answer(request) if self._before else route.call(request)
            if type(answer) is dict and not self._after and method != "HEAD":
                body, response = encode(answer), None
            else:
                response = prepare(answer, request)
        except BaseException as exc:  # noqa: BLE001 - `answer` raises again what is the server's
            response = self._failures.answer(exc, request)
        if response is None:
            size = len(body)
            length = LENGTH_HEADERS[size] if size < _SMALL else ("Content-Length", str(size))
            start_response("200 OK", [JSON_HEADER, length])
            return [body] if request.deferred is None else Sending([body], request, self._deferred)
        if self._after:
            response = self._run_after(request, response)
        return self._send(request, response, start_response)

    def _answer(self, request: Request) -> Any:
        for hook in self._before:
            answer = hook(request)
            if answer is not None:
                return answer
        return request.route.call(request)

    def _run_after(self, request: Request, response: Response) -> Response:
        # A replaced stream is not closed here: the replacement may be reading from it.
        for hook in self._after:
            try:
                replacement = hook(request, response)
                if replacement is not None:
                    response = prepare(replacement, request)
            except BaseException as exc:  # noqa: BLE001 - as above
                response.close()
                response = self._failures.answer(exc, request)
        return response

    def _send(self, request: Request, response: Response, start_response: StartResponse) -> list[bytes] | Sending:
        try:
            start_response(response.status_line, response.wsgi_headers())
        except BaseException:
            response.close()
            raise
        stream = response.stream
        if request.method == "HEAD" or response.status in NO_BODY:
            response.close()
            parts: list[bytes] = []
        elif stream is None:
            parts = [response.body]
        else:
            assert isinstance(stream, Chunks)  # `prepare` saw to it
            return Sending(stream, request, self._deferred)
        if request.deferred is None:
            return parts
        return Sending(parts, request, self._deferred)


def _worker_hook(
    fn: H | None, add: Callable[[Callable[[], object], float], None], deadline_s: float
) -> H | Callable[[H], H]:
    """`@app.on_start` and `@app.on_start(deadline_s=...)` alike."""

    def register(fn: H) -> H:
        check_hook(fn, 0, "a worker's hook takes nothing")
        _check_seconds("deadline_s", deadline_s, f"{name_of(fn)} ({where(fn)})")
        add(fn, deadline_s)
        return fn

    return register if fn is None else register(fn)


def _check_seconds(name: str, value: float, set_by: str) -> None:
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise UsageError(f"{name}={value!r} is not a time", set_by=set_by, allowed="more than 0, in seconds")

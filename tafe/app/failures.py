"""From an exception to an answer, and to the log.

The most specific handler wins, the application's (`app.error`) before ours: `HTTPError` says its own answer,
`Unavailable` is 503 with Retry-After, `RequestTimeout`, `OffloadTimeout` and `GatherTimeout` are 504, everything else
is 500, any other `TimeoutError` too: whose time was up is for the handler to say. A client sees only what was written
for it; a traceback goes to the log `tafe.app` with the route and the request's id, never with the query string.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from tafe.app.binding import name_of, where
from tafe.app.deadline import is_gevent_timeout
from tafe.app.logs import report
from tafe.app.request import Request
from tafe.app.response import Response
from tafe.app.streaming import prepare
from tafe.errors import GatherTimeout, HTTPError, OffloadTimeout, RequestTimeout, Unavailable, UsageError

Handler = Callable[[Any, Request], Any]


class Failures:
    """The handlers of exceptions, by type."""

    def __init__(self) -> None:
        self._ours: dict[type[BaseException], Handler] = {
            HTTPError: _http_error,
            Unavailable: _unavailable,
            RequestTimeout: _timeout,
            OffloadTimeout: _timeout,
            GatherTimeout: _timeout,
            Exception: _unhandled,
        }
        self._theirs: dict[type[BaseException], Handler] = {}

    def register(self, kind: object, fn: Handler) -> None:
        """Have `fn(exc, request)` answer exceptions of a type."""
        set_by = f"{name_of(fn)} ({where(fn)})"
        if not (isinstance(kind, type) and issubclass(kind, Exception | RequestTimeout)):
            raise UsageError(
                f"{kind!r} cannot be answered", set_by=set_by, allowed="Exception, RequestTimeout or a subclass"
            )
        known = self._theirs.get(kind)
        if known is not None:
            raise UsageError(
                f"{kind.__name__} is answered already, by {name_of(known)} ({where(known)})", set_by=set_by
            )
        self._theirs[kind] = fn

    def answer(self, exc: BaseException, request: Request) -> Response:
        """The answer to an exception; raises only what is the server's (GreenletExit, a lost client ...)."""
        if exc is request.input_error or not (isinstance(exc, Exception | RequestTimeout) or is_gevent_timeout(exc)):
            raise exc
        for kind in type(exc).__mro__:
            handler = self._theirs.get(kind) or self._ours.get(kind)
            if handler is not None:
                break
        else:  # a gevent.Timeout of the application's own, which is no Exception
            handler = _unhandled
        try:
            return prepare(handler(exc, request), request)
        except Exception as second:  # noqa: BLE001 - a mistake in an error handler gets an answer too
            return _unhandled(second, request)


def error_response(
    request: Request,
    status: int,
    code: str,
    message: str,
    *,
    field: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The body that every error has, as documented for clients."""
    error: dict[str, Any] = {"status": status, "code": code, "message": message}
    if field is not None:
        error["field"] = field
    error["request_id"] = request.request_id
    return Response({"error": error}, status, headers)


def _http_error(exc: HTTPError, request: Request) -> Response:
    return error_response(request, exc.status, exc.code, exc.message, field=exc.field, headers=exc.headers)


def _unavailable(exc: Unavailable, request: Request) -> Response:
    return error_response(request, 503, exc.code, exc.message, headers={"Retry-After": str(exc.retry_after_s)})


def _timeout(exc: RequestTimeout | OffloadTimeout | GatherTimeout, request: Request) -> Response:
    report(logging.WARNING, exc, request, "timed out in")
    return error_response(request, 504, "timeout", "the request took too long")


def _unhandled(exc: BaseException, request: Request) -> Response:
    report(logging.ERROR, exc, request, f"{type(exc).__name__} in")
    return error_response(request, 500, "internal_error", "internal error")

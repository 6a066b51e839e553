"""Liveness and readiness, answered in front of the application: PREFIXlive and PREFIXready.

Alive means that the hub turns: answering is the proof. Ready means that the application has started and that every
resource it registered can be used; 503 names what is lacking. Answers are never cached and carry nothing secret, yet
they are for balancers inside: conf/nginx.conf and conf/haproxy.cfg keep them from the outside.
Cost for every other request: a call and one look-up of the path, whose hash is known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

WSGIApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


HEALTH_ROUTE = "(health)"  # in the profiler's report: balancers ask every second, under two names or more


def with_health(application: WSGIApplication, prefix: str, lacking: Callable[[], list[str]]) -> WSGIApplication:
    """`application` with the two answers under `prefix`; itself if `prefix` is empty. `lacking`: see readiness.py."""
    if not prefix:
        return application

    live, ready = prefix + "live", prefix + "ready"
    ours = frozenset((live, ready))

    def front(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path not in ours:
            return application(environ, start_response)
        span = environ.get("tafe.span")
        if span is not None:
            span.route = HEALTH_ROUTE
        if path == live:
            return _answer(environ, start_response, "200 OK", {"live": True})
        missing = lacking()
        if missing:
            shown = {"ready": False, "reasons": missing}
            return _answer(environ, start_response, "503 Service Unavailable", shown)
        return _answer(environ, start_response, "200 OK", {"ready": True})

    return front


def unavailable(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The application before its start hooks have run: 503 to everything."""
    error = {
        "status": 503,
        "code": "unavailable",
        "message": "the application has not started yet",
        "request_id": environ.get("tafe.request_id", ""),
    }
    return _answer(environ, start_response, "503 Service Unavailable", {"error": error}, ("Retry-After", "1"))


def _answer(
    environ: dict[str, Any],
    start_response: Callable[..., Any],
    status: str,
    shown: dict[str, Any],
    *more: tuple[str, str],
) -> list[bytes]:
    if environ["REQUEST_METHOD"] not in {"GET", "HEAD"} and status == "200 OK":
        status, shown, more = "405 Method Not Allowed", {"allowed": "GET, HEAD"}, (("Allow", "GET, HEAD"),)
    body = json.dumps(shown).encode()
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        *more,
    ]
    start_response(status, headers)
    return [body]

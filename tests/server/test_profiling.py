"""What the profiler is told of requests."""

from __future__ import annotations

from typing import Any

import profiler
from tafe.profiling import SpanObserver


def test_a_request_is_named_by_its_method_and_path_the_first_time_and_later() -> None:
    session = profiler.install()
    try:
        observer = SpanObserver(session)
        for request_id in ("first", "later"):
            environ: dict[str, Any] = {
                "REQUEST_METHOD": "GET",
                "PATH_INFO": "/users/17",
                "tafe.request_id": request_id,
            }
            span = observer.begin(environ)
            assert (span.route, span.request_id) == ("GET /users/{}", request_id)
            assert environ["tafe.span"] is span
            observer.end(span)
    finally:
        session.close()

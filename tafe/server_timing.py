"""Server-Timing (W3C): where a request's time went until its answer began, told to those who asked for it.

    Server-Timing: run;dur=0.412, wait;dur=2.105, queue;dur=0.038

In milliseconds: code of this request had the hub; it waited; it was ready, but somebody else had the hub. What a stream
takes after its head is not in it. For trusted peers only, since times tell strangers about others' requests; a proxy
that passes answers on to browsers should remove the field. An application that is not wrapped pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import Any

_WSGIApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def with_timing(
    application: _WSGIApplication, trusted_peers: Container[str], so_far: Callable[[Any], tuple[float, float, float]]
) -> _WSGIApplication:
    """`application`, its answers with the field. `so_far(span)`: running, waiting and queued, in seconds."""

    def timed(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        span = environ.get("tafe.span")
        if span is None or environ["REMOTE_ADDR"] not in trusted_peers:
            return application(environ, start_response)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if type(headers) is list:  # else the server says what is wrong with them
                running_s, waiting_s, queued_s = so_far(span)
                spent = f"run;dur={running_s * 1e3:.3f}, wait;dur={waiting_s * 1e3:.3f}, queue;dur={queued_s * 1e3:.3f}"
                headers = [*headers, ("Server-Timing", spent)]
            return start_response(status, headers, exc_info)

        return application(environ, start)

    return timed

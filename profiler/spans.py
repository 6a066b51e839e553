"""`profiler.span`: a piece of work of a worker without HTTP, as a context manager.

A job, a message, a round of a loop: what is a request for a server. It needs no session at hand, so libraries may use
it too; where nothing is profiled it costs a look.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from profiler.model import Span
from profiler.session import current


@contextmanager
def span(route: str, request_id: str = "") -> Iterator[Span | None]:
    """`with profiler.span("job resize", "job-17"):` the block is a request of this route, in the current greenlet.

    `route` should be one of few, as it is counted by; `request_id` tells one from another among the slowest.
    An exception that leaves the block marks it as an error. A block within a request, or within another span, of the
    same greenlet is part of that one. Yields the span, whose `route` may be re-assigned; None without a session.
    """
    session = current()
    if session is None:
        yield None
        return
    around = session.peek()[2]
    if around is not None:
        yield around
        return
    begun = session.begin(route, request_id)
    failed = True
    try:
        yield begun
        failed = False
    finally:
        session.end(begun, failed)

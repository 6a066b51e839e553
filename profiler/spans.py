"""`profiler.span`: a piece of work of a worker without HTTP, as a context manager.

A job, a message, a round of a loop: what is a request for a server. It needs no session at hand, so libraries may use
it too; where nothing is profiled it costs a look. Libraries also work in threads, of which the session knows nothing:
there a block just runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gevent import get_hub

from profiler.model import Span
from profiler.native import get_ident
from profiler.session import Session, current


@contextmanager
def span(route: str, request_id: str = "") -> Iterator[Span | None]:
    """`with profiler.span("job resize", "job-17"):` the block is a request of this route, in the current greenlet.

    `route` should be one of few, as it is counted by; `request_id` tells one from another among the slowest.
    An exception that leaves the block marks it as an error. A block within a request, or within another span, of the
    same greenlet is part of that one. Yields the span, whose `route` may be re-assigned. Without a session, or in
    another thread than that of its hub (a pool's; one of `threading`, unless patched), the block is no
    request: it yields None.
    """
    session = current()
    if session is None or not _in_hub_of(session):
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


def _in_hub_of(session: Session) -> bool:
    # The thread first: in another one, `get_hub` would make a hub.
    return get_ident() == session.hub.thread_ident and get_hub() is session.hub

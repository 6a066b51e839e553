"""Requests as a server makes them, for tests that have none."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import greenlet
from gevent.event import Event

import profiler


def in_request(session: profiler.Session, work: Callable[[], object], request_id: str = "r") -> profiler.Span:
    """Do `work` as a request in a greenlet that the hub runs; its span, when it has ended."""
    spans: list[profiler.Span] = []
    ended = Event()

    def serve() -> None:
        span = session.begin("GET /", request_id)
        try:
            work()
        finally:
            session.end(span)
            spans.append(span)
            ended.set()

    hub = gevent.get_hub()
    hub.loop.run_callback(greenlet.greenlet(serve, hub).switch)
    assert ended.wait(5)
    return spans[0]

"""What the profiler makes of a request whose answer came from the database while a stall kept the hub."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import gevent
import pytest

import profiler
from tests.profiler.undisturbed import found, undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tafe.db.database import Database

pytestmark = pytest.mark.real

QUERY_S, STALL_S = 0.02, 0.1


@undisturbed
def test_it_is_queued_from_when_the_answer_came(mysql_url: str, connect: Callable[..., Database]) -> None:
    database = connect(mysql_url, min_size=1, max_size=1)
    database.open()
    session = profiler.install()
    spans: list[profiler.Span] = []
    asked_s: list[float] = []

    def request() -> None:
        span = session.begin("GET /", "r")
        asked_s.append(time.perf_counter())
        database.fetch_one("SELECT SLEEP(%s)", (QUERY_S,))
        session.end(span)
        spans.append(span)

    def stall() -> None:
        time.sleep(STALL_S)

    try:
        asking = gevent.spawn(request)
        gevent.sleep(QUERY_S / 10)
        gevent.spawn(stall).join()
        ended_s = time.perf_counter()
        asking.get(timeout=10)
    finally:
        session.close()
    (span,) = spans
    assert span.queued_s <= span.started_s + span.total_s - asked_s[0] - QUERY_S
    found(span.queued_s >= (ended_s - asked_s[0] - QUERY_S) / 2)

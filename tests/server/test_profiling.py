"""What the profiler is told of requests."""

from __future__ import annotations

import profiler
from profiler.model import THIS_TURN
from tafe.profiling import SpanObserver
from tafe.wsgi import READY_THIS_TURN


def test_a_request_is_named_by_its_method_and_path_the_first_time_and_later() -> None:
    session = profiler.install()
    try:
        observer = SpanObserver(session)
        assert [observer.name("GET", "/users/17") for _ in range(2)] == ["GET /users/{}"] * 2
        assert observer.name("POST", "/users/17") == "POST /users/{}"
    finally:
        session.close()


def test_the_server_and_the_profiler_mean_the_same_by_this_turn() -> None:
    assert READY_THIS_TURN == THIS_TURN

"""Server-Timing: the times of this very request, for those who are trusted and asked for it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.process.client import get, get_later

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.services.tafe_server import Running

APP = "tests.process.application:app"
FIELD = re.compile(r"run;dur=(\d+\.\d{3}), wait;dur=(\d+\.\d{3}), queue;dur=(\d+\.\d{3})")

pytestmark = pytest.mark.real


def times_ms(field: str | None) -> tuple[float, float, float]:
    match = FIELD.fullmatch(field or "")
    assert match, field
    return float(match[1]), float(match[2]), float(match[3])


def test_running_waiting_and_queued_are_told_apart(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP, "--workers", "1", "--server-timing")
    run, wait, queue = times_ms(get(running.port, "/sleep/0.2").headers["Server-Timing"])
    assert 199 < wait < 400
    assert run < 100 > queue
    run, wait, queue = times_ms(get(running.port, "/spin/0.2").headers["Server-Timing"])
    assert 199 < run < 400
    assert wait < 100 > queue


def test_a_request_behind_another_was_queued(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP, "--workers", "1", "--server-timing")
    # Those that come while the first runs are ready in the same turn of the loop: one of them has to wait its turn.
    answers = [get_later(running.port, "/spin/0.2") for _ in range(4)]
    found = [times_ms(answer.result(10).headers["Server-Timing"]) for answer in answers]
    assert max(queue for _, _, queue in found) > 190
    assert all(199 < run < 400 and wait < 50 for run, wait, _ in found)


def test_only_what_the_application_answers_has_it(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP, "--workers", "1", "--server-timing")
    assert get(running.port, "/-/live").headers["Server-Timing"] is None  # answered in front of the application
    assert len(get(running.port, "/").headers.get_all("Server-Timing", [])) == 1


def test_strangers_are_told_nothing(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP, "--workers", "1", "--server-timing", "--trusted-proxies", "10.0.0.1")
    assert get(running.port, "/").headers["Server-Timing"] is None


def test_it_is_off_unless_asked_for(tafe_serve: Callable[..., Running]) -> None:
    assert get(tafe_serve(APP, "--workers", "1").port, "/").headers["Server-Timing"] is None


def test_without_the_profiler_it_is_refused_at_the_start(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP, "--server-timing", "--no-profile", wait_ready=False)
    assert running.wait() == 2
    assert "--server-timing: the times are the profiler's, and it is off" in running.log()

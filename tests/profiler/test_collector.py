"""How long the collector ran, and where it was called."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import pytest
from greenlet import greenlet

from profiler.collector import LONG_S, Collector
from profiler.native import sleep

SLICE_S = 7.0  # when the present slice began


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Installed, and nothing else is collected meanwhile."""
    made = Collector(lambda: SLICE_S)
    gc.collect()
    gc.disable()
    made.install()
    yield made
    made.remove()
    gc.enable()


def collect_for_long() -> None:
    """By CPU time, whatever the machine can do."""
    kept: list[list[int]] = []
    took_s = 0.0
    while took_s <= 2 * LONG_S:
        kept += [[number] for number in range(50_000)]
        began_s = time.thread_time()
        gc.collect()
        took_s = time.thread_time() - began_s


def test_a_long_collection_is_timed_and_its_caller_known(collector: Collector) -> None:
    before_s = time.thread_time()
    collect_for_long()
    assert LONG_S < collector.spent_s(SLICE_S) <= time.thread_time() - before_s
    assert collector.where(SLICE_S)[0][0] is collect_for_long.__code__
    assert (collector.spent_s(SLICE_S + 1), collector.where(SLICE_S + 1)) == (0.0, ()), "of another slice"


def test_a_callback_that_had_to_wait_for_the_gil_did_not_collect(collector: Collector) -> None:
    before_s = time.thread_time()
    collector.on_gc("start", {})
    sleep(10 * LONG_S)  # as long as another thread keeps it
    collector.on_gc("stop", {})
    assert collector.spent_s(SLICE_S) <= time.thread_time() - before_s


def test_the_loop_itself_may_call_the_collector(collector: Collector) -> None:
    kept = [[number] for number in range(100_000)]
    while collector.spent_s(SLICE_S) <= LONG_S:
        kept += [[number] for number in range(100_000)]
        greenlet(gc.collect).switch()  # no frame of Python is below it
    assert collector.where(SLICE_S) == ()

"""Calls that a request has a thread of a pool make."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.monkey import get_original
from gevent.threadpool import ThreadPool, ThreadPoolExecutor

import profiler
from tests.profiler.contract import report_on
from tests.profiler.serving import in_request
from tests.profiler.truth.disturbed import Machine, without_a_cpu_s

UNDISTURBED_S = 0.003  # without a CPU: a third of the threshold
ENOUGH = 5  # tries that the machine did not disturb, and nothing was seen: it cannot be the machine


def test_calls_in_a_thread_pool_are_made_as_before_and_known_by_their_thread(
    session: profiler.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ThreadPool(1)
    known: list[Any] = []

    def call(value: int, *, by: int) -> int:
        known.append(session._lineage.caller(get_original("_thread", "get_ident")(), time.perf_counter()))
        return value * by

    def fails() -> None:
        raise KeyError("wanted")

    def work() -> None:
        assert pool.spawn(call, 3, by=2).get() == 6
        assert pool.apply(call, (4,), {"by": 2}) == 8
        assert pool.map(lambda value: call(value, by=1), [5]) == [5]
        with pytest.raises(KeyError):
            pool.apply(fails)

    # In its dictionary: set on the hub and set back, it would be the stream of this test for ever.
    monkeypatch.setitem(vars(gevent.get_hub()), "exception_stream", None)
    try:
        span = in_request(session, work)
        assert known == [span] * 3
        with ThreadPoolExecutor(1) as executor:
            in_request(session, lambda: executor.submit(call, 1, by=1).result())
        assert known[-1] is not None
        assert pool.apply(call, (1,), {"by": 1}) == 1
        assert known[-1] is None, "of no request"
    finally:
        pool.kill()


@pytest.fixture
def machine() -> Iterator[Machine]:
    watching = Machine()
    yield watching
    watching.close()


@pytest.mark.real
def test_a_call_in_a_thread_that_holds_the_gil_is_blamed_on_the_request_it_is_for(
    tmp_path: Path, install: Callable[..., profiler.Session], machine: Machine
) -> None:
    session = install(tmp_path)
    pool = ThreadPool(1)

    def hog() -> int:
        return sum(range(4_000_000))  # some 50 ms in one call of C code

    def traffic() -> None:  # so that the hub wants the GIL meanwhile
        while True:
            gevent.sleep(0.002)

    others = gevent.spawn(traffic)
    found = session._watchdog._settling
    undisturbed = seen = 0
    for _ in range(40):
        before_s = without_a_cpu_s()
        machine.was_away()
        in_request(session, lambda: [gevent.sleep(0.002), pool.apply(hog)])
        undisturbed += not machine.was_away() and without_a_cpu_s() - before_s < UNDISTURBED_S
        gevent.sleep(0.01)  # until the watchdog has looked
        seen = sum(finding.holder != 0 and finding.place.function == "hog" for finding in list(found))
        if seen or undisturbed >= ENOUGH:
            break
    others.kill()
    pool.kill()
    session.close()
    sites = [site for site in report_on(tmp_path)["sites"] if site["cause"] == "gil" and site["function"] == "hog"]
    if not seen and undisturbed < ENOUGH:
        pytest.skip("the machine never let it have a CPU for long enough")
    assert [site["routes"] for site in sites] == [["GET /"]]

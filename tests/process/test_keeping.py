"""`Readiness` opens resources, tries again, and looks after them; with real greenlets, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gevent
import pytest

from tafe.errors import Unavailable
from tafe.readiness import FIRST_RETRY_S, LONGEST_RETRY_S, Readiness

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Resource:
    def __init__(self, name: str, failures: int = 0) -> None:
        self.name = name
        self.ready = False
        self.failures = failures
        self.opened = 0
        self.closed = 0

    def open(self) -> None:
        self.opened += 1
        if self.failures:
            self.failures -= 1
            raise Unavailable(f"{self.name} is down")
        self.ready = True

    def close(self) -> None:
        self.ready = False
        self.closed += 1


@pytest.fixture
def started() -> Iterator[list[Readiness]]:
    running: list[Readiness] = []
    yield running
    for readiness in running:
        readiness.stop()


def _until(condition: object, limit_s: float = 3.0) -> None:
    with gevent.Timeout(limit_s):
        while not condition():  # type: ignore[operator]
            gevent.sleep(0.005)


def test_without_hooks_and_resources_a_worker_is_ready_at_once() -> None:
    readiness = Readiness(None, ())
    assert readiness.tried
    assert readiness.lacking() == []


def test_a_resource_that_fails_is_tried_again_with_growing_delay_and_its_reason_is_known(
    started: list[Readiness],
) -> None:
    pool, cache = _Resource("pool", failures=2), _Resource("cache")
    readiness = Readiness(None, (pool, cache))
    started.append(readiness)
    assert not readiness.tried
    assert readiness.lacking() == ["pool", "cache"]
    readiness.start()
    _until(lambda: readiness.tried)
    assert readiness.lacking() == ["pool"]
    assert readiness.why == "pool: pool is down"
    _until(lambda: not readiness.lacking())
    assert pool.opened == 3
    assert readiness.why == ""
    assert FIRST_RETRY_S < LONGEST_RETRY_S


def test_one_that_hangs_does_not_hold_up_the_others(started: list[Readiness]) -> None:
    slow, quick = _Resource("slow"), _Resource("quick")
    slow.open = lambda: gevent.sleep(60)  # type: ignore[method-assign]
    readiness = Readiness(None, (slow, quick))
    started.append(readiness)
    readiness.start()
    _until(lambda: readiness.lacking() == ["slow"])
    assert not readiness.tried
    _until(lambda: readiness.tried)  # after FIRST_TRY_S
    assert readiness.lacking() == ["slow"]


def test_a_resource_that_is_lost_is_opened_again_and_the_change_is_signalled(started: list[Readiness]) -> None:
    pool = _Resource("pool")
    readiness = Readiness(None, (pool,))
    started.append(readiness)
    readiness.start()
    _until(lambda: not readiness.lacking())
    readiness.changed.clear()
    pool.ready = False
    pool.failures = 1
    assert readiness.lacking() == ["pool"]
    assert readiness.changed.wait(2)
    _until(lambda: pool.opened == 3)
    assert readiness.lacking() == []


def test_an_error_of_any_kind_while_opening_leaves_the_keeper_alive(started: list[Readiness]) -> None:
    pool = _Resource("pool")
    errors = [OSError("odd")]

    def fail_once() -> None:
        if errors:
            raise errors.pop()
        pool.ready = True

    pool.open = fail_once  # type: ignore[method-assign]
    readiness = Readiness(None, (pool,))
    started.append(readiness)
    readiness.start()
    _until(lambda: readiness.why == "pool: odd")
    _until(lambda: not readiness.lacking())


def test_hooks_are_tried_again_while_something_is_unavailable_and_given_up_on_any_other_error(
    started: list[Readiness],
) -> None:
    causes: list[Exception] = [ValueError("broken"), Unavailable("not yet")]

    def hooks() -> None:
        raise causes.pop()

    readiness = Readiness(hooks, ())
    started.append(readiness)
    readiness.start()
    assert readiness.lacking() == ["start hooks"]
    _until(lambda: readiness.tried)
    assert readiness.why == "start hooks: not yet"
    _until(lambda: readiness.failure is not None)
    assert str(readiness.failure) == "broken"
    assert readiness.lacking() == ["start hooks"]


def test_hooks_find_the_resources_open(started: list[Readiness]) -> None:
    pool = _Resource("pool")
    open_at_once = pool.open

    def open_slowly() -> None:
        gevent.sleep(0.02)
        open_at_once()

    pool.open = open_slowly  # type: ignore[method-assign]
    seen: list[bool] = []
    readiness = Readiness(lambda: seen.append(pool.ready), (pool,))
    started.append(readiness)
    readiness.start()
    _until(lambda: not readiness.lacking())
    assert seen == [True]


def test_stopping_closes_every_resource_and_ends_the_keepers() -> None:
    pool, hanging = _Resource("pool"), _Resource("hanging")
    hanging.open = lambda: gevent.sleep(60)  # type: ignore[method-assign]
    readiness = Readiness(None, (pool, hanging))
    readiness.start()
    _until(lambda: pool.ready)
    readiness.stop()
    assert (pool.closed, hanging.closed) == (1, 1)
    assert pool.opened == 1
    gevent.sleep(0.3)  # longer than the keeper's look: it would open the pool again if it still lived
    assert pool.opened == 1

"""What a pool counts, and the metrics made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gevent
import pytest

from tafe import lifecycle
from tafe.db.stats import BOUNDS_S, Tally
from tafe.errors import DatabaseUnavailable, QueryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tafe.db import Database


def figures(database: Database) -> dict[tuple[str, ...], float]:
    """Metrics by name and the values of their labels."""
    found = [(metric.name, *metric.labels.values()) for metric in database.metrics()]
    assert len(found) == len(set(found))
    return {(metric.name, *metric.labels.values()): metric.value for metric in database.metrics()}


def test_statements_are_counted_and_timed_however_they_end(people: Database) -> None:
    before = people.stats
    people.fetch_all("SELECT id FROM people")
    with people.transaction() as tx:  # three: BEGIN and COMMIT are answered too
        tx.fetch_one("SELECT id FROM people")
    with pytest.raises(QueryError):
        people.execute("SELECT nothing")
    after = people.stats
    assert after.queries - before.queries == 5
    assert (after.failed, after.lost, after.timed_out) == (before.failed + 1, 0, 0)
    assert 0 < after.query_s - before.query_s < 1


def test_waits_for_a_connection_are_counted_and_timed(sqlite_url: str, connect: Callable[..., Database]) -> None:
    database = connect(sqlite_url, min_size=1, max_size=1)
    database.open()
    with database.transaction():
        waiting = [gevent.spawn(database.fetch_one, "SELECT 1") for _ in range(2)]
        gevent.sleep(0.05)
        assert (database.stats.waiters, database.stats.waited) == (2, 0)
    gevent.joinall(waiting, raise_error=True)
    stats = database.stats
    assert (stats.acquired, stats.waited) == (3, 2)
    # A timer counts from when the loop last looked at the clock, so it may be early by what was done since.
    assert 0.02 <= stats.longest_wait_s <= stats.wait_s
    assert stats.wait_s >= 0.04
    found = figures(database)
    assert found["tafe_db_pool_wait_seconds_count", "test"] == 3
    assert found["tafe_db_pool_wait_seconds_bucket", "test", "0.00025"] == 1  # whoever found one did not wait
    assert found["tafe_db_pool_wait_seconds_bucket", "test", "+Inf"] == 3
    assert found["tafe_db_pool_wait_seconds_sum", "test"] == stats.wait_s


def test_requests_refused_while_the_database_is_down_are_counted(
    tmp_path: Path, connect: Callable[..., Database]
) -> None:
    database = connect(f"sqlite:///{tmp_path}/missing/a.db")
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            database.fetch_one("SELECT 1")
    assert database.stats.refused == 3
    assert figures(database)["tafe_db_pool_errors_total", "a", "refused"] == 3


def test_a_time_is_counted_in_the_bucket_whose_bound_it_does_not_exceed() -> None:
    tally = Tally()
    for took_s in (0.0, BOUNDS_S[0], BOUNDS_S[0] * 1.01, BOUNDS_S[-1], BOUNDS_S[-1] * 2):
        tally.query(took_s)
    assert tally.queries == [2, 1, *[0] * (len(BOUNDS_S) - 3), 1, 1]
    assert tally.query_s == pytest.approx(sum((BOUNDS_S[0] * 2.01, BOUNDS_S[-1] * 3)))


def test_metrics_show_what_stats_show_under_the_database_s_name(people: Database) -> None:
    found = figures(people)
    stats, name = people.stats, people.name
    for gauge in ("size", "in_use", "idle", "waiters", "max_size"):
        assert found[f"tafe_db_pool_{gauge}", name] == getattr(stats, gauge)
    assert found["tafe_db_connections_created_total", name] == stats.created == 1
    buckets = [value for (metric, *_), value in found.items() if metric == "tafe_db_query_seconds_bucket"]
    assert buckets == sorted(buckets)
    assert buckets[-1] == found["tafe_db_query_seconds_count", name] == stats.queries


def test_all_registered_databases_are_among_the_process_s_metrics_under_names_of_their_own(
    sqlite_url: str, connect: Callable[..., Database]
) -> None:
    class Other:
        name, ready = "other", True

        def open(self) -> None: ...

        def close(self) -> None: ...

    other: Any = Other()
    lifecycle.register(other)  # which counts nothing
    try:
        names = [connect(sqlite_url).name for _ in range(3)]
        assert names == ["test", "test-2", "test-3"]
        shown = {metric.labels["database"] for metric in lifecycle.metrics()}
        assert set(names) <= shown
        assert "other" not in shown
    finally:
        lifecycle.unregister(other)

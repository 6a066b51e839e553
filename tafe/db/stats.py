"""What a pool counts, and how it is shown: as a named tuple, and as metrics by Prometheus' conventions.

A `Tally` is written where things happen, one addition each, and read only when somebody asks. Times are counted in
fixed buckets, so that the figures of many workers can be added up. Labels are names of databases and a few fixed kinds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from tafe.db.policy import Policy
from tafe.lifecycle import Metric

# Upper bounds: a statement by primary key takes a quarter of a millisecond, the default time-outs are one second.
BOUNDS_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Stats(NamedTuple):
    """A pool at one moment; all behind `max_size` counts since the process started."""

    size: int  # connections that exist
    in_use: int
    idle: int
    waiters: int
    max_size: int
    acquired: int  # connections lent to requests
    waited: int  # ... after waiting for one
    wait_s: float  # in total
    longest_wait_s: float
    timeouts: int  # waiters that gave up after acquire_timeout_s
    refused: int  # requests refused at once because the database was down
    created: int  # connections made
    retired: int  # connections closed in good order: too old, or not needed
    discarded: int  # connections thrown away: lost, killed in mid-statement, left dirty
    queries: int  # statements run, BEGIN, COMMIT and ROLLBACK included, however they ended
    query_s: float  # in total, from having a connection to having the answer
    slow: int  # statements that took slow_query_s or longer
    lost: int  # statements whose connection ended
    timed_out: int  # statements that took longer than they were given
    failed: int  # statements that the database refused


class Tally:
    """What a pool has done since the process started; the names are those of `Stats`."""

    __slots__ = (
        "acquired",
        "created",
        "discarded",
        "failed",
        "longest_wait_s",
        "lost",
        "queries",
        "query_s",
        "refused",
        "retired",
        "slow",
        "timed_out",
        "timeouts",
        "wait_s",
        "waits",
    )

    def __init__(self) -> None:
        self.acquired = self.timeouts = self.refused = self.created = self.retired = self.discarded = 0
        self.lost = self.timed_out = self.failed = self.slow = 0
        self.wait_s = self.longest_wait_s = self.query_s = 0.0
        self.waits = [0] * (len(BOUNDS_S) + 1)  # by bucket; of those who had to wait
        self.queries = [0] * (len(BOUNDS_S) + 1)  # by bucket

    def query(self, took_s: float) -> None:
        """A statement ended, somehow."""
        self.queries[bisect_left(BOUNDS_S, took_s)] += 1
        self.query_s += took_s

    def wait(self, took_s: float) -> None:
        """A waiter was served."""
        self.waits[bisect_left(BOUNDS_S, took_s)] += 1
        self.wait_s += took_s
        self.longest_wait_s = max(self.longest_wait_s, took_s)


def look(policy: Policy, tally: Tally) -> Stats:
    """The figures of this moment."""
    return Stats(
        size=policy.size,
        in_use=policy.in_use,
        idle=policy.idle,
        waiters=policy.waiters,
        max_size=policy.limits.max_size,
        acquired=tally.acquired,
        waited=sum(tally.waits),
        wait_s=tally.wait_s,
        longest_wait_s=tally.longest_wait_s,
        timeouts=tally.timeouts,
        refused=tally.refused,
        created=tally.created,
        retired=tally.retired,
        discarded=tally.discarded,
        queries=sum(tally.queries),
        query_s=tally.query_s,
        slow=tally.slow,
        lost=tally.lost,
        timed_out=tally.timed_out,
        failed=tally.failed,
    )


def metrics(database: str, stats: Stats, tally: Tally) -> Iterator[Metric]:
    """All of it, under the label `database`."""
    labels = {"database": database}
    for gauge in ("size", "in_use", "idle", "waiters", "max_size"):
        yield Metric(f"tafe_db_pool_{gauge}", labels, getattr(stats, gauge))
    for counter in ("acquired", "created", "retired", "discarded"):
        yield Metric(f"tafe_db_connections_{counter}_total", labels, getattr(stats, counter))
    yield Metric("tafe_db_slow_queries_total", labels, stats.slow)
    for kind in ("lost", "timed_out", "failed"):
        yield Metric("tafe_db_query_errors_total", {**labels, "kind": kind}, getattr(stats, kind))
    for kind in ("timeouts", "refused"):
        yield Metric("tafe_db_pool_errors_total", {**labels, "kind": kind}, getattr(stats, kind))
    # Whoever did not wait has waited for less than the first bound.
    waits = [tally.acquired - sum(tally.waits) + tally.waits[0], *tally.waits[1:]]
    yield from _histogram("tafe_db_pool_wait_seconds", labels, waits, tally.wait_s)
    yield from _histogram("tafe_db_query_seconds", labels, tally.queries, tally.query_s)


def _histogram(name: str, labels: dict[str, str], counts: list[int], total_s: float) -> Iterator[Metric]:
    running = 0
    for bound, count in zip((*map("{:g}".format, BOUNDS_S), "+Inf"), counts, strict=True):
        running += count
        yield Metric(f"{name}_bucket", {**labels, "le": bound}, running)
    yield Metric(f"{name}_sum", labels, total_s)
    yield Metric(f"{name}_count", labels, running)

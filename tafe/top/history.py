"""From counters that only grow to what happens now: the differences between two answers of the admin process.

Pure: it is given answers and the time, and asks nobody. A worker publishes once a second, and not when it is asked, so
its rates are over the time between two of its publications, which it tells itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

WINDOW_S = 10.0  # of the worst lines: long enough to read one before it is gone


class Worker(NamedTuple):
    """A row. None: not known, or not yet."""

    name: str
    pid: int
    state: str
    requests_per_s: float | None
    p50_s: float | None
    p99_s: float | None
    delay_s: float | None  # of the hub, 99 of 100
    busy: float | None
    in_flight: int
    connections: int | None
    stuck: str = ""  # where, and for how long


class Site(NamedTuple):
    """A line that did not yield lately."""

    site: str
    cause: str
    harm_s: float  # in the window, as what follows
    stalls: float
    victims: float


class Now(NamedTuple):
    """A screen."""

    workers: list[Worker]
    total: Worker
    sites: list[Site]  # the worst first
    window_s: float  # of these, `WINDOW_S` at most
    is_complete: bool  # each worker has published twice


def quantile(bounds: Sequence[float], counts: Sequence[float], share: float) -> float | None:
    """Between the bounds of its bucket in proportion; beyond the last bound that bound. None of nothing."""
    wanted = sum(counts) * share
    if not wanted:
        return None
    low = 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and wanted <= count:
            return low + (bound - low) * wanted / count
        wanted -= count
        low = bound
    return low


class _Change(NamedTuple):
    """What a worker did between two publications."""

    hub_s: float
    busy_s: float
    delay: list[float]
    duration: list[float]


class History:
    """Keeps what the next answer is compared with."""

    def __init__(self) -> None:
        self._published: dict[int, dict[str, Any]] = {}  # by process: the latest publication
        self._beats: dict[
            int, tuple[float, float, float | None]
        ] = {}  # when, requests until then, and a second by then
        self._changes: dict[int, _Change] = {}
        self._sites: deque[tuple[float, dict[tuple[str, str], dict[str, Any]]]] = deque()

    def add(self, told: dict[str, Any], now_s: float) -> Now:
        """The screen after one more answer."""
        pids = {worker["pid"] for worker in told["workers"]}
        for pid in (set(self._published) | set(self._beats)) - pids:
            for kept in (self._published, self._beats, self._changes):
                kept.pop(pid, None)
        bounds = told["bounds_s"]
        workers = [self._row(worker, bounds) for worker in told["workers"]]
        profiled = [worker["pid"] for worker in told["workers"] if "hub_s" in worker]
        rates_known = all(worker.requests_per_s is not None for worker in workers)
        complete = bool(workers) and rates_known and all(pid in self._changes for pid in profiled)
        sites = self._worst(told["sites"], now_s)
        return Now(workers, self._total(workers, bounds), sites, now_s - self._sites[0][0], complete)

    def _row(self, worker: dict[str, Any], bounds: Sequence[float]) -> Worker:
        pid = worker["pid"]
        before = self._published.get(pid)
        if "hub_s" in worker and (before is None or worker["hub_s"] > before["hub_s"]):
            self._published[pid] = worker
            if before is not None:
                self._changes[pid] = _change(before, worker)
        stuck = worker.get("stuck")
        change = self._changes.get(pid)
        return Worker(
            str(worker["worker"]),
            pid,
            str(worker["state"]),
            self._rate(worker),
            quantile(bounds, change.duration, 0.5) if change else None,
            quantile(bounds, change.duration, 0.99) if change else None,
            quantile(bounds, change.delay, 0.99) if change else None,
            change.busy_s / change.hub_s if change else None,
            worker["in_flight"],
            worker.get("connections"),
            f"stuck for {stuck['for_s']:.1f} s at {stuck['line']} ({stuck['route']})" if stuck else "",
        )

    def _rate(self, worker: dict[str, Any]) -> float | None:
        """Of requests, between two heartbeats that are some time apart: they count what has ended."""
        before = self._beats.get(worker["pid"])
        beat_s, requests = float(worker["beat_s"]), float(worker["requests"])
        if before is None:
            self._beats[worker["pid"]] = (beat_s, requests, None)
            return None
        then_s, counted, rate = before
        if beat_s - then_s < _LEAST_S:
            return rate
        rate = (requests - counted) / (beat_s - then_s)
        self._beats[worker["pid"]] = (beat_s, requests, rate)
        return rate

    def _total(self, workers: list[Worker], bounds: Sequence[float]) -> Worker:
        changes = list(self._changes.values())
        duration = [sum(column) for column in zip(*(change.duration for change in changes), strict=False)]
        delay = [sum(column) for column in zip(*(change.delay for change in changes), strict=False)]
        rates = [worker.requests_per_s for worker in workers if worker.requests_per_s is not None]
        connections = [worker.connections for worker in workers if worker.connections is not None]
        return Worker(
            "all",
            0,
            "",
            sum(rates) if rates else None,
            quantile(bounds, duration, 0.5),
            quantile(bounds, duration, 0.99),
            quantile(bounds, delay, 0.99),
            sum(change.busy_s / change.hub_s for change in changes) / len(changes) if changes else None,
            sum(worker.in_flight for worker in workers),
            sum(connections) if connections else None,
        )

    def _worst(self, sites: list[dict[str, Any]], now_s: float) -> list[Site]:
        present = {(one["site"], one["cause"]): one for one in sites}
        self._sites.append((now_s, present))
        while len(self._sites) > 1 and now_s - self._sites[1][0] >= WINDOW_S:
            self._sites.popleft()
        before = self._sites[0][1]
        found = []
        for key, one in present.items():
            then = before.get(key, {"harm_s": 0.0, "stalls": 0, "victims": 0, "stall_s": 0.0})
            harm_s, stalls, victims = (one[name] - then[name] for name in ("harm_s", "stalls", "victims"))
            if stalls > 0:
                found.append((harm_s, one["stall_s"] - then["stall_s"], Site(*key, harm_s, stalls, victims)))
        return [site for _, _, site in sorted(found, key=lambda one: (-one[0], -one[1], one[2]))]


_LEAST_S = 0.5  # heartbeats are a tenth of a second apart


def _change(before: dict[str, Any], after: dict[str, Any]) -> _Change:
    durations = before["duration"] or [0] * len(after["duration"])  # no request was counted yet
    return _Change(
        after["hub_s"] - before["hub_s"],
        after["busy_s"] - before["busy_s"],
        [new - old for old, new in zip(before["delay"], after["delay"], strict=True)],
        [new - old for old, new in zip(durations, after["duration"], strict=True)],
    )

"""The workers' metrics as Prometheus reads them: summed over all workers, by its conventions, rendered by its library.

Counters and histograms are sums over all workers that there ever were; what is a state at one moment has the label
`worker`, the number of the worker's place (1, 2 ...), which stays when the worker is replaced. Memory and open files
are read from /proc, so that they are there for a worker that is stuck, too.
Bounds: `MAX_NAMES` routes and sites; one that was shown keeps its rows, and half of the places are for those that
matter.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import Metric

from tafe import __version__
from tafe.lifecycle import State
from tafe.metrics import MAX_NAMES, ROUTES, SITES, Rows, fold, is_counter, read, so_far, summed, weights
from tafe.scoreboard import Scoreboard, Slot

# Name -> labels, and what it says.
COUNTERS: dict[str, tuple[tuple[str, ...], str]] = {
    "tafe_requests_total": (
        ("route", "status"), "Requests that the application was asked for, by the class of the status; none: given up"),
    "tafe_request_phase_seconds_total": (
        ("route", "phase"), "Where requests spent their time: running, waiting, or queued (ready, somebody else ran)"),
    "tafe_requests_too_slow_total": (
        (), "Requests over their route's objective (--objective), or queued for ten times --slow-slice"),
    "tafe_requests_refused_total": (
        (), "Requests answered without the application: malformed, too large, too slow, or beyond the limits"),
    "tafe_connections_accepted_total": ((), "Connections of clients"),
    "tafe_access_log_lost_lines_total": ((), "Lines of the access log dropped since its reader or disk was too slow"),
    "tafe_worker_cpu_seconds_total": ((), "Processor time of the workers, all threads"),
    "tafe_hub_seconds_total": ((), "Time that the workers' hubs were observed; divides the next one"),
    "tafe_hub_busy_seconds_total": ((), "Time that the hubs had something to do"),
    "tafe_hub_switches_total": ((), "Switches between greenlets"),
    "tafe_slow_slices_total": ((), "Slices over the threshold (--slow-slice), whatever made them long"),
    "tafe_stalls_total": (
        ("site", "cause"), "Slices over the threshold by the line that did not yield; (the machine) is nobody's fault"),
    "tafe_stall_seconds_total": (("site", "cause"), "Time that this line has held the hub"),
    "tafe_stall_harm_seconds_total": (("site", "cause"), "Time that ready requests were queued behind this line"),
    "tafe_stall_victims_total": (
        ("site", "cause"), "Times that a ready request was queued behind this line; once a slice and request"),
    "tafe_route_stalls_total": (("route",), "Slices over the threshold by the route of the request that had the hub"),
    "tafe_route_stall_seconds_total": (("route",), "Time that requests of this route have held the hub in such slices"),
    "tafe_route_harm_seconds_total": (("route",), "Time that ready requests were queued behind requests of this route"),
    "tafe_profiler_overhead_seconds_total": ((), "Estimate of the profiler's own time on the hubs"),
    "tafe_profiler_dropped_total": ((), "Requests and slow slices that the profiler lost"),
    "tafe_profiler_unwritten_total": (
        (), "Records that are missing in the profiler's files, since the disk was too slow or full"),
    "tafe_profiler_displaced_total": ((), "Times that somebody else had removed the profiler's tracer"),
    "tafe_profiler_failures_total": ((), "Faults in the profiler or in a tracer chained to it"),
}  # fmt: skip
HISTOGRAMS: dict[str, tuple[tuple[str, ...], str]] = {
    "tafe_request_duration_seconds": (
        ("route",), "From when a request was readable to the end of its answer; a bound may be off by 3 %"),
    "tafe_request_longest_slice_seconds": ((), "The longest time each request had the hub without yielding"),
    "tafe_hub_delay_seconds": ((), "How late a timer was that was due, looked at 20 times a second"),
}  # fmt: skip
GAUGES: dict[str, str] = {
    "tafe_worker_connections": "Open connections",
    "tafe_worker_waiting_requests": "Requests that wait for one of max_in_flight places",
    "tafe_worker_busy_ratio": "Part of the last second that the hub had something to do",
    "tafe_worker_metrics_left_out": "Figures that had no room in shared memory",
}
# Of each worker, whether it has shown anything or not.
LIVE: dict[str, str] = {
    "tafe_worker_in_flight": "Requests that run or wait for something",
    "tafe_worker_heartbeat_age_seconds": "How long ago the hub last turned, as far as it was noticed: 0.1 s is usual",
    "tafe_worker_resident_memory_bytes": "Memory in use",
    "tafe_worker_open_fds": "Open files and sockets",
}
_RESOURCES: dict[str, str] = {
    "tafe_db_pool_size": "Connections that exist",
    "tafe_db_pool_in_use": "Connections lent to requests",
    "tafe_db_pool_idle": "Connections that nobody uses",
    "tafe_db_pool_waiters": "Requests that wait for a connection",
    "tafe_db_pool_max_size": "The most connections there may be",
    "tafe_db_connections_acquired_total": "Connections lent",
    "tafe_db_connections_created_total": "Connections made",
    "tafe_db_connections_retired_total": "Connections closed in good order",
    "tafe_db_connections_discarded_total": "Connections thrown away: lost, or given up in the middle of a statement",
    "tafe_db_slow_queries_total": "Statements that took slow_query_s or longer",
    "tafe_db_query_errors_total": "Statements whose connection was lost, that took too long, or that were refused",
    "tafe_db_pool_errors_total": "Requests that waited for a connection in vain, or found the database down",
    "tafe_db_pool_wait_seconds": "Waiting for a connection",
    "tafe_db_query_seconds": "Statements, from having a connection to having the answer",
}
_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def choose(kept: set[str], found: Mapping[str, float]) -> None:
    """Add to `kept` those names, given with their weights, that get rows of their own."""
    total = sum(found.values())
    for name in sorted(found, key=lambda name: -found[name]):
        matters = found[name] > total * 2 / MAX_NAMES
        if len(kept) < (MAX_NAMES if matters else MAX_NAMES // 2):
            kept.add(name)


class Collector:
    """For a registry of prometheus_client. `bounds_s`: of the histograms."""

    def __init__(self, board: Scoreboard, bounds_s: tuple[float, ...]) -> None:
        self._board = board
        self._bounds = [*map(repr, bounds_s), "+Inf"]
        self._routes: set[str] = set()  # that have rows of their own
        self._sites: set[str] = set()

    def collect(self) -> Iterator[Metric]:
        """All families; called for every scrape."""
        messages = [(slot, message) for slot in self._board.ever_used() if (message := _message(slot)) is not None]
        pasts = [so_far(message) for _, message in messages]
        yield from self._counters(summed(past.counters for past in pasts))
        yield from self._states()
        alive = [(slot, message) for slot, message in messages if slot.pid == message.pid]
        for name, text in GAUGES.items():
            metric = Metric(name, text, "gauge")
            for slot, message in alive:
                for value in message.gauges.get(name, {}).values():
                    metric.add_sample(name, {"worker": str(slot.index)}, value)
            yield metric
        yield from _resource_counters(summed(past.resources for past in pasts))
        gauges: dict[str, Metric] = {}
        for slot, message in alive:
            for name, labels, value in message.resources:
                if not is_counter(name) and _is_good(name, labels):
                    metric = gauges.setdefault(name, Metric(name, _said(name), "gauge"))
                    metric.add_sample(name, {"worker": str(slot.index), **labels}, value)
        yield from gauges.values()

    def _counters(self, rows: Rows) -> Iterator[Metric]:
        for kept, (weighed, families) in ((self._routes, ROUTES), (self._sites, SITES)):
            choose(kept, weights(rows, weighed))
            fold(rows, families, kept)
        for name, (labels, text) in COUNTERS.items():
            metric = Metric(name.removesuffix("_total"), text, "counter")
            for values, value in rows.get(name, {}).items():
                assert not isinstance(value, list)
                metric.add_sample(name, dict(zip(labels, values, strict=True)), value)
            yield metric
        for name, (labels, text) in HISTOGRAMS.items():
            metric = Metric(name, text, "histogram")
            for values, columns in rows.get(name, {}).items():
                assert isinstance(columns, list)
                shown = dict(zip(labels, values, strict=True))
                running = 0.0
                for bound, count in zip(self._bounds, columns[:-1], strict=True):
                    running += count
                    metric.add_sample(f"{name}_bucket", {**shown, "le": bound}, running)
                metric.add_sample(f"{name}_count", shown, running)
                metric.add_sample(f"{name}_sum", shown, columns[-1])
            yield metric

    def _states(self) -> Iterator[Metric]:
        """What is known of every worker without its doing."""
        build = Metric("tafe_build_info", "The version that serves", "gauge")
        build.add_sample("tafe_build_info", {"version": __version__}, 1)
        yield build
        starts = Metric("tafe_worker_starts", "Workers forked, those of the start among them", "counter")
        starts.add_sample("tafe_worker_starts_total", {}, self._board.starts)
        yield starts
        living = list(self._board.used())
        states = Metric("tafe_workers", "Workers by what they are doing", "gauge")
        for state in State:
            number = sum(slot.state is state for slot in living)
            states.add_sample("tafe_workers", {"state": state.name.lower()}, number)
        yield states
        for name, text in LIVE.items():
            metric = Metric(name, text, "gauge")
            for slot in living:
                value = live_figures(slot).get(name)
                if value is not None:
                    metric.add_sample(name, {"worker": str(slot.index)}, value)
            yield metric


def live_figures(slot: Slot) -> dict[str, float]:
    """Of `LIVE`, those that can be had."""
    found = {
        "tafe_worker_in_flight": slot.in_flight,
        "tafe_worker_heartbeat_age_seconds": max(time.monotonic_ns() - slot.beat_ns, 0) / 1e9,
    }
    try:
        with open(f"/proc/{slot.pid}/statm", "rb") as file:
            found["tafe_worker_resident_memory_bytes"] = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        found["tafe_worker_open_fds"] = len(os.listdir(f"/proc/{slot.pid}/fd"))
    except (OSError, IndexError):  # it has just ended
        pass
    return found


def figures(slot: Slot) -> dict[str, Any]:
    """What this worker has counted itself, for /figures; without the profiler next to nothing."""
    message = _message(slot)
    found: dict[str, Any] = {"beat_s": slot.beat_ns / 1e9}
    if message is None or message.pid != slot.pid:
        return found
    found["connections"] = _only(message.gauges, "tafe_worker_connections")
    counters = message.counters
    if "tafe_hub_seconds_total" in counters:
        found["hub_s"] = _only(counters, "tafe_hub_seconds_total")
        found["busy_s"] = _only(counters, "tafe_hub_busy_seconds_total")
        found["delay"] = _only(counters, "tafe_hub_delay_seconds")[:-1]
        columns = [row[:-1] for row in counters["tafe_request_duration_seconds"].values() if isinstance(row, list)]
        found["duration"] = list(map(sum, zip(*columns, strict=True)))
    return found


def _only(rows: Rows, name: str) -> Any:
    (value,) = rows[name].values()
    return value


def sites(board: Scoreboard) -> list[dict[str, Any]]:
    """What each line has cost since the server's start, for /figures: those of all workers there ever were."""
    messages = [message for slot in board.ever_used() if (message := _message(slot)) is not None]
    rows = summed(so_far(message).counters for message in messages)
    harm = rows.get("tafe_stall_harm_seconds_total", {})
    return [
        {
            "site": labels[0],
            "cause": labels[1],
            "harm_s": harm_s,
            "stalls": rows["tafe_stalls_total"][labels],
            "stall_s": rows["tafe_stall_seconds_total"][labels],
            "victims": rows["tafe_stall_victims_total"][labels],
        }
        for labels, harm_s in harm.items()
    ]


def _message(slot: Slot) -> Any:
    return None if slot.mailbox is None else read(slot.mailbox)


def _resource_counters(rows: Rows) -> Iterator[Metric]:
    metrics: dict[str, Metric] = {}
    for name, values in rows.items():
        base = name
        for ending in ("_total", "_bucket", "_sum", "_count"):
            base = base.removesuffix(ending)
        kind = "counter" if name.endswith("_total") else "histogram"
        for parts, value in values.items():
            labels = dict(zip(parts[::2], parts[1::2], strict=True))
            if _is_good(name, labels) and not isinstance(value, list):
                metrics.setdefault(base, Metric(base, _said(base, name), kind)).add_sample(name, labels, value)
    yield from metrics.values()


def _said(*names: str) -> str:
    return next((_RESOURCES[name] for name in names if name in _RESOURCES), "Counted by a resource of the application")


def _is_good(name: str, labels: Mapping[str, str]) -> bool:
    """By Prometheus' rules, and no name of ours: a resource may be anybody's code."""
    ours = name in COUNTERS or name in GAUGES or name in LIVE or name.rpartition("_")[0] in HISTOGRAMS
    return not ours and _NAME.fullmatch(name) is not None and all(map(_LABEL.fullmatch, labels))

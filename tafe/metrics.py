"""What a worker has counted, as one message a second in shared memory, where the admin process reads it.

A message has counters, which only grow, and gauges. A worker that takes the slot of one that has ended begins with the
counters found there: the sum over all slots never falls, whoever dies, and at most the last second of a killed worker
is lost. Nothing is written on a request's way, and nobody is waited for; gathering takes well under a millisecond.
Bounds: the profiler gives figures to a hundred routes and fifty sites (profiler/metrics.py), what is inherited is cut
to as many, resources have `MAX_RESOURCE_ROWS`; what does not fit is left out, counted and shown.
Messages are marshalled: only processes forked from one another read them.
"""

from __future__ import annotations

import logging
import marshal
import math
import os
import sys
import time
from collections.abc import Callable, Container, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from tafe import lifecycle
from tafe.mailbox import Mailbox

if TYPE_CHECKING:
    from types import ModuleType

    from tafe.access_log import AccessLog
    from tafe.profiling import Figures, Times
    from tafe.scoreboard import Slot
    from tafe.server import WSGIServer

MESSAGE_BYTES: Final = 128 * 1024  # 100 routes and 8 databases take 45 KB, and as much again what was inherited
PERIOD_S: Final = 1.0  # monitoring asks every 5 to 60 seconds
MAX_RESOURCE_ROWS: Final = 1000  # twenty databases
STUCK_BYTES: Final = 2048  # of a message about a hub that is stuck
MAX_TEXT: Final = 400  # characters of a route or site in it
MAX_NAMES: Final = 200  # routes, and sites, that have rows of their own once workers have been added up
OTHER: Final = "(other)"  # the rest; the profiler's word for it too

# A row's value: a number, or of a histogram the counts between the bounds and, last, the sum.
Value = float | list[float]
# By name, then by the values of the labels; which labels those are is said in exposition.py.
Rows = dict[str, dict[tuple[str, ...], Value]]
Resource = tuple[str, dict[str, str], float]  # name, labels, value, as in lifecycle.Metric

_log = logging.getLogger("tafe.worker")


class Past(NamedTuple):
    """Counters of the workers that had a slot before."""

    counters: Rows
    resources: Rows  # as `counted` makes them


class Message(NamedTuple):
    """What a worker shows."""

    pid: int
    past: Past
    counters: Rows
    gauges: Rows
    resources: list[Resource]


def read(mailbox: Mailbox) -> Message | None:
    """The latest message; None if there was none yet."""
    data = mailbox.read()
    if not data:
        return None
    pid, past, counters, gauges, resources = marshal.loads(data)  # noqa: S302 - our own child wrote it
    return Message(pid, Past(*marshal.loads(past)), counters, gauges, resources)  # noqa: S302 - the same


def so_far(message: Message) -> Past:
    """The counters of a slot, whoever had it."""
    own = counted(message.resources)
    return Past(summed((message.past.counters, message.counters)), summed((message.past.resources, own)))


def is_counter(name: str) -> bool:
    """Of a resource's metric, by its name."""
    return name.endswith(("_total", "_bucket", "_sum", "_count"))


def summed(parts: Iterable[Rows]) -> Rows:
    """All of them together.

    Correctly rounded, so that the order does not matter: a sum that is a billionth less than the one before looks like
    a counter that has begun anew.
    """
    found: dict[str, dict[tuple[str, ...], list[Value]]] = {}
    for rows in parts:
        for name, values in rows.items():
            mine = found.setdefault(name, {})
            for labels, value in values.items():
                mine.setdefault(labels, []).append(value)
    return {name: {labels: _sum(values) for labels, values in mine.items()} for name, mine in found.items()}


def _sum(values: list[Value]) -> Value:
    if len(values) == 1:
        return values[0]
    if isinstance(values[0], list):
        return [math.fsum(column) for column in zip(*cast("list[list[float]]", values), strict=True)]
    return math.fsum(cast("list[float]", values))


def counted(resources: Iterable[Resource]) -> Rows:
    """Those that are counters, as rows; the labels are names and values in turn."""
    rows: Rows = {}
    for name, labels, value in resources:
        if is_counter(name):
            rows.setdefault(name, {})[tuple(part for pair in labels.items() for part in pair)] = value
    return rows


def weights(rows: Rows, names: Sequence[str]) -> dict[str, float]:
    """What the first labels of these families stand for, each with its weight."""
    found: dict[str, float] = {}
    for name in names:
        for labels, value in rows.get(name, {}).items():
            if not isinstance(value, list):
                found[labels[0]] = found.get(labels[0], 0) + value
    return found


# By which the names in a first label are weighed, and the families that have such a label.
ROUTES: Final = (
    ("tafe_requests_total", "tafe_route_stalls_total"),
    (
        "tafe_requests_total", "tafe_request_duration_seconds", "tafe_request_phase_seconds_total",
        "tafe_route_stalls_total", "tafe_route_stall_seconds_total", "tafe_route_harm_seconds_total",
    ),
)  # fmt: skip
SITES: Final = (
    ("tafe_stall_seconds_total", "tafe_stall_harm_seconds_total"),
    ("tafe_stalls_total", "tafe_stall_seconds_total", "tafe_stall_harm_seconds_total", "tafe_stall_victims_total"),
)


def fold(rows: Rows, families: Sequence[str], kept: Container[str]) -> None:
    """Add the rows of these families whose first label is not in `kept` to those of `OTHER`."""
    for name in families:
        renamed = [
            {name: {labels if labels[0] in kept else (OTHER, *labels[1:]): value}}
            for labels, value in rows.get(name, {}).items()
        ]
        rows.update(summed(renamed))


class Stuck(NamedTuple):
    """What a hub has been in for over a second."""

    since_s: float  # time.monotonic
    route: str  # empty: no request
    site: str
    cause: str


def read_stuck(mailbox: Mailbox) -> Stuck | None:
    """The latest that there was, which may be over."""
    data = mailbox.read()
    return Stuck(*marshal.loads(data)) if data else None  # noqa: S302 - our own child wrote it


def teller(mailbox: Mailbox) -> Callable[[float, str, tuple[str, str, int], str], None]:
    """What `profiling.tell_open` wants; on Linux its clock is the monotonic one."""
    places = Places()

    def tell(since_s: float, route: str, place: tuple[str, str, int], cause: str) -> None:
        mailbox.write(marshal.dumps((since_s, str(route)[:MAX_TEXT], places.name(*place)[:MAX_TEXT], cause)))

    return tell


class Publisher:
    """Writes a worker's messages; on its hub. `profiling`: the module, if the profiler is on."""

    def __init__(
        self,
        slot: Slot,
        servers: Sequence[WSGIServer],
        profiling: ModuleType | None,
        access_log: AccessLog | None,
    ) -> None:
        assert slot.mailbox is not None
        mailbox = self._mailbox = slot.mailbox
        self._servers = servers
        self._figures: Callable[..., Figures] | None = None
        if profiling is not None:
            self._figures = profiling.figures
            if slot.stuck is not None:
                profiling.tell_open(teller(slot.stuck))
        self._access_log = access_log
        self._past = marshal.dumps(tuple(_inherited(mailbox)))
        self._pid = os.getpid()
        self._due_s = 0.0
        self._failed = False
        self._places = Places()
        self._wall_s = self._busy_s = 0.0  # at the message before

    def tick(self) -> None:
        """Write a message if it is time; called some times a second. Never raises."""
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + PERIOD_S
            self.publish()

    def publish(self, *, last: bool = False) -> None:
        """Write a message. Never raises: what cannot be counted is no reason not to serve."""
        if self._failed:
            return
        try:
            self._publish(last)
        except Exception:  # noqa: BLE001 - a resource's `metrics` may be anybody's code
            self._failed = True
            _log.exception("worker %d can show no more metrics", self._pid)

    def _publish(self, last: bool) -> None:
        counters: Rows = {}
        gauges: Rows = {}
        self._count_servers(counters, gauges)
        if self._access_log is not None:
            counters["tafe_access_log_lost_lines_total"] = {(): self._access_log.lost}
        if self._figures is not None:
            self._count_figures(self._figures(all_at_once=last), counters, gauges)
        resources = [
            (name, labels if type(labels) is dict else dict(labels), value)
            for name, labels, value in lifecycle.metrics()
        ]
        left_out = max(len(resources) - MAX_RESOURCE_ROWS, 0)
        del resources[MAX_RESOURCE_ROWS:]
        if not self._write(counters, gauges, resources, left_out):
            left_out += len(resources)
            if not self._write(counters, gauges, [], left_out):
                raise ValueError(f"{MESSAGE_BYTES} bytes are too few")

    def _write(self, counters: Rows, gauges: Rows, resources: list[Resource], left_out: int) -> bool:
        gauges["tafe_worker_metrics_left_out"] = {(): left_out}
        return self._mailbox.write(marshal.dumps((self._pid, self._past, counters, gauges, resources)))

    def _count_servers(self, counters: Rows, gauges: Rows) -> None:
        servers = self._servers
        counters["tafe_connections_accepted_total"] = {(): sum(server.accepted for server in servers)}
        counters["tafe_requests_refused_total"] = {(): sum(server.refused for server in servers)}
        counters["tafe_worker_cpu_seconds_total"] = {(): time.process_time()}
        gauges["tafe_worker_connections"] = {(): sum(server.connections for server in servers)}
        gauges["tafe_worker_waiting_requests"] = {(): sum(len(server.waiting) for server in servers)}

    def _count_figures(self, figures: Figures, counters: Rows, gauges: Rows) -> None:
        busy_s = figures.wall_s - figures.idle_s
        counters["tafe_hub_seconds_total"] = {(): figures.wall_s}
        counters["tafe_hub_busy_seconds_total"] = {(): busy_s}
        counters["tafe_hub_switches_total"] = {(): figures.switches}
        counters["tafe_hub_delay_seconds"] = {(): _histogram(figures.delay)}
        counters["tafe_request_longest_slice_seconds"] = {(): _histogram(figures.longest)}
        counters["tafe_slow_slices_total"] = {(): figures.slices_over}
        counters["tafe_profiler_overhead_seconds_total"] = {(): figures.overhead_s}
        counters["tafe_profiler_dropped_total"] = {(): figures.dropped}
        counters["tafe_profiler_displaced_total"] = {(): figures.displaced}
        counters["tafe_profiler_failures_total"] = {(): figures.failures}
        counters["tafe_profiler_unwritten_total"] = {(): figures.unwritten}
        counters["tafe_requests_too_slow_total"] = {(): figures.exceeded}
        gauges["tafe_worker_busy_ratio"] = {(): (busy_s - self._busy_s) / max(figures.wall_s - self._wall_s, 1e-9)}
        self._wall_s, self._busy_s = figures.wall_s, busy_s
        _count_routes(figures, counters)
        self._count_stalls(figures, counters)

    def _count_stalls(self, figures: Figures, counters: Rows) -> None:
        names = (
            "tafe_stalls_total",
            "tafe_stall_seconds_total",
            "tafe_stall_harm_seconds_total",
            "tafe_stall_victims_total",
        )
        rows: list[Rows] = []
        for (file, function, line, cause), cost in figures.sites.items():
            labels = (self._places.name(file, function, line), cause)
            rows.append({name: {labels: value} for name, value in zip(names, cost, strict=True)})
        counters.update(summed(rows))
        for column, name in enumerate(
            ("tafe_route_stalls_total", "tafe_route_stall_seconds_total", "tafe_route_harm_seconds_total")
        ):
            counters[name] = {(route,): cost[column] for route, cost in figures.culprits.items()}


def _count_routes(figures: Figures, counters: Rows) -> None:
    requests = counters["tafe_requests_total"] = {}
    durations = counters["tafe_request_duration_seconds"] = {}
    phases = counters["tafe_request_phase_seconds_total"] = {}
    for route, found in figures.routes.items():
        usual = found.requests
        for outcome, count in found.outcomes.items():
            usual -= count
            labels = (route, _class_of(outcome))
            before = requests.get(labels, 0)
            assert not isinstance(before, list)
            requests[labels] = before + count
        requests[route, "2xx"] = usual
        durations[route,] = _histogram(found.total)
        phases[route, "running"] = found.running_s
        phases[route, "queued"] = found.queued_s
        phases[route, "waiting"] = found.waiting_s


def _class_of(status: int) -> str:
    """0: the answer was given up before there was a status."""
    return f"{status // 100}xx" if status else "none"


def _histogram(times: Times) -> list[float]:
    return [*times.counts, times.sum_s]


class Places:
    """How lines of code are called: by a path from where the program was started, or from where it was imported."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        roots = {os.path.abspath(root) for root in (os.getcwd(), *sys.path)}
        self._roots = sorted(roots, key=len, reverse=True)

    def name(self, file: str, function: str, line: int) -> str:
        if not file:
            return "(unknown)"
        path = self._known.get(file)
        if path is None:
            root = next((root for root in self._roots if file.startswith(root.rstrip("/") + "/")), "/")
            path = self._known[file] = file[len(root.rstrip("/")) + 1 :] if file.startswith("/") else file
        if line:
            return f"{path}:{line} {function}"
        return f"{path} {function}" if function else path


def _inherited(mailbox: Mailbox) -> Past:
    """The counters of whoever had this slot before, within bounds."""
    before = read(mailbox)
    if before is None:
        return Past({}, {})
    counters, resources = so_far(before)
    for weighed, families in (ROUTES, SITES):
        found = weights(counters, weighed)
        fold(counters, families, sorted(found, key=lambda name: -found[name])[: MAX_NAMES // 2])
    return Past(counters, resources)

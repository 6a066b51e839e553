"""What the hub's side gathers between two hand-overs: the times of each route, the slowest requests, the hub's delay.

Finished requests are folded a batch at a time: by value into the buckets of tally.py.
Every few seconds the whole `Delta` is handed to the writer's thread, which turns it into lines; the hub
never formats or writes.
A request that was one slice (nothing waited) needs three counts instead of five.
Slowest are those of an epoch of ten minutes: a delta has those that have joined them since the one before, so that a
worker under load does not store its slowest of every moment.
Bounds: `MAX_ROUTES` routes and `SLOWEST` requests a delta;
the requests of further routes are one route, `OTHER_ROUTES`.
A route that had many requests before it had room has it in the next delta: paths that strangers make up take the room
of none that is in use.
"""

from __future__ import annotations

import heapq
import math
import time
from typing import TYPE_CHECKING, Any

from profiler.model import Histogram, Span
from profiler.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterator

    from profiler.flight import Flight
    from profiler.model import Counts

MAX_ROUTES = 200  # templates an application has; five histograms each take some 40 KB when all are busy
MAX_REGULARS = 150  # of them that keep their room: the rest is for routes that are new
MAX_CROWDED_OUT = 2 * MAX_ROUTES  # whose requests are counted, so that the busiest become regulars
SLOWEST = 20  # as many as a report shows, of each SLOWEST_EPOCH_S
SLOWEST_EPOCH_S = 600.0  # so that a report on the last hour has slow requests of that hour
OTHER_ROUTES = "(other routes)"


class RouteTimes:
    """The requests of one route in one delta."""

    __slots__ = (
        "at_once", "errors", "longest", "longest_s", "outcomes", "queued", "queued_s", "requests", "running",
        "running_s", "total", "total_s", "waiting", "waiting_s",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.outcomes: dict[int, int] = {}  # requests by outcome, as far as they had one
        self.total_s = self.running_s = self.waiting_s = self.queued_s = self.longest_s = 0.0  # sums
        self.total = Tally()
        self.queued = Tally()
        # Of requests that were one slice: their running time, and their longest slice.
        self.at_once: Tally | None = None
        # Of the others.
        self.running: Tally | None = None
        self.longest: Tally | None = None
        self.waiting: Tally | None = None

    def add(self, spans: list[Span]) -> None:
        """Count finished requests."""
        self.requests += len(spans)
        totals_s = [span.total_s for span in spans]
        self.total.add(totals_s)
        self.total_s += sum(totals_s)
        queued_s = [span.queued_s for span in spans]
        self.queued.add(queued_s)
        self.queued_s += sum(queued_s)
        waited = [span for span in spans if span._out_s]  # noqa: SLF001
        if len(waited) < len(spans):
            self.at_once = self.at_once or Tally()
            running_s = [span.running_s for span in spans if not span._out_s]  # noqa: SLF001
            self.at_once.add(running_s)
            at_once_s = sum(running_s)
            self.running_s += at_once_s
            self.longest_s += at_once_s
        if waited:
            self.running = self.running or Tally()
            self.longest = self.longest or Tally()
            self.waiting = self.waiting or Tally()
            running_s = [span.running_s for span in waited]
            self.running.add(running_s)
            self.running_s += sum(running_s)
            longest_s = [span.longest_slice_s for span in waited]
            self.longest.add(longest_s)
            self.longest_s += sum(longest_s)
            waiting_s = [span.waiting_s for span in waited]
            self.waiting.add(waiting_s)
            self.waiting_s += sum(waiting_s)

    def end_unusually(self, span: Span) -> None:
        """Count a request, which `add` counts too, by how it ended."""
        self.errors += span.error
        self.outcomes[span.outcome] = self.outcomes.get(span.outcome, 0) + 1

    def line(self, route: str) -> dict[str, Any]:
        """As it is stored."""
        waiting = Histogram.of(self.waiting)
        if self.at_once:
            waiting.merge([Histogram({0: sum(self.at_once.buckets().values())})])
        line = {
            "type": "route",
            "route": route,
            "requests": self.requests,
            "errors": self.errors,
            "total": Histogram.of(self.total).packed(),
            "running": Histogram.of(self.at_once, self.running).packed(),
            "waiting": waiting.packed(),
            "queued": Histogram.of(self.queued).packed(),
        }
        if self.longest:  # else it is the same as `running`
            line["longest_slice"] = Histogram.of(self.at_once, self.longest).packed()
        return line


class Delta:
    """Everything between two hand-overs."""

    def __init__(self) -> None:
        self.routes: dict[str, RouteTimes] = {}
        self.slowest: list[Span] = []
        self.delays_s: list[float] = []  # at most one each PULSE_S, so some 200
        self.hub: dict[str, Any] = {}

    @property
    def records(self) -> int:
        """How many requests it tells of."""
        return sum(times.requests for times in self.routes.values())

    def lines(self) -> Iterator[dict[str, Any]]:
        """As they are stored; for the writer's thread."""
        delay = Histogram()
        for delay_s in self.delays_s:
            delay.add(delay_s)
        yield {"type": "hub", **self.hub, "delay": delay.packed()}
        for route, times in self.routes.items():
            yield times.line(route)
        if self.slowest:
            yield {"type": "slowest", "requests": [slow_request(span) for span in self.slowest]}


class Recorder:
    """Gathers a delta; only the hub's thread calls it."""

    def __init__(self, flight: Flight | None = None) -> None:
        self._flight = flight
        self.batch: list[Span] = []  # the hook appends to these two
        self.unusual: list[Span] = []
        self.requests = 0  # since the start
        self._slowest: list[tuple[float, int, Span]] = []  # a heap; the number keeps spans from being compared
        self._pushed = self._handed_over = 0  # the last number given, and the last that was handed over
        self._epoch_s = 0.0  # how long it has lasted
        self._delta = Delta()
        self._regulars: frozenset[str] = frozenset()  # routes that have room, whoever comes first
        self._room = MAX_ROUTES  # for others, in this delta
        self._crowded_out: dict[str, int] = {}  # requests of routes that had none, too low by what `_thin_out` took

    def fold(self) -> None:
        """Count the finished requests of the batch."""
        if not self.batch:
            return
        by_route: dict[str, list[Span]] = {}
        for span in self.batch:
            spans = by_route.get(span.route)
            if spans is None:
                by_route[span.route] = [span]
            else:
                spans.append(span)
        self.requests += len(self.batch)
        self.batch.clear()
        for route, spans in by_route.items():
            self._times(route, len(spans)).add(spans)
            self._keep_slowest(route, spans)
        for span in self.unusual:
            self._times(span.route, 0).end_unusually(span)
        self.unusual.clear()

    def delayed(self, delay_s: float) -> None:
        """A timer was late by `delay_s`."""
        self._delta.delays_s.append(delay_s)

    def unfinished(self) -> Delta:
        """What was gathered since the last `take`; it goes on growing."""
        return self._delta

    def take(self, counts: Counts, since: Counts, wall_s: float, overhead_s: float) -> Delta:
        """Hand over what was gathered, with what the hook counted since the last time, and begin anew."""
        delta, self._delta = self._delta, Delta()
        if self._crowded_out:
            self._choose_regulars(delta)
        self._room = MAX_ROUTES - len(self._regulars)
        delta.slowest = [span for _, number, span in self._slowest if number > self._handed_over]
        self._handed_over = self._pushed
        self._epoch_s += wall_s
        if self._epoch_s >= SLOWEST_EPOCH_S:
            self._epoch_s = 0.0
            self._slowest.clear()
        delta.hub = {
            "wall_s": round(wall_s, 6),
            "idle_s": round(counts.idle_s - since.idle_s, 6),
            "overhead_s": round(overhead_s, 6),
            "switches": counts.switches - since.switches,
            "slices_over": counts.slices_over - since.slices_over,
            "dropped": counts.dropped - since.dropped,
            "displaced": counts.displaced - since.displaced,
            "failures": counts.failures - since.failures,
        }
        return delta

    def _times(self, route: str, requests: int) -> RouteTimes:
        routes = self._delta.routes
        times = routes.get(route)
        if times is None:
            if route not in self._regulars:
                if self._room > 0:
                    self._room -= 1
                else:
                    self._crowd_out(route, requests)
                    route = OTHER_ROUTES
            times = routes.setdefault(route, RouteTimes())
        return times

    def _crowd_out(self, route: str, requests: int) -> None:
        counts = self._crowded_out
        counts[route] = counts.get(route, 0) + requests
        if len(counts) > MAX_CROWDED_OUT:
            # Take what the middle one has from all (Misra and Gries, 1982): who has many more than others stays.
            middle = sorted(counts.values())[MAX_CROWDED_OUT // 2]
            self._crowded_out = {route: count - middle for route, count in counts.items() if count > middle}

    def _choose_regulars(self, delta: Delta) -> None:
        counts = {route: times.requests for route, times in delta.routes.items() if route != OTHER_ROUTES}
        counts.update(self._crowded_out)
        self._crowded_out = {}
        self._regulars = frozenset(sorted(counts, key=lambda route: -counts[route])[:MAX_REGULARS])

    def _keep_slowest(self, route: str, spans: list[Span]) -> None:
        heap = self._slowest
        least_s = heap[0][0] if len(heap) == SLOWEST else -1.0
        limit_s = self._flight.limit_s(route) if self._flight is not None else math.inf
        shorter_s = min(least_s, limit_s)
        for span in [span for span in spans if span.total_s > shorter_s]:
            if span.total_s > limit_s and self._flight is not None:
                self._flight.ended(span)
            if span.total_s <= least_s:
                continue
            self._pushed += 1
            if len(heap) < SLOWEST:
                heapq.heappush(heap, (span.total_s, self._pushed, span))
            else:
                heapq.heappushpop(heap, (span.total_s, self._pushed, span))


def slow_request(span: Span) -> dict[str, Any]:
    """A request as it is stored."""
    # The start as wall-clock time: perf_counter's zero is arbitrary.
    wall_offset_s = time.time() - time.perf_counter()
    blamed = [
        {
            "file": culprit.place.file,
            "line": culprit.place.line,
            "route": culprit.span.route if culprit.span else "",
            "s": round(cost_s, 6),
            "own": culprit.span is span,
            "started": round(culprit.start_s + wall_offset_s, 6),
            "length_s": round(culprit.length_s, 6),
        }
        for culprit, cost_s in span.blamed or ()
        if culprit.place is not None
    ]
    return {
        "route": span.route,
        "request_id": span.request_id,
        "started": round(span.started_s + wall_offset_s, 6),
        "total_s": round(span.total_s, 6),
        "running_s": round(span.running_s, 6),
        "waiting_s": round(span.waiting_s, 6),
        "queued_s": round(span.queued_s, 6),
        "blamed": blamed,
    }

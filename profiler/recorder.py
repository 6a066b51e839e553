"""What the hub's side gathers between two hand-overs: the times of each route, the slowest requests, the hub's delay.

Finished requests are folded a batch at a time: by value into the buckets of tally.py.
Every few seconds the whole `Delta` is handed to the writer's thread, which turns it into lines; the hub
never formats or writes.
A request that was one slice (nothing waited) needs three counts instead of five, one that was not traced all the time
two: that it was, and its total.
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

from profiler.histogram import Histogram
from profiler.model import OTHER_ROUTES, route_of, text_of
from profiler.tally import RouteTimes, spare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from profiler.flight import Flight
    from profiler.model import Counts, Slice, Span

MAX_ROUTES = 200  # templates an application has; five histograms each take some 40 KB when all are busy
MAX_REGULARS = 150  # of them that keep their room: the rest is for routes that are new
MAX_CROWDED_OUT = 2 * MAX_ROUTES  # whose requests are counted, so that the busiest become regulars
SLOWEST = 20  # as many as a report shows, of each SLOWEST_EPOCH_S
SLOWEST_EPOCH_S = 600.0  # so that a report on the last hour has slow requests of that hour


def _line(route: str, times: RouteTimes) -> dict[str, Any]:
    """As it is stored."""
    waiting = Histogram.of(times.waiting)
    if times.at_once:
        waiting.merge([Histogram({0: sum(times.at_once.buckets().values())})])
    line = {
        "type": "route",
        "route": route,
        "requests": times.requests,
        "errors": times.errors,
        "total": Histogram.of(times.total).packed(),
        "running": Histogram.of(times.at_once, times.running).packed(),
        "waiting": waiting.packed(),
        "queued": Histogram.of(times.queued).packed(),
    }
    if times.longest:  # else it is the same as `running`
        line["longest_slice"] = Histogram.of(times.at_once, times.longest).packed()
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
            yield _line(route, times)
        if self.slowest:
            yield {"type": "slowest", "requests": [slow_request(span) for span in self.slowest]}


class Recorder:
    """Gathers a delta; only the hub's thread calls it."""

    def __init__(self, flight: Flight | None = None) -> None:
        self._flight = flight
        self._least_limit_s = math.inf if flight is None else flight.least_limit_s
        # The hook appends to these.
        self.batch: list[Span] = []  # finished requests that were one slice
        self.waited: list[Span] = []  # the others
        self.unusual: list[Span] = []
        self.unsplit: set[Span] = set()  # those that are to be counted by their total alone, open ones too
        self.spare: list[Span] = []  # counted, and of no use to anybody: the hook takes them for other requests
        self.requests = self.dropped = 0  # since the start; requests that could not be counted are in both
        self._dropped_told = 0  # of them, those that were handed over
        self._slowest: list[tuple[float, int, Span]] = []  # a heap; the number keeps spans from being compared
        self._least_s = -1.0  # what a request must exceed to be among them
        self._pushed = self._handed_over = 0  # the last number given, and the last that was handed over
        self._epoch_s = 0.0  # how long it has lasted
        self._delta = Delta()
        self._regulars: frozenset[str] = frozenset()  # routes that have room, whoever comes first
        self._room = MAX_ROUTES  # for others, in this delta
        self._crowded_out: dict[str, int] = {}  # requests of routes that had none, too low by what `_thin_out` took

    def fold(self) -> None:
        """Count the finished requests of the batch; anybody may assign to a span, so some may be lost."""
        if not self.batch and not self.waited:
            return
        self.requests += len(self.batch) + len(self.waited)
        if self.unsplit:
            self._fold_unsplit()
        if self.batch:
            self._fold(self.batch, at_once=True)
        if self.waited:
            self._fold(self.waited, at_once=False)
        for span in self.unusual:
            try:
                self._times(route_of(span), 0).end_unusually(span)
            except Exception:  # noqa: BLE001 - as above
                self.dropped += 1
        self.unusual.clear()

    def _fold(self, batch: list[Span], at_once: bool) -> None:
        try:
            by_route = _by_route(batch)
        except Exception:  # noqa: BLE001 - it must not be met again the next time, nor by the loop
            self.dropped += len(batch)
            by_route = {}
        batch.clear()
        shorter_s = min(self._least_s, self._least_limit_s)
        for route, spans in by_route.items():
            try:
                times = self._times(route, len(spans))
                if times.add_at_once(spans, shorter_s) if at_once else times.add_waited(spans, shorter_s):
                    self._keep_slowest(route, spans)
                spare(spans, self.spare)  # none of `unusual`, which refers to it
            except Exception:  # noqa: BLE001 - as above
                self.dropped += len(spans)

    def _fold_unsplit(self) -> None:
        ended = [span for span in (*self.batch, *self.waited) if span in self.unsplit]
        for batch in (self.batch, self.waited):
            batch[:] = [span for span in batch if span not in self.unsplit]
        self.unsplit.difference_update([span for span in self.unsplit if span.total_s >= 0.0])  # abandoned ones too
        for span in ended:
            try:
                times = self._times(route_of(span), 1)
                times.total.add([span.total_s])
                times.total_s += span.total_s
                times.requests += 1
            except Exception:  # noqa: BLE001 - as above
                self.dropped += 1

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
            self._least_s = -1.0
        delta.hub = {
            "wall_s": round(wall_s, 6),
            "idle_s": round(counts.idle_s - since.idle_s, 6),
            "overhead_s": round(overhead_s, 6),
            "switches": counts.switches - since.switches,
            "slices_over": counts.slices_over - since.slices_over,
            "dropped": counts.dropped - since.dropped + self.dropped - self._dropped_told,
            "displaced": counts.displaced - since.displaced,
            "failures": counts.failures - since.failures,
        }
        self._dropped_told = self.dropped
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
        limit_s = self._flight.limit_s(route) if self._flight is not None else math.inf
        shorter_s = min(self._least_s, limit_s)
        for span in [span for span in spans if span.total_s > shorter_s]:
            if span.total_s > limit_s and self._flight is not None:
                self._flight.ended(span)
            if span.total_s <= self._least_s:
                continue
            self._pushed += 1
            if len(heap) < SLOWEST:
                heapq.heappush(heap, (span.total_s, self._pushed, span))
            else:
                heapq.heappushpop(heap, (span.total_s, self._pushed, span))
            if len(heap) == SLOWEST:
                self._least_s = heap[0][0]


def _by_route(batch: list[Span]) -> dict[str, list[Span]]:
    first = batch[0].route
    for span in batch:
        if span.route is not first:  # one that is equal may be another object
            break
    else:
        return {route_of(batch[0]): batch.copy()}
    by_route: dict[str, list[Span]] = {}
    for span in batch:
        given: object = span.route
        route = given if isinstance(given, str) else route_of(span)
        spans = by_route.get(route)
        if spans is None:
            by_route[route] = [span]
        else:
            spans.append(span)
    return by_route


def _is_own(culprit: Slice, span: Span) -> bool:
    by = culprit.span  # the request, or long afterwards its name (stalls.py)
    if by is None or by is span:
        return by is span
    return by.blamed is None and by.started_s == span.started_s and by.request_id == span.request_id


def slow_request(span: Span) -> dict[str, Any]:
    """A request as it is stored."""
    # The start as wall-clock time: perf_counter's zero is arbitrary.
    wall_offset_s = time.time() - time.perf_counter()
    blamed = [
        {
            "file": culprit.place.file,
            "line": culprit.place.line,
            "route": route_of(culprit.span) if culprit.span else "",
            "s": round(cost_s, 6),
            "own": _is_own(culprit, span),
            "excuse": culprit.excuse,
            "started": round(culprit.start_s + wall_offset_s, 6),
            "length_s": round(culprit.length_s, 6),
        }
        for culprit, cost_s in span.blamed or ()
        if culprit.place is not None
    ]
    return {
        "route": route_of(span),
        "request_id": text_of(span.request_id, ""),
        "started": round(span.started_s + wall_offset_s, 6),
        "total_s": round(span.total_s, 6),
        "running_s": round(span.running_s, 6),
        "waiting_s": round(span.waiting_s, 6),
        "queued_s": round(span.queued_s, 6),
        "blamed": blamed,
    }

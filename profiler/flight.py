"""The flight recorder: what had the hub in the last seconds, stored when a request was too slow.

Kept all the time, in a ring of the latest `RING`: slices of a twentieth of the threshold or more (0.5 ms of 10: the
hook looks at these anyway, so a switch pays nothing), and idle polls of that length. What is shorter shows as what is
left of a moment.
A request is too slow when it takes longer than its route's objective, where one is given; and, on any route, when it
was queued for `TOO_LONG_QUEUED` thresholds: others had the hub, which is wrong whatever the route is for. So without
any objective moments tell of victims only, and a long poll or an upload is none.
Then the moment, from the request's begin to its end (`WINDOW_S` at most), is told: who had the hub, who waited, for how
long, how long the hub idled.
Moments are `EVERY_S` apart, each of the worst request of a quarter of a second; those without one are counted. The
hub only notes the request: the writer's thread makes the rest, once the watchdog has named lines, and harm has settled.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from profiler.model import route_of, text_of
from profiler.options import ANY_ROUTE
from profiler.recorder import slow_request

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from profiler.frames import Application
    from profiler.model import Slice, Span

RING = 2500  # 1.2 s of slices that are all just long enough, ten or more of a usual worker; 1 MB when full
VICTIMS = 500  # requests that slow slices have delayed lately
WINDOW_S = 5.0  # of a request that took longer: its end, which is still in the ring
TOO_LONG_QUEUED = 10  # thresholds, 100 ms: several stalls, or one that everybody sees
EVERY_S = 10.0  # with `MAX_SLICES` and `MAX_WAITED` 2 KB a second at most, half of what the histograms take
SETTLE_S = 0.3  # hook.SETTLE_S, and a look of the watchdog
MAX_SLICES = 100  # the longest: of more than that no reader sees which
MAX_WAITED = 10  # those that were queued the longest
MAX_CULPRITS = 4  # of each of them
_FRAMES = 30  # from where a greenlet waits to the application: gevent, a driver, a framework's layers

_Seen = tuple[str, int, str]  # file, line, function


class Ran(NamedTuple):
    """An entry of the ring."""

    start_s: float
    end_s: float
    kind: str  # request, spawned (works for one), greenlet (for none), hub, gil (it could not go on), idle
    span: Span | None = None
    record: Slice | None = None  # of one that was slow: its place becomes known later
    yielded: _Seen | None = None  # where it yielded, of any other


class Flight:
    """`slice`, `idle`, `delayed` and `exceeded` are called by the hub's thread, `take` by the writer's.

    `objectives_s`: the objective of a route, or of `ANY_ROUTE`.
    """

    def __init__(self, objectives_s: Mapping[str, float], application: Application, threshold_s: float) -> None:
        self._objectives_s = dict(objectives_s)
        self._any_s = self._objectives_s.get(ANY_ROUTE, float("inf"))
        self._application = application
        self._queued_s = TOO_LONG_QUEUED * threshold_s
        self._ring: deque[Ran] = deque(maxlen=RING)
        self._victims: deque[Span] = deque(maxlen=VICTIMS)
        self._worst: Span | None = None  # the request whose moment is told next
        self._due_s = 0.0  # and when: later ones that are slower take its place until then
        self._quiet_until_s = 0.0
        self._exceeded = 0  # requests so far
        self._counted = 0  # of them, those that the files know of

    def slice(
        self, start_s: float, end_s: float, kind: str, span: Span | None, record: Slice | None, frame: FrameType | None
    ) -> None:
        """One that was not short has ended; `frame`: where it yielded, if the greenlet goes on later."""
        yielded = self._yielded_at(frame) if record is None else None
        self._ring.append(Ran(start_s, end_s, kind, span, record, yielded))

    def idle(self, start_s: float, end_s: float) -> None:
        """The hub had nothing to do."""
        self._ring.append(Ran(start_s, end_s, "idle"))

    def delayed(self, span: Span) -> None:
        """It was queued behind a slow slice."""
        self._victims.append(span)

    @property
    def exceeded(self) -> int:
        """Requests that took longer than their limit."""
        return self._exceeded

    @property
    def least_limit_s(self) -> float:
        """Requests of less are never too slow, whatever their route."""
        return min([*self._objectives_s.values(), self._any_s, self._queued_s])

    def limit_s(self, route: str) -> float:
        """Those of this route, of less, are not."""
        return min(self._objectives_s.get(route, self._any_s), self._queued_s)

    def ended(self, span: Span) -> None:
        """A request took longer than its limit."""
        if span.total_s <= self._objectives_s.get(route_of(span), self._any_s) and span.queued_s <= self._queued_s:
            return
        self._exceeded += 1
        end_s = span.started_s + span.total_s
        worst = self._worst
        if worst is None:
            if end_s >= self._quiet_until_s:
                self._worst, self._due_s = span, end_s + SETTLE_S
        elif span.total_s > worst.total_s:
            self._worst = span

    def take(self, now_s: float) -> list[dict[str, Any]]:
        """The lines to store: a moment that is due, and how many requests have none."""
        lines = []
        worst = self._worst
        if worst is not None and now_s >= self._due_s:
            self._quiet_until_s = now_s + EVERY_S  # before the next may come
            self._worst = None
            self._counted += 1
            lines.append(self._moment(worst))  # after that: if it raises, the same is not tried for ever
        exceeded = self._exceeded - (self._worst is not None)
        if exceeded > self._counted:
            lines.append({"type": "exceeded", "count": exceeded - self._counted})
            self._counted = exceeded
        return lines

    def _yielded_at(self, frame: FrameType | None) -> _Seen | None:
        for _ in range(_FRAMES):
            if frame is None:
                break
            code = frame.f_code
            if self._application.owns(code.co_filename):
                return code.co_filename, frame.f_lineno or 0, code.co_name
            frame = frame.f_back
        return None

    def _moment(self, span: Span) -> dict[str, Any]:
        offset_s = time.time() - time.perf_counter()  # perf_counter's zero is arbitrary
        end_s = span.started_s + span.total_s
        objective_s = self._objectives_s.get(route_of(span), self._any_s)
        ring = [ran for ran in list(self._ring) if ran.end_s > span.started_s and ran.start_s < end_s]
        start_s = max(span.started_s, end_s - WINDOW_S)
        if len(ring) == RING:  # what came before is gone
            start_s = max(start_s, ring[0].start_s)
        inside = [(ran, min(ran.end_s, end_s) - max(ran.start_s, start_s)) for ran in ring if ran.end_s > start_s]
        slices = sorted((one for one in inside if one[0].kind != "idle"), key=lambda one: -one[1])
        told, left_out = slices[:MAX_SLICES], slices[MAX_SLICES:]
        waited = self._waited(span, start_s, end_s)
        return {
            "type": "moment",
            "request": _told(span),
            "objective_s": objective_s if objective_s < float("inf") else None,
            "start": round(start_s + offset_s, 6),
            "length_s": round(end_s - start_s, 6),
            "idle_s": round(sum(cost_s for ran, cost_s in inside if ran.kind == "idle"), 6),
            "slices": [_slice(ran, offset_s) for ran, _ in sorted(told, key=lambda one: one[0].start_s)],
            "more_slices": [len(left_out), round(sum(cost_s for _, cost_s in left_out), 6)],
            "waited": [_told(other) for other in waited[:MAX_WAITED]],
            "more_waited": [len(waited[MAX_WAITED:]), round(sum(one.queued_s for one in waited[MAX_WAITED:]), 6)],
        }

    def _waited(self, span: Span, start_s: float, end_s: float) -> list[Span]:
        """Other requests that were queued behind slow slices then, and have ended."""
        others = {id(other): other for other in list(self._victims) if other is not span}
        waited = [
            other
            for other in others.values()
            if other.total_s > 0.0 and other.started_s < end_s and other.started_s + other.total_s > start_s
        ]
        return sorted(waited, key=lambda other: -other.queued_s)


def _told(span: Span) -> dict[str, Any]:
    told = slow_request(span)
    told["blamed"] = sorted(told["blamed"], key=lambda by: -by["s"])[:MAX_CULPRITS]
    return told


def _slice(ran: Ran, offset_s: float) -> dict[str, Any]:
    place = None if ran.record is None else ran.record.place
    file, line, function = (place.file, place.line, place.function) if place is not None else ran.yielded or ("", 0, "")
    return {
        "started": round(ran.start_s + offset_s, 6),
        "length_s": round(ran.end_s - ran.start_s, 6),
        "kind": ran.kind,
        "route": route_of(ran.span) if ran.span else "",
        "request_id": text_of(ran.span.request_id, "") if ran.span else "",
        "file": file,
        "line": line,
        "function": function,
        "yielded": place is None,  # the line is where it yielded at last
        "excuse": ran.record.excuse if ran.record is not None else "",
    }

"""What kept the hub for long: slow slices, convoys of short ones, and polls after which it did not get the GIL.

The hook's rare half, on the hub: it makes the records that the watchdog finds a place and a cause for, and that
requests which were kept waiting are charged to. Apart from the hook, since none of it is worth compiling.
A poll is late when libev stamped its return (which needs no GIL) long before the first callback after it
ran; the CPU may have been away in between, so it needs a witness before anybody is said to have held the GIL
(causes.py).
Bounds: `RECENT` records of the last `RECENT_S` that a request may have been behind: one that has waited for longer, or
behind more, is no victim of the others. `MAX_FINISHED` records wait for the watchdog.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from profiler.convoy import Convoys
from profiler.frames import capture, capture_running, of_threads
from profiler.lateness import Lateness
from profiler.model import Slice, name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenlet import greenlet

    from profiler.arrivals import Sightings
    from profiler.collector import Collector
    from profiler.flight import Flight
    from profiler.frames import Stack
    from profiler.model import Span, Turn
    from profiler.usage import Meter

# So long after a slow slice the watchdog tells of it. Most victims had their turn by then; if requests have to wait for
# many slow slices, the harm of the first goes on growing while the others run, and what it grew by is told later.
SETTLE_S = 0.25
PLACES_WITHIN_S = 1.0  # so long the watchdog may take to say where a slow slice was; many of its ticks
RECENT = 2000  # slow slices that a queued request may still have been behind: 20 s and more of nothing else
RECENT_S = 60.0  # and how long ago they ended: by then no balancer waits for an answer
# Slow slices, the latest, that refer to their requests; earlier ones, once these have ended, to their names, which are
# what they were by then: a request refers to the slices it was behind, and so on, as far back as the worker was busy.
LINKED = 256
MAX_FINISHED = 1000  # slow slices the watchdog has yet to read: at 10 ms each, 10 s of a hub doing nothing else


class Links(NamedTuple):
    """What the hook, and this, are connected to."""

    hub: Any  # gevent's
    meter: Meter
    turn: Turn
    batch: list[Span]  # finished requests that were one slice
    waited: list[Span]  # and the others
    unusual: list[Span]  # those of them that ended in an error, or with an outcome
    unsplit: set[Span]  # requests of which part was not traced, so that how their time divides is not known
    spare: list[Span]  # to be used again
    finished: deque[Slice]  # slices over the threshold
    fold: Callable[[], None]  # called when the batch is full
    woken: Callable[[], None]  # called at the first turn after `Hook.doze`
    flight: Flight | None = None
    sightings: Sightings | None = None


class Stalls:
    """Told of slices that are worth a look. Only the hub's thread calls it."""

    def __init__(self, collector: Collector, threshold_s: float, links: Links) -> None:
        self._hub = links.hub
        self._meter = links.meter
        self._collector = collector
        self._finished = links.finished
        self._threshold_s = threshold_s
        self._flight = links.flight
        self._convoys = Convoys(threshold_s)
        self.lateness = Lateness(links.hub, links.turn, links.sightings, threshold_s)
        self._convoy: Slice | None = None  # of this turn
        self._turn = (0.0, 0.0)  # as in Slice
        self._turns = 0
        self._linked: deque[Slice] = deque()
        self.recent: deque[Slice] = deque(maxlen=RECENT)
        self.count = 0
        self.unsettled = False  # requests may still be waiting for what a stall has kept from them
        self.dropped = 0

    def turn(self, number: int, began_s: float, cpu_s: float) -> None:
        """Of which turn the next ones are: its number, its begin, and the CPU time of the hub's thread then."""
        self._turns = number
        self._turn = began_s, cpu_s

    def ended(self, origin: greenlet, start_s: float, end_s: float, span: Span | None, own: bool) -> Slice | None:
        """A slice has, that may be slow or part of a convoy; returns it if it is slow.

        `span`: the request it worked for; `own`: in the request's own greenlet.
        """
        if self.lateness.kept(self._turns, self._turn[0], end_s - start_s):
            self.unsettled = True
        record = None
        if end_s - start_s < self._threshold_s:
            self._join(start_s, end_s, span)
        else:
            record = self._slow(origin, start_s, end_s, span)
        if self._flight is not None:
            kind = "hub" if origin is self._hub else "greenlet" if span is None else "request" if own else "spawned"
            self._flight.slice(start_s, end_s, kind, span, record, None if origin is self._hub else origin.gr_frame)
        return record

    def begin(self, number: int, polled_s: float, now_s: float) -> None:
        """A turn of this number begins, after a poll that began then; called while `unsettled`."""
        if self.lateness.begin(number, polled_s):
            return
        if not self.recent or now_s - self.recent[-1].end_s > SETTLE_S:
            self.unsettled = False
            self.lateness.settled()

    def are_placed(self, now_s: float) -> bool:
        """The watchdog has said where they were, or will not: who is told of requests now is told whom to blame."""
        for record in reversed(self.recent):
            if now_s - record.end_s > PLACES_WITHIN_S:
                break
            if record.place is None:
                return False
        return True

    def delayed(self, span: Span) -> None:
        """A request was queued behind some of them."""
        if self._flight is not None:
            self._flight.delayed(span)

    def _slow(self, origin: greenlet, start_s: float, end_s: float, span: Span | None) -> Slice:
        self.end_of_turn()
        self._convoys.stalled(self._turns, end_s)
        record = self._record(start_s, end_s, span, () if origin is self._hub else capture(origin.gr_frame))
        record.gc_s = self._collector.spent_s(start_s)
        record.collected = self._collector.where(start_s)
        self._finish(record)
        return record

    def end_of_turn(self) -> None:
        """The hub polls next: a convoy ends here."""
        convoy = self._convoy
        if convoy is not None:
            convoy.usage = self._meter.read()
            self._convoy = None
            self._finish(convoy)

    def polled(self, number: int, began_s: float, now_s: float) -> float:
        """A poll that began then is over, and with it a turn: when it really returned. Keeps a record if long ago."""
        ready_s = now_s if now_s - began_s < self._threshold_s else self._late_poll_s(number, began_s, now_s)
        if self._flight is not None:
            self._flight.idle(began_s, ready_s)
        return ready_s

    def _late_poll_s(self, number: int, began_s: float, now_s: float) -> float:
        late_s: float = min(now_s - self.lateness.returned_s(), now_s - began_s)
        if late_s < self._threshold_s:
            return now_s
        record = self._record(now_s - late_s, now_s, None, ())
        record.polled = True
        # Whoever had the GIL may have gone on when the watchdog gets it.
        frames = of_threads()
        record.threads = {ident: capture_running(frame, held=True) for ident, frame in frames.items()}
        self._convoys.stalled(number, now_s)
        self.lateness.kept(number, now_s - late_s, late_s)
        self._finish(record)
        if self._flight is not None:
            self._flight.slice(record.start_s, now_s, "gil", None, record, None)
        return now_s - late_s

    def _join(self, start_s: float, end_s: float, span: Span | None) -> None:
        part = self._convoys.add(self._turns, self._turn[0], start_s, end_s, span)
        if part is None:
            return
        if self._convoy is None:
            self._convoy = self._record(part.since_s, end_s, span, ())
        self._convoy.end_s = end_s
        self._convoy.members = part.members
        self._convoy.shared = part.shared

    def _record(self, start_s: float, end_s: float, span: Span | None, yielded: Stack) -> Slice:
        self.count += 1
        self.unsettled = True
        record = Slice(start_s, end_s, span, 0.0, self._meter.read(), self._turn, yielded)
        while self.recent and start_s - self.recent[0].end_s > RECENT_S:
            self.recent.popleft()
        self.recent.append(record)
        self._linked.append(record)
        for _ in range(2):  # so that there come to be fewer again
            if len(self._linked) > LINKED:
                self._unlink(self._linked.popleft())
        return record

    def _unlink(self, oldest: Slice) -> None:
        span = oldest.span
        if span is None:
            return
        if span.total_s < 0.0 and len(self._linked) < RECENT:  # it goes on, and this may be its child's slice
            self._linked.append(oldest)
        else:
            oldest.span = name_of(span)

    def _finish(self, record: Slice) -> None:
        if len(self._finished) < MAX_FINISHED:
            self._finished.append(record)
        else:
            self.dropped += 1

"""The hook: exact slices of every greenlet and of the hub, from `greenlet.settrace`, on every switch.

What it measures. A slice is what a greenlet did between being switched in and switched out. libev runs a turn as
prepare -> callbacks -> epoll -> check -> watchers, so three watchers of ours frame the rest: `before_callbacks` and
`before_poll` (prepare, first and last), `after_poll` (check, first). Time between the last two is idle; the hub's
slices end there too.
When was a greenlet ready that the hub switches in? After `after_poll`, when poll returned; in the callbacks phase, when
that began; in both cases not before it was switched out (DESIGN.md says how far that is from the truth).

How it stays cheap. Only the request that has the hub is a variable (`_active`), and a request enters the dictionary of
the suspended only when it really waits. Other greenlets cost one failed look-up, and none while no request waits. No
lock, no logging; the only objects made are floats, and none when compiled. Anything rare is a function of its own.

How it stays safe. An exception in a trace function would remove it and be thrown into the target greenlet:
everything is caught, and what is not ours to swallow (a signal handler's KeyboardInterrupt) is raised again
from the hub. An earlier tracer is chained. Every turn looks whether the tracer is still ours.

Limits: one thread (greenlet traces per thread); one open span a greenlet, since beginning a second one
abandons the first; the GC is timed when the hub's thread runs it.
"""

# ruff: noqa: F821, PLR1730, RUF023, SLF001
# Names that Cython has as C functions; max() is a call; slots by their lifetime; the hook is the other half of Span.

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, gettrace, greenlet

from profiler.collector import Collector
from profiler.convoy import MEMBER
from profiler.identity import key_of
from profiler.lineage import INHERITED, LEFT_BEHIND_S, sweep
from profiler.model import Counts, Span
from profiler.stalls import Links, Stalls
from profiler.tracing import Tracing

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 128  # finished requests folded together at most: some 40 us of hub time, interpreted (profiler_switch.py)


def _new_span() -> Span:
    span = Span()
    span.error = False
    return span


# Compiled, hook.pxd has C functions of these names: so nothing may assign to them that Cython sees.
clock: Callable[[], float]
cpu_clock: Callable[[], float]
new_span: Callable[[], Span]
globals().update(clock=time.perf_counter, cpu_clock=time.thread_time, new_span=_new_span)


class Hook:
    """Made in the hub's thread; nothing is traced before `install`.

    All is written in the hub's thread only. Others call `peek` and `counts`, which read.
    """

    __slots__ = (
        # Of the process
        "_batch", "_collector", "_fold", "_hub", "_notable_s", "_spare", "_stalls", "_tracing", "_turn", "_unsplit",
        "_unusual", "_waited", "_woken",
        # Since the start, as in Counts
        "_dropped", "_failures", "_idle_s", "_slices_over", "_turns",
        "_switches",  # a float: see model.py
        # Of the turn of the loop
        "_asleep",  # nothing was to do: tell `woken` at the next turn
        "_ready",  # when its present phase began
        "_polling", "_turn_cpu_s", "_turn_s",
        # Of the slice
        "_active",  # the request that has the hub
        "_late", "_late_s",  # the one that had most of it, of those that have ended in it when it was notable; how much
        "_look_s",  # not later than `_start` and `_notable_s`: if it ends before, it is not notable
        "_mark",  # from where on time is not yet given to a request
        "_start",
        # Of requests that wait or are queued, and of the slow slices they may be behind
        "_stalled",  # requests may be behind one: `Stalls.unsettled`
        "_recent", "_suspended",
    )  # fmt: skip

    def __init__(self, links: Links, threshold_s: float) -> None:
        self._hub, self._turn = links.hub, links.turn
        self._batch, self._unusual, self._spare = links.batch, links.unusual, links.spare
        self._fold, self._woken, self._unsplit, self._waited = links.fold, links.woken, links.unsplit, links.waited
        self._notable_s = threshold_s * MEMBER  # from here on a slice is looked at after its end
        self._collector = Collector(self._start_of_slice)
        self._stalls = Stalls(self._collector, threshold_s, links)
        self._tracing = Tracing(self.trace, self._start_of_slice, self._failed)
        self._dropped = self._failures = self._slices_over = self._turns = 0
        self._idle_s = self._switches = self._late_s = self._look_s = 0.0
        self._asleep = self._polling = self._stalled = False
        self._turn_cpu_s = cpu_clock()
        self._active: Span | None = None
        self._late: Span | None = None
        self._turn_s = self._start = self._mark = self._ready = clock()
        self._recent = self._stalls.recent
        self._suspended: dict[greenlet, Span] = {}

    def trace(self, _event: str, args: tuple[greenlet, greenlet]) -> None:
        """The tracer: `args` are who had the hub and who has it now."""
        try:
            now = clock()
            if now >= self._look_s:
                self._look(args[0], now)
            if self._active is not None:
                active = self._active
                busy_s = now - self._mark
                if not active._out_s:
                    active._running_s = active._longest_s = busy_s
                else:
                    active._running_s += busy_s
                    if busy_s > active._longest_s:
                        active._longest_s = busy_s
                active._out_s = now
                self._suspended[args[0]] = active
                self._active = None
                if args[1] is not self._hub:
                    self._handed_on(args[1], active)
            if self._suspended and args[1] is not self._hub:
                back = self._suspended.pop(args[1], None)
                if back is not None and back.total_s < 0.0:  # else it has been ended elsewhere
                    self._active = back
                    if args[0] is self._hub:  # else one that it has switched to itself comes back: no queue
                        if self._stalled:
                            self._queued(back, now)
                        else:
                            since = back._out_s
                            if since < self._ready:
                                since = self._ready
                            back.queued_s += now - since
            self._start = self._mark = now
            self._switches += 1.0
        except BaseException as error:  # noqa: BLE001 - see the module's docstring
            self._failed(error)

    def begin(self, route: str, request_id: str, ready_ns: int = 0) -> Span:
        """See `Session.begin`."""
        if self._active is not None:
            self._dropped += 1
            self._active.total_s = 0.0
        self._active = span = self._spare.pop() if self._spare else self._further()
        span.route = route
        span.request_id = request_id
        span.blamed = None
        span.total_s = -1.0
        span._out_s = 0.0
        began = ready = self._mark
        if ready_ns < 0:  # THIS_TURN
            ready = self._turn.ready_s
        elif ready_ns:
            ready = ready_ns * 1e-9
        if ready < began:
            span.started_s = ready
            span.queued_s = began - ready
            if self._stalled:
                self._blame(span, ready, began)
        else:
            span.started_s = began
            span.queued_s = 0.0
        return span

    def end(self, span: Span, error: bool = False, outcome: int = 0) -> None:
        """See `Session.end`."""
        if self._active is not span or span is None:
            self._end_elsewhere(span, error, outcome)
            return
        now = clock()
        self._active = None
        if now >= self._look_s and now - self._start >= self._notable_s and now - self._mark > self._late_s:
            self._late = span
            self._late_s = now - self._mark
        span.total_s = now - span.started_s
        if span._out_s:
            busy_s = now - self._mark
            span._running_s += busy_s
            if busy_s > span._longest_s:
                span._longest_s = busy_s
            self._waited.append(span)
        else:  # it was one slice, so there is nothing to add up
            self._batch.append(span)
        self._mark = now
        if error or outcome:
            span.error = error
            span.outcome = outcome
            self._unusual.append(span)

    def _end_elsewhere(self, span: Span, error: bool, outcome: int) -> None:
        if span is None:
            raise TypeError("end() takes the span that begin() returned, not None")
        # By another greenlet than began it (a timeout, a disconnect): it counts as waiting until now. Or ended twice.
        if span.total_s < 0.0:
            if not span._out_s:  # nobody was told when
                span._running_s = span._longest_s = 0.0
                span._out_s = span.started_s
            span.total_s = clock() - span.started_s
            if error or outcome:
                span.error = error
                span.outcome = outcome
                self._unusual.append(span)
            self._waited.append(span)

    def _further(self) -> Span:
        if self._notable_s == float("inf"):  # removed: whoever has kept `begin` and `end` calls them, but nobody folds
            for kept in (self._batch, self._waited, self._unusual):
                kept.clear()
        return new_span()

    def _look(self, origin: greenlet, now: float) -> None:
        if now - self._start >= self._notable_s:
            self._notable(origin, now)
        self._look_s = now + self._notable_s  # for the next slice, which begins now

    def _notable(self, origin: greenlet, now: float) -> None:
        # Several requests may have shared it, one after the other: it is the one's that had most of it.
        if origin is self._hub and gettrace() is not self._tracing.tracer:
            self._astray()  # it was not told that a request had this slice only at first
        own, cost_s = self._active, now - self._mark
        if own is None or self._late_s > cost_s:
            own, cost_s = self._late, self._late_s
        self._late, self._late_s = None, 0.0
        span = own
        if own is None:
            span, cost_s = self._whose(origin), now - self._start
        self._stalls.turn(self._turns, self._turn_s, self._turn_cpu_s)
        record = self._stalls.ended(origin, self._start, now, span, own is not None)
        self._slices_over = self._stalls.count
        self._stalled = self._stalls.unsettled
        if record is not None and span is not None:
            span.charge(record, cost_s)

    def _long_poll(self, now: float) -> None:
        ready = self._stalls.polled(self._turns + 1, self._start, now)
        if ready < now:
            self._idle_s -= now - ready
            self._turn_s = self._ready = ready
            self._slices_over = self._stalls.count
            self._stalled = True

    def _queued(self, span: Span, now: float) -> None:
        # As in `trace`, after a stall: that may have kept the loop from noticing that it was ready.
        since = self._stalls.lateness.ready_s(span._out_s, self._ready, self._ready == self._turn_s)
        span.queued_s += now - since
        self._blame(span, since, now)

    def _blame(self, span: Span, since: float, until: float) -> None:
        # Which slow slices had the hub while this request was ready? 5 ns for each of them, 45 interpreted: with a
        # thousand requests behind it, a slice of 10 ms takes half a percent longer at worst.
        least_s = 0.0
        for record in reversed(self._recent):
            if record.end_s <= since:
                break
            harm_s = min(record.end_s, until) - max(record.start_s, since)
            if harm_s > 0.0 and record.span is span and not record.shared:  # a greenlet it spawned, and waited for
                span.queued_s -= harm_s
            elif harm_s >= self._notable_s:  # the last moments of a slice, after its answer was sent, have no victims
                record.harm_s += harm_s
                record.victims += 1
                if harm_s > least_s:
                    least_s = span.charge(record, harm_s)
        if span.blamed is not None:
            self._stalls.delayed(span)

    def before_callbacks(self) -> None:
        """First in a turn."""
        self._ready = clock()
        self._polling = False  # `before_poll` may have been called ahead of the first

    def before_poll(self) -> None:
        """Last before the loop waits."""
        now = clock()
        if self._active is not None:
            self._astray()
        if now >= self._look_s:
            self._look(self._hub, now)
        if self._stalled:
            self._stalls.end_of_turn()
        self._start = self._mark = now
        self._polling = True

    def after_poll(self) -> None:
        """First when it has waited."""
        now = clock()
        self._look_s = now + self._notable_s
        self._turn_cpu_s = cpu_clock()
        self._turn_s = self._ready = now
        if self._polling:
            self._idle_s += now - self._start
            if now - self._start >= self._notable_s:
                self._long_poll(now)
            self._polling = False
        self._turn.ready_s = self._turn_s  # for `begin`
        if self._stalled:
            self._stalls.begin(self._turns + 1, self._start, now)
            self._stalled = self._stalls.unsettled
        self._start = self._mark = now
        self._turns += 1
        if gettrace() is not self._tracing.tracer:
            self._astray()
            if self._tracing.recheck():  # of those that ended lately, which are few, some may be right
                self._unsplit.update(self._suspended.values(), self._waited, self._batch)
            self._start = self._mark = clock()
        if len(self._batch) >= BATCH or len(self._waited) >= BATCH:
            self._fold()
        if self._asleep:
            self._asleep = False
            self._woken()

    def doze(self) -> None:
        """Ask for `Links.woken` at the next turn."""
        self._asleep = True

    def _astray(self) -> None:
        # The tracer was not told who has the hub now, nor is known in which greenlet this one is.
        if self._active is not None:
            self._unsplit.add(self._active)
        self._active = self._late = None
        self._late_s = 0.0

    def _failed(self, error: BaseException) -> None:
        self._astray()
        self._start = self._mark = clock()
        if isinstance(error, Exception):
            self._failures += 1
        else:  # not ours: a signal handler ran while we did
            self._hub.loop.run_callback(self._hub.handle_error, None, type(error), error, error.__traceback__)

    def _handed_on(self, target: greenlet, span: Span) -> None:
        # Not by way of the hub: whoever a request switches to works for it, unless that has a request of its own.
        if key_of(target) not in self._suspended:
            setattr(target, INHERITED, span)

    def _whose(self, one: Any) -> Span | None:
        # The request that a greenlet without one of its own works for: its parent waits for it to end.
        span: Span | None = None
        while span is None and one is not None and one is not self._hub:
            span = self._suspended.get(key_of(one)) or self._inherited(one)
            one = one.parent
        return span

    def _inherited(self, one: Any) -> Span | None:
        # What a request has started works for it, but not for ever: then it is nobody's (lineage.py).
        span: Span | None = getattr(one, INHERITED, None)
        if span is None or span.total_s < 0.0 or clock() - span.started_s < LEFT_BEHIND_S:
            return span
        setattr(one, INHERITED, None)
        return None

    def working_for(self) -> Span | None:
        """The request that the current greenlet works for."""
        return self._active or self._whose(getcurrent())

    def sweep(self) -> None:
        """Forget requests of dead greenlets (lineage.py), and look for classes that compare greenlets (identity.py)."""
        self._tracing.heed(self._suspended)
        self._dropped += sweep(self._suspended)

    def install(self) -> None:
        """Trace from now on; call it in the hub's thread."""
        self._tracing.install()
        self._collector.install()
        self._start = self._mark = self._ready = clock()

    def remove(self) -> None:
        """Trace no more."""
        self._tracing.remove()
        self._notable_s = self._look_s = float("inf")  # somebody may still call us from a chain of their own
        self._collector.remove()

    def _start_of_slice(self) -> float:
        return self._start

    def peek(self) -> tuple[float, bool, Span | None]:
        """When this slice began (its identity), whether the hub is polling, the request that has the hub."""
        return self._start, self._polling, self._active

    @property
    def stalls(self) -> Stalls:
        """What kept the hub for long."""
        stalls: Stalls = self._stalls
        return stalls

    def turn(self) -> float:
        """When this turn of the loop began (its identity)."""
        return self._turn_s

    def turns(self) -> int:
        """How many there have been."""
        return self._turns

    def counts(self) -> Counts:
        """The totals."""
        over, dropped = self._slices_over, self._dropped + self._stalls.dropped
        displaced, failures = self._tracing.displaced, self._failures
        return Counts(int(self._switches), self._turns, self._idle_s, over, dropped, displaced, failures)

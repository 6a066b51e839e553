"""The hook: exact slices of every greenlet and of the hub, from `greenlet.settrace`, on every switch.

What it measures. A slice is what a greenlet did between being switched in and switched out. libev runs a turn
as prepare -> callbacks -> epoll -> check -> watchers, so three watchers of ours frame the rest:
`before_callbacks` and `before_poll` (prepare, first and last), `after_poll` (check, first). Time between the
last two is idle; the hub's slices end there too.
When was a greenlet ready that the hub switches in? After `after_poll`, when poll returned; in the callbacks
phase, when that began; in both cases not before it was switched out (DESIGN.md says how far that is from the
truth).

How it stays cheap. State lives in closure variables of one function; only the request that has the hub is a
variable (`active`), and a request enters the dictionary of the suspended only when it really waits. Greenlets
without a request cost one failed look-up. No lock, no logging; the only objects made are floats. Anything
rare is a function of its own.

How it stays safe. An exception in a trace function would remove it and be thrown into the target greenlet:
everything is caught, and what is not ours to swallow (a signal handler's KeyboardInterrupt) is raised again
from the hub. An earlier tracer is chained. Every turn looks whether the tracer is still ours.

Limits: one thread (greenlet traces per thread); one open span a greenlet, since beginning a second one
abandons the first; the GC is timed when the hub's thread runs it.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from gevent import Greenlet
from greenlet import getcurrent, gettrace, greenlet, settrace

from profiler.frames import capture
from profiler.model import Slice, Span
from profiler.native import get_ident

if TYPE_CHECKING:
    from collections.abc import Callable

    from profiler.usage import Meter

    Tracer = Callable[[Literal["switch", "throw"], tuple[greenlet, greenlet]], object]

BATCH = (
    128  # finished requests folded together at most: 128 take some 40 us of hub time (benchmarks/profiler_switch.py)
)
SETTLE_S = 0.25  # so long after a slow slice its victims are looked for: they get their turn within a few
RECENT = 16  # slow slices that a queued request may still have been behind
MAX_FINISHED = (
    1000  # slow slices the watchdog has yet to read; at a 10 ms threshold that is 10 s of a hub doing nothing else
)
MAX_BLAMED = 16  # culprits kept with a request; one that has more was in a stalled worker, not behind a stall

_INHERITED = "_profiler_span"  # the attribute by which a spawned Greenlet knows the request it works for


class Begin(Protocol):
    """See `Session.begin`."""

    def __call__(self, route: str, request_id: str, ready_ns: int = 0) -> Span: ...


class End(Protocol):
    """See `Session.end`."""

    def __call__(self, span: Span, error: bool = False) -> None: ...


class Turn:
    """This turn of the loop. `ready_ns` is when its poll returned, by `time.perf_counter_ns`."""

    __slots__ = ("ready_ns",)

    def __init__(self) -> None:
        self.ready_ns = time.perf_counter_ns()


class Counts(NamedTuple):
    """Totals since the start."""

    switches: int
    turns: int
    idle_s: float
    slices_over: int
    dropped: int  # slow slices the watchdog never read, spans that were never ended
    displaced: int  # times the tracer had been removed by somebody else
    failures: int  # exceptions in the hook or in a chained tracer


class Hook(NamedTuple):
    """The functions that share the hook's state."""

    begin: Begin
    end: End
    trace: Tracer
    before_callbacks: Callable[[], None]
    before_poll: Callable[[], None]
    after_poll: Callable[[], None]
    # For other threads: when this slice began (its identity), whether the hub is polling, the request that has the hub.
    peek: Callable[[], tuple[float, bool, Span | None]]
    counts: Callable[[], Counts]
    sweep: Callable[[], None]  # forget the spans of dead greenlets
    doze: Callable[[], None]  # ask for `Links.woken` at the next turn
    install: Callable[[], None]
    remove: Callable[[], None]


def _charge(span: Span, record: Slice, cost_s: float) -> None:
    if span.blamed is None:
        span.blamed = []
    if len(span.blamed) < MAX_BLAMED:
        span.blamed.append((record, cost_s))


class Links(NamedTuple):
    """What the hook is connected to."""

    hub: Any  # gevent's
    meter: Meter
    turn: Turn
    batch: list[Span]  # finished requests, in order
    errors: list[Span]  # those of them that ended in an error
    finished: deque[Slice]  # slices over the threshold
    fold: Callable[[], None]  # called when the batch is full
    woken: Callable[[], None]  # called at the first turn after `Hook.doze`


def _nothing() -> None:
    """What a greenlet runs that is switched to only for the switch."""


def build(links: Links, threshold_s: float) -> Hook:
    """Make a hook; nothing is traced before its `install`, which must be called in the hub's thread."""
    hub, meter, turn, batch, errors, finished, fold, woken = links
    clock, clock_ns, cpu_clock = time.perf_counter, time.perf_counter_ns, time.thread_time
    hub_ident = get_ident()
    done = batch.append
    suspended: dict[greenlet, Span] = {}  # requests that wait or are queued
    resume = suspended.pop
    recent: deque[Slice] = deque(maxlen=RECENT)

    # All of these are written in the hub's thread only; other threads read.
    start = mark = ready = clock()  # of this slice; from where time is not yet given to a span; of this phase
    turn_ns, turn_s, turn_cpu_s = turn.ready_ns, start, time.thread_time()
    active: Span | None = None  # the request that has the hub
    late: Span | None = None  # it ended, but late in a slice that was over the threshold by then
    polling = False
    stalled = False  # a slice was slow less than SETTLE_S ago
    switches = 0.0  # a float: see model.py
    turns = slices_over = dropped = displaced = failures = 0
    idle_s = gc_began = gc_s = gc_slice = 0.0
    earlier: Tracer | None = None  # somebody else's, called after ours
    tracer: Tracer | None = None  # what gettrace should say: `trace`, or a function that calls it
    asleep = False

    def trace(_event: str, args: tuple[greenlet, greenlet]) -> None:
        nonlocal start, mark, active, switches
        try:
            now = clock()
            origin, target = args
            if now - start >= threshold_s:
                over(origin, now)
            if active is not None:
                busy_s = now - mark
                active.running_s += busy_s
                if busy_s > active.longest_slice_s:  # noqa: PLR1730 - max() is a call
                    active.longest_slice_s = busy_s
                active._out_s = now  # noqa: SLF001 - the hook is the other half of Span
                suspended[origin] = active
                active = None
            if target is not hub and target in suspended:
                active = resume(target)
                out_s = active._out_s  # noqa: SLF001
                since = out_s if out_s > ready else ready
                active.queued_s += now - since
                if stalled:
                    blame(active, since, now)
            start = mark = now
            switches += 1.0
        except BaseException as error:  # noqa: BLE001 - see the module's docstring
            failed(error)

    def begin(route: str, request_id: str, ready_ns: int = 0) -> Span:
        nonlocal active
        if active is not None:
            abandon()
        active = span = Span()
        span.route = route
        span.request_id = request_id
        span.error = False
        span.blamed = None
        span.running_s = span.longest_slice_s = span._out_s = 0.0  # noqa: SLF001
        # The server passes the turn's own stamp to many requests: that one needs no conversion.
        ready_s = ready if ready_ns is turn_ns else ready_ns * 1e-9
        if ready_ns and ready_s < mark:
            span.started_s = ready_s
            span.queued_s = mark - ready_s
            if stalled:
                blame(span, ready_s, mark)
        else:
            span.started_s = mark
            span.queued_s = 0.0
        return span

    def end(span: Span, error: bool = False) -> None:
        nonlocal active, mark, late
        if active is not span:
            end_elsewhere(span, error)
            return
        now = clock()
        active = None
        busy_s = now - mark
        mark = now
        span.running_s += busy_s
        if busy_s > span.longest_slice_s:  # noqa: PLR1730 - max() is a call
            span.longest_slice_s = busy_s
        span.total_s = now - span.started_s
        if error:
            span.error = True
            errors.append(span)
        if now - start >= threshold_s:
            late = span
        done(span)

    def end_elsewhere(span: Span, error: bool) -> None:
        # By another greenlet than began it (a timeout, a disconnect): it counts as waiting until now. Or ended twice.
        for suspended_greenlet, other in suspended.items():
            if other is span:
                del suspended[suspended_greenlet]
                span.total_s = clock() - span.started_s
                if error:
                    span.error = True
                    errors.append(span)
                done(span)
                break

    def abandon() -> None:
        nonlocal active, dropped
        active = None
        dropped += 1

    def over(origin: greenlet, now: float) -> None:
        nonlocal late, stalled, slices_over, dropped
        span = late or active or getattr(origin, _INHERITED, None)
        late = None
        yielded = () if origin is hub else capture(origin.gr_frame)
        record = Slice(
            start, now, span, gc_s if gc_slice == start else 0.0, meter.read(), (turn_s, turn_cpu_s), yielded
        )
        slices_over += 1
        stalled = True
        recent.append(record)
        if len(finished) < MAX_FINISHED:
            finished.append(record)
        else:
            dropped += 1
        if span is not None:
            _charge(span, record, now - start)

    def blame(span: Span, since: float, until: float) -> None:
        # Which slow slices had the hub while this request was ready?
        for record in reversed(recent):
            if record.end_s <= since:
                break
            harm_s = min(record.end_s, until) - max(record.start_s, since)
            if harm_s > 0.0 and record.span is span:  # a greenlet it spawned, and waited for
                span.queued_s -= harm_s
            elif harm_s > 0.0:
                record.harm_s += harm_s
                record.victims += 1
                _charge(span, record, harm_s)

    def before_callbacks() -> None:
        nonlocal ready
        ready = clock()

    def before_poll() -> None:
        nonlocal start, mark, polling
        now = clock()
        if now - start >= threshold_s:
            over(hub, now)
        start = mark = now
        polling = True

    def after_poll() -> None:
        nonlocal start, mark, ready, turn_ns, turn_s, turn_cpu_s, polling, stalled, idle_s, turns, asleep
        turn.ready_ns = turn_ns = clock_ns()
        turn_s = now = turn_ns * 1e-9
        turn_cpu_s = cpu_clock()
        if polling:
            idle_s += now - start
            polling = False
        start = mark = ready = now
        turns += 1
        if gettrace() is not tracer:
            recheck()
        if len(batch) >= BATCH:
            fold()
        if stalled and now - recent[-1].end_s > SETTLE_S:
            stalled = False
        if asleep:
            asleep = False
            woken()

    def doze() -> None:
        nonlocal asleep
        asleep = True

    def recheck() -> None:
        nonlocal tracer, displaced, start, mark
        found: Any = gettrace()
        before = switches
        greenlet(_nothing).switch()
        if switches != before:  # the new one calls ours: leave it
            tracer = found
            return
        displaced += 1
        chain(found)
        start = mark = clock()

    def chain(found: Tracer | None) -> None:
        nonlocal earlier, tracer
        earlier = found
        tracer = trace if found is None else both
        settrace(tracer)

    def both(event: Literal["switch", "throw"], args: tuple[greenlet, greenlet]) -> None:
        trace(event, args)
        try:
            if earlier is not None:
                earlier(event, args)
        except BaseException as error:  # noqa: BLE001 - greenlet would drop it, and ours with it
            chain(None)
            failed(error)

    def failed(error: BaseException) -> None:
        nonlocal active, start, mark, failures
        active = None  # whose it is, is no longer known
        start = mark = clock()
        if isinstance(error, Exception):
            failures += 1
        else:  # not ours: a signal handler ran while we did
            hub.loop.run_callback(hub.handle_error, None, type(error), error, error.__traceback__)

    def on_gc(phase: str, _info: dict[str, int]) -> None:
        nonlocal gc_began, gc_s, gc_slice
        if get_ident() != hub_ident:
            return
        if phase == "start":
            gc_began = clock()
        else:
            if gc_slice != start:
                gc_slice = start
                gc_s = 0.0
            gc_s += clock() - gc_began

    def inherit(child: Any) -> None:
        span = active or getattr(getcurrent(), _INHERITED, None)
        if span is not None:
            setattr(child, _INHERITED, span)

    def sweep() -> None:
        nonlocal dropped
        for dead in [suspended_greenlet for suspended_greenlet in suspended if suspended_greenlet.dead]:
            del suspended[dead]
            dropped += 1

    def install() -> None:
        nonlocal start, mark, ready
        chain(gettrace())
        gc.callbacks.append(on_gc)
        Greenlet.add_spawn_callback(inherit)
        start = mark = ready = clock()

    def remove() -> None:
        nonlocal threshold_s, tracer
        if gettrace() is tracer:
            settrace(earlier)
        threshold_s = float("inf")  # somebody may still call us from a chain of their own
        tracer = None
        gc.callbacks.remove(on_gc)
        Greenlet.remove_spawn_callback(inherit)

    def peek() -> tuple[float, bool, Span | None]:
        return start, polling, active

    def counts() -> Counts:
        return Counts(int(switches), turns, idle_s, slices_over, dropped, displaced, failures)

    return Hook(
        begin, end, trace, before_callbacks, before_poll, after_poll, peek, counts, sweep, doze, install, remove
    )

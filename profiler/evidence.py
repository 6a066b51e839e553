"""From samples to a place: which line to name for one slow slice, and how sure that is.

Each sample stands for the time since the one before it. The application function with most of that time is
the place, its line with most time the line. Without the application on the stack the server is named, or the library
that was called, and the finding is marked so: nobody can change that line.
A sample is certain when the stack is of what took the time: the watchdog came on time, or it had asked for
the GIL and got it as soon as the code could give it, or the collector was at work. When it came late because
C code held the GIL, an operator before the call that is seen may have done that (bytecode.py).
When the GIL was let go of before it was asked for, the code is at the call that let go, perhaps long past the
one that took the time. When the watchdog had no CPU, so is the code wherever it is, unless it is where it was
before. So it is, too, when it let go of the GIL again and again, for moments: each time the watchdog wakes up, is too
late, and begins to wait anew. Of a convoy only what a slice was seen doing in the middle is told, not how it began.
The line is exact when certain samples show it for as long as nothing is certain of the rest of the slice.
Samples that are not certain still name a line of the application, not exactly. A place that samples of more than half
of the time speak against is not named, nor is any without a sample, or when one absence of the machine explains it all
(causes.py).
Pure: no clock, no threads.
"""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from profiler import causes
from profiler.bytecode import Held, held_at, is_between_bytecodes, returned_from
from profiler.causes import Kind
from profiler.frames import NOWHERE, Look, Place, Stack
from profiler.sites import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

    from profiler.frames import Application
    from profiler.model import Slice
    from profiler.threads import Wait
    from profiler.usage import Own, Usage

MAX_SAMPLES = 64  # of one slice: half of them still give each line of a loop its due
ASKED_INTERVALS = 1.3  # bytecode gives the GIL up after one switch interval; 1.2 were seen, on a machine with CPUs free
HELD_INTERVALS = 2.5  # more is C code that holds it, and no slow wake-up
# Who waits for the GIL wakes up once an interval, and a few times more in a look: 17 in 22 ms were seen. Each time that
# the hub lets go of it is one more: 680 in 45 ms were seen of a loop with `os.stat` in it.
PASSED_WAKES, PASSED_WAKES_MORE = 3.0, 8
# Of a convoy's slice: a greenlet goes on where it has waited, in a call that may let go of the GIL for a moment.
RESUMED_S = 0.0002
# The GIL counts as free up to FREE_S: timers are late by 0.1 ms. Who got it within LET_GO_S had it from the call that
# is seen. Both are parts of the usual switch interval, 5 ms, and not more of a longer one: any thread may keep the
# GIL for that.
FREE_S, LET_GO_S = 0.001, 0.0045
WAIT_TOLERATED_S = 0.001  # a fifth of the switch interval: the GIL is still asked for in time


def is_frozen(late_s: float, wakes: int, switch_interval_s: float) -> bool:
    """Whether a thread that was late did not wake up meanwhile, as who waits for the GIL does in each interval."""
    return late_s > HELD_INTERVALS * switch_interval_s and wakes < late_s / switch_interval_s / 2


class Sample(NamedTuple):
    """One look at the hub's stack."""

    age_s: float  # of the slice
    late_s: float  # beyond the time asked for, without what the run queue took
    own_wait_s: float  # that: the watchdog was awake, but had no CPU
    hub_wait_s: float  # so was the hub, since the last reading
    wakes: int  # how often it got a CPU since it went to sleep
    look: Look
    blocked: bool  # the hub's thread slept just then: in a system call, or waiting for the GIL
    alone: bool  # no other thread was in code of the application
    slice_s: float = math.inf  # of a convoy's: how long the slice had lasted that was going on

    @property
    def stack(self) -> Stack:
        """The hub's."""
        return self.look.stack

    def kind(self, switch_interval_s: float) -> Kind:
        """What the lateness says of the hub; see Kind."""
        if self.look.collecting:
            return Kind.INSIDE
        if self.late_s <= min(FREE_S, 0.2 * switch_interval_s):
            return Kind.FREE
        if self.late_s < 0.9 * switch_interval_s:
            # Another thread may have asked before us.
            if is_between_bytecodes(self.stack[0][0], self.look.offset):
                return Kind.ASKED
            return Kind.LET_GO if self.late_s < LET_GO_S else Kind.SLOW
        if self.late_s <= HELD_INTERVALS * switch_interval_s:
            in_time = self.late_s - self.hub_wait_s <= ASKED_INTERVALS * switch_interval_s
            return Kind.ASKED if in_time else Kind.SLOW
        if is_frozen(self.late_s, self.wakes, switch_interval_s):
            return Kind.FROZEN
        if self.wakes > PASSED_WAKES * self.late_s / switch_interval_s + PASSED_WAKES_MORE:
            return Kind.PASSED
        crowded = self.late_s - self.hub_wait_s <= HELD_INTERVALS * switch_interval_s
        return Kind.CROWDED if crowded else Kind.HELD


class Evidence:
    """What was seen of one slice while it lasted."""

    __slots__ = ("before", "first", "own", "samples", "start_s", "stolen_s")

    def __init__(self, start_s: float, before: Usage, own: Own, stolen_s: float = 0.0) -> None:
        self.start_s = start_s
        self.before = before  # the last reading before it
        self.own = own  # the watchdog's reading of itself then
        self.stolen_s = stolen_s  # the reading of that then
        self.first: Usage | None = None  # the first reading inside it
        self.samples: list[Sample] = []

    def add(self, sample: Sample) -> None:
        """Keep a sample; of too many every other one goes, and those left stand for the time of all."""
        self.samples.append(sample)
        self.samples.sort(key=lambda one: one.age_s)  # a glance may be of later than the look it interrupted
        if len(self.samples) >= MAX_SAMPLES:
            del self.samples[1::2]

    def since(self, start_s: float) -> Evidence:
        """Of what began later."""
        later = Evidence(start_s, self.before, self.own, self.stolen_s)
        passed_s = start_s - self.start_s
        later.samples = [one._replace(age_s=one.age_s - passed_s) for one in self.samples if one.age_s > passed_s]
        return later


class Judge:
    """Turns a slow slice and its evidence into a finding."""

    def __init__(self, application: Application, threshold_s: float, *, sees_waits: bool) -> None:
        self._application = application
        self._threshold_s = threshold_s
        self._sees_waits = sees_waits
        self.gil_wait_s = 0.9 * sys.getswitchinterval()  # so late, the watchdog had to wait for the GIL

    def is_alone(self, frames: dict[int, FrameType], known: tuple[int, ...]) -> bool:
        """Whether no thread but the `known` ones is in code of the application."""
        return not any(self._application.is_on(frame) for ident, frame in frames.items() if ident not in known)

    def find(
        self,
        record: Slice,
        evidence: Evidence,
        own_wait_s: float,
        stolen_s: float = 0.0,
        waits: Iterable[Wait] = (),
        absent_s: float = 0.0,
    ) -> Finding:
        """`own_wait_s`: since the evidence was begun, the watchdog was ready for so long, but had no CPU.

        `stolen_s`: for so long a hypervisor had CPUs of the machine. `waits`: when it had to wait for the GIL, lately.
        `absent_s`: for how long a CPU was away lately without a word of the kernel's.
        """
        interval_s = sys.getswitchinterval()
        views = self._views(evidence.samples, interval_s)
        by_kind = dict.fromkeys(Kind, 0.0)
        for view in views:
            by_kind[view.kind] += view.weight_s
        kept_s = sum(wait.overlap_s(record.start_s, record.end_s) for wait in waits if wait.ours)
        waits = [wait for wait in waits if not wait.ours]
        frozen_s = sum(wait.overlap_s(record.start_s, record.end_s) for wait in waits if wait.frozen)
        # Less what is counted already, and also where no sample came of it.
        by_kind[Kind.FROZEN] = max(by_kind[Kind.FROZEN], frozen_s - own_wait_s)
        overlaps = [(wait.overlap_s(record.start_s, record.end_s), wait) for wait in waits if not wait.frozen]
        share = causes.shares(
            start_s=record.start_s,
            end=record.usage,
            before=evidence.before,
            first=evidence.first,
            turn=record.turn,
            gc_s=record.gc_s,
            stolen_s=stolen_s,
            own_wait_s=own_wait_s,
            blocked_s=sum(view.seen_s for view in views if view.sample.blocked and view.kind is Kind.FREE),
            interval_s=interval_s,
            alone=all(view.sample.alone for view in views),
            shut_out_s=sum(overlap_s for overlap_s, _ in overlaps),
            kept_s=kept_s,
            gap_s=_gap_s(views, record.length_s),
            absent_s=absent_s,
            agreed_s=_agreed_s(views),
        )
        verdict = causes.judge(
            share,
            by_kind,
            threshold_s=self._threshold_s,
            sees_waits=self._sees_waits,
            convoy=record.members > 1,
            polled=record.polled,
        )
        finding = self._place(record, views, verdict, overlaps)
        finding.parts = causes.parts(share, by_kind, sees_waits=self._sees_waits, polled=record.polled)
        return finding

    def _place(
        self,
        record: Slice,
        views: list[_View],
        verdict: causes.Verdict,
        overlaps: list[tuple[float, Wait]],
    ) -> Finding:
        if verdict.cause == "gc" and record.collected:
            return self._named(record, record.collected, verdict, exact=True)
        if verdict.cause == "gil":
            return self._held_by_another(record, verdict, overlaps)
        if not verdict.accuses:
            return Finding(record, NOWHERE, {0: record.length_s}, (), verdict, exact=False)
        found = _weigh(views, record, verdict, self._application)
        return found or Finding(record, NOWHERE, {0: record.length_s}, record.yielded, verdict, exact=False)

    def _views(self, samples: list[Sample], interval_s: float) -> list[_View]:
        views: list[_View] = []
        for sample, weight_s in zip(samples, _weights(samples), strict=True):
            views.append(self._view(sample, sample.kind(interval_s), weight_s, views[-1] if views else None))
        told = {view.place._replace(line=0): view for view in views if view.place and not view.resumed}
        return [_as_told(view, told) if view.resumed else view for view in views]

    def _view(self, sample: Sample, kind: Kind, weight_s: float, before: _View | None) -> _View:
        if kind in (Kind.HELD, Kind.CROWDED) and sample.slice_s < sample.late_s:
            return _View(sample, Kind.SLOW, weight_s, weight_s, None, sample.stack, certain=False)  # of another slice
        stack, certain = sample.stack, kind not in (Kind.LET_GO, Kind.SLOW, Kind.PASSED, Kind.FROZEN, Kind.CROWDED)
        if kind in (Kind.HELD, Kind.CROWDED):
            stack, held = self._held_at(sample.look)
            certain = certain and held.certain
            if kind is Kind.HELD and not held.likely:
                kind, certain = Kind.SLOW, False
        place = self._application.innermost(stack)
        if kind is Kind.CROWDED and place != self._application.innermost(sample.stack):
            place = None  # bytecode or C: they accuse different lines
        if kind is Kind.PASSED and (before is None or _where(before.place, before.stack) != _where(place, stack)):
            kind, place = Kind.SLOW, None  # it may have come there at the end
        # Without a CPU the watchdog could not look in time: the code may be long past what it did until then.
        seen_s = weight_s
        if sample.own_wait_s > WAIT_TOLERATED_S:
            unmoved = before is not None and _where(before.place, before.stack) == _where(place, stack)
            certain = certain and unmoved
            seen_s = weight_s if unmoved else max(0.0, weight_s - sample.own_wait_s)
        # Who was asked before it went on gives the GIL up within what it had waited in, seldom the application's code.
        went_on = kind is Kind.ASKED and self._application.owns(stack[0][0].co_filename)
        resumed = sample.slice_s < RESUMED_S and not went_on
        return _View(sample, kind, weight_s, seen_s, place, stack, certain, resumed)

    def _held_at(self, look: Look) -> tuple[Stack, Held]:
        """Where the C code was entered that held the GIL."""
        held = held_at(look.stack, look.offset, look.caller_offset)
        stack = ((look.stack[held.entry][0], held.line), *look.stack[held.entry + 1 :])
        if not self._application.owns(stack[0][0].co_filename):
            own = tuple(code for code in look.callees if self._application.owns(code.co_filename))
            returned = returned_from(own)
            if returned is not None:
                return (returned, *stack), held._replace(certain=False, likely=True)
        return stack, held

    def _held_by_another(self, record: Slice, verdict: causes.Verdict, overlaps: list[tuple[float, Wait]]) -> Finding:
        seen = [(overlap_s, wait) for overlap_s, wait in overlaps if overlap_s and wait.look.stack]
        if seen:
            _, wait = max(seen, key=lambda one: one[0])
            held = wait.until_s - wait.since_s > HELD_INTERVALS * sys.getswitchinterval()
            # The hub or the watchdog was first to get the GIL; when the other did, it may have gone on.
            for look in (record.threads.get(wait.ident, wait.look), wait.look):
                stack, where = self._held_at(look) if held and look.stack else (look.stack, None)
                if self._application.innermost(stack):
                    exact = where is None or where.certain
                    return self._named(record, stack, verdict, exact=exact, holder=wait.ident)
        return Finding(record, NOWHERE, {0: record.length_s}, (), verdict, exact=False)

    def _named(self, record: Slice, stack: Stack, verdict: causes.Verdict, *, exact: bool, holder: int = 0) -> Finding:
        place = self._application.innermost(stack)
        shown = place or self._application.in_library(stack)
        lines = {shown.line: record.length_s}
        return Finding(record, shown, lines, stack, verdict, exact=exact, library=place is None, holder=holder)


def _where(place: Place | None, stack: Stack) -> object:
    """The function, but not its line: a loop has many."""
    return place._replace(line=0) if place else [code for code, _ in stack]


class _View(NamedTuple):
    sample: Sample
    kind: Kind
    weight_s: float
    seen_s: float  # of that, what is known to have been spent where it was seen
    place: Place | None  # the application's, if it was on the stack
    stack: Stack  # the sample's, or where it is likelier to have been
    certain: bool  # it is of what took the time, and not of what came after it
    resumed: bool = False  # it has just gone on where it had waited


def _as_told(view: _View, told: dict[Place, _View]) -> _View:
    """One that has resumed is at a line that did nothing, but others have seen what its function goes on to do."""
    other = told.get(view.place._replace(line=0)) if view.place else None
    if other is None:
        return view._replace(kind=Kind.SLOW, place=None, certain=False)
    return view._replace(place=other.place, stack=other.stack, certain=view.certain and other.certain)


def _weigh(views: list[_View], record: Slice, verdict: causes.Verdict, application: Application) -> Finding | None:
    """The finding of most weight; None when no view is worth naming."""
    # What is not certain may name a line of the application, not exactly; never one of a library.
    certain = [view for view in views if view.certain]
    usable = certain or [view for view in views if view.place]
    if not usable:
        return None
    places = [view.place or application.in_library(view.stack) for view in usable]
    functions: dict[Place, float] = {}
    for place, view in zip(places, usable, strict=True):
        function = place._replace(line=0)
        functions[function] = functions.get(function, 0.0) + view.weight_s
    chosen = max(functions, key=lambda function: functions[function])
    lines: dict[int, float] = {}
    for place, view in zip(places, usable, strict=True):
        if place._replace(line=0) == chosen:
            lines[place.line] = lines.get(place.line, 0.0) + view.weight_s
    # What the others say must not speak against it.
    agreeing_s = sum(view.weight_s for view in views if view.place and view.place._replace(line=0) == chosen)
    if max(functions[chosen], agreeing_s) < sum(view.weight_s for view in views) / 2:
        return None
    named = chosen._replace(line=max(lines, key=lambda line: lines[line]))
    shown = usable[max(range(len(usable)), key=lambda i: (places[i] == named, usable[i].weight_s))]
    exact = bool(certain) and functions[chosen] >= record.length_s - sum(functions.values())
    return Finding(record, named, lines, shown.stack, verdict, exact=exact, library=shown.place is None)


def _gap_s(views: list[_View], length_s: float) -> float:
    """The longest time between two moments at which the hub was seen to go on: it let go of the GIL, or slept."""
    seen = (view.sample for view in views if view.kind not in (Kind.FREE, Kind.FROZEN) or view.sample.blocked)
    ages = [0.0, *(sample.age_s for sample in seen if sample.age_s < length_s), length_s]
    return max(age - earlier for earlier, age in pairwise(ages))


def _agreed_s(views: list[_View]) -> float:
    """The time between late looks that saw the same function of the application: it was there in between, too.

    Less the longest, which one absence of the machine may have made, but where the watchdog was awake.
    """
    between = [
        after
        for before, after in pairwise(views)
        if before.place and after.place and before.place._replace(line=0) == after.place._replace(line=0)
    ]
    awake_s = sum(view.weight_s for view in between if view.kind is Kind.PASSED)
    late_s = [view.weight_s for view in between if view.kind in (Kind.LET_GO, Kind.SLOW)]
    return awake_s + sum(late_s) - max(late_s, default=0.0)


def _weights(samples: list[Sample]) -> list[float]:
    """The seconds each sample stands for."""
    ages = [0.0, *(sample.age_s for sample in samples)]
    return [age - earlier for earlier, age in pairwise(ages)]

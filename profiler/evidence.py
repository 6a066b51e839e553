"""From samples to a place: which line to name for one slow slice, and how sure that is.

Each sample stands for the time since the one before it. The application function with most of that time is
the place, its line with most time the line. Without the application on the stack the server is named, or the library
that was called, and the finding is marked so: nobody can change that line.
A sample is certain when the stack is of what took the time: the watchdog came on time, or it had asked for
the GIL and got it as soon as the code could give it, or the collector was at work. When it came late because
C code held the GIL, an operator before the call that is seen may have done that (frames.entered_by_call).
When the GIL was let go of before it was asked for, the code is at the call that let go, perhaps long past the
one that took the time.
The line is exact when a certain sample shows it, and no more than its function's time came after the last
sample.
Samples that are not certain still name a line of the application, not exactly. Without any, a slice that used
the CPU is named by where the greenlet yielded in the end, if the application was on the stack then; any other
by nothing.
Pure: no clock, no threads.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from profiler import causes
from profiler.causes import Kind
from profiler.frames import NOWHERE, Place, Stack, entered_by_call, is_between_bytecodes
from profiler.sites import Finding

if TYPE_CHECKING:
    from profiler.frames import Application
    from profiler.model import Slice
    from profiler.usage import Usage

MAX_SAMPLES = 64  # of one slice: half of them still give each line of a loop its due
WAIT_TOLERATED_S = 0.001  # a fifth of the switch interval: the GIL is still asked for in time


class Sample(NamedTuple):
    """One look at the hub's stack."""

    age_s: float  # of the slice
    late_s: float  # beyond the time asked for, without what the run queue took
    own_wait_s: float  # that: the watchdog was awake, but had no CPU
    stack: Stack
    offset: int  # of the instruction in the innermost frame
    blocked: bool  # the hub's thread slept just then: in a system call, or waiting for the GIL
    collecting: bool  # the collector was running

    def kind(self, switch_interval_s: float) -> Kind:
        """What the lateness says of the hub; see Kind."""
        if self.collecting:
            return Kind.INSIDE
        if self.late_s <= 0.2 * switch_interval_s:
            return Kind.FREE
        if self.late_s < 0.9 * switch_interval_s:
            # Another thread may have asked before us.
            return Kind.ASKED if is_between_bytecodes(self.stack[0][0], self.offset) else Kind.LET_GO
        if self.late_s <= 2.5 * switch_interval_s:
            return Kind.ASKED
        return Kind.HELD


class Evidence:
    """What was seen of one slice while it lasted."""

    __slots__ = ("before", "first", "own_wait_s", "samples", "start_s")

    def __init__(self, start_s: float, before: Usage, own_wait_s: float) -> None:
        self.start_s = start_s
        self.before = before  # the last reading before it
        self.own_wait_s = own_wait_s  # the watchdog's reading of itself then
        self.first: Usage | None = None  # the first reading inside it
        self.samples: list[Sample] = []

    def add(self, sample: Sample) -> None:
        """Keep a sample; of too many every other one goes, and those left stand for the time of all."""
        self.samples.append(sample)
        if len(self.samples) >= MAX_SAMPLES:
            del self.samples[1::2]


class Judge:
    """Turns a slow slice and its evidence into a finding."""

    def __init__(self, application: Application, threshold_s: float, *, sees_waits: bool) -> None:
        self._application = application
        self._threshold_s = threshold_s
        self._sees_waits = sees_waits

    def find(self, record: Slice, evidence: Evidence, own_wait_s: float) -> Finding:
        """`own_wait_s`: since the evidence was begun, the watchdog was ready for so long, but had no CPU."""
        interval_s = sys.getswitchinterval()
        kinds = [sample.kind(interval_s) for sample in evidence.samples]
        weights = _weights(evidence.samples)
        by_kind = dict.fromkeys(Kind, 0.0)
        for kind, weight_s in zip(kinds, weights, strict=True):
            by_kind[kind] += weight_s
        share = causes.shares(
            start_s=record.start_s,
            end=record.usage,
            before=evidence.before,
            first=evidence.first,
            turn=record.turn,
            gc_s=record.gc_s,
            own_wait_s=own_wait_s,
            blocked_s=sum(
                weight_s
                for sample, kind, weight_s in zip(evidence.samples, kinds, weights, strict=True)
                if sample.blocked and kind is Kind.FREE
            ),
        )
        verdict = causes.judge(share, by_kind, threshold_s=self._threshold_s, sees_waits=self._sees_waits)
        views = [
            _View(sample, kind, weight_s, self._application.innermost(sample.stack))
            for sample, kind, weight_s in zip(evidence.samples, kinds, weights, strict=True)
        ]
        return _weigh(views, record, verdict, self._application) or self._unseen(record, verdict, share)

    def _unseen(self, record: Slice, verdict: causes.Verdict, share: causes.Shares) -> Finding:
        # Who used the CPU is most likely still in the same function; who did not may have waited for the GIL.
        worked = share.cpu_least_s >= self._threshold_s
        place = (self._application.innermost(record.yielded) if worked else None) or NOWHERE
        return Finding(record, place, {place.line: record.length_s}, record.yielded, verdict, exact=False)


class _View(NamedTuple):
    sample: Sample
    kind: Kind
    weight_s: float
    place: Place | None  # the application's, if it was on the stack

    @property
    def certain(self) -> bool:
        """Whether the stack is of what took the time, and not of what came after it."""
        if self.kind is Kind.HELD:
            # Without a CPU the watchdog could not ask in time: the code may be long past what held the GIL.
            if self.sample.own_wait_s > WAIT_TOLERATED_S:
                return False
            return entered_by_call(self.sample.stack[0][0], self.sample.offset)
        return self.kind is not Kind.LET_GO


def _weigh(views: list[_View], record: Slice, verdict: causes.Verdict, application: Application) -> Finding | None:
    """The finding of most weight; None when no view is worth naming."""
    # What is not certain may name a line of the application, not exactly; never one of a library.
    usable = [view for view in views if view.certain] or [view for view in views if view.place]
    if not usable:
        return None
    places = [view.place or application.in_library(view.sample.stack) for view in usable]
    functions: dict[Place, float] = {}
    for place, view in zip(places, usable, strict=True):
        function = place._replace(line=0)
        functions[function] = functions.get(function, 0.0) + view.weight_s
    chosen = max(functions, key=lambda function: functions[function])
    lines: dict[int, float] = {}
    for place, view in zip(places, usable, strict=True):
        if place._replace(line=0) == chosen:
            lines[place.line] = lines.get(place.line, 0.0) + view.weight_s
    named = chosen._replace(line=max(lines, key=lambda line: lines[line]))
    shown = usable[max(range(len(usable)), key=lambda i: (places[i] == named, usable[i].weight_s))]
    unsampled_s = record.length_s - views[-1].sample.age_s
    exact = shown.certain and functions[chosen] >= unsampled_s
    return Finding(record, named, lines, shown.sample.stack, verdict, exact=exact, library=shown.place is None)


def _weights(samples: list[Sample]) -> list[float]:
    """The seconds each sample stands for."""
    ages = [0.0, *(sample.age_s for sample in samples)]
    return [age - earlier for earlier, age in pairwise(ages)]

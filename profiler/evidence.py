"""From samples to a place: which line to name for one slow slice, and how sure that is.

Each sample stands for the time since the one before it. The application function with most of that time is
the place, its line with most time the line. The line is exact unless most of the slice came after its last
sample, or C code held the GIL until the sample and an operator, not the call seen, may have been what held it
(frames.entered_by_call).
A slice without samples is named by where the greenlet yielded in the end, if the application was on the stack
then: never exact.
Pure: no clock, no threads.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from profiler import causes
from profiler.frames import NOWHERE, Place, Stack, entered_by_call, place_at
from profiler.sites import Finding

if TYPE_CHECKING:
    from profiler.frames import Application
    from profiler.model import Slice
    from profiler.usage import Usage


class Sample(NamedTuple):
    """One look at the hub's stack."""

    age_s: float  # of the slice
    late_s: float  # beyond the time asked for, without what the run queue took
    stack: Stack
    offset: int  # of the instruction in the innermost frame


class Evidence:
    """What was seen of one slice while it lasted."""

    __slots__ = ("before", "first", "samples", "start_s")

    def __init__(self, start_s: float, before: Usage) -> None:
        self.start_s = start_s
        self.before = before  # the last reading before it
        self.first: Usage | None = None  # the first reading inside it
        self.samples: list[Sample] = []


class Judge:
    """Turns a slow slice and its evidence into a finding."""

    def __init__(self, application: Application, threshold_s: float, *, sees_waits: bool) -> None:
        self._application = application
        self._threshold_s = threshold_s
        self._sees_waits = sees_waits

    def find(self, record: Slice, evidence: Evidence, held_by_us_s: float) -> Finding:
        """`held_by_us_s`: of the slice, the time in which the watchdog may have kept the GIL."""
        interval_s = sys.getswitchinterval()
        weights = _weights(evidence.samples)
        verdict = causes.judge(
            causes.shares(
                start_s=record.start_s,
                end=record.usage,
                before=evidence.before,
                first=evidence.first,
                held_by_us_s=held_by_us_s,
                gc_s=record.gc_s,
            ),
            [causes.Sight(w, sample.late_s) for w, sample in zip(weights, evidence.samples, strict=True)],
            threshold_s=self._threshold_s,
            switch_interval_s=interval_s,
            sees_waits=self._sees_waits,
        )
        if not evidence.samples:
            place = self._application.innermost(record.yielded) or NOWHERE
            return Finding(record, place, {place.line: record.length_s}, record.yielded, verdict, exact=False)
        return self._weigh(record, evidence.samples, weights, verdict, 2.5 * interval_s)

    def _weigh(
        self, record: Slice, samples: list[Sample], weights: list[float], verdict: causes.Verdict, held_s: float
    ) -> Finding:
        places = [self._application.innermost(sample.stack) or place_at(sample.stack, 0) for sample in samples]
        functions: dict[Place, float] = {}
        for place, weight_s in zip(places, weights, strict=True):
            function = place._replace(line=0)
            functions[function] = functions.get(function, 0.0) + weight_s
        chosen = max(functions, key=lambda function: functions[function])
        lines: dict[int, float] = {}
        for place, weight_s in zip(places, weights, strict=True):
            if place._replace(line=0) == chosen:
                lines[place.line] = lines.get(place.line, 0.0) + weight_s
        named = chosen._replace(line=max(lines, key=lambda line: lines[line]))
        shown = samples[max(range(len(samples)), key=lambda i: (places[i] == named, weights[i]))]
        unsampled_s = record.length_s - samples[-1].age_s
        certain = shown.late_s <= held_s or entered_by_call(shown.stack[0][0], shown.offset)
        exact = certain and functions[chosen] >= unsampled_s
        return Finding(record, named, lines, shown.stack, verdict, exact=exact)


def _weights(samples: list[Sample]) -> list[float]:
    """The seconds each sample stands for."""
    ages = [0.0, *(sample.age_s for sample in samples)]
    return [age - earlier for earlier, age in pairwise(ages)]

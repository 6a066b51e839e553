"""The watchdog: a native thread that looks at the hub's stack while a slice is long, and says afterwards where it was.

Each look asks the hook for the current slice; one that has reached a quarter of the threshold is sampled, so
that a slice which reaches the whole has samples. A sample that a switch has overtaken is dropped. How late
the thread woke is evidence too, since it needs the GIL to wake (causes.py). When the hook has finished a slow
slice, its samples are weighed (evidence.py) and it joins its site (sites.py).

Another thread of ours may get the GIL before it, and let the hub go on: so such a thread has a `glance` for it.

Cost: a look every 5 ms takes 0.8 % of a core while there is traffic; a hub that seldom turns is looked at when it does
(nap.py). It needs the GIL; no signals, nothing raised.
Limits: a slice that ends before the thread gets to run (a C call that holds the GIL and returns just before a
switch, a machine with no CPU for this thread) has no sample.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from profiler.evidence import Evidence, Judge, Sample, is_frozen
from profiler.frames import Look, capture_running, of_threads
from profiler.model import Slice, Span
from profiler.nap import NAP_S, Nap
from profiler.native import get_ident, sleep, start_thread
from profiler.stalls import SETTLE_S
from profiler.threads import Others, Wait
from profiler.usage import AWAY_S, STOLEN_STEP_S, Absences, Own

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from profiler.arrivals import Sightings
    from profiler.native import Signal
    from profiler.sites import Finding, SiteTable
    from profiler.usage import Meter, Usage

SHORTEST_TICK_S = 0.003  # under that the thread would cost the hub more than half a percent
LONGEST_TICK_S = 0.02  # so that stopping is prompt
OPEN_S = 1.0  # a slice this long is stored before it ends: whoever kills the worker wants to know
MAX_WAITS = 64  # for the GIL, remembered: those of the last slow slices
ACCOUNT_EVERY_S = 0.05  # so often the machine's stolen time is read, and other threads' CPU time: 15 us
KEPT_S = 0.001  # with the GIL and without a CPU: a look takes a fifth of that
# Of slices and turns the evidence is kept: a few come and go while a look waits for the GIL, and again.
MAX_EVIDENCE = 8
TOLD_S = 0.008  # after a slice: the kernel tells of stolen time at its next tick, each 4 ms on most machines
STOP_TIMEOUT_S = 1.0  # many ticks; a thread that does not stop within it is not waited for


class _Glance(NamedTuple):
    """At the hub's stack, while the watchdog waited for the GIL."""

    start_s: float  # of the slice
    at_s: float
    late_s: float  # for so long the watchdog had waited
    look: Look
    alone: bool  # as in Sample


class Watchdog:
    """Made in the hub's thread; all but `start`, `stop` and `glance` runs in the watchdog's."""

    def __init__(
        self,
        peek: Callable[[], tuple[float, bool, Span | None]],
        turn: Callable[[], float],
        finished: deque[Slice],
        meter: Meter,
        judge: Judge,
        table: SiteTable,
        threshold_s: float,
        caller: Callable[[int, float], Span | None],
        sightings: Sightings,
        doze: Callable[[], None],
    ) -> None:
        self._peek = peek
        self._turn = turn
        self._finished = finished
        self._meter = meter
        self._judge = judge
        self._table = table
        self._caller = caller
        self._sightings = sightings
        self._sample_from_s = threshold_s / 4
        self._tick_s = min(max(threshold_s / 2, SHORTEST_TICK_S), LONGEST_TICK_S)
        self.nap = Nap(meter, doze)  # to be woken from, at the first turn after `doze`
        self._hub_ident = self._ident = get_ident()
        self._usage: Usage = meter.read()  # the latest reading of the hub
        self._idle_s = 0.0  # when it was last seen to have done nothing since that reading
        self._own = self._asleep = Own()  # the latest reading of this thread, and that before it went to sleep
        self._due_s = float("inf")  # when it is to wake up
        self._glance: _Glance | None = None  # the first since then
        self._evidence = self._turn_evidence = Evidence(0.0, self._usage, self._own)  # of this slice, this turn
        self._slices, self._turns = (deque([self._evidence], MAX_EVIDENCE) for _ in range(2))  # and of those before
        self._after = self._evidence  # the end of the latest slow slice
        self._ended: deque[tuple[Slice, Evidence, float]] = deque()  # with how long this thread had no CPU meanwhile
        self._stolen_s = meter.stolen_s()  # the latest reading of that, and when it is to be read again
        self._account_due_s = 0.0
        self._waits: deque[Wait] = deque(maxlen=MAX_WAITS)
        self._absences = Absences()
        self._has_gil_s = time.perf_counter()  # since then
        self._kept: Wait | None = None  # for long
        self._others = Others(self._hub_ident, self._hub_ident)
        self._settling: deque[Finding] = deque()
        self._open_due_s = OPEN_S
        self._stopping = False
        self._done: Signal | None = None

    def start(self) -> None:
        """Start the thread."""
        self._done = start_thread(self._run)

    def stop(self) -> None:
        """Stop it, with every slow slice so far in the table. Blocks the caller for about a tick."""
        self._stopping = True
        if self._done is not None and self._done.wait(STOP_TIMEOUT_S):
            self._resolve(float("inf"))
            self._settle(float("inf"))

    def glance(self) -> None:
        """Look at the hub's stack if the watchdog is late to; for another thread of ours that has just got the GIL.

        Until then C code of the hub may have held it, and when the watchdog gets it the hub may be long past that.
        """
        start_s, polling, _ = self._peek()
        now_s = time.perf_counter()
        late_s = now_s - self._due_s
        if polling or late_s <= 0.0 or self._glance is not None or now_s - start_s < self._sample_from_s:
            return
        frames = of_threads()
        look = capture_running(frames.get(self._hub_ident), held=True)
        alone = self._judge.is_alone(frames, (self._hub_ident, self._ident, get_ident()))
        frames.clear()
        if look.stack and self._peek()[0] == start_s:
            self._glance = _Glance(start_s, now_s, late_s, look, alone)

    def _run(self) -> None:
        self._ident = get_ident()
        self._meter.watch_this_thread()
        self._others = Others(self._hub_ident, self._ident)
        pause_s = self._tick_s
        while not self._stopping:
            self._let_go()
            self._read_own()
            self._asleep = self._own
            self._due_s = time.perf_counter() + pause_s
            while self._sightings.seen_before(self._due_s):
                self._read_own()
                self._asleep = self._own
            left_s = self._due_s - time.perf_counter()
            if pause_s == NAP_S:
                self._due_s = self.nap.sleep(self._due_s, self._is_polling)
            elif left_s > 0.0:
                sleep(left_s)
            else:  # it has waited for the GIL, which nobody may have for nothing
                self._due_s = min(self._due_s, self._sightings.asked_s)
            woke_s = self._has_gil_s = time.perf_counter()
            late_s, self._due_s = max(0.0, woke_s - self._due_s), float("inf")
            try:
                pause_s = self._look(woke_s, late_s)
                if woke_s >= self._account_due_s:  # after the look, which a slow slice may have waited for
                    self._account_due_s = woke_s + (NAP_S if pause_s == NAP_S else ACCOUNT_EVERY_S)
                    self._stolen_s = self._meter.stolen_s()
            except Exception:  # noqa: BLE001 - one bad look must not end all later ones
                self._table.lose()
                pause_s = self._tick_s

    def _look(self, woke_s: float, late_s: float) -> float:
        """Look once; returns how long to sleep."""
        start_s, polling, active = self._peek()
        due = woke_s >= self._account_due_s or late_s >= self._judge.gil_wait_s or self._glance is not None
        same = start_s == self._evidence.start_s
        if polling and not due and (same or self.nap.quiet):  # what a heartbeat takes can wait until the next account
            return self._idle(woke_s, same=same)
        others_s = self._suspect(woke_s, late_s)  # before the GIL is given up
        idle_late_s = min(late_s, woke_s - start_s) if polling and (same or self.nap.quiet) else 0.0
        if idle_late_s >= AWAY_S > others_s:
            # Nothing but the machine can have kept it from waking up, perhaps since before that was due.
            away_s = idle_late_s - (self._meter.own().wait_s - self._asleep.wait_s)
            self._absences.add(woke_s, away_s, self._tick_s)
        # While it idled it used no CPU, and wanted none.
        before = self._usage._replace(at_s=max(self._usage.at_s, self._idle_s))
        turn_s = self._turn()
        if turn_s != self._turn_evidence.start_s:
            self._turn_evidence = Evidence(turn_s, before, self._own, self._stolen_s)
            self._turns.append(self._turn_evidence)
        if self._glance is not None:
            self._begin(self._glance.start_s, before)
        if not self._begin(start_s, before) and polling:
            return self._idle(woke_s, same=True)
        if polling:
            pause_s = self._pause_s(woke_s)
            self._read()
        else:
            pause_s = self._watch(start_s, woke_s, late_s, active)
        if is_frozen(late_s, self._own.wakes - self._asleep.wakes, sys.getswitchinterval()):
            marked = [wait._replace(frozen=True) if wait.until_s == woke_s else wait for wait in self._waits]
            self._waits = deque(marked, MAX_WAITS)
        self._resolve(woke_s)
        self._settle(woke_s)
        return pause_s

    def _idle(self, woke_s: float, *, same: bool) -> float:
        """The hub polls; `same`: as at the last look, and it has done nothing in between."""
        if same:
            self._idle_s = woke_s
        self._resolve(woke_s)
        self._settle(woke_s)
        return self._pause_s(woke_s)

    def _pause_s(self, now_s: float) -> float:
        """Between two looks at a hub that polls."""
        known = not (self._finished or self._ended or self._settling)
        return NAP_S if self.nap.due(now_s) and known else self._tick_s

    def _is_polling(self) -> bool:
        return self._peek()[1]

    def _begin(self, start_s: float, before: Usage) -> bool:
        """Gather evidence of the slice that began then; False if that goes on already."""
        if start_s == self._evidence.start_s:
            return False
        self._evidence = Evidence(start_s, before, self._own, self._stolen_s)
        self._slices.append(self._evidence)
        self._open_due_s = OPEN_S
        return True

    def _suspect(self, woke_s: float, late_s: float) -> float:
        """Note that this thread had to wait for the GIL, and who had it if that was another than the hub's.

        Returns for how long other threads than that have been on the CPU since the latest reading.
        """
        _, others_s = self._meter.cpu()
        holder_s = others_s - self._usage.others_s
        if late_s < self._judge.gil_wait_s:
            self._others.quiet(others_s)
            return holder_s
        if holder_s >= late_s / 2:
            self._waits.append(self._others.holder(woke_s - late_s, woke_s, holder_s))
        else:
            self._waits.append(Wait(woke_s - late_s, woke_s, holder_s))
        return holder_s

    def _watch(self, start_s: float, woke_s: float, late_s: float, active: Span | None) -> float:
        """The hub has been in one slice since `start_s`."""
        evidence = self._evidence
        age_s = woke_s - start_s
        turn_s = self._turn_evidence.start_s
        frames: dict[int, FrameType] = {}
        if woke_s - min(turn_s, start_s) >= self._sample_from_s:
            frames = of_threads()
        glance, hub_wait_s = self._glance, self._usage.wait_s
        if glance is not None:  # it waited once more, after that
            late_s = min(late_s, woke_s - glance.at_s)
        # First the stack: reading figures gives the GIL up.
        look = capture_running(frames.get(self._hub_ident), held=late_s >= self._judge.gil_wait_s)
        alone = not look.stack or self._judge.is_alone(frames, (self._hub_ident, self._ident))
        frames.clear()  # they would keep their locals alive
        if self._peek()[0] != start_s:  # a switch overtook us
            self._read()
            return SHORTEST_TICK_S
        began_s = self._let_go()
        blocked = bool(look.stack) and self._meter.hub_is_blocked()
        self._shut_out(began_s)
        slept = self._read()
        overtaken = self._peek()[0] != start_s  # since the stack was taken, so that is good
        own_wait_s = min(late_s, slept.wait_s)
        if look.stack:
            sample = Sample(
                age_s=age_s,
                late_s=late_s - own_wait_s,
                own_wait_s=own_wait_s,
                hub_wait_s=self._usage.wait_s - hub_wait_s,
                wakes=slept.wakes,
                look=look,
                blocked=blocked and not overtaken,
                alone=alone,
            )
            if age_s >= self._sample_from_s:
                evidence.add(sample)
            self._turn_evidence.add(sample._replace(age_s=woke_s - turn_s, slice_s=age_s))
        if overtaken:
            return SHORTEST_TICK_S
        if age_s >= self._sample_from_s:
            self._sightings.begin(start_s)
        evidence.first = evidence.first or self._usage
        if age_s >= self._open_due_s:
            self._open_due_s = age_s + OPEN_S
            so_far = Slice(evidence.start_s, self._usage.at_s, active, 0.0, self._usage, (0.0, 0.0), ())
            self._table.still_open(self._find(so_far, evidence, self._own.wait_s - evidence.own.wait_s))
        # A long one needs fewer samples to be named, but the next one must not be missed.
        return min(max(SHORTEST_TICK_S, age_s / 16), 2 * self._tick_s)

    def _read(self) -> Own:
        """Read the meter; returns what this thread has had since it went to sleep. A glance becomes a sample."""
        before = self._usage
        began_s = self._let_go()
        usage = self._meter.read()
        self._shut_out(began_s)
        self._usage = usage
        began_s = self._let_go()
        self._read_own()
        self._shut_out(began_s)
        slept = Own(self._own.wait_s - self._asleep.wait_s, self._own.wakes - self._asleep.wakes)
        glance, self._glance = self._glance, None
        if glance is not None:
            if not any(evidence.start_s == glance.start_s for evidence in self._slices):
                self._begin(glance.start_s, before)
            own_wait_s = min(glance.late_s, slept.wait_s)
            sample = Sample(
                age_s=glance.at_s - glance.start_s,
                late_s=glance.late_s - own_wait_s,
                own_wait_s=own_wait_s,
                hub_wait_s=self._usage.wait_s - before.wait_s,
                wakes=slept.wakes,
                look=glance.look,
                blocked=False,
                alone=glance.alone,
            )
            for evidence in self._slices:
                if evidence.start_s == glance.start_s:
                    evidence.add(sample)
        return slept

    def _shut_out(self, since_s: float) -> None:
        """The GIL was given up then, in the middle of a look; if it took long to get it back, that is a look itself."""
        now_s = self._has_gil_s = time.perf_counter()
        if now_s - since_s >= self._judge.gil_wait_s:
            self._suspect(now_s, now_s - since_s)
            self._due_s = since_s
            self.glance()
            self._due_s = float("inf")

    def _let_go(self) -> float:
        """It gives the GIL up now, at the time that is returned, and should not have had it for long."""
        now_s = time.perf_counter()
        if now_s - self._has_gil_s >= KEPT_S:
            self._kept = Wait(self._has_gil_s, now_s, 0.0, ours=True)
            self._due_s = self._has_gil_s  # or somebody asked for it, and kept it for long
            self.glance()
            self._due_s = float("inf")
        return now_s

    def _read_own(self) -> None:
        """Read what this thread has had, which also tells whether it kept the GIL, or waited to get it back."""
        before, self._own = self._own, self._meter.own()
        kept, self._kept = self._kept, None
        if kept is not None:
            kept_s = kept.until_s - kept.since_s
            interval_s = sys.getswitchinterval()
            if kept_s < 2 * interval_s or is_frozen(kept_s, self._own.wakes - before.wakes, interval_s):
                self._waits.append(kept)

    def _resolve(self, now_s: float) -> None:
        """Find a place and a cause for each slice that the hook has finished."""
        while self._finished:
            record = self._finished.popleft()
            evidence = self._of(record)
            own_wait_s = self._own.wait_s - evidence.own.wait_s
            self._ended.append((record, evidence, own_wait_s))
            # The next one, if it was not seen, came after this.
            self._after = Evidence(record.end_s, record.usage, evidence.own, evidence.stolen_s)
        while self._ended and self._ended[0][0].end_s + TOLD_S <= now_s:
            record, evidence, own_wait_s = self._ended.popleft()
            finding = self._find(record, evidence, own_wait_s)
            record.place, verdict = finding.place, finding.verdict
            record.excuse = verdict.cause if verdict.innocent else ""
            if finding.holder:  # whose call it was that held the GIL
                record.span = self._caller(finding.holder, record.start_s) or record.span
            self._settling.append(finding)

    def _of(self, record: Slice) -> Evidence:
        """What was seen of it; if that is nothing, what was last read before it."""
        if record.members > 1:
            seen = [one.since(record.start_s) for one in self._turns if one.start_s == record.turn[0]]
        else:
            seen = [one for one in self._slices if one.start_s == record.start_s]
        if seen:
            return seen[-1]
        known = [self._after, *self._slices]
        past = [one for one in known if one.before.at_s <= record.start_s] or known
        last = max(past, key=lambda one: one.before.at_s)
        return Evidence(record.start_s, last.before, last.own, last.stolen_s)

    def _find(self, record: Slice, evidence: Evidence, own_wait_s: float) -> Finding:
        stolen_s = self._meter.stolen_s() - evidence.stolen_s
        # A part of a step is not shown, which may be anybody's.
        stolen_s += STOLEN_STEP_S if stolen_s else 0.0
        absent_s = self._absences.longest_s(record.end_s)
        return self._judge.find(record, evidence, own_wait_s, stolen_s, self._waits, absent_s)

    def _settle(self, now_s: float) -> None:
        """Harm is still added to a slice after its end, while those behind it get their turn (sites.py)."""
        settling = self._settling
        while settling and settling[0].record.end_s + SETTLE_S <= now_s:
            self._table.add(settling.popleft())
        self._table.catch_up(now_s)

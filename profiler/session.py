"""A session: the profiler of one process, from `install` to `close`.

It connects the parts: the hook and its three watchers on the hub's loop, a timer (the pulse), the watchdog's
and the writer's native threads. While there is traffic the pulse measures how late a timer is, folds what is
left of a batch, and every second to ten hands everything over to the writer; when no request is left to hand
over it sleeps until the loop turns again, so an idle worker has no timer running, and one with a heartbeat has one
pulse after each.
A session belongs to the process that installed it: in a forked child it is switched off, and the child
installs its own.
Needs gevent's libev loop: libuv runs its I/O callbacks inside the poll, where no watcher can tell work from
waiting.
"""

from __future__ import annotations

import atexit
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from gevent import get_hub

from profiler import hook as hooks
from profiler.arrivals import READ, Sightings, stamp_s
from profiler.calibration import Costs, calibrate
from profiler.errors import ProfilerError
from profiler.evidence import Judge
from profiler.flight import Flight
from profiler.frames import Application
from profiler.lineage import Lineage
from profiler.metrics import CountedSites, Figures, Ledger, longest_of
from profiler.model import Begin, End, Slice, Span, Turn, uncounted
from profiler.native import undisturbed
from profiler.options import check
from profiler.recorder import Recorder
from profiler.sites import Finding
from profiler.stalls import Links
from profiler.usage import Meter
from profiler.watchdog import Watchdog
from profiler.writer import Writer

LIBEV_PREPARE = 0x4000  # EV_PREPARE
PULSE_S = 0.05  # fine enough to see delays of the threshold's order, 20 wake-ups a second at most
# Between two hand-overs: soon at first, for who has just asked for a page and wants to see it, then twice as long each
# time, since figures of ten seconds take little more of the disk than those of one.
FIRST_HAND_OVER_S = 1.0
LAST_HAND_OVER_S = 10.0  # what a killed worker may lose of them
IDLE_SWITCHES = 4  # between two pulses: a heartbeat takes two, and is no traffic
FIGURES_LIMIT_S = 0.00025  # as long as a row of a database: nobody notices it once a second

_session: Session | None = None


class Session:
    """What `install` returns. All but `close` in a forked child is called in the hub's thread."""

    begin: Begin
    """`begin(route, request_id, ready_ns=0) -> Span`: a request starts in the current greenlet.

    Its running time counts from when that greenlet was switched in, or the last request in it ended.
    `ready_ns` (by `time.perf_counter_ns`; 0 = unknown, `THIS_TURN` = -1: `turn.ready_ns`) is when the request became
    readable: from then to there it was queued.
    One request a greenlet: beginning another abandons the first, which is counted as dropped.
    """

    end: End
    """`end(span, error=False, outcome=0)`: it ends now, usually in the greenlet that began it.

    Ending twice does nothing. `outcome`: a number under which `figures` counts it apart (for a server, its status if
    that is not the usual one); 0: none.
    """

    peek: Callable[[], tuple[float, bool, Span | None]]
    """`peek() -> (start, polling, span)` of the slice that goes on: when it began, and the request that has the hub."""

    def __init__(
        self,
        directory: str | os.PathLike[str] | None,
        slow_slice_ms: float,
        worker: str,
        library_prefixes: Sequence[str],
        objectives_s: Mapping[str, float],
        remedies: Mapping[str, str],
    ) -> None:
        threshold_s = slow_slice_ms / 1000
        hub: Any = get_hub()
        self.hub = hub  # gevent's, whose greenlets are profiled
        self.turn = Turn()
        self._pid = os.getpid()
        self._closed = False
        application = Application(library_prefixes)
        flight = Flight(objectives_s, application, threshold_s) if directory is not None else None
        self._flight = flight
        self._recorder = Recorder(flight)
        self._meter = Meter()
        self._sites = table = CountedSites()
        self._ledger = Ledger()
        finished: deque[Slice] = deque()
        self._writer: Writer | None = None
        if directory is not None:
            self._writer = Writer(os.fspath(directory), worker, threshold_s, table, flight, remedies)
        self._sightings = sightings = Sightings(hub.loop)
        self._hook = hooks.Hook(
            Links(
                hub=hub,
                meter=self._meter,
                turn=self.turn,
                batch=self._recorder.batch,
                waited=self._recorder.waited,
                unusual=self._recorder.unusual,
                unsplit=self._recorder.unsplit,
                spare=self._recorder.spare,
                finished=finished,
                fold=self._recorder.fold,
                woken=self._woken,
                flight=flight,
                sightings=sightings,
            ),
            threshold_s,
        )
        self._meter.turns = self._hook.turns
        sightings.peek = self._hook.peek
        self.begin = self._hook.begin
        self.end = self._hook.end
        self.peek = self._hook.peek
        judge = Judge(application, threshold_s, sees_waits=self._meter.sees_waits)
        self._lineage = Lineage(self._hook.working_for)
        self._watchdog = Watchdog(
            self._hook.peek,
            self._hook.turn,
            finished,
            self._meter,
            judge,
            table,
            threshold_s,
            self._lineage.caller,
            sightings,
            self._hook.doze,
        )
        self._costs: Costs = calibrate(hub, self._meter)
        loop = hub.loop
        # Priorities: libev's highest first. gevent runs its callbacks in a prepare watcher of priority 0.
        self._watchers: list[tuple[Any, Any]] = [
            (loop.prepare(ref=False, priority=loop.MAXPRI), self._hook.before_callbacks),
            (loop.prepare(ref=False, priority=loop.MINPRI), self._hook.before_poll),
            (loop.check(ref=False, priority=loop.MAXPRI), self._hook.after_poll),
        ]
        self._timer: Any = loop.timer(PULSE_S, PULSE_S, ref=False)
        self._resting = False  # it is stopped
        self._started_s = self._due_s = self._handed_over_s = time.perf_counter()
        self._hand_over_after_s = FIRST_HAND_OVER_S
        self._handed_over = self._pulsed = self._hook.counts()
        self._handed_over_requests = 0

    @property
    def late(self) -> list[Callable[[], None]]:
        """What the hub calls when a turn begins that may find what came long ago, before anything of it is taken."""
        return self._hook.stalls.lateness.late

    def came_s(self, sock: Any, since_s: float) -> float:
        """When the bytes came that wait in this native socket, from which nobody has read since then; 0.0: unknown.

        By `time.perf_counter`, and never before they did. It takes 7 us.
        """
        return stamp_s(sock) or self._sightings.sighted_s(sock.fileno(), READ, since_s)

    @property
    def path(self) -> str | None:
        """Of the file that is written now; None if there is none."""
        return None if self._writer is None else self._writer.path

    def working_for(self) -> Span | None:
        """The request that the current greenlet works for: its own, or that of whoever spawned it. None: neither."""
        return self._hook.working_for()

    def _start(self) -> None:
        self._hook.install()
        self._lineage.install()
        for watcher, callback in self._watchers:
            watcher.start(callback)
        # The turn that goes on may be past the point where libev lists the watchers that come before its poll.
        before_poll, callback = self._watchers[1]
        before_poll.feed(LIBEV_PREPARE, callback)
        self._start_pulse()
        self._watchdog.start()
        if self._writer is not None:
            self._writer.start(self._watchdog.glance)

    def close(self) -> None:
        """Restore the tracer, write the rest, stop the threads. Blocks for some ms; doing it twice does nothing.

        What is begun from now on is counted nowhere.
        """
        if self._closed or os.getpid() != self._pid:
            return
        with ExitStack() as steps:  # the last first, each whatever the others raise
            steps.callback(self._forget)
            steps.callback(self._sightings.close)
            steps.callback(self._meter.close)
            if self._writer is not None:
                steps.callback(self._writer.stop)
            steps.callback(lambda: self._hand_over(time.perf_counter()))
            steps.callback(self._watchdog.stop)  # before the last are handed over, since it says whom to blame
            steps.callback(self._detach)

    def _forget(self) -> None:
        global _session  # noqa: PLW0603 - one a process
        _session = None
        atexit.unregister(self.close)

    def tell_open(self, tell: Callable[[Finding], None]) -> None:
        """Have `tell` called with each slice that has not ended after a second, while it goes on.

        In the watchdog's native thread, where nothing of gevent may be touched, and nothing patched.
        """
        self._sites.tell_open = tell

    def so_far(self, span: Span) -> tuple[float, float, float]:
        """Running, waiting and queued seconds of a request that has not ended, asked from within it."""
        now_s = time.perf_counter()
        start_s, _, active = self.peek()
        running_s = span.running_s
        if not span._out_s:  # noqa: SLF001 - never switched out: since its turn came
            running_s = now_s - span.started_s - span.queued_s
        elif active is span:
            running_s += now_s - start_s
        return running_s, max(0.0, now_s - span.started_s - running_s - span.queued_s), span.queued_s

    def figures(self, limit_s: float = FIGURES_LIMIT_S) -> Figures:
        """What happened since the start; in the hub's thread. Not to be changed.

        When there are more busy routes than can be read in `limit_s`, some are as they were the last time.
        """
        self._recorder.fold()
        counts = self._hook.counts()
        routes = self._ledger.routes(self._recorder.unfinished(), limit_s)
        overhead_s = self._costs.of(switches=counts.switches, turns=counts.turns, requests=self._recorder.requests)
        return Figures(
            wall_s=time.perf_counter() - self._started_s,
            idle_s=counts.idle_s,
            overhead_s=overhead_s,
            switches=counts.switches,
            slices_over=counts.slices_over,
            dropped=counts.dropped + self._sites.lost + self._recorder.dropped,
            displaced=counts.displaced,
            failures=counts.failures,
            unwritten=self._writer.unwritten if self._writer is not None else 0,
            exceeded=self._flight.exceeded if self._flight is not None else 0,
            delay=self._ledger.delay,
            longest=longest_of(routes),
            routes=routes,
            sites=self._sites.sites.copy(),
            culprits=self._sites.culprits.copy(),
        )

    def _detach(self) -> None:
        self._closed = True
        self.begin, self.end = uncounted, _end_nothing  # nobody folds what the hook's would gather
        self._hook.remove()
        self._lineage.remove()
        for watcher in (*(watcher for watcher, _ in self._watchers), self._timer):
            with suppress(ValueError):  # the loop was destroyed, and they with it
                watcher.stop()
                watcher.close()

    def _after_fork(self) -> None:
        """In the child: the threads are gone, and the file is the parent's."""
        self._detach()
        atexit.unregister(self.close)
        self._meter.close()
        self._sightings.close()
        if self._writer is not None:
            self._writer.close()

    def _start_pulse(self) -> None:
        self._timer.again(self._pulse, update=True)  # start() would not begin a new interval
        self._due_s = time.perf_counter() + PULSE_S

    def _woken(self) -> None:
        self._watchdog.nap.wake()
        if not self._resting:
            return
        self._resting = False
        if time.perf_counter() - self._handed_over_s >= LAST_HAND_OVER_S:
            self._hand_over_after_s = FIRST_HAND_OVER_S
        self._start_pulse()

    def _pulse(self) -> None:
        now_s = time.perf_counter()
        delay_s = max(0.0, now_s - self._due_s)
        self._recorder.delayed(delay_s)
        self._ledger.delay.add(delay_s)
        self._recorder.fold()
        counts = self._hook.counts()
        idle = counts.switches - self._pulsed.switches <= IDLE_SWITCHES
        self._pulsed = counts
        news = self._recorder.requests != self._handed_over_requests
        due = now_s - self._handed_over_s >= self._hand_over_after_s and self._hook.stalls.are_placed(now_s)
        self._hook.sweep()
        undisturbed.leave()
        if due:
            self._hand_over(now_s)
            self._hand_over_after_s = min(2 * self._hand_over_after_s, LAST_HAND_OVER_S)
        if idle and (due or not news):
            self._timer.stop()
            self._resting = True
            self._hook.doze()
        else:
            self._start_pulse()

    def _hand_over(self, now_s: float) -> None:
        self._recorder.fold()
        counts = self._hook.counts()
        requests = self._recorder.requests
        overhead_s = self._costs.of(
            switches=counts.switches - self._handed_over.switches,
            turns=counts.turns - self._handed_over.turns,
            requests=requests - self._handed_over_requests,
        )
        delta = self._recorder.take(counts, self._handed_over, now_s - self._handed_over_s, overhead_s)
        self._ledger.absorb(delta)
        self._handed_over, self._handed_over_requests, self._handed_over_s = counts, requests, now_s
        if self._writer is not None:
            self._writer.hand_over(delta)


def _end_nothing(span: Span, error: bool = False, outcome: int = 0) -> None:
    """`Session.end` after `close`."""


def install(
    directory: str | os.PathLike[str] | None = None,
    *,
    slow_slice_ms: float = 10.0,
    worker: str | int | None = None,
    library_prefixes: Sequence[str] = (),
    objectives: Mapping[str, float] | None = None,
    remedies: Mapping[str, str] | None = None,
) -> Session:
    """Profile this process from now on; call it in the hub's thread, after any fork.

    `directory`: where the worker's file goes, created if need be; None writes nothing, and only the times on
    the spans are of use.
    `slow_slice_ms`: from which length a slice is looked into, 1 to 60000. 10: a hub that answers in
    single-digit milliseconds cannot give one request more. `worker`: a name for this worker, by default its
    pid.
    `library_prefixes`: directories whose code is never the line to name, as a server's own.
    `objectives`: the longest that a request of a route should take, in ms: `{"GET /users/{id}": 50, "*": 250}`, where
    "*" is any other route. Of requests that take longer the moment is stored: who had the hub meanwhile (flight.py).
    Without it that is done for requests that were queued for ten times `slow_slice_ms` alone.
    `remedies`: what a report is to advise here where it would name gevent's own (report/advice.py): `{"thread":
    "tafe.offload({})"}`, with {} for a function and its arguments.
    Raises ProfilerError when a session is open already, a value is out of range, or the directory cannot be
    written.
    """
    global _session  # noqa: PLW0603 - one a process: the tracer is one a thread, and there is one hub
    if _session is not None:
        raise ProfilerError("the profiler is installed already in this process", "close() that session first")
    check(directory, slow_slice_ms, objectives)
    loop: Any = get_hub().loop
    if "libev" not in type(loop).__module__:
        raise ProfilerError(f"gevent runs on {type(loop).__module__}", "start with GEVENT_LOOP=libev-cext")
    session = Session(
        directory,
        slow_slice_ms,
        str(os.getpid() if worker is None else worker),
        library_prefixes,
        {route: objective_ms / 1000 for route, objective_ms in (objectives or {}).items()},
        remedies or {},
    )
    session._start()  # noqa: SLF001 - apart from __init__, which has no effect on the process
    _session = session
    atexit.register(session.close)
    return session


def current() -> Session | None:
    """The session of this process, if one is open."""
    return _session


def _forget_in_child() -> None:
    global _session
    if _session is not None:
        session, _session = _session, None
        session._after_fork()  # noqa: SLF001


os.register_at_fork(after_in_child=_forget_in_child)

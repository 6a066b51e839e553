"""The records that pass between the hook, the watchdog, the files and the report.

Times are float seconds of `time.perf_counter`: floats are what CPython adds and compares without allocating
(its 64-bit counters are two-digit integers, twice as dear in the hook), and at 100 days of uptime they still
hold 2 ns.
"""

from __future__ import annotations

import time
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from profiler.frames import Look, Place, Stack
    from profiler.usage import Usage

SCHEMA = "profiler.data/2"  # of the files
THIS_TURN = -1  # for `Session.begin`: when `Turn` says
MAX_BLAMED = 16  # culprits kept with a request, those that cost it most: of more no reader sees which
OTHER_SITES = "(other sites)"  # the function of a site that stands for all without room of their own
OTHER_ROUTES = "(other routes)"  # and the route, also of requests whose route is no text

_COST = itemgetter(1)


class Counts(NamedTuple):
    """What the hook has counted since the start."""

    switches: int
    turns: int
    idle_s: float
    slices_over: int
    dropped: int  # slow slices the watchdog never read, spans that were never ended
    displaced: int  # times the tracer had been removed by somebody else
    failures: int  # exceptions in the hook or in a chained tracer


class Begin(Protocol):
    """See `Session.begin`."""

    def __call__(self, route: str, request_id: str, ready_ns: int = 0) -> Span: ...


class End(Protocol):
    """See `Session.end`."""

    def __call__(self, span: Span, error: bool = False, outcome: int = 0) -> None: ...


class Turn:
    """This turn of the loop, by `time.perf_counter`.

    `ready_s`, `ready_ns`: when its poll returned, or since when what begins now counts as ready. `since_ns`: since when
    what is ready may have waited in the kernel, as the hub was kept from polling; 0: since then, or nearly.
    """

    __slots__ = ("ready_s", "since_ns")

    ready_s: float
    since_ns: int

    def __init__(self) -> None:
        self.ready_s = time.perf_counter()
        self.since_ns = 0

    @property
    def ready_ns(self) -> int:
        """The same in nanoseconds, as `Session.begin` takes it."""
        return int(self.ready_s * 1e9)

    @ready_ns.setter
    def ready_ns(self, ready_ns: int) -> None:
        self.ready_s = ready_ns * 1e-9


class Span:
    """One request: its name, and where its time went. The hook keeps the times; `route` may be re-assigned.

    The times are complete after `Session.end`; before that, `running_s` lacks the slice that is still going
    on.
    """

    __slots__ = (
        "_longest_s",  # `longest_slice_s` of one that was switched out
        "_out_s",  # when it was last switched out; 0.0 = never, so the whole request was one slice
        "_running_s",  # as `_longest_s`
        "blamed",  # slices that cost this request time, its own among them, with the seconds each cost; None = none
        "error",
        "outcome",  # as given to `Session.end`; only of requests that were counted apart
        "queued_s",  # ready, but another greenlet had the hub
        "request_id",
        "route",
        "started_s",  # when it became ready, if known, else when its greenlet was switched in
        "total_s",  # set at the end; negative before that, 0.0 of one that was abandoned
    )

    # No __init__: it would double the cost of making one. `Session.begin` fills every slot but `error` and `outcome`,
    # which are as they were: False, and of no meaning until it is counted apart; and those of times that a request of
    # one slice has no use for.
    blamed: list[tuple[Slice, float]] | None
    error: bool
    outcome: int
    queued_s: float
    request_id: str
    route: str
    started_s: float
    total_s: float
    _longest_s: float
    _out_s: float
    _running_s: float

    @property
    def running_s(self) -> float:
        """With the hub."""
        # Of one slice, it is what is not queued.
        return self._running_s if self._out_s else max(0.0, self.total_s - self.queued_s)

    @property
    def longest_slice_s(self) -> float:
        """With the hub at a stretch."""
        return self._longest_s if self._out_s else self.running_s

    def charge(self, record: Slice, cost_s: float) -> float:
        """A slice cost it so much. Returns what one that cost no more need not be told of."""
        if self.blamed is None:
            self.blamed = []
        if len(self.blamed) < MAX_BLAMED:
            self.blamed.append((record, cost_s))
            return 0.0
        least = min(self.blamed, key=_COST)
        if least[1] < cost_s:
            self.blamed.remove(least)
            self.blamed.append((record, cost_s))
        return least[1]

    @property
    def waiting_s(self) -> float:
        """For I/O, locks and timers: the rest of `total_s`, so known after the end only."""
        return max(0.0, self.total_s - self.running_s - self.queued_s)


def uncounted(route: str, request_id: str, ready_ns: int = 0) -> Span:  # noqa: ARG001 - see Begin
    """A span for `Session.begin` to give after `close`."""
    span = Span()
    span.route, span.request_id, span.blamed, span.error = route, request_id, None, False
    span.started_s = time.perf_counter()
    span.queued_s = span.total_s = span._out_s = 0.0  # noqa: SLF001
    return span


def text_of(value: object, otherwise: str) -> str:
    """What was given as a name, which may be anything, as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(value) if isinstance(value, int) else otherwise


def route_of(span: Span) -> str:
    """Its route, whatever was assigned, for whoever counts or stores by it."""
    return text_of(span.route, OTHER_ROUTES)


def name_of(span: Span) -> Span:
    """As much of it as tells which request it was."""
    name = Span()
    name.route = span.route
    name.request_id = span.request_id
    name.started_s = span.started_s
    name.blamed = None
    return name


class Slice:
    """A slice that reached the threshold, or what kept the hub as one does.

    What the hook saw of it, then what the watchdog makes of it.
    """

    __slots__ = (
        "collected",
        "end_s",
        "excuse",
        "gc_s",
        "harm_s",
        "members",
        "place",
        "polled",
        "shared",
        "span",
        "start_s",
        "threads",
        "turn",
        "usage",
        "victims",
        "yielded",
    )

    def __init__(
        self,
        start_s: float,
        end_s: float,
        span: Span | None,
        gc_s: float,
        usage: Usage,
        turn: tuple[float, float],
        yielded: Stack,
    ) -> None:
        self.start_s = start_s
        self.end_s = end_s
        self.span = span  # None: the hub itself, or a greenlet that works for no request
        self.gc_s = gc_s  # of it, in the garbage collector
        self.usage = usage  # read when it ended
        self.turn = turn  # when this turn of the loop began, and the CPU time of the hub's thread then
        self.yielded = yielded  # where the greenlet yielded at last: of use only if no sample was taken
        self.collected: Stack = ()  # what called the garbage collector, if that took long
        self.members = 1  # slices: more are a convoy (convoy.py)
        self.shared = False  # a convoy whose slices did not all work for `span`, which is whose made it one
        self.polled = False  # no slice: the poll had returned, but the hub could not go on (it waited for the GIL)
        self.threads: dict[int, Look] = {}  # if it was: what each thread did when the hub could go on
        self.harm_s = 0.0  # queued time it gave to requests
        self.victims = 0  # how many requests that were
        self.place: Place | None = None  # set by the watchdog
        self.excuse = ""  # the same: why no code is to blame for its length, as `starved`

    @property
    def length_s(self) -> float:
        """From switch-in to switch-out."""
        return self.end_s - self.start_s

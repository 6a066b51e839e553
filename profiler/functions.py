"""Which functions the time goes into: yappi for some seconds, on demand.

    recording = functions.record(5)           # in a greenlet of the thread whose hub is looked at; others go on
    recording.save("profile.pstats", "pstats")

The rest of the package says which line does not yield; this says what a busy hub is busy with. It is the dear way, as
each call of a function is timed, so it is bounded in time and gone afterwards: yappi's hook is taken out, its memory
given back, and no greenlet keeps anything of it.
yappi (1.7 or newer) is loaded when it is asked for. It runs with its greenlet backend, so that CPU time (`clock="cpu"`)
is that of the greenlet, and time on the clock (`"wall"`) includes a greenlet's waiting. It hooks calls, our tracer
switches: neither knows of the other.

Limits. A call that had begun before, or has not returned at the end, is missing, as are loops that never return; what
they called is there. All native threads of the process are recorded, but the profiler's own functions are left out. One
recording a process at a time.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from gevent.event import Event
from gevent.threadpool import ThreadPool
from greenlet import getcurrent

from profiler.errors import ProfilerError
from profiler.private_file import write as write_private

if TYPE_CHECKING:
    from collections.abc import Iterator

CLOCKS = ("cpu", "wall")
DEFAULT_S = 5.0  # thousands of requests of a busy worker, and their clients hardly notice
LONGEST_S = 60.0  # for so long requests take a multiple of their time
_OWN = os.path.dirname(__file__) + os.sep


class Call(NamedTuple):
    """What a function has called: times are of these calls alone."""

    callee: int  # its place in `Recording.functions`
    calls: int
    primitive: int  # those of them that were not recursive
    own_s: float
    total_s: float


class Function(NamedTuple):
    """One function; `total_s` includes what it called."""

    file: str
    line: int  # of its `def`; 0, and `~` for a file, if it is written in C
    name: str
    calls: int
    primitive: int
    own_s: float
    total_s: float
    callees: list[Call]


class Recording(NamedTuple):
    """What `record` returns."""

    clock: str
    started_s: float  # time.time
    length_s: float
    pid: int
    functions: list[Function]

    def dump(self) -> Iterator[bytes]:
        """In pieces, to be read by `load`: JSON lines, so that no piece keeps the GIL for long."""
        yield json.dumps([self.clock, self.started_s, self.length_s, self.pid]).encode() + b"\n"
        for function in self.functions:
            yield json.dumps(function).encode() + b"\n"

    @classmethod
    def load(cls, data: bytes) -> Recording:
        """From what `dump` has made."""
        head, *rest = data.splitlines()
        rows = (json.loads(line) for line in rest)
        clock, started_s, length_s, pid = json.loads(head)
        functions = [Function._make([*row[:-1], [Call(*call) for call in row[-1]]]) for row in rows]
        return cls(clock, started_s, length_s, pid, functions)

    def render(self, format: str) -> bytes:  # noqa: A002 - the option's name
        """As a file of one of `render.calls.FORMATS`. ProfilerError for another."""
        from profiler.render import calls

        if format not in calls.FORMATS:
            raise ProfilerError(f"{format!r} is not a format", f"use {', '.join(calls.FORMATS)}")
        return calls.FORMATS[format](self)

    def save(self, path: str | os.PathLike[str], format: str) -> None:  # noqa: A002
        """Write it to a file that only its owner may read. ProfilerError if that cannot be written."""
        shown = self.render(format)
        try:
            write_private(path, shown)
        except OSError as error:
            raise ProfilerError(f"cannot write {os.fspath(path)!r}: {error.strerror}", "name another file") from error


_recording = False


def record(seconds: float = DEFAULT_S, *, clock: str = "cpu", over: Event | None = None) -> Recording:
    """Record for `seconds`, more than 0 and at most 60, while other greenlets run; `clock`: "cpu" or "wall".

    Whoever sets `over` ends it earlier.

    Call it in the thread of the hub. ProfilerError for a value out of range, without yappi, and while there is another
    recording or another profiler.
    """
    global _recording  # noqa: PLW0603 - yappi is one a process
    if not 0 < seconds <= LONGEST_S:
        raise ProfilerError(f"{seconds!r} is not a number of seconds to record", f"more than 0, at most {LONGEST_S:g}")
    if clock not in CLOCKS:
        raise ProfilerError(f"{clock!r} is not a clock", f"use {' or '.join(CLOCKS)}")
    yappi = _loaded()
    if _recording:
        raise ProfilerError("functions are being recorded already", "wait until that is over")
    if yappi.is_running() or sys.getprofile() is not None or threading.getprofile() is not None:
        raise ProfilerError("another profiler is at work in this process", "stop that first")
    _recording = True
    pool = ThreadPool(1)
    try:
        _start(yappi, clock)
        started_s, began_s = time.time(), time.perf_counter()
        try:
            (over or Event()).wait(seconds)
        finally:
            _stop()
        length_s = time.perf_counter() - began_s
        functions: list[Function] = pool.apply(_collected, (yappi,))  # some 10 us a function: not on the hub
        return Recording(clock, started_s, length_s, os.getpid(), functions)
    finally:
        yappi.clear_stats()
        _recording = False
        pool.kill()


def _loaded() -> Any:
    try:
        import yappi
    except ImportError as error:
        raise ProfilerError(
            "recording functions needs yappi, which is not installed", "pip install 'yappi>=1.7'"
        ) from error
    return yappi


def _start(yappi: Any, clock: str) -> None:
    yappi.clear_stats()
    yappi.set_clock_type(clock)
    yappi.set_context_backend("greenlet")
    # Its own callbacks are Python functions, in which another thread may get the GIL, and leave an attribute on each
    # greenlet, by which the server takes it for used. These are C code from end to end. A greenlet in the place of a
    # dead one has its number, and begins with an empty stack, as the dead one has left every function.
    yappi.set_context_id_callback(map(id, iter(getcurrent, _NOBODY)).__next__)
    yappi.set_context_name_callback(repeat("greenlet").__next__)
    yappi.start(builtins=True)  # or what `any`, `map` and `sorted` call would have no caller


_NOBODY = object()


def _stop() -> None:
    sys.modules["yappi"].stop()


def _collected(yappi: Any) -> list[Function]:
    found = [one for one in yappi.get_func_stats() if not one.module.startswith(_OWN)]
    places = {one.full_name: place for place, one in enumerate(found)}
    functions = []
    for one in found:
        calls = [
            Call(places[child.full_name], child.ncall, child.nactualcall, child.tsub, child.ttot)
            for child in one.children
            if child.full_name in places
        ]
        functions.append(Function(*_place(one), one.ncall, one.nactualcall, one.tsub, one.ttot, calls))
    return functions


def _place(one: Any) -> tuple[str, int, str]:
    """As cProfile has it: what is written in C has no file."""
    if not one.builtin:
        return one.module, one.lineno, one.name
    return "~", 0, one.name if one.name.startswith("<") else f"<built-in method {one.module}.{one.name}>"


def _stop_in_child() -> None:
    global _recording  # noqa: PLW0603
    if _recording:
        _stop()
        _recording = False


os.register_at_fork(after_in_child=_stop_in_child)

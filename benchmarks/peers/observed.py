"""The hello application with another profiler at work in the worker, the one that the environment names.

Each is set as its documentation advises for a server that goes on and on: yappi with its greenlet backend and the wall
clock, pyinstrument with a sample each millisecond, viztracer with its ring of a million entries. All of them start and
end in the hub: CPython 3.11 remembers for each greenlet by itself whether it is profiled, a new one does as whoever
started it, and pyinstrument wants to be ended where it was started. `GET /seen` ends the profiling and answers how much
it has noted: calls of the application, or samples. What a profiler costs says nothing if it did not look.

Where the worker is slowed down, as by callgrind, what it does by the clock and not by the request (its heartbeat, our
profiler's pulse and hand-overs) is told to wait as many times longer: else each request is charged for that many times
more of it than in the open.

Runs in an environment of its own (peers-profilers.txt), so each profiler is imported when it is to start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent.event import AsyncResult

from benchmarks.peers import plain_wsgi

PROFILER_VARIABLE = "BENCH_PROFILER"
INTERVAL_VARIABLE = "BENCH_INTERVAL_S"  # of pyinstrument's samples
SLOWER_VARIABLE = "BENCH_SLOWER"  # how many times slower than in the open the worker is

Seen = Callable[[], int]


def _cprofile() -> Seen:
    import cProfile

    profile = cProfile.Profile()
    profile.enable()

    def seen() -> int:
        profile.disable()
        return sum(entry.callcount for entry in profile.getstats() if entry.code is app.__code__)

    return seen


def _yappi() -> Seen:
    import yappi

    yappi.set_context_backend("greenlet")
    yappi.set_clock_type("wall")
    yappi.start()

    def seen() -> int:
        yappi.stop()
        return sum(each.ncall for each in yappi.get_func_stats() if (each.name, each.module) == ("app", __file__))

    return seen


def _pyinstrument() -> Seen:
    from pyinstrument import Profiler

    profiler = Profiler(interval=float(os.environ[INTERVAL_VARIABLE]), async_mode="disabled")
    profiler.start()
    return lambda: int(profiler.stop().sample_count)


def _viztracer() -> Seen:
    from viztracer import VizTracer

    tracer = VizTracer(tracer_entries=1_000_000, verbose=0)
    tracer.start()

    def seen() -> int:
        tracer.stop()
        tracer.parse()
        return sum(event["name"].startswith(f"app ({__file__}:") for event in tracer.data["traceEvents"])

    return seen


def _monitor() -> Seen:
    return lambda: int(gevent.get_hub().periodic_monitoring_thread is not None)


def _nobody() -> Seen:
    return lambda: 0


_START = {
    "cProfile": _cprofile,
    "yappi": _yappi,
    "pyinstrument": _pyinstrument,
    "viztracer": _viztracer,
    "monitor": _monitor,
    "nobody": _nobody,
}
_seen: list[Seen] = []


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """The WSGI application."""
    if environ["PATH_INFO"] != "/seen":
        return plain_wsgi.app(environ, start_response)
    result: AsyncResult[int] = AsyncResult()
    gevent.get_hub().loop.run_callback(lambda: result.set(_seen[0]()))
    body = b"%d" % result.get()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def _wait_longer(times: float) -> None:
    from profiler import session
    from tafe import worker

    worker._TICK_S *= times  # noqa: SLF001
    session.PULSE_S *= times
    session.FIRST_HAND_OVER_S *= times
    session.LAST_HAND_OVER_S *= times


def _begin() -> None:
    _seen.append(_START[os.environ[PROFILER_VARIABLE]]())


if SLOWER_VARIABLE in os.environ:
    _wait_longer(float(os.environ[SLOWER_VARIABLE]))
gevent.get_hub().loop.run_callback(_begin)

"""Hides the stall: behind the interpreter (collector, finalizer, GIL), behind gevent (children, the hub, good
manners that are none), behind the framework (streams, hooks, deferred work).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Any

import gevent

from apps.zoo.table import DEFAULT_MS, app, stall, twin
from apps.zoo.tools import SLICE_S, Sized, breathe, gently, native_sleep
from tafe import Request, offload


def _spin(seconds: float) -> None:
    """Busy for a time that nobody minds; each stall has a loop of its own, so that reports can tell them apart."""
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        pass


# The garbage collector


_LOT = 1000  # containers made at a time, in about 0.05 ms


def _lot() -> list[list[None]]:
    return [[] for _ in range(_LOT)]


def _ballast(lots: int) -> list[list[list[None]]]:
    """Many small containers that the collector has not seen yet."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        return [_lot() for _ in gently(range(lots))]
    finally:
        if enabled:
            gc.enable()


def _unload(ballast: list[Any]) -> None:
    """Free it in pieces, which would otherwise be a stall at the end of the handler."""
    for _ in gently(range(len(ballast))):
        ballast.pop()


_collected = Sized(lambda _ballast: gc.collect(0), _ballast, 100, power=1.1)


@stall("gc_collect", "gc")
def stall_gc_collect(ms: int = DEFAULT_MS) -> None:
    ballast = _ballast(_collected.size(ms))
    gc.collect()  # stalls
    _unload(ballast)


@twin("gc_collect")
def yield_gc_collect(ms: int = DEFAULT_MS) -> None:
    """As many containers, but never many at a time."""
    for _ in gently(range(_collected.size(ms))):
        garbage = _lot()
        gc.collect(0)
        del garbage


@stall("gc_automatic", "gc")
def stall_gc_automatic(ms: int = DEFAULT_MS) -> None:
    """Nobody asks for it: an innocent list is the one too many. (CPython before 3.14, which collects in steps.)"""
    gc.disable()
    ballast = _ballast(_collected.size(ms))
    gc.enable()
    innocent: list[list[None]] = [[] for _ in range(_LOT)]  # stalls
    _unload(ballast)
    del innocent


@twin("gc_automatic")
def yield_gc_automatic(ms: int = DEFAULT_MS) -> None:
    for _ in gently(range(_collected.size(ms))):
        garbage = _lot()
        del garbage


class _Heavy:
    """Takes its time to go."""

    def __init__(self, ms: int) -> None:
        self._ms = ms

    def __del__(self) -> None:
        native_sleep(self._ms / 1000)  # stalls


class _Light(_Heavy):
    def __del__(self) -> None:
        gevent.spawn_later(self._ms / 1000, int)  # the work is left to somebody who may wait


@stall("finalizer", "blocking", at=_Heavy.__del__)
def stall_finalizer(ms: int = DEFAULT_MS) -> None:
    _Heavy(ms)


@twin("finalizer")
def yield_finalizer(ms: int = DEFAULT_MS) -> None:
    _Light(ms)


# Native threads

_raised = Sized(lambda exponent: 3**exponent, lambda size: size, 40_000, power=1.58)  # Karatsuba's exponent


def _hog(exponent: int) -> int:
    number: int = 3**exponent  # stalls
    return number.bit_length()


@stall("gil", "gil", at=_hog, innocent=True)
def stall_gil(ms: int = DEFAULT_MS) -> int:
    """The handler waits politely for a thread in which C code keeps the GIL: nobody on the hub is to blame."""
    return offload(_hog, _raised.size(ms))


@twin("gil")
def yield_gil(ms: int = DEFAULT_MS) -> None:
    offload(native_sleep, ms / 1000)


# gevent


def _child(ms: int) -> None:
    until_s = time.perf_counter() + ms / 1000
    while time.perf_counter() < until_s:  # stalls
        pass


@stall("child", "python", at=_child)
def stall_child(ms: int = DEFAULT_MS) -> None:
    """A greenlet that the handler starts does it."""
    gevent.spawn(_child, ms).join()


@twin("child")
def yield_child(ms: int = DEFAULT_MS) -> None:
    gevent.spawn(_spin_gently, ms).join()


def _spin_gently(ms: int) -> None:
    until_s = time.perf_counter() + ms / 1000
    while time.perf_counter() < until_s:
        _spin(SLICE_S)
        breathe()


def _callback(ms: int) -> None:
    until_s = time.perf_counter() + ms / 1000
    while time.perf_counter() < until_s:  # stalls
        pass


@stall("hub_callback", "python", at=_callback)
def stall_hub_callback(ms: int = DEFAULT_MS) -> None:
    """The hub itself does it: so runs what is given to rawlink() or to a watcher."""
    gevent.get_hub().loop.run_callback(_callback, ms)
    breathe()


@twin("hub_callback")
def yield_hub_callback(ms: int = DEFAULT_MS) -> None:
    gevent.get_hub().loop.run_callback(gevent.spawn, _spin_gently, ms)
    breathe()


def _one_of_many() -> None:
    until_s = time.perf_counter() + SLICE_S
    while time.perf_counter() < until_s:  # stalls
        pass


@stall("convoy", "convoy", at=_one_of_many)
def stall_convoy(ms: int = DEFAULT_MS) -> None:
    """Many that take a millisecond each, all ready at once: the loop runs up to fifty before it looks up."""
    gevent.joinall([gevent.spawn(_one_of_many) for _ in range(ms)])


@twin("convoy")
def yield_convoy(ms: int = DEFAULT_MS) -> None:
    for _ in range(ms):
        gevent.spawn(_spin, SLICE_S).join()
        breathe()


@stall("sleep_zero", "convoy")
def stall_sleep_zero(ms: int = DEFAULT_MS) -> None:
    """gevent.sleep(0) lets other greenlets run that are ready, but up to fifty times no socket and no timer."""
    for _ in range(ms):
        until_s = time.perf_counter() + SLICE_S
        while time.perf_counter() < until_s:  # stalls
            pass
        gevent.sleep(0)


@twin("sleep_zero")
def yield_sleep_zero(ms: int = DEFAULT_MS) -> None:
    for _ in range(ms):
        _spin(SLICE_S)
        breathe()


# The framework


def _stalling_stream(ms: int) -> Iterator[bytes]:
    yield b"first, "
    native_sleep(ms / 1000)  # stalls
    yield b"second"


@stall("stream", "blocking", at=_stalling_stream)
def stall_stream(ms: int = DEFAULT_MS) -> Iterator[bytes]:
    return _stalling_stream(ms)


@twin("stream")
def yield_stream(ms: int = DEFAULT_MS) -> Iterator[bytes]:
    yield b"first, "
    gevent.sleep(ms / 1000)
    yield b"second"


def _duration_s(request: Request) -> float:
    return int(request.query.get("ms", [str(DEFAULT_MS)])[0]) / 1000


@app.before
def before(request: Request) -> None:
    if request.path == "/stall/before_hook":
        native_sleep(_duration_s(request))  # stalls
    elif request.path == "/yield/before_hook":
        gevent.sleep(_duration_s(request))


@stall("before_hook", "blocking", at=before)
def stall_before_hook() -> None:
    """The handler does nothing."""


@twin("before_hook")
def yield_before_hook() -> None:
    """The handler does nothing."""


@app.after
def after(request: Request, _response: object) -> None:
    if request.path == "/stall/after_hook":
        native_sleep(_duration_s(request))  # stalls
    elif request.path == "/yield/after_hook":
        gevent.sleep(_duration_s(request))


@stall("after_hook", "blocking", at=after)
def stall_after_hook() -> None:
    """The handler does nothing."""


@twin("after_hook")
def yield_after_hook() -> None:
    """The handler does nothing."""


def _tidy_up(seconds: float) -> None:
    native_sleep(seconds)  # stalls


@stall("deferred", "blocking", at=_tidy_up)
def stall_deferred(request: Request, ms: int = DEFAULT_MS) -> None:
    """After the answer was sent: the client sees nothing, everybody else does."""
    request.defer(_tidy_up, ms / 1000)


@twin("deferred")
def yield_deferred(request: Request, ms: int = DEFAULT_MS) -> None:
    request.defer(gevent.sleep, ms / 1000)

"""Visits the zoo in a process of its own, which gevent has patched; prints JSON. `python -m tests.zoo.probe MS`

For each exhibit: the longest time, in ms, that a greenlet which ticks every millisecond had to wait for its turn while
the stall and then the twin were served. `wall` is by the clock; `own` leaves out the time in which the kernel ran other
processes instead of this thread (/proc/thread-self/schedstat, where there is one). What a machine adds beyond that, as
a hypervisor does, can only lengthen a wait, so what seems too long is tried again; the shortest of the tries counts.
"""

# ruff: noqa: E402 - patching comes first
from gevent import monkey

monkey.patch_all()

import gc
import json
import os
import sys
import time
from itertools import pairwise
from typing import NamedTuple

import gevent

from apps.zoo import ZOO, app

TRIES = 6
_SCHEDSTAT = "/proc/thread-self/schedstat"  # ns on the CPU, ns in its run queue, time slices
_schedstat = os.open(_SCHEDSTAT, os.O_RDONLY) if os.path.exists(_SCHEDSTAT) else None


class Stamp(NamedTuple):
    wall_s: float
    own_s: float


class Wait(NamedTuple):
    """Milliseconds."""

    wall: float
    own: float


_ticks: list[Stamp] = []


def stamp() -> None:
    queued_ns = int(os.pread(_schedstat, 100, 0).split()[1]) if _schedstat is not None else 0
    now_s = time.perf_counter()
    _ticks.append(Stamp(now_s, now_s - queued_ns / 1e9))


def tick() -> None:
    while True:
        stamp()
        gevent.sleep(0.001)


def longest_wait(path: str, ms: int) -> Wait:
    """Serve one request beside the ticking greenlet."""
    _ticks.clear()
    stamp()
    visit = gevent.spawn(app.test_client().get, f"{path}?ms={ms}")
    answer = visit.get(timeout=30)
    gevent.sleep(0.005)
    assert answer.status in (200, 204), answer
    stamp()
    gaps = [(later.wall_s - earlier.wall_s, later.own_s - earlier.own_s) for earlier, later in pairwise(_ticks)]
    return Wait(*(max(column) * 1000 for column in zip(*gaps, strict=True)))


def shortest_of_tries(path: str, ms: int, enough_ms: float) -> Wait:
    best = longest_wait(path, ms)
    for _ in range(TRIES - 1):
        if best.own <= enough_ms:
            break
        again = longest_wait(path, ms)
        best = Wait(min(best.wall, again.wall), min(best.own, again.own))
    return best


def main(ms: int) -> None:
    gc.freeze()  # as a worker does, so that the collector's work is the zoo's
    ticking = gevent.spawn(tick)
    waits = {}
    for name in ZOO:
        # Twice, because the first visit may measure how fast the machine is.
        longest_wait(f"/stall/{name}", ms)
        stall = shortest_of_tries(f"/stall/{name}", ms, ms * 1.5)
        twin = shortest_of_tries(f"/yield/{name}", ms, ms / 4)
        waits[name] = {"stall": stall._asdict(), "twin": twin._asdict()}
    ticking.kill()
    print(json.dumps(waits))


if __name__ == "__main__":
    main(int(sys.argv[1]))

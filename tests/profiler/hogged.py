"""Cooperative requests beside a thread that keeps the GIL: none of their lines has kept anybody waiting.

    python -m tests.profiler.hogged DIRECTORY HOG

HOG is `works` (it searches a list, while the requests allocate so much that the collector runs all the time), `sleeps`
(with the GIL, under a long switch interval) or `foreign` (the same under the usual one, in a thread without a frame of
Python, as those that C code starts). Prints how many slices were slow.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import time
from _thread import start_new_thread
from collections import deque
from itertools import cycle, starmap
from operator import call

import gevent

import profiler
from profiler.native import sleep, start_thread

SLEEPERS, SECONDS, HOGS_S, PAUSE_S = 10, 2.0, 0.04, 0.02
FOREIGN_HOGS_S = 0.025  # from 40 ms on, the naps of who waits for the GIL tell
WRITES = 50  # so that it is lost in one of them, and not in the poll
LONG_INTERVAL_S = 0.2
ROWS = list(range(2_000_000))  # to search it takes tens of ms

_libc_with_gil = ctypes.PyDLL(None)


def works() -> None:
    while True:
        sleep(PAUSE_S)
        _ = -1 in ROWS


def sleeps() -> None:
    while True:
        sleep(PAUSE_S)
        _libc_with_gil.usleep(int(HOGS_S * 1e6))


def foreign() -> None:
    calls = cycle([(ctypes.CDLL(None).usleep, int(PAUSE_S * 1e6)), (_libc_with_gil.usleep, int(FOREIGN_HOGS_S * 1e6))])
    start_new_thread(deque, (starmap(call, calls), 0))


def cooperative(session: profiler.Session, until_s: float) -> None:
    ours, theirs = os.pipe()
    while time.perf_counter() < until_s:
        span = session.begin("GET /cooperative", "one")
        gevent.sleep(0.002)
        rows = [[number] for number in range(500)]
        for _ in range(WRITES):
            os.write(theirs, b"x")  # gives the GIL up, for microseconds
        os.read(ours, WRITES)
        gevent.sleep(0.001)
        session.end(span)
        del rows
    os.close(ours)
    os.close(theirs)


def main(directory: str, hog: str) -> None:
    if hog == "sleeps":
        sys.setswitchinterval(LONG_INTERVAL_S)
    gc.collect()
    gc.freeze()  # or the collector would go through the rows
    gc.set_threshold(20)
    session = profiler.install(directory)
    start_thread({"works": works, "sleeps": sleeps, "foreign": foreign}[hog])
    until_s = time.perf_counter() + SECONDS
    gevent.joinall([gevent.spawn(cooperative, session, until_s) for _ in range(SLEEPERS)], raise_error=True)
    session.close()
    print(session.figures().slices_over)
    sys.stdout.flush()
    os._exit(0)  # the hog does not end


if __name__ == "__main__":
    main(*sys.argv[1:])

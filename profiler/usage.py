"""What a thread got of the machine: CPU time, and time spent ready in the kernel's run queue without a CPU.

It also tells who waits for the GIL: CPython waits for it in naps of a switch interval, so a thread that waits wakes
up once in each (the third field of schedstat counts how often it got a CPU); one that sleeps for a reason of its own,
or that was stopped with the whole process, does not.

A slice that was long because the machine ran something else is nobody's fault, and only the kernel knows. The
second field of `/proc/self/task/TID/schedstat` is that waiting time in ns; reading it costs 0.5 us
(measured), so it is read in the slow paths only. The hub's CPU clock can be read from any thread.
Time stolen by a hypervisor is in none of these, but in `/proc/stat`, in steps of 10 ms and of all CPUs together.
Limits: without CONFIG_SCHED_INFO the waits read as 0 and `sees_waits` is False.
"""

from __future__ import annotations

import os
import time
from collections import deque
from resource import RUSAGE_SELF, getrusage
from typing import TYPE_CHECKING, NamedTuple

from profiler import native
from profiler.native import get_ident, get_native_id, undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable

_FILE_BYTES = 128  # holds three 64-bit numbers, or a pid, a name and a state, or the sums of all CPUs' times
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
STOLEN_STEP_S = 1 / _TICKS_A_SECOND

AWAY_S = 0.002  # late without a reason: timers are late by 0.1 ms, and by 1 ms where a processor sleeps deeply
MOST_AWAY_S = 0.25  # longer, and the machine or the process was stopped: nothing that comes back soon
AWAY_FOR_S = 10.0  # so long it is remembered: what takes CPUs away is other work, which comes in spells


class Usage(NamedTuple):
    """One reading. Every figure but `at_s` only grows, and only differences mean something."""

    at_s: float
    cpu_s: float  # the hub's thread, on a CPU
    wait_s: float  # the hub's thread, ready but without a CPU
    others_s: float = 0.0  # all other threads of the process, on a CPU
    wakes: int = 0  # how often the hub's thread got a CPU
    turns: int = 0  # of the loop, each of which may wake it once
    faults: int = 0  # how often a thread of the process waited for the disk to bring a page
    strangers_s: float = 0.0  # of `others_s`, threads that are not the profiler's


class Own(NamedTuple):
    """One reading of the watchdog's own thread: as `Usage.wait_s` and `Usage.wakes`."""

    wait_s: float = 0.0
    wakes: int = 0


class Absences:
    """For how long a CPU was away lately, without a word of the kernel's."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()  # until when, and for how long: the longer, the older

    def add(self, until_s: float, away_s: float, more_s: float) -> None:
        """It was away for so long, and perhaps for `more_s` before that; short and very long ones do not count."""
        if AWAY_S <= away_s < MOST_AWAY_S:
            while self._seen and self._seen[-1][1] <= away_s + more_s:
                self._seen.pop()
            self._seen.append((until_s, away_s + more_s))

    def longest_s(self, now_s: float) -> float:
        """Of late; 0.0: none."""
        while self._seen and self._seen[0][0] + AWAY_FOR_S < now_s:
            self._seen.popleft()
        return self._seen[0][1] if self._seen else 0.0


class Meter:
    """Reads `Usage`. Made in the hub's thread; the watchdog adds its own with `watch_this_thread`."""

    def __init__(self) -> None:
        self._cpu_clock = time.pthread_getcpuclockid(get_ident())
        self._hub_fd = _open("schedstat")
        self._state_fd = _open("stat")
        self._own_fd = -1
        self._machine_fd = _open_file("/proc/stat")
        self.sees_waits = self._hub_fd >= 0
        self.turns: Callable[[], int] = int  # set by who counts them

    def watch_this_thread(self) -> None:
        """Count the calling thread as the watchdog's."""
        self._own_fd = _open("schedstat")

    def read(self) -> Usage:
        """From any thread; about 3 us."""
        turns = self.turns()
        wait_s, wakes = _schedstat(self._hub_fd)  # first: it gives the GIL up
        cpu_s, others_s = self.cpu()
        strangers_s = others_s - _cpu_s(native.clocks)
        faults = getrusage(RUSAGE_SELF).ru_majflt
        return Usage(time.perf_counter(), cpu_s, wait_s, others_s, wakes, turns, faults, strangers_s)

    def cpu(self) -> tuple[float, float]:
        """Of the hub's thread, and of all others, in seconds; never gives the GIL up."""
        cpu_s = time.clock_gettime(self._cpu_clock)
        return cpu_s, time.process_time() - cpu_s

    def own(self) -> Own:
        """Of the watchdog; the kernel adds a wait when it is over."""
        return _schedstat(self._own_fd)

    def stolen_s(self) -> float:
        """Of all CPUs together, in steps of `STOLEN_STEP_S`; about 11 us."""
        try:
            return int(_read(self._machine_fd).split()[8]) / _TICKS_A_SECOND
        except (OSError, IndexError, ValueError):
            return 0.0

    def hub_is_blocked(self) -> bool:
        """Whether the hub's thread is in a system call that waits, at this moment; False where that is not known.

        The run queue's figure is not enough: while the machine is busy, Linux 6.12 and newer may count a
        sleep as waiting for a CPU (seen on 6.18: 30 ms of a 30 ms sleep).
        """
        try:
            return _read(self._state_fd).rpartition(b")")[2].split()[0] in (b"S", b"D")
        except (OSError, IndexError):
            return False

    def close(self) -> None:
        """Nothing may be read afterwards."""
        for fd in (self._hub_fd, self._own_fd, self._state_fd, self._machine_fd):
            if fd >= 0:
                os.close(fd)
        self._hub_fd = self._own_fd = self._state_fd = self._machine_fd = -1


def _cpu_s(clocks: list[int]) -> float:
    try:
        return sum(map(time.clock_gettime, clocks))
    except OSError:  # one has just ended
        return 0.0


def _open(name: str) -> int:
    return _open_file(f"/proc/self/task/{get_native_id()}/{name}")


def _open_file(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _read(fd: int) -> bytes:
    return undisturbed.outside(os.pread, fd, _FILE_BYTES, 0)


def _schedstat(fd: int) -> Own:
    if fd < 0:
        return Own()
    try:
        _, wait_ns, wakes = _read(fd).split()
        return Own(int(wait_ns) * 1e-9, int(wakes))
    except (OSError, ValueError):  # the thread is gone
        return Own()

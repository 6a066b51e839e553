"""What a thread got of the machine: CPU time, and time spent ready in the kernel's run queue without a CPU.

A slice that was long because the machine ran something else is nobody's fault, and only the kernel knows. The
second field of `/proc/self/task/TID/schedstat` is that waiting time in ns; reading it costs 0.5 us
(measured), so it is read in the slow paths only. The hub's CPU clock can be read from any thread.
Limits: without CONFIG_SCHED_INFO the waits read as 0 and `sees_waits` is False; time stolen by a hypervisor
is in neither.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from profiler.native import get_ident, get_native_id

_FILE_BYTES = 128  # holds three 64-bit numbers, or a pid, a name and a state


class Usage(NamedTuple):
    """One reading. Every figure but `at_s` only grows, and only differences mean something."""

    at_s: float
    cpu_s: float  # the hub's thread, on a CPU
    wait_s: float  # the hub's thread, ready but without a CPU


class Meter:
    """Reads `Usage`. Made in the hub's thread; the watchdog adds its own with `watch_this_thread`."""

    def __init__(self) -> None:
        self._cpu_clock = time.pthread_getcpuclockid(get_ident())
        self._hub_fd = _open("schedstat")
        self._state_fd = _open("stat")
        self._own_fd = -1
        self.sees_waits = self._hub_fd >= 0

    def watch_this_thread(self) -> None:
        """Count the calling thread as the watchdog's."""
        self._own_fd = _open("schedstat")

    def read(self) -> Usage:
        """From any thread; about 2 us."""
        return Usage(
            time.perf_counter(),
            time.clock_gettime(self._cpu_clock),
            _run_queue_wait_s(self._hub_fd),
        )

    def own_wait_s(self) -> float:
        """What `Usage.wait_s` is for the hub, for the watchdog; the kernel adds a wait when it is over."""
        return _run_queue_wait_s(self._own_fd)

    def hub_is_blocked(self) -> bool:
        """Whether the hub's thread is in a system call that waits, at this moment; False where that is not known.

        The run queue's figure is not enough: while the machine is busy, Linux 6.12 and newer may count a
        sleep as waiting for a CPU (seen on 6.18: 30 ms of a 30 ms sleep).
        """
        try:
            return os.pread(self._state_fd, _FILE_BYTES, 0).rpartition(b")")[2].split()[0] in (b"S", b"D")
        except (OSError, IndexError):
            return False

    def close(self) -> None:
        """Nothing may be read afterwards."""
        for fd in (self._hub_fd, self._own_fd, self._state_fd):
            if fd >= 0:
                os.close(fd)
        self._hub_fd = self._own_fd = self._state_fd = -1


def _open(name: str) -> int:
    try:
        return os.open(f"/proc/self/task/{get_native_id()}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _run_queue_wait_s(fd: int) -> float:
    if fd < 0:
        return 0.0
    try:
        return int(os.pread(fd, _FILE_BYTES, 0).split()[1]) * 1e-9
    except (OSError, IndexError, ValueError):  # the thread is gone
        return 0.0

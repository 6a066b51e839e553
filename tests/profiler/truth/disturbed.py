"""Did the machine let this process have its CPUs? What says whether a missed stall was the profiler's fault.

Two witnesses, since neither sees all: the kernel's account of how long our threads were ready without a CPU, and one
process a CPU that notes when it woke up late (machine.py), which a hypervisor cannot hide from.
Imported before anything is patched, and after.
"""

from __future__ import annotations

import glob
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.profiler.truth.machine import EVERY_S, LATE, LATE_S

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = EVERY_S + LATE_S


def without_a_cpu_s() -> float:
    """For how long this process's threads were ready so far, but had to wait for others."""
    waits_ns = 0
    for path in glob.glob("/proc/self/task/*/schedstat"):
        try:
            with open(path) as file:
                waits_ns += int(file.read().split()[1])
        except (FileNotFoundError, ProcessLookupError):  # a thread has just ended
            pass
    return waits_ns / 1e9


class Machine:
    """Knows when a CPU was away."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.profiler.truth.machine", str(os.getpid())]
        self._watches = [
            subprocess.Popen([*command, str(cpu)], stdout=subprocess.PIPE, cwd=ROOT) for cpu in os.sched_getaffinity(0)
        ]
        self._pipes = [watch.stdout.fileno() for watch in self._watches if watch.stdout is not None]
        for pipe in self._pipes:
            os.set_blocking(pipe, False)

    def was_away(self) -> bool:
        """Since it was asked last. Takes some 2 ms: what is not heard of by then was not there."""
        so_far = [_read(pipe) for pipe in self._pipes]
        until_s = time.perf_counter() + PATIENCE_S
        silent = set(self._pipes)  # since the question
        while silent and time.perf_counter() < until_s:
            time.sleep(EVERY_S / 2)
            for pipe in tuple(silent):
                heard = _read(pipe)
                so_far.append(heard)
                if heard:
                    silent.remove(pipe)
        return bool(silent) or any(LATE in heard for heard in so_far)

    def close(self) -> None:
        """It watches no more."""
        for watch in self._watches:
            watch.kill()
            watch.communicate()


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, 65_536)
    except BlockingIOError:
        return b""

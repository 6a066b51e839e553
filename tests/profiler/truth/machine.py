"""Was the machine itself away? Wakes up every few milliseconds on one CPU, and tells when it woke up late.

    python -m tests.profiler.truth.machine PARENT CPU

A hypervisor may take a CPU away without counting that as stolen; then what runs there seems to use the CPU for so
long, and no figure of the process shows it. Each time it writes a character: ON_TIME or LATE.
Ends with its parent. As a real-time process, where that is allowed, it is late for no other reason.
"""

from __future__ import annotations

import os
import sys
import time

EVERY_S = 0.002
LATE_S = 0.004  # two fifths of the threshold; a scheduler that is fair may let a sleeper wait for 3 ms
ON_TIME, LATE = b".", b"!"


def main(parent: int, cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_max(os.SCHED_FIFO)))
    except PermissionError:
        pass
    while os.getppid() == parent:
        due_s = time.perf_counter() + EVERY_S
        time.sleep(EVERY_S)
        late = time.perf_counter() - due_s > LATE_S
        try:
            os.write(sys.stdout.fileno(), LATE if late else ON_TIME)
        except BrokenPipeError:
            break


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

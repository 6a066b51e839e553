"""The machine under the measurement: its cores, what they were stolen for, and what a set of processes used.

Everything is read from /proc. Times there come in clock ticks (10 ms), so a share of a run of a second or
more is good to one percent. The kernel scales user and system time to the exact run time, hence their sum is
better than either part.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class CoreTimes:
    """Seconds that one core has spent since boot (proc(5), /proc/stat)."""

    busy_s: float  # running anything
    steal_s: float  # wanted to run, but the hypervisor gave the time to another machine
    total_s: float

    def __sub__(self, earlier: CoreTimes) -> CoreTimes:
        return CoreTimes(self.busy_s - earlier.busy_s, self.steal_s - earlier.steal_s, self.total_s - earlier.total_s)


@dataclasses.dataclass(frozen=True)
class CpuTimes:
    """Seconds of CPU that some processes have used."""

    user_s: float
    system_s: float

    def __sub__(self, earlier: CpuTimes) -> CpuTimes:
        return CpuTimes(self.user_s - earlier.user_s, self.system_s - earlier.system_s)


def parse_core_times(stat: str, core: int) -> CoreTimes:
    """The times of `core` out of the text of /proc/stat."""
    for line in stat.splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, idle, iowait, irq, softirq, steal = (int(field) * _TICK_S for field in fields[:8])
            busy = user + nice + system + irq + softirq
            return CoreTimes(busy_s=busy, steal_s=steal, total_s=busy + idle + iowait + steal)
    raise LookupError(f"/proc/stat has no core {core}")


def core_times(core: int) -> CoreTimes:
    """The times of `core` until now."""
    return parse_core_times(Path("/proc/stat").read_text(), core)


def cpu_times(pids: Iterable[int]) -> CpuTimes:
    """What the processes have used until now, all their threads together (proc_pid_stat(5), fields 14 and 15)."""
    user = system = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user += int(fields[11])
        system += int(fields[12])
    return CpuTimes(user * _TICK_S, system * _TICK_S)


def two_cores() -> tuple[int, int] | None:
    """A core for the server and another for the load; None where only one may be used."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else None


def needed_cores() -> tuple[int, int]:
    """The same for a command that cannot do without; raises `click.UsageError`."""
    cores = two_cores()
    if cores is None:
        raise click.UsageError("two cores are needed, one for the server and one for the load; this process has one")
    return cores


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Run this process, and what it starts meanwhile, on one core; None: on those that it has."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def describe() -> dict[str, str | int]:
    """What the figures were measured on; nothing that names the machine or its folders."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count() or 1,  # not our own affinity, which is one core by then
        "kernel": platform.release(),
        "python": platform.python_version(),
        # Without profile-guided optimisation an interpreter runs a tenth more instructions (hello, measured).
        "python_optimised": "--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS")),
        "libc": " ".join(platform.libc_ver()),
    }

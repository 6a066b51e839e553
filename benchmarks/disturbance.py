"""What the cores did while something was measured, so that a spoilt measurement can be seen and repeated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from benchmarks import machine, serving

# A measurement during which the hypervisor took more than this from either core is not counted.
MAX_STEAL_PERCENT = 2.0

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """Shares of a measurement's time, in percent."""

    busy_percent: float  # of the server's core, used by the server
    others_percent: float  # of the server's core, used by other programs
    load_busy_percent: float  # of the load's core, used by anything
    steal_percent: float  # taken by the hypervisor from the core, server's or load's, that lost more

    @property
    def spoils(self) -> bool:
        """Too much was stolen for a comparison."""
        return self.steal_percent > MAX_STEAL_PERCENT


def during(contender: serving.Contender, cores: tuple[int, int], measure: Callable[[], _T]) -> tuple[_T, Disturbance]:
    """Call `measure`; return what it returned, and what the cores (server's, load's) did meanwhile."""
    before, cpu_before = [machine.core_times(core) for core in cores], contender.cpu_times()
    measured = measure()
    cpu = contender.cpu_times() - cpu_before
    core, load_core = (machine.core_times(core) - then for core, then in zip(cores, before, strict=True))
    server_s = cpu.user_s + cpu.system_s
    return measured, Disturbance(
        busy_percent=round(100 * server_s / core.total_s, 1),
        others_percent=round(max(0.0, 100 * (core.busy_s - server_s) / core.total_s), 1),
        load_busy_percent=round(100 * load_core.busy_s / load_core.total_s, 1),
        steal_percent=round(max(100 * each.steal_s / each.total_s for each in (core, load_core)), 1),
    )

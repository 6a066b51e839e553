"""The table: what a request costs on TAFE and on its peers, in one run."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import client, contestants, counters, database, environment, loads, measure, report
from benchmarks.contestants import Contestant
from benchmarks.peers import contract
from benchmarks.report import table
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.serving import WrongAnswerError
from tests.services.processes import ServerError

__all__ = ["run", "table"]

_CALLGRIND_FAILURES = (WrongAnswerError, ServerError, client.LoadError, RuntimeError, OSError)
_QUICK_SHARE = 5  # a quick run counts this many times fewer requests


def run(
    cores: tuple[int, int],
    *,
    quick: bool = False,
    rounds: int = 5,
    seconds: int = 2,
    only: Sequence[str] = (),
    use_callgrind: bool = True,
) -> dict[str, Any]:
    """Measure; `cores` are the server's and the load's, where this process must be already.

    `only`: names of contestants; empty: all. `quick`: one round of one second and small counts.
    """
    chosen = [contestant for contestant in contestants.CONTESTANTS if not only or contestant.name in only]
    scenarios: tuple[Scenario, ...] = SCENARIOS
    if quick:
        rounds, seconds = 1, 1
        scenarios = tuple(
            dataclasses.replace(scenario, counted_requests=scenario.counted_requests // _QUICK_SHARE)
            for scenario in scenarios
        )
    plan = measure.Plan(rounds, seconds, *cores, scenarios)
    programs = Path() if all(contestant.ours for contestant in chosen) else environment.ensure()
    with tempfile.TemporaryDirectory(prefix="tafe-bench-") as folder:
        directory = Path(folder)
        with database.filled(directory) as url:
            with measure.all_up(chosen, plan, directory, url, programs) as (up, left_out):
                bursts = list(measure.rounds(up, plan, directory))
                counted = list(measure.watched(up, plan, directory))
            if use_callgrind and not counters.perf_counts_instructions() and counters.callgrind_is_here():
                counted += _counted(chosen, plan, directory, url, programs, left_out)
    return report.result(
        settings={
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "warm_up_s": measure.WARM_UP_S,
            "connections": loads.CONNECTIONS,
            "pool_size": contract.POOL_SIZE,
            "rows": contract.USERS,
        },
        interpreted=environment.interpreted(),
        chosen=chosen,
        versions={contestant.name: _versions(contestant, programs) for contestant in chosen},
        left_out=left_out,
        bursts=bursts,
        made=report.figures(bursts, counted, plan.scenarios, [contestant.name for contestant in chosen]),
    )


def _counted(
    chosen: Sequence[Contestant],
    plan: measure.Plan,
    directory: Path,
    database_url: str,
    programs: Path,
    left_out: dict[str, str],
) -> list[measure.Counted]:
    """Instructions by callgrind; why of those that failed goes into `left_out`."""
    counted: list[measure.Counted] = []
    for number, contestant in enumerate(each for each in chosen if each.name not in left_out):
        folder = directory / f"counted-{number}"
        try:
            counted += measure.callgrind(contestant, plan, folder, database_url=database_url, programs=programs)
        except _CALLGRIND_FAILURES as error:
            left_out[contestant.name] = f"not counted under callgrind: {error}"
            measure.say(f"  {left_out[contestant.name]}")
    return counted


def _versions(contestant: Contestant, programs: Path) -> dict[str, str]:
    if contestant.program:
        there = environment.found(contestant.program) is not None
        return {contestant.program: environment.program_version(contestant.program)} if there else {}
    installed = environment.versions(Path(sys.executable) if contestant.ours else programs / "python")
    return {package: installed[package] for package in contestant.packages if package in installed}

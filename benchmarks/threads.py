"""Threads against greenlets: latency against offered rate, up to more than each server can do.

    python -m benchmarks.threads            about 40 minutes
    python -m benchmarks.threads --quick    two minutes, to see that it works

One WSGI application (`peers/mix_wsgi.py`), one MariaDB, one worker pinned to one core; the client and MariaDB have the
other. Two requests: a row by primary key; and the mix, three queries of which one takes 5 ms on the server, and 0.3 ms
of Python, calibrated on this machine in this run. Every server has a pool of 64 connections, one for each of the 64
threads that a threaded one has: fewer would cap the mix (8 at 1,600 requests a second) and hide what is compared.

In each round, for each request: first what each server can do in a closed loop of 64 connections, all servers in turn,
for the ratios; then for one server after the other its capacity once more and, at once, 10 % to 120 % of it in an open
loop (`open_loop.py`), since the machine's speed drifts and a rate is a share of what was possible just before. Above
100 % latency grows for as long as the burst lasts: it tells that a queue grows, not how far. The lowest rate of the mix
at which mod_wsgi's p99 exceeds 50 ms is offered again at once, to it and to us; it counts if it is exceeded again.

The floor is what the request's queries take by themselves, asked by one client on the server's core with nothing else
to do; its median is subtracted from each p99. mod_wsgi runs in Debian's Python and the others in ours: the report says
what the same 0.3 ms of Python take there.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import (
    database,
    disturbance,
    environment,
    loads,
    machine,
    measure,
    open_loop,
    scenarios,
    threads_ladders,
    threads_picture,
    threads_servers,
)
from benchmarks import threads_verdicts as verdicts
from benchmarks.client import Exchange
from benchmarks.peers import contract, mix
from benchmarks.scenarios import Scenario
from benchmarks.threads_report import table
from benchmarks.threads_servers import NAMES

__all__ = ["run", "table"]

LEVELS = tuple(range(10, 121, 10))  # percent of a server's capacity
WORK_US = 300.0  # of Python in the mix
QUICK: dict[str, Any] = {"rounds": 1, "seconds": 1.0, "levels": (30, 60, 90, 120)}
_OUTPUT = environment.ROOT / ".run" / "threads.json"  # never committed


def run(
    cores: tuple[int, int],
    *,
    rounds: int = 2,
    seconds: float = 6.0,
    levels: Sequence[int] = LEVELS,
    names: Sequence[str] = NAMES,
) -> dict[str, Any]:
    """Measure; `cores` are the server's and the load's, where this process must be already. Plain values."""
    with machine.on_core(cores[0]):
        loops = calibrated(WORK_US)
        work_us = [mix.work_us(loops)]
    asked = _scenarios(mix.work(loops))
    chosen = [
        dataclasses.replace(contestant, scenarios=(scenarios.HELLO, *asked))
        for contestant in threads_servers.all_of(loops)
        if contestant.name in names
    ]
    programs = environment.ensure()
    plan = measure.Plan(rounds, int(seconds), *cores, asked)
    with tempfile.TemporaryDirectory(prefix="tafe-bench-") as folder:
        directory = Path(folder)
        directory.chmod(0o755)  # where this is root Apache's children are somebody else
        client_limit = threads_ladders.client_limit(directory, cores)
        with database.filled(directory) as url:
            with machine.on_core(cores[0]):
                floor = threads_ladders.floor(url)
            with measure.all_up(chosen, plan, directory, url, programs) as (up, left_out):
                ladders = threads_ladders.Ladders(up, asked, cores, seconds, levels)
                for number in range(1, rounds + 1):
                    ladders.climb(number)
    with machine.on_core(cores[0]):
        work_us.append(mix.work_us(loops))
        debian_us = threads_servers.work_us_in_debian(loops)
    capacities = verdicts.capacities(ladders.capacities)
    figures = verdicts.figures(ladders.bursts, floor)
    slow = verdicts.by_server(ladders.slow, floor[verdicts.MIX]["p50_ms"])
    return {
        "settings": {
            "rounds": rounds,
            "seconds": seconds,
            "levels": list(levels),
            "arrivals": "Poisson",
            "connections": open_loop.CONNECTIONS,
            "patience_s": open_loop.PATIENCE_S,
            "closed_loop_connections": loads.CONNECTIONS,
            "threads": threads_servers.THREADS,
            "pool_size": mix.POOL_SIZE,
            "max_steal_percent": disturbance.MAX_STEAL_PERCENT,
        },
        "interpreted": environment.interpreted(),
        "work": {"loops": loops, "us": work_us, "us_in_debian_python": debian_us},
        "floor": floor,
        "client": client_limit,
        "contestants": [
            {
                "name": each.name,
                "note": each.note,
                "versions": {} if each.name in left_out else threads_servers.versions(each, programs),
                "left_out": left_out.get(each.name),
            }
            for each in chosen
        ],
        "verdicts": verdicts.verdicts(capacities, figures, slow),
        "capacities": capacities,
        "figures": figures,
        "slow": slow,
        "arithmetic": verdicts.arithmetic(capacities, work_us[-1], debian_us),
        "measured": {
            "capacities": ladders.capacities,
            "bursts": _without_latencies(ladders.bursts),
            "slow": _without_latencies(ladders.slow),
        },
    }


def _scenarios(checked: int) -> tuple[Scenario, Scenario]:
    """The row and the mix, whose answers carry what `mix.work` returns."""
    mixed = [Exchange(f"/mix/{id_}", mix.mix_bytes(id_, checked)) for id_ in range(1, contract.USERS + 1)]
    return scenarios.QUERY, Scenario(verdicts.MIX, "wrk", tuple(mixed), 0)


def _without_latencies(bursts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in burst.items() if name != "latencies_ns"} for burst in bursts]


def calibrated(wanted_us: float) -> int:
    """How many loops of `mix.work` take `wanted_us` here and now."""
    loops = 1000
    for _ in range(3):  # from a guess, then from what is near
        loops = max(1, round(loops * wanted_us / mix.work_us(loops)))
    return loops


@click.command(context_settings={"max_content_width": 110})
@click.option("--quick", is_flag=True, help="One round of short bursts at four levels: to try it, not to publish it.")
@click.option("--only", multiple=True, metavar="NAME", type=click.Choice(NAMES), help="Only these; may be repeated.")
@click.option("--rounds", default=2, show_default=True, type=click.IntRange(1, 50))
@click.option("--seconds", default=6.0, show_default=True, type=click.FloatRange(0.5, 60), help="Of each burst.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=_OUTPUT,
    help="The JSON file; the picture goes beside it.",
)
def main(*, quick: bool, only: tuple[str, ...], rounds: int, seconds: float, output: Path) -> None:
    """Measure threads against greenlets: latency against offered rate."""
    cores = machine.needed_cores()
    os.sched_setaffinity(0, {cores[1]})
    length = QUICK if quick else {"rounds": rounds, "seconds": seconds}
    result = run(cores, names=only or NAMES, **length)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")
    picture = output.with_suffix(".svg")
    picture.write_text(threads_picture.svg(result))
    print(table(result))
    print(f"\nwritten to {os.path.relpath(output)} and {os.path.relpath(picture)}")


if __name__ == "__main__":
    main()

"""`python -m benchmarks`, or `benchmarks/run`: measure TAFE beside its peers, print tables, write a JSON file."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks import client, contestants, counters, environment, loads, machine, measure, ratchet, report
from benchmarks.peers import contract
from benchmarks.serving import WrongAnswerError
from tests.services.mariadb import MariaDB
from tests.services.processes import ServerError

_PROGRAMS = {"mariadbd": "mariadb-server", "wrk": "wrk", "ab": "apache2-utils", "taskset": "util-linux"}
_RESULTS = Path(__file__).with_name("results")
_QUICK_RESULT = environment.ROOT / ".run" / "benchmark-quick.json"  # never committed
_NAMES = [contestant.name for contestant in contestants.CONTESTANTS]
_CALLGRIND_FAILURES = (WrongAnswerError, ServerError, client.LoadError, RuntimeError, OSError)


@click.command(context_settings={"max_content_width": 110})
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help=f"Measure only this contestant; may be repeated. One of: {', '.join(_NAMES)}.",
)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 50), help="Interleaved rounds.")
@click.option(
    "--seconds",
    default=4,
    show_default=True,
    type=click.IntRange(1, 60),
    help="Length of each burst, after a second of warm-up.",
)
@click.option("--quick", is_flag=True, help="One round of one second and small counts: to try it, not to publish it.")
@click.option("--no-callgrind", is_flag=True, help="Do not count instructions where perf cannot.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The JSON file; default results/DATE.json.")
@click.option("--set-ratchet", is_flag=True, help="Only count our hello under callgrind and store it in ratchet.json.")
def main(
    *,
    only: tuple[str, ...],
    rounds: int,
    seconds: int,
    quick: bool,
    no_callgrind: bool,
    output: Path | None,
    set_ratchet: bool,
) -> None:
    """Measure TAFE beside its peers."""
    cores = _prepare(only)
    if set_ratchet:
        with tempfile.TemporaryDirectory() as directory:
            ratchet.store(ratchet.count(Path(directory), cores))
        return
    chosen = [contestant for contestant in contestants.CONTESTANTS if not only or contestant.name in only]
    scenarios: tuple[measure.Scenario, ...] = measure.SCENARIOS
    if quick:
        rounds, seconds = 1, 1
        scenarios = tuple(
            dataclasses.replace(scenario, counted_requests=scenario.counted_requests // 5) for scenario in scenarios
        )
    plan = measure.Plan(rounds, seconds, *cores, scenarios)
    programs = Path() if all(contestant.ours for contestant in chosen) else environment.ensure()
    result = _measure(chosen, plan, programs, use_callgrind=not no_callgrind)
    output = output or (_QUICK_RESULT if quick else _RESULTS / f"{result['date'][:10]}.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")
    print(report.tables(result))
    print(f"written to {os.path.relpath(output)}")
    if any(contestant["left_out"] for contestant in result["contestants"]):
        sys.exit(1)


def _prepare(only: tuple[str, ...]) -> tuple[int, int]:
    """Check the names and the programs; put this process, and so wrk and MariaDB, on the load's core."""
    for name in only:
        if name not in _NAMES:
            raise click.UsageError(f"--only: {name!r} is no contestant; allowed: {', '.join(_NAMES)}")
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    missing = [package for program, package in _PROGRAMS.items() if shutil.which(program, path=path) is None]
    if missing:
        raise click.UsageError(f"missing programs; try: apt-get install {' '.join(missing)}")
    cores = machine.two_cores()
    if cores is None:
        raise click.UsageError("two cores are needed, one for the server and one for the load; this process has one")
    os.sched_setaffinity(0, {cores[1]})
    return cores


def _measure(
    chosen: list[contestants.Contestant], plan: measure.Plan, programs: Path, *, use_callgrind: bool
) -> dict[str, Any]:
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory(prefix="tafe-bench-") as folder:
        directory = Path(folder)
        measure.say("starting MariaDB")
        mariadb = MariaDB(directory / "mariadb", directory / "mariadb-template")
        mariadb.directory.mkdir()
        try:
            mariadb.start()
            url = _fill(mariadb)
            with measure.all_up(chosen, plan, directory, url, programs) as (up, left_out):
                bursts = list(measure.rounds(up, plan, directory))
                counted = list(measure.system_calls(up, plan, directory))
            if use_callgrind and not counters.perf_counts_instructions() and counters.callgrind_is_here():
                for number, contestant in enumerate(c for c in chosen if c.name not in left_out):
                    try:
                        counted += measure.callgrind(
                            contestant,
                            plan,
                            directory / f"counted-{number}",
                            database_url=url,
                            programs=programs,
                        )
                    except _CALLGRIND_FAILURES as error:
                        left_out[contestant.name] = f"not counted under callgrind: {error}"
                        measure.say(f"  {left_out[contestant.name]}")
        finally:
            mariadb.remove()
    return report.document(
        date=date,
        machine=machine.describe(),
        settings={
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "warm_up_s": measure.WARM_UP_S,
            "connections": loads.CONNECTIONS,
            "pool_size": contract.POOL_SIZE,
            "rows": contract.USERS,
        },
        chosen=chosen,
        versions={c.name: _versions(c, programs) for c in chosen},
        left_out=left_out,
        bursts=bursts,
        made=report.figures(bursts, counted, plan.scenarios, [c.name for c in chosen]),
    )


def _versions(contestant: contestants.Contestant, programs: Path) -> dict[str, str]:
    installed = environment.versions(Path(sys.executable) if contestant.ours else programs / "python")
    return {package: installed[package] for package in contestant.packages}


def _fill(mariadb: MariaDB) -> str:
    """The one table, filled; returns its database's URL."""
    url = mariadb.create_database("bench")
    mariadb.query("CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(64) NOT NULL) ENGINE=InnoDB", database="bench")
    mariadb.query(
        f"INSERT INTO users SELECT seq, CONCAT('user ', seq) FROM seq_1_to_{contract.USERS}", database="bench"
    )
    return url


if __name__ == "__main__":
    main()

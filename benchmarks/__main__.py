"""`python -m benchmarks`, or `benchmarks/run`: measure TAFE beside its peers, print tables, write a JSON file."""

from __future__ import annotations

import datetime
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks import contestants, environment, machine, measure, ratchet
from benchmarks.sections import SECTIONS, read, store, tables

_PROGRAMS = {"mariadbd": "mariadb-server", "wrk": "wrk", "ab": "apache2-utils", "taskset": "util-linux"}
_RESULTS = Path(__file__).with_name("results")
_QUICK_RESULT = environment.ROOT / ".run" / "benchmark-quick.json"  # never committed
_NAMES = [contestant.name for contestant in contestants.CONTESTANTS]


@click.command(context_settings={"max_content_width": 110})
@click.option(
    "--sections",
    default=",".join(SECTIONS),
    show_default=True,
    metavar="NAME,...",
    help="What to measure: " + "; ".join(f"{name}: {section.what}" for name, section in SECTIONS.items()) + ".",
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help=f"Only this contestant in the table; may be repeated. One of: {'; '.join(_NAMES)}.",
)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 50), help="Of the table, interleaved.")
@click.option(
    "--seconds",
    default=2,
    show_default=True,
    type=click.IntRange(1, 60),
    help="Of each burst of the table, after a second of warm-up.",
)
@click.option("--quick", is_flag=True, help="A short form of every section: to try it, not to publish it.")
@click.option("--no-callgrind", is_flag=True, help="Do not count instructions where perf cannot.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The JSON file; default results/DATE.json.")
@click.option("--set-ratchet", is_flag=True, help="Only count our hello under callgrind and store it in ratchet.json.")
def main(
    *,
    sections: str,
    only: tuple[str, ...],
    rounds: int,
    seconds: int,
    quick: bool,
    no_callgrind: bool,
    output: Path | None,
    set_ratchet: bool,
) -> None:
    """Measure TAFE beside its peers."""
    chosen = _chosen(sections, only)
    cores = _prepare()
    if set_ratchet:
        with tempfile.TemporaryDirectory() as directory:
            ratchet.measure_all(Path(directory), cores)
        return
    today = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    if output is None and quick:
        _QUICK_RESULT.unlink(missing_ok=True)
    output = output or (_QUICK_RESULT if quick else _RESULTS / f"{today}.json")
    try:
        read(output)
    except ValueError as error:  # now, not after an hour
        raise click.UsageError(f"--output: {error}; name another file, or move this one away") from error
    results: dict[str, dict[str, Any]] = {}
    for name in chosen:
        length = dict(SECTIONS[name].quick) if quick else {}
        if name == "table":
            length |= {"only": only, "rounds": rounds, "seconds": seconds, "use_callgrind": not no_callgrind}
        measure.say(f"section {name}")
        try:
            results[name] = SECTIONS[name].run(cores, length)
        except Exception as error:  # noqa: BLE001 - the other sections are worth having; the exit status tells
            measure.say(f"section {name} failed: {type(error).__name__}: {error}")
        else:
            store(output, name, results[name])
    print(tables(results))
    print(f"written to {os.path.relpath(output)}")
    if len(results) < len(chosen) or any(each["left_out"] for each in results.get("table", {}).get("contestants", ())):
        sys.exit(1)


def _chosen(sections: str, only: tuple[str, ...]) -> list[str]:
    for name in only:
        if name not in _NAMES:
            raise click.UsageError(f"--only: {name!r} is no contestant; allowed: {'; '.join(_NAMES)}")
    chosen = [name.strip() for name in sections.split(",")]
    for name in chosen:
        if name not in SECTIONS:
            raise click.UsageError(f"--sections: {name!r} is no section; allowed: {', '.join(SECTIONS)}")
    return chosen


def _prepare() -> tuple[int, int]:
    """Check the programs; put this process, and so wrk and MariaDB, on the load's core."""
    missing = [package for program, package in _PROGRAMS.items() if environment.found(program) is None]
    if missing:
        raise click.UsageError(f"missing programs; try: apt-get install {' '.join(missing)}")
    cores = machine.needed_cores()
    os.sched_setaffinity(0, {cores[1]})
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # in order, so that the servers end too
    return cores


if __name__ == "__main__":
    main()

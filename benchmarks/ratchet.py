"""The ratchet: what a hello may cost us, in user-mode instructions counted by callgrind.

Instructions repeat within a percent where time does not, so a regression shows on any machine, however busy.
ratchet.json holds a figure for each CPython release, since the interpreter's share is most of it, and for each mode:
with the compiled modules and without. A change that costs more than the slack fails the test; one that saves should
lower the figures: `python -m benchmarks --set-ratchet`.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from pathlib import Path

from benchmarks import contestants, environment, measure
from benchmarks.scenarios import HELLO

FILE = Path(__file__).with_name("ratchet.json")
SLACK = 0.15  # two builds of one CPython release, and two versions of valgrind, differ by less
MODES = {"compiled": "tafe", "interpreted": "tafe, interpreted"}  # and the contestant that shows it
_REQUESTS = 500  # twice, after as many to warm up: a few seconds


def release() -> str:
    """The key of this interpreter in ratchet.json."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def why_not(mode: str) -> str:
    """Why `mode` cannot be measured here; empty if it can."""
    if mode == "interpreted":
        return ""
    return "; ".join(f"{package}: {reason}" for package, reason in environment.interpreted().items() if reason)


def count(mode: str, directory: Path, cores: tuple[int, int]) -> int:
    """User instructions of one hello, profiler on; takes about ten seconds."""
    scenario = dataclasses.replace(HELLO, counted_requests=_REQUESTS)
    plan = measure.Plan(rounds=0, seconds=0, server_core=cores[0], load_core=cores[1], scenarios=(scenario,), samples=2)
    (contestant,) = [each for each in contestants.CONTESTANTS if each.name == MODES[mode]]
    (counted,) = measure.callgrind(contestant, plan, directory, database_url=None)
    return round(statistics.mean(counted.instructions_user))


def stored(mode: str) -> int | None:
    """The figure for this release of CPython; None if nobody has stored one."""
    return _figures().get(release(), {}).get(mode)


def store(mode: str, instructions: int) -> None:
    """Write the figure for this release of CPython, and keep the others."""
    figures = _figures()
    figures.setdefault(release(), {})[mode] = instructions
    FILE.write_text(json.dumps({"hello_instructions_user": figures}, indent=1, sort_keys=True) + "\n")


def measure_all(directory: Path, cores: tuple[int, int]) -> None:
    """Count and store every mode that there is here."""
    for mode in MODES:
        if reason := why_not(mode):
            measure.say(f"{mode}: not measured: {reason}")
        else:
            store(mode, count(mode, directory / mode, cores))


def _figures() -> dict[str, dict[str, int]]:
    if not FILE.exists():
        return {}
    figures: dict[str, dict[str, int]] = json.loads(FILE.read_text())["hello_instructions_user"]
    return figures

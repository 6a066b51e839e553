"""The ratchet: what a hello may cost us, in user-mode instructions counted by callgrind.

Instructions repeat within a percent where time does not, so a regression shows on any machine, however busy.
ratchet.json holds a figure for each CPython release, since the interpreter's share is most of it. A change
that costs more than the slack fails the test; one that saves should lower the figure: `python -m benchmarks
--set-ratchet`.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from pathlib import Path

from benchmarks import contestants, measure

FILE = Path(__file__).with_name("ratchet.json")
SLACK = 0.15  # two builds of one CPython release, and two versions of valgrind, differ by less
_REQUESTS = 500  # twice, after as many to warm up: a few seconds


def release() -> str:
    """The key of this interpreter in ratchet.json."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def count(directory: Path, cores: tuple[int, int]) -> int:
    """User instructions of one hello, profiler on; takes about ten seconds."""
    scenario = dataclasses.replace(measure.HELLO, counted_requests=_REQUESTS)
    plan = measure.Plan(rounds=0, seconds=0, server_core=cores[0], load_core=cores[1], scenarios=(scenario,), samples=2)
    (counted,) = measure.callgrind(contestants.CONTESTANTS[0], plan, directory, database_url=None)
    return round(statistics.mean(counted.instructions_user))


def stored() -> int | None:
    """The figure for this release of CPython; None if nobody has stored one."""
    figures: dict[str, int] = json.loads(FILE.read_text())["hello_instructions_user"]
    return figures.get(release())


def store(instructions: int) -> None:
    """Write the figure for this release of CPython, and keep the others."""
    content = json.loads(FILE.read_text()) if FILE.exists() else {"hello_instructions_user": {}}
    content["hello_instructions_user"][release()] = instructions
    FILE.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")

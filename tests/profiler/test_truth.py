"""What the report says of every stall of the zoo, each visited under cooperative traffic."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from apps.zoo import ZOO
from apps.zoo.table import Exhibit
from profiler.sites import HUB_ROUTE

pytestmark = [pytest.mark.real, pytest.mark.slow]  # a process that stalls a hundred times for 30 ms

ROOT = Path(__file__).resolve().parents[2]
VISITS = 2
# An operator looks the same as the call after it to a watchdog that gets the GIL only then.
OPERATORS = {"in_list", "power", "gil"}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What truth.py did, with the `report` on it."""
    directory = tmp_path_factory.mktemp("truth")
    command = [sys.executable, "-m", "tests.profiler.truth", str(directory), "--visits", str(VISITS)]
    ran = subprocess.run(command, cwd=ROOT, check=True, timeout=120, capture_output=True, text=True)
    report = [sys.executable, "-m", "profiler", "report", str(directory), "--format", "json"]
    shown = subprocess.run(report, cwd=ROOT, check=True, timeout=60, capture_output=True, text=True)
    return {**json.loads(ran.stdout), "report": json.loads(shown.stdout)}


def sites_of(exhibit: Exhibit, report: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        site
        for site in report["sites"]
        if (site["file"], site["function"]) == (exhibit.file, exhibit.function) and site["line"] in exhibit.lines
    ]


@pytest.mark.parametrize("name", ZOO)
def test_a_stall_is_seen_at_its_line_with_its_cause(name: str, done: dict[str, Any]) -> None:
    undisturbed = done["undisturbed"][name]
    if not undisturbed:
        pytest.skip("the machine never let it have a CPU for long enough")
    exhibit, visits = ZOO[name], done["visits"][name]
    found = sites_of(exhibit, done["report"])
    (site,) = [one for one in found if one["cause"] == exhibit.cause and one["innocent"] == exhibit.innocent]
    assert undisturbed <= site["count"] <= visits, "each visit that the machine did not disturb"
    assert sum(one["count"] for one in found) <= visits
    assert site["exact"] or name in OPERATORS or undisturbed < visits
    assert not site["library"]
    assert site["source"] == Path(exhibit.file).read_text().splitlines()[site["line"] - 1].strip()
    assert site["advice"]
    assert site["busy_ms"]["p50"] >= 15


def test_no_innocent_line_is_accused(done: dict[str, Any]) -> None:
    accused = [site for site in done["report"]["sites"] if not site["innocent"] and site["file"]]
    assert [site for site in accused if site["file"].endswith("cooperative.py")] == []
    # A machine that takes the CPU away may make other lines of the zoo slow, but they work for a stall's request.
    routes = {f"GET /stall/{name}" for name in ZOO} | {HUB_ROUTE}
    assert [site for site in accused if not set(site["routes"]) <= routes] == []
    if done["visits"] == done["undisturbed"]:
        known = {(exhibit.file, line) for exhibit in ZOO.values() for line in exhibit.lines}
        assert [site for site in accused if (site["file"], site["line"]) not in known] == []


def test_every_request_was_served_and_counted(done: dict[str, Any]) -> None:
    served = {route["route"]: route["requests"] for route in done["report"]["routes"]}
    expected = {f"GET /stall/{name}": count for name, count in done["visits"].items()}
    assert done["unfinished"] == []
    assert served == expected | {f"GET /{name}": count for name, count in done["cooperative"].items()}
    (worker,) = done["report"]["workers"]
    assert (worker["dropped"], worker["displaced"]) == (0, 0)

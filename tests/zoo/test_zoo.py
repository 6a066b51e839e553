"""Each stall of the zoo keeps a ticking greenlet waiting for about its time, and no twin does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from apps.zoo import ZOO, app

ROOT = Path(__file__).resolve().parents[2]
# Long enough to be told from the 18 ms that a twin may take, and below the 50 slices that make up a convoy.
MS = 45
Waits = dict[str, dict[str, dict[str, float]]]
CAUSES = {"python", "native", "blocking", "gc", "gil", "convoy"}


@pytest.fixture(scope="module")
def waits() -> Waits:
    """What probe.py measured, in ms."""
    command = [sys.executable, "-m", "tests.zoo.probe", str(MS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    measured: Waits = json.loads(done.stdout)
    return measured


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_a_stall_keeps_others_from_the_hub_for_about_its_time(name: str, waits: Waits) -> None:
    assert waits[name]["stall"]["wall"] > MS * 0.4
    assert waits[name]["stall"]["own"] < MS * 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_a_twin_lets_others_run(name: str, waits: Waits) -> None:
    assert waits[name]["twin"]["own"] < MS * 0.4


@pytest.mark.parametrize("name", ZOO)
def test_the_table_says_where_the_stall_is(name: str) -> None:
    exhibit = ZOO[name]
    source = Path(exhibit.file).read_text().splitlines()
    assert source[exhibit.lines.start - 1].endswith("# stalls")
    assert Path(exhibit.file).is_relative_to(ROOT / "apps" / "zoo")
    assert exhibit.cause in CAUSES
    assert exhibit.innocent == (exhibit.cause == "gil")


def test_no_two_stalls_share_a_line_so_that_reports_can_tell_them_apart() -> None:
    places = [(exhibit.file, line) for exhibit in ZOO.values() for line in exhibit.lines]
    assert len(places) == len(set(places))


def test_every_mark_in_the_zoo_is_in_the_table() -> None:
    marks = sum(
        text.endswith("# stalls")
        for file in (ROOT / "apps" / "zoo").glob("*.py")
        for text in file.read_text().splitlines()
    )
    assert marks == len(ZOO) >= 30


def test_every_stall_and_twin_is_served() -> None:
    paths = {route.template for route in app.routes()}
    assert paths == {"/"} | {f"/{kind}/{name}" for kind in ("stall", "yield") for name in ZOO}


def test_the_listing_names_what_there_is() -> None:
    listed = app.test_client().get("/").json()
    assert [one["name"] for one in listed] == list(ZOO)
    first = listed[0]
    assert (first["name"], first["function"], first["cause"]) == ("sleep", "stall_sleep", "blocking")
    assert first["line"] == ZOO["sleep"].lines.start


@pytest.mark.parametrize("ms", ["0", "-5", "10001", "x", "1.5"])
def test_a_duration_out_of_bounds_is_refused(ms: str) -> None:
    answer = app.test_client().get(f"/stall/sleep?ms={ms}")
    assert answer.status == 400
    assert answer.json()["error"]["field"] == "ms"

"""What the report says of a program whose every stall is known."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real  # each workload is a process of its own, and takes seconds

ROOT = Path(__file__).resolve().parents[2]
WORKLOAD = Path(__file__).with_name("workload.py")
# Function: how often it stalls, in which route, and why.
STALLS = {
    "unpatched_sleep": (7, "GET /unpatched_sleep", "blocking"),
    "cpu_loop": (9, "GET /cpu_loop", "python"),
    "sleep_in_child": (3, "GET /stalling_child", "blocking"),
}
REQUESTS = {"unpatched_sleep": 7, "cpu_loop": 9, "stalling_child": 3, "patched_sleep": 50, "yielding_loop": 50}
TRIES = 5
UNDISTURBED_S = 0.1  # without a CPU, of a run of about a second
BURNERS = 4  # on every CPU that this process may use, several


def run_workload(directory: Path) -> tuple[dict[str, Any], float]:
    """The report on a run, and for how long its threads were ready without getting a CPU."""
    command = [sys.executable, "-m", "tests.profiler.workload", str(directory)]
    printed = subprocess.run(command, cwd=ROOT, check=True, timeout=120, capture_output=True, text=True)
    report = [sys.executable, "-m", "profiler", "report", str(directory), "--format", "json"]
    shown = subprocess.run(report, cwd=ROOT, check=True, timeout=60, capture_output=True, text=True)
    return json.loads(shown.stdout), float(printed.stdout)


def marked_lines() -> dict[str, range]:
    """By function, the lines of the statement that stalls."""
    source = WORKLOAD.read_text()
    marks = {number for number, line in enumerate(source.splitlines(), 1) if line.endswith("# stalls")}
    return {
        function.name: range(statement.lineno, (statement.end_lineno or 0) + 1)
        for function in ast.parse(source).body
        if isinstance(function, ast.FunctionDef)
        for statement in function.body
        if statement.lineno in marks
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a run that the machine did not disturb; of several disturbed ones, of the least disturbed.

    Exact counts need a watchdog that gets a CPU within 20 ms, and exact times a hub that gets one at once.
    """
    runs: list[tuple[float, int, dict[str, Any]]] = []
    for number in range(TRIES):
        report, without_cpu_s = run_workload(tmp_path_factory.mktemp(f"profile{number}"))
        runs.append((without_cpu_s, number, report))
        if without_cpu_s < UNDISTURBED_S:
            break
    return min(runs)[2]


def counts(report: dict[str, Any]) -> dict[str, int]:
    """How often each function is said to have stalled, those left out that are called innocent."""
    guilty = [(site["function"], site["count"]) for site in report["sites"] if not site["innocent"]]
    assert len(dict(guilty)) == len(guilty), "one site each"
    return dict(guilty)


def test_every_stall_is_named_and_counted_and_nothing_else(report: dict[str, Any]) -> None:
    lines = marked_lines()
    guilty = {site["function"]: site for site in report["sites"] if not site["innocent"]}
    assert counts(report) == {name: stall[0] for name, stall in STALLS.items()}
    for name, (_, route, cause) in STALLS.items():
        site = guilty[name]
        assert site["file"] == str(WORKLOAD)
        assert site["line"] in lines[name]
        assert site["source"] == WORKLOAD.read_text().splitlines()[site["line"] - 1].strip()
        assert site["routes"] == [route]
        assert site["cause"] == cause
        assert site["exact"]
        assert site["stack"][-1].endswith(f":{site['line']} {name}") or name != "unpatched_sleep"
        assert site["advice"]


def test_a_stall_is_as_long_as_it_was(report: dict[str, Any]) -> None:
    site = next(site for site in report["sites"] if site["function"] == "unpatched_sleep")
    assert site["busy_ms"]["p50"] == pytest.approx(30, abs=3)
    assert 7 * 30 <= site["busy_ms"]["total"] < 7 * 60


def test_every_request_is_in_its_route(report: dict[str, Any]) -> None:
    routes = {route["route"]: route for route in report["routes"]}
    assert {name: route["requests"] for name, route in routes.items()} == {
        f"GET /{name}": count for name, count in REQUESTS.items()
    }
    assert routes["GET /patched_sleep"]["waiting_ms"]["p50"] == pytest.approx(30, abs=15)
    assert routes["GET /patched_sleep"]["running_ms"]["p50"] < 2
    assert routes["GET /unpatched_sleep"]["longest_slice_ms"]["p50"] == pytest.approx(30, abs=5)
    (worker,) = report["workers"]
    assert worker["requests"] == sum(REQUESTS.values())
    innocent = sum(site["count"] for site in report["sites"] if site["innocent"])
    assert worker["slices_over"] == sum(stall[0] for stall in STALLS.values()) + innocent
    assert (worker["dropped"], worker["displaced"]) == (0, 0)
    assert 0.2 < worker["hub_busy_ratio"] <= 1
    assert 0 < worker["overhead_ratio"] < 0.2


@contextmanager
def busy_cpus() -> Iterator[None]:
    program = f"import os\nwhile os.getppid() == {os.getpid()}: sum(range(10000))"
    burners = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(BURNERS)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def test_on_an_overloaded_machine_no_innocent_line_is_blamed(tmp_path: Path) -> None:
    with busy_cpus():
        report, _ = run_workload(tmp_path)
    named = {site["function"]: site["count"] for site in report["sites"] if not site["innocent"] and site["file"]}
    assert set(named) <= set(STALLS)
    assert all(count <= STALLS[name][0] for name, count in named.items())
    assert sum(route["requests"] for route in report["routes"]) == sum(REQUESTS.values())

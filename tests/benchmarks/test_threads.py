"""Threads against greenlets: what is counted and judged, the picture, and a short run of the real thing."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from array import array
from typing import Any

import pytest

from benchmarks import machine, threads, threads_picture, threads_report, threads_verdicts
from benchmarks.bounds import MET, MISSED, UNKNOWN
from benchmarks.peers import mix
from benchmarks.threads_servers import GEVENT, MOD_WSGI, MODULE, OURS, OURS_FAST
from benchmarks.threads_verdicts import MIX, QUERY
from tests.services.requirements import INSTALL_ALL, missing, program

FLOOR = {QUERY: {"p50_ms": 0.1, "p99_ms": 0.2}, MIX: {"p50_ms": 5.3, "p99_ms": 5.6}}


def burst(contestant: str, scenario: str, percent: int, ms: float, **more: Any) -> dict[str, Any]:
    """100 requests, all answered after `ms`."""
    known = {"scenario": scenario, "contestant": contestant, "percent": percent, "rate": 10.0 * percent, "errors": {}}
    disturbed = {"spoilt": False, "load_busy_percent": 50, "others_percent": 0, "steal_percent": 0.0}
    latencies = array("q", [int(ms * 1e6)] * 100)
    made = {**known, **disturbed, "offered": 100, "latencies_ns": latencies, "late_p99_ms": 0.1, "p99_ms": ms}
    return made | more


def capacity(contestant: str, scenario: str, number: int, rate: float) -> dict[str, Any]:
    return {
        "round": number, "scenario": scenario, "contestant": contestant, "requests_per_s": rate, "cpu_us": 1e6 / rate,
        "busy_percent": 99.0, "load_busy_percent": 60.0,
    }  # fmt: skip


RATES = {(QUERY, OURS): 9000, (QUERY, MOD_WSGI): 2000, (QUERY, GEVENT): 3000, (MIX, OURS): 2000, (MIX, MOD_WSGI): 1000}
MEASURED = [
    capacity(name, scenario, number, rate * speed)
    for number, speed in enumerate([1.0, 0.2, 2.0], 1)
    for (scenario, name), rate in RATES.items()
]
FASTER_THREADS = [each | {"requests_per_s": 2300} if each["contestant"] == MOD_WSGI else each for each in MEASURED]
SLOW = [burst(MOD_WSGI, MIX, 90, 80), burst(OURS, MIX, 90, 12)]


def _verdicts(**change: Any) -> dict[str, str]:
    """Our words, by the start of each promise."""
    given: dict[str, Any] = {"measured": MEASURED, "calm": burst(OURS, QUERY, 60, 4), "slow": SLOW} | change
    made = threads_verdicts.verdicts(
        threads_verdicts.capacities(given["measured"]),
        threads_verdicts.figures([given["calm"]], FLOOR),
        threads_verdicts.by_server(given["slow"], FLOOR[MIX]["p50_ms"]),
    )
    return {each["bound"].partition(",")[0]: each["verdict"] for each in made if each["contestant"] == OURS}


def test_ratios_are_taken_within_a_round_so_that_a_slow_minute_changes_none() -> None:
    ratios = {
        (each["scenario"], each["contestant"]): each["ratio_of_ours"][OURS]
        for each in threads_verdicts.capacities(MEASURED)
    }
    assert ratios[QUERY, MOD_WSGI] == 4.5
    assert ratios[QUERY, GEVENT] == 3.0
    assert ratios[MIX, MOD_WSGI] == 2.0


def test_each_promise_is_met_by_what_meets_it() -> None:
    assert set(_verdicts().values()) == {MET}


@pytest.mark.parametrize(
    ("change", "bound"),
    [
        ({"measured": FASTER_THREADS}, "query: capacity / Apache mod_wsgi's"),
        ({"calm": burst(OURS, QUERY, 60, 10)}, "query: p99 at 60 % of its capacity"),
        ({"calm": burst(OURS, QUERY, 60, 4, offered=102)}, "query: p99 at 60 % of its capacity"),
        ({"slow": [SLOW[0], burst(OURS, MIX, 90, 21)]}, "mix: p99 / Apache mod_wsgi's"),
        ({"slow": [SLOW[0], burst(OURS, MIX, 90, 12, offered=102)]}, "mix: p99 / Apache mod_wsgi's"),
    ],
    ids=["capacity", "p99 when calm", "lost when calm", "p99 beside theirs", "lost beside theirs"],
)
def test_what_misses_a_promise_is_said_to(change: dict[str, Any], bound: str) -> None:
    assert _verdicts(**change)[bound] == MISSED


def test_what_was_not_measured_is_not_judged() -> None:
    words = _verdicts(measured=[each for each in MEASURED if each["contestant"] != GEVENT], slow=[])
    assert words["query: capacity / gunicorn -k gevent's"] == UNKNOWN
    assert words["mix: p99 / Apache mod_wsgi's"] == UNKNOWN


def test_a_figure_is_of_all_requests_of_its_bursts_but_the_spoilt_ones() -> None:
    bursts = [burst(OURS, MIX, 60, 6), burst(OURS, MIX, 60, 8), burst(OURS, MIX, 60, 900, spoilt=True)]
    (made,) = threads_verdicts.figures(bursts, FLOOR)
    assert (made["p50_ms"], made["p99_ms"], made["requests"], made["spoilt"]) == (6, 8, 200, 1)
    assert made["p99_over_floor_ms"] == pytest.approx(2.7)
    (alone,) = threads_verdicts.figures(bursts[2:], FLOOR)
    assert alone["p99_ms"] == 900


def test_a_rate_is_slow_where_its_p99_is_and_the_machine_is_not_to_blame() -> None:
    assert threads_verdicts.is_slow(burst(MOD_WSGI, MIX, 90, 51))
    assert threads_verdicts.is_slow(burst(MOD_WSGI, MIX, 90, 1, p99_ms=None))
    assert not threads_verdicts.is_slow(burst(MOD_WSGI, MIX, 90, 50))
    assert not threads_verdicts.is_slow(burst(MOD_WSGI, MIX, 90, 51, spoilt=True))


def test_the_arithmetic_says_what_the_python_of_the_mix_leaves_to_win() -> None:
    (parts,) = threads_verdicts.arithmetic(threads_verdicts.capacities(MEASURED[:5]), 300.0, 250.0)
    assert (parts["ratio"], parts["ratio_same_python"]) == (2.0, 2.1)
    assert parts["ceiling"] == pytest.approx(3.333)


def test_calibrated_work_takes_what_was_asked_for() -> None:
    loops = threads.calibrated(300.0)
    assert mix.work_us(2 * loops) == pytest.approx(2 * mix.work_us(loops), rel=0.5)
    assert mix.work_us(loops) == pytest.approx(300, rel=0.5)


def test_the_picture_has_a_line_for_each_server_and_percentile_and_a_ring_for_errors() -> None:
    bursts = [burst(name, MIX, percent, 5 + percent) for name in (OURS, GEVENT) for percent in (10, 60, 120)]
    bursts[-1] |= {"errors": {"closed": 90}, "latencies_ns": array("q", [10**6] * 10)}
    drawn = ET.fromstring(threads_picture.svg({"figures": threads_verdicts.figures(bursts, FLOOR)}))
    shape = "{http://www.w3.org/2000/svg}"
    assert len(drawn.findall(f"{shape}polyline")) == 2 * 3
    rings = [each for each in drawn.findall(f"{shape}circle") if "ring" in each.get("class", "")]
    assert len(rings) == 3 + 1, "three percentiles with errors, and the legend's"
    words = {each.text for each in drawn.findall(f"{shape}text")}
    assert {OURS, GEVENT, "with errors", "p99, ms", "10", "1000"} <= words
    assert OURS_FAST not in words


@pytest.mark.real
@pytest.mark.slow
def test_a_short_run_loads_apache_and_us_at_every_rate_and_loses_nothing() -> None:
    for each in ("mariadbd", "apache2"):
        program(each)
    if not MODULE.exists():
        missing("mod_wsgi", INSTALL_ALL)
    cores = machine.two_cores()
    if cores is None:
        pytest.skip("two cores are needed")
    before = os.sched_getaffinity(0)
    result = threads.run(cores, rounds=1, seconds=0.5, levels=(20, 40), names=(OURS, MOD_WSGI))
    assert os.sched_getaffinity(0) == before
    assert [each["left_out"] for each in result["contestants"]] == [None, None]
    measured = {(each["scenario"], each["contestant"], each["percent"]): each for each in result["figures"]}
    assert set(measured) == {(s, name, p) for s in (QUERY, MIX) for name in (OURS, MOD_WSGI) for p in (20, 40)}
    for figure in measured.values():
        assert figure["errors"] == 0
        assert figure["requests"] > 5
    assert all(measured[MIX, name, 20]["p50_ms"] > 5 for name in (OURS, MOD_WSGI)), "a query of 5 ms is in each"
    assert {each["contestant"] for each in result["capacities"]} == {OURS, MOD_WSGI}
    assert all(each["cpu_us"] > 100 for each in result["capacities"] if each["scenario"] == MIX), "0.3 ms of Python"
    json.dumps(result)
    assert f"| {MOD_WSGI} | 40 |" in threads_report.table(result)

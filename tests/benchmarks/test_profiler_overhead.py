"""What profilers cost: judged by invented figures; an idle worker is real."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks import profiler_overhead, readme
from benchmarks.loads import LoadResult
from benchmarks.measure import Burst
from benchmarks.profiler_overhead import OFF, OURS, OURS_INTERPRETED


def _hello(name: str, more: int | None) -> dict[str, Any]:
    figures = {"cpu_us": 20.0, "cpu_more_percent": 8.0, "requests_per_s": 5e4, "others_percent": 0, "steal_percent": 0}
    return {"name": name, **figures, "instructions": None if more is None else 50_000 + more, "instructions_more": more}


def _result(**changed: Any) -> dict[str, Any]:
    idle = {"seconds": 20.0, "watchdog_percent": 0.5, "wakes_per_s": 66.0, "main_thread_percent": 0.1}
    return {
        "interpreted_because": "",
        "profilers": [{"name": "yappi", "note": "by greenlet", "versions": {"yappi": "1.7.6"}}],
        "left_out": {},
        "hello": [_hello(OFF, 0), _hello(OURS, 4_100), _hello(OURS_INTERPRETED, 8_700), _hello("yappi", 430_000)],
        "switch": {"compiled": 1_200, "interpreted": 3_500},
        "idle": {**idle, "other_threads_percent": 0.0},
        **changed,
    }


def test_what_reaches_its_bounds_keeps_them() -> None:
    assert [each["kept"] for each in profiler_overhead.verdicts(_result())] == [True] * 5
    assert "| yappi | 480,000 | 430,000 | 860 % | 20.0 | +8 % |" in profiler_overhead.table(_result())


def test_each_bound_is_judged_by_itself() -> None:
    dear = _result(
        hello=[_hello(OFF, 0), _hello(OURS, 4_101), _hello(OURS_INTERPRETED, 8_701)],
        switch={"compiled": 1_201, "interpreted": 3_501},
    )
    dear["idle"]["watchdog_percent"] = 0.501
    assert [each["kept"] for each in profiler_overhead.verdicts(dear)] == [False] * 5
    assert profiler_overhead.table(dear).count("**not kept**") == 5


def test_without_a_compiler_or_valgrind_what_is_missing_is_said_to_be_not_measured() -> None:
    bare = _result(
        interpreted_because="no compiler", switch={}, hello=[_hello(OFF, None), _hello(OURS_INTERPRETED, None)]
    )
    assert [each["kept"] for each in profiler_overhead.verdicts(bare)] == [None] * 4 + [True]
    shown = profiler_overhead.table(bare)
    assert shown.count("not measured") == 4
    assert "Ours is not compiled: no compiler." in shown


def test_a_profiler_that_did_not_look_is_left_out_with_what_it_noted() -> None:
    assert profiler_overhead._blind("yappi", 999, 1000) == "it noted 999 calls of the application in 1000 requests"
    assert profiler_overhead._blind("yappi", 1001, 1000) == ""
    assert profiler_overhead._blind("pyinstrument", 0, 1000) != ""
    assert profiler_overhead._blind("gevent's monitor thread", 0, 1000) != ""
    assert profiler_overhead._blind("viztracer", 10_000, 100_000) == ""  # what its ring holds
    left_out = _result(left_out={"yappi": "it noted nothing"})
    assert "yappi 1.7.6: by greenlet. Left out: it noted nothing." in profiler_overhead.table(left_out)


def _burst(name: str, number: int, cpu_us: float) -> Burst:
    load = LoadResult(requests=100, requests_per_s=100.0, p50_ms=1.0, p99_ms=2.0, errors=0, kept_alive=None)
    return Burst(name, "hello", number, load, cpu_us, 0.0, 50.0, 1.0, 0.0, None, None)


def test_more_cpu_time_is_compared_within_a_round() -> None:
    bursts = [_burst(OFF, 1, 10), _burst(OURS, 1, 11), _burst(OFF, 2, 100), _burst(OURS, 2, 110), _burst(OFF, 3, 10)]
    figure = profiler_overhead._figure(OURS, {OFF: [50_000], OURS: [54_000, 54_100]}, [*bursts, _burst(OURS, 3, 30)])
    assert figure["cpu_more_percent"] == pytest.approx(10)
    assert (figure["instructions"], figure["instructions_more"]) == (54_050, 4_050)


def test_the_readme_shows_each_profiler_s_price_beside_ours() -> None:
    shown = readme.tables({"sections": {"overhead": _result()}})
    assert "| a hello under | user instructions more of 50,000 | CPU more |" in shown
    assert "| **ours** | 4,100 | +8 % |" in shown
    assert "| yappi | 430,000 | +8 % |" in shown
    assert OFF not in shown


@pytest.mark.real
def test_an_idle_worker_s_threads_are_told_apart(tmp_path: Path) -> None:
    idle = profiler_overhead._idle(tmp_path, min(os.sched_getaffinity(0)), 1.0)
    assert idle["wakes_per_s"] > 10  # the watchdog looks
    assert idle["watchdog_percent"] > 0

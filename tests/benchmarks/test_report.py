"""From bursts to figures: what is averaged over what, and what is never made up."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from benchmarks import report
from benchmarks.contestants import CONTESTANTS, OURS
from benchmarks.loads import LoadResult, parse_ab, parse_wrk
from benchmarks.measure import Burst, Counted
from benchmarks.scenarios import HELLO, HELLO_AB, Scenario

PEER = next(contestant for contestant in CONTESTANTS if not contestant.ours)


def burst(contestant: str, number: int, requests_per_s: float, **changes: Any) -> Burst:
    load = LoadResult(requests=1000, requests_per_s=requests_per_s, p50_ms=1.0, p99_ms=2.0, errors=0)
    plain = Burst(contestant, HELLO.name, number, load, 30.0, 10.0, 99.0, 0.0, 0.0, None, None)
    return dataclasses.replace(plain, **changes)


def figure(bursts: list[Burst], counted: list[Counted], name: str, scenario: Scenario = HELLO) -> dict[str, Any]:
    made = report.figures(bursts, counted, [scenario], [OURS, PEER.name])
    return next(each for each in made if each["contestant"] == name)


def result(bursts: list[Burst], counted: list[Counted]) -> dict[str, Any]:
    return report.result(
        interpreted={"profiler": "", "tafe": "not compiled"},
        settings={"rounds": 3, "seconds": 4, "connections": 64},
        chosen=[CONTESTANTS[0], PEER],
        versions={OURS: {"gevent": "1"}, PEER.name: {"gunicorn": "2"}},
        left_out={},
        bursts=bursts,
        made=report.figures(bursts, counted, [HELLO], [OURS, PEER.name]),
    )


def test_ratios_are_taken_within_a_round_so_that_a_slow_minute_does_not_favour_anyone() -> None:
    # The machine was ten times slower in round 2; the peer has half our rate in every round.
    speeds = {1: 50_000.0, 2: 5_000.0, 3: 40_000.0}
    bursts = [burst(OURS, n, speed) for n, speed in speeds.items()]
    bursts += [burst(PEER.name, n, speed / 2) for n, speed in speeds.items()]
    assert figure(bursts, [], PEER.name)["requests_per_s_to_tafe"] == 0.5
    assert figure(bursts, [], PEER.name)["requests_per_s"] == {"median": 20_000.0, "min": 2_500.0, "max": 25_000.0}


def test_user_instructions_of_callgrind_never_stand_for_the_kernel_s_too() -> None:
    counted = [Counted(OURS, HELLO.name, instructions_user=(50_000.4, 51_000.0, 90_000.0))]
    instructions = figure([burst(OURS, 1, 1.0)], counted, OURS)["instructions"]
    assert instructions == {"method": "callgrind", "user": 51_000, "kernel": None, "samples": [50_000, 51_000, 90_000]}


def test_perf_gives_both_modes() -> None:
    bursts = [burst(OURS, n, 1.0, instructions_user=40_000.0 + n, instructions_kernel=9_000.0) for n in (1, 2, 3)]
    instructions = figure(bursts, [], OURS)["instructions"]
    assert (instructions["method"], instructions["user"], instructions["kernel"]) == ("perf", 40_002, 9_000)


def test_what_was_not_counted_is_empty_and_not_zero() -> None:
    made = figure([burst(OURS, 1, 1.0)], [], OURS)
    assert made["instructions"] is None
    assert made["system_calls"] is None


def test_the_table_says_that_callgrind_saw_user_mode_only() -> None:
    counted = [Counted(OURS, HELLO.name, instructions_user=(50_000.0,))]
    text = report.table(result([burst(OURS, 1, 1.0)], counted))
    assert "user mode only" in text
    assert "| 50,000 |" in text


def test_the_table_has_the_cheapest_first_and_marks_errors() -> None:
    failing = LoadResult(requests=10, requests_per_s=9.0, p50_ms=1.0, p99_ms=2.0, errors=7)
    bursts = [burst(OURS, 1, 100.0), burst(PEER.name, 1, 9.0, load=failing, cpu_user_us=300.0)]
    lines = report.table(result(bursts, [])).splitlines()
    rows = [line for line in lines if line.startswith((f"| {OURS}", f"| {PEER.name}"))]
    assert rows[0].startswith(f"| {OURS} |")
    assert rows[1].endswith("| **7** |")


def test_the_result_can_be_written_as_json_with_every_burst() -> None:
    text = json.dumps(result([burst(OURS, 1, 100.0), burst(PEER.name, 1, 50.0)], []))
    assert [each["load"]["requests_per_s"] for each in json.loads(text)["bursts"]] == [100.0, 50.0]


def test_the_kernel_s_share_of_cpu_time_stands_beside_the_instructions_and_not_in_them() -> None:
    counted = [Counted(OURS, HELLO.name, instructions_user=(50_000.0,)), Counted(OURS, HELLO.name, kernel_share=0.4)]
    text = report.table(result([burst(OURS, 1, 1.0)], counted))
    row = next(line for line in text.splitlines() if line.startswith(f"| {OURS} |"))
    assert [cell.strip() for cell in row.split("|")[2:6]] == ["50,000", "1.00", "40.0", "40%"]


def test_a_share_that_was_not_sampled_comes_from_the_clock_s_tick_and_says_so() -> None:
    (made,) = report.figures([burst(OURS, 1, 1.0)], [], [HELLO], [OURS])
    assert report.kernel_percent(made) == "~25%"


def test_the_table_says_which_compiled_modules_ran() -> None:
    text = report.table(result([burst(OURS, 1, 1.0)], []))
    assert "Compiled modules in use: profiler yes, tafe no (not compiled)." in text


def test_wrk_s_line_is_read_and_all_kinds_of_errors_are_added() -> None:
    line = (
        '{"requests": 500, "duration_us": 2000000, "p50_us": 1500, "p99_us": 9000, "bad_status": 3, "socket_errors": 2}'
    )
    assert parse_wrk(f"Running 2s test\n\n{line}\n") == LoadResult(500, 250.0, 1.5, 9.0, 5)


def test_ab_s_report_is_read() -> None:
    text = """
Complete requests:      12163
Failed requests:        1
   (Connect: 0, Receive: 0, Length: 1, Exceptions: 0)
Non-2xx responses:      2
Keep-Alive requests:    12000
Requests per second:    12162.95 [#/sec] (mean)
  50%      5
  99%      7
 100%      9 (longest request)
"""
    assert parse_ab(text) == LoadResult(12163, 12162.95, 5.0, 7.0, 3, 12000)
    assert HELLO_AB.tool == "ab"

"""How the profiler's times are judged, by invented figures; tests/profiler/test_harm.py has real ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import profiler_truth, profiler_truth_script, timed_requests
from benchmarks.client import LoadError
from benchmarks.profiler_truth import KEPT, NOT_KEPT, UNKNOWN
from benchmarks.profiler_truth_script import FIRST, SECOND, Played
from benchmarks.timed_requests import Timed
from tests.benchmarks.peer import ANSWER, Peer

CALM = {"others_percent": 1.0, "steal_percent": 0.0}
BUSY = {"others_percent": 50.0, "steal_percent": 0.0}
STOLEN = {"others_percent": 1.0, "steal_percent": 2.0}


def _report(longest: dict[int, float], running: dict[int, float]) -> dict[str, Any]:
    return {
        "routes": [{"route": f"visit {visit}", "longest_slice_ms": {"max": ms}} for visit, ms in longest.items()],
        "slowest": [{"route": f"visit {visit}", "running_ms": ms} for visit, ms in running.items()],
        "sites": [{"busy_ms": {"total": sum(longest.values())}}],
    }


def test_a_duration_may_be_wrong_by_a_millisecond_or_two_percent_whichever_is_more() -> None:
    found = profiler_truth.wrong_by({0: 20.0, 1: 100.0}, _report({0: 20.5, 1: 101.9}, {1: 100.1}))
    assert (found["worst_ms"], found["worst_of_allowed"]) == (1.9, 0.95)
    assert found["slowest_worst_ms"] == 0.1
    assert (found["total_ms"], found["reported_total_ms"]) == (120.0, 122.4)


def test_a_stall_that_is_not_reported_is_wrong_by_its_length() -> None:
    assert profiler_truth.wrong_by({0: 20.0, 1: 30.0}, _report({1: 30.0}, {1: 30.0}))["worst_ms"] == 20.0


def test_a_delay_is_of_requests_under_way_during_a_stall_and_beyond_what_they_take_without() -> None:
    calm = [[Timed(due, due, due + took) for due in (0.0, 1.0, 2.0)] for took in (0.002, 0.004)]
    stalled = [Timed(0.0, 0.0, 0.9), Timed(1.0, 1.0, 1.033), Timed(2.0, 2.0, 2.5)]
    assert profiler_truth.delays(calm, stalled, [(0.99, 1.03)]) == [pytest.approx(0.030)]


def _result(durations: list[dict[str, float]], harm: list[dict[str, Any]], differences: list[str]) -> dict[str, Any]:
    duration = {"visits": 4, "worst_ms": 0.1, "slowest_worst_ms": 0.1, "total_ms": 9.0, "reported_total_ms": 9.0}
    figures = {"stalls": 3, "delayed": 18, "victims_reported": 18, "client_late_p99_ms": 0.1}
    return {
        "durations": [{**duration, **each} for each in durations],
        "harm": [{**figures, "victims": kind, **each} for kind in profiler_truth.VICTIMS for each in harm],
        "pairs": {"requests": 16, "pairs": 12, "differences": differences},
    }


def _harm(ratio: float, disturbed: dict[str, float]) -> dict[str, Any]:
    return {"delay_ms": 1000.0, "harm_ms": 1000 * ratio, **disturbed}


def test_rounds_that_the_machine_disturbed_do_not_count() -> None:
    result = _result([{"worst_of_allowed": 9.0, **BUSY}, {"worst_of_allowed": 0.5, **CALM}], [_harm(0.95, CALM)], [])
    result["harm"] += [{"victims": kind, **_harm(3.0, STOLEN)} for kind in profiler_truth.VICTIMS]
    assert set(profiler_truth.verdicts(result).values()) == {KEPT}


def test_where_no_round_counts_nothing_is_known_but_the_pairs() -> None:
    result = _result([{"worst_of_allowed": 0.5, **STOLEN}], [_harm(1.0, BUSY)], [])
    judged = profiler_truth.verdicts(result)
    assert {name for name, verdict in judged.items() if verdict == UNKNOWN} == set(judged) - {"pairs"}
    assert judged["pairs"] == KEPT
    assert "unknown, the machine had other work" in profiler_truth.table(result)


@pytest.mark.parametrize("ratio", [0.89, 1.11])
def test_what_is_beyond_its_limit_is_shown(ratio: float) -> None:
    result = _result(
        [{"worst_of_allowed": 1.01, **CALM}], [_harm(ratio, CALM)], ["reply: nobody instead of GET /first"]
    )
    assert set(profiler_truth.verdicts(result).values()) == {NOT_KEPT}
    shown = profiler_truth.table(result)
    assert shown.count("**not kept**") == 5
    assert "reply: nobody instead of GET /first" in shown
    assert f"| {ratio:.3f} |" in shown


def _blamed(route: str, line: int, file: str = profiler_truth_script.profiler_truth_app.__file__) -> dict[str, Any]:
    return {"file": file, "line": line, "route": route, "ms": 250.0}


def test_pairs_are_compared_by_request_line_and_route() -> None:
    lines = profiler_truth_script.culprit_lines()
    first, second = _blamed(FIRST, lines[FIRST]), _blamed(SECOND, lines[SECOND])
    slowest = [
        {"request_id": "one", "blamed": [second, first]},
        {"request_id": "elsewhere", "blamed": [_blamed(FIRST, 7, "other.py")]},
        {"request_id": "readiness", "blamed": []},
    ]
    expected = {"one": [FIRST, SECOND], "elsewhere": [FIRST], "missing": [SECOND], "nobodys": []}
    played = Played(expected, {"slowest": slowest}, {})
    assert not played.kept
    assert profiler_truth_script.differences(played) == [
        "elsewhere: GET /first at other.py:7 instead of GET /first",
        "missing: nobody instead of GET /second",
    ]
    assert Played({"one": [FIRST, SECOND]}, {"slowest": slowest[:1]}, {}).kept


def test_each_planned_request_is_timed_in_order(peer: Callable[..., Peer]) -> None:
    one = peer(lambda _connection, _request: [ANSWER[:20], ANSWER[20:]])
    timed = timed_requests.send(one.port, [(0.0, "/"), (0.02, "/"), (0.02, "/")], connections=2)
    assert [round(each.due_s - timed[0].due_s, 6) for each in timed] == [0.0, 0.02, 0.02]
    assert all(each.due_s <= each.sent_s <= each.answered_s for each in timed)


def test_an_answer_other_than_200_and_a_plan_that_needs_more_connections_are_errors(peer: Callable[..., Peer]) -> None:
    wrong = peer(lambda _connection, _request: [b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"])
    with pytest.raises(LoadError, match="500"):
        timed_requests.send(wrong.port, [(0.0, "/")], connections=1)
    silent = peer(lambda _connection, _request: [])
    with pytest.raises(LoadError, match="too few"):
        timed_requests.send(silent.port, [(0.0, "/"), (0.01, "/")], connections=1)

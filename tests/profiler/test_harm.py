"""How long stalls were, and whose victims there were: a server whose stalls measure themselves, and a scripted one.

On any machine: the times are compared with moments that enclose them, and the script is ordered by events. How near
the times are on a quiet machine, and how much harm is found, is measured by benchmarks/profiler_truth.py.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from benchmarks import profiler_truth, profiler_truth_script
from benchmarks.profiler_truth_script import FIRST, SECOND, Played

pytestmark = [pytest.mark.real, pytest.mark.slow]  # servers of their own, which are kept waiting for a second

BUCKET = 0.016  # of a histogram: so far it may show another value than was added


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return profiler_truth_script.play(tmp_path_factory.mktemp("script"))


def test_only_culprits_of_the_script_are_blamed_and_only_by_their_victims(played: Played) -> None:
    unscripted = {name: set(of) - set(played.expected.get(name, ())) for name, of in played.reported.items()}
    assert {name: of for name, of in unscripted.items() if of} == {}
    assert all(len(set(of)) == len(of) for of in played.reported.values())


def test_the_pairs_are_those_of_the_script(played: Played) -> None:
    assert list(profiler_truth_script.differences(played)) == []


def test_the_line_a_culprit_waited_at_is_named_with_its_count(played: Played) -> None:
    lines = profiler_truth_script.culprit_lines()
    found = [(site["routes"], site["line"], site["count"], site["cause"]) for site in played.report["sites"]]
    assert sorted(found) == [([route], lines[route], 2, "blocking") for route in (FIRST, SECOND)]


def test_no_victim_is_said_to_have_waited_longer_than_its_client_did(played: Played) -> None:
    for request in played.report["slowest"]:
        waited_ms = played.waited_ms.get(request["request_id"])
        if waited_ms is not None:
            # A culprit's own slice goes on for a moment after its answer was sent.
            assert sum(one["ms"] for one in request["blamed"] if not one["own"]) <= waited_ms


def test_a_stall_is_as_long_as_its_handler_says(tmp_path: Path) -> None:
    with profiler_truth.serving(tmp_path, None) as running:
        stalls = profiler_truth.visit_all(running, 3)
    report = profiler_truth_script.report_of(running)
    longest_ms = {route["route"]: route["longest_slice_ms"]["max"] for route in report["routes"]}
    assert len(stalls) == 12
    for stall, following in itertools.pairwise(stalls):
        # The slice encloses what the handler measured, and lies between two requests.
        least_ms, most_ms = 1000 * (stall.end_s - stall.began_s), 1000 * (following.began_s - stall.sent_s)
        assert least_ms * (1 - BUCKET) <= longest_ms[f"visit {stall.visit}"] <= most_ms * (1 + BUCKET)
    total_ms = sum(site["busy_ms"]["total"] for site in report["sites"])
    assert total_ms >= 1000 * sum(stall.end_s - stall.began_s for stall in stalls)
    assert sum(site["count"] for site in report["sites"]) >= len(stalls)

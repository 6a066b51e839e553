"""Which slow slices are one site, and how many sites are kept."""

from __future__ import annotations

from typing import Any

import pytest

from profiler.causes import Verdict
from profiler.frames import Place
from profiler.metrics import CountedSites
from profiler.model import OTHER_ROUTES, OTHER_SITES, Slice, Span
from profiler.sites import HUB_ROUTE, MAX_ROUTES, MAX_SITES, Finding, SiteTable
from profiler.stalls import RECENT, RECENT_S
from profiler.usage import Usage

PYTHON = Verdict("python", innocent=False, on_cpu=True)
NATIVE = Verdict("native", innocent=False, on_cpu=True)
BLOCKING = Verdict("blocking", innocent=False, on_cpu=False)
STARVED = Verdict("starved", innocent=True, on_cpu=True)


def found(verdict: Verdict, lines: dict[int, float], *, function: str = "f", route: str | None = "GET /") -> Finding:
    span = None
    if route is not None:
        span = Span()
        span.route = route
    record = Slice(1.0, 1.03, span, 0.0, Usage(1.03, 0.0, 0.0), (1.0, 0.0), ())
    record.harm_s, record.victims = 0.1, 2
    line = max(lines, key=lambda number: lines[number])
    return Finding(record, Place("/srv/app.py", line, function, 10), lines, (), verdict, exact=True)


def sites(*findings: Finding) -> list[dict[str, Any]]:
    table = SiteTable()
    for finding in findings:
        table.add(finding)
    return table.take()


def test_a_route_that_is_no_text_is_shown_as_one() -> None:
    odd = [found(BLOCKING, {12: 0.03}, route=route) for route in (b"GET /", ["a"], "GET /b")]  # type: ignore[arg-type]
    (site,) = sites(*odd)
    assert site["routes"] == [OTHER_ROUTES, "GET /", "GET /b"]


def test_a_loop_is_one_site_whichever_of_its_lines_was_sampled_most() -> None:
    (site,) = sites(found(PYTHON, {12: 0.02, 13: 0.01}), found(PYTHON, {14: 0.03}), found(PYTHON, {13: 0.03}))
    assert site["count"] == 3
    assert {line: weight_s for line, weight_s, _ in site["lines"]} == {12: 0.02, 13: 0.04, 14: 0.03}
    assert (site["harm_s"], site["victims"]) == (0.1 + 0.1 + 0.1, 6)


def test_two_calls_that_wait_in_one_function_are_two_sites() -> None:
    assert len(sites(found(BLOCKING, {12: 0.03}), found(BLOCKING, {15: 0.03}), found(BLOCKING, {12: 0.03}))) == 2


def test_two_calls_into_c_code_in_one_function_are_two_sites() -> None:
    assert len(sites(found(NATIVE, {12: 0.03}), found(NATIVE, {15: 0.03}))) == 2


def test_what_the_machine_made_long_is_a_site_of_its_own() -> None:
    guilty, innocent = sites(found(PYTHON, {12: 0.03}), found(STARVED, {12: 0.03}))
    assert [site["key"][4] for site in (guilty, innocent)] == [False, True]


def test_work_for_no_request_is_the_hubs() -> None:
    (site,) = sites(found(BLOCKING, {12: 0.03}, route=None))
    assert site["routes"] == [HUB_ROUTE]


def test_a_site_keeps_a_bounded_number_of_routes() -> None:
    (site,) = sites(*(found(BLOCKING, {12: 0.03}, route=f"GET /{number}") for number in range(MAX_ROUTES + 5)))
    assert (len(site["routes"]), site["count"]) == (MAX_ROUTES, MAX_ROUTES + 5)


def test_sites_beyond_the_bound_are_one_that_loses_no_harm() -> None:
    findings = [found(BLOCKING, {12: 0.03}, function=f"f{number}") for number in range(MAX_SITES + 3)]
    *kept, rest, innocent = sites(*findings, found(STARVED, {12: 0.03}, function="g"))
    assert len(kept) == MAX_SITES
    assert (rest["key"], rest["count"], rest["victims"]) == (["", OTHER_SITES, 0, 0, False], 3, 6)
    assert (rest["lines"], rest["stack"]) == ([], [])
    assert innocent["key"] == ["", OTHER_SITES, 0, 0, True]


def test_what_was_taken_is_not_taken_again() -> None:
    table = SiteTable()
    table.add(found(BLOCKING, {12: 0.03}))
    table.still_open(found(BLOCKING, {12: 0.03}))
    assert [line["type"] for line in table.take()] == ["site", "open"]
    assert table.take() == []


def test_harm_that_comes_after_a_slice_was_added_is_counted_once() -> None:
    table = CountedSites()
    finding = found(BLOCKING, {12: 0.03})
    table.add(finding)
    (before,) = table.take()
    finding.record.harm_s, finding.record.victims = 0.7, 5
    table.catch_up(10.0)
    (after,) = table.take()
    table.catch_up(20.0)
    assert table.take() == []
    assert (before["victims"], after["victims"], after["count"]) == (2, 3, 0)
    assert after["key"] == before["key"]
    assert before["harm_s"] + after["harm_s"] == pytest.approx(0.7)
    for costs in (table.sites, table.culprits):
        (cost,) = costs.values()
        assert (cost.slices, cost.victims) == (1, 5)
        assert cost.harm_s == pytest.approx(0.7)


def test_harm_that_comes_later_has_room_however_many_sites_there_are() -> None:
    table = SiteTable()
    finding = found(BLOCKING, {12: 0.03}, function="late")
    table.add(finding)
    table.take()
    for number in range(MAX_SITES):
        table.add(found(BLOCKING, {12: 0.03}, function=f"f{number}"))
    finding.record.harm_s, finding.record.victims = 0.7, 5
    table.catch_up(10.0)
    *_, rest = table.take()
    assert (rest["key"][1], rest["count"], rest["victims"]) == (OTHER_SITES, 0, 3)


def test_slices_that_get_no_more_harm_are_forgotten() -> None:
    table = SiteTable()
    for _ in range(RECENT + 3):
        table.add(found(BLOCKING, {12: 0.03}))
    table.catch_up(10.0)
    assert len(table._growing) == RECENT
    table.catch_up(10.0 + RECENT_S)
    assert not table._growing

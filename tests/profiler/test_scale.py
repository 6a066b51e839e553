"""Very much of everything: the bounds, and that what is beyond them adds up. In full: benchmarks/profiler_scale.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.profiler_scale import differences
from benchmarks.profiler_scale_load import Sites, Size, record
from profiler.recorder import MAX_ROUTES as MAX_STORED_ROUTES
from profiler.report import reader
from profiler.report.build import build
from profiler.report.profile import MAX_ROUTES, MAX_SITES, OTHER_WORKERS
from profiler.report.reader import read
from tests.profiler.contract import CONTRACT, EXAMPLE, check, report_on

SIZE = Size(requests=20_000, sites=2 * MAX_SITES + 500, urls=4_000)


def test_ten_times_as_many_places_and_urls_as_there_are_rows_add_up_and_the_worst_are_named(tmp_path: Path) -> None:
    truth = record(tmp_path / "profile", Sites(tmp_path / "application", SIZE.sites), SIZE)
    report = build(read([str(tmp_path / "profile")]))
    check(report, CONTRACT)
    assert differences(report, truth) == []
    assert len(report["sites"]) == MAX_SITES + 1
    assert len(report["routes"]) == MAX_ROUTES + 1
    assert report["left_out"]["sites"] > 0
    *listed, rest = report["sites"]
    assert rest["advice"].startswith("all sites without a row of their own"), (
        "those that the worker had no room for too"
    )
    assert all(site["stack"] and site["source"] for site in listed)
    busiest = {route["route"] for route in report["routes"][:10]}
    assert all("{id}" in route for route in busiest), "an application's routes, not URLs that came once"
    by_hand_over: dict[float, int] = {}
    for path in (tmp_path / "profile").glob("*.jsonl"):
        for line in map(json.loads, path.read_text().splitlines()):
            if line["type"] == "route":
                by_hand_over[line["t"]] = by_hand_over.get(line["t"], 0) + 1
    assert max(by_hand_over.values()) <= MAX_STORED_ROUTES + 1


def test_workers_beyond_the_bound_share_a_row_and_none_of_their_figures_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = sorted(EXAMPLE.glob("*.jsonl"))[0].read_text()
    for pid in range(5000, 5030):
        (tmp_path / f"worker-web-1-{pid}-1767225600000.jsonl").write_text(example.replace("4001", str(pid)))
    whole = report_on(tmp_path)
    assert len(whole["workers"]) == 30
    monkeypatch.setattr(reader, "MAX_WORKERS", 5)
    report = report_on(tmp_path)
    check(report, CONTRACT)
    assert len(report["workers"]) <= 2 * 5 + 1
    *_, rest = report["workers"]
    assert rest["host"] == OTHER_WORKERS
    assert report["left_out"]["workers"] == 30 - len(report["workers"]) + 1
    for name in ("requests", "switches", "slices_over", "dropped", "displaced"):
        assert sum(worker[name] for worker in report["workers"]) == sum(worker[name] for worker in whole["workers"])
    assert report["workers"][0]["hub_busy_ratio"] == rest["hub_busy_ratio"]
    for name in ("window", "sites", "routes", "hub"):
        assert report[name] == whole[name], name


def test_a_directory_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(EXAMPLE)
    report = build(read([str(EXAMPLE), str(EXAMPLE) + "/", str(tmp_path / "link")]))
    assert report == report_on(EXAMPLE)

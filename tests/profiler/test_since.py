"""A report on what is recent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from profiler.errors import ProfilerError
from profiler.report import main
from profiler.report.build import build
from profiler.report.reader import read
from profiler.report.since import moment_of
from tests.profiler.contract import EXAMPLE

NOW_S = 1767225600.0  # 2026-01-01T00:00:00Z
DAY_S = 86_400.0


@pytest.mark.parametrize(
    ("since", "moment_s"),
    [
        ("90s", NOW_S - 90),
        ("1.5h", NOW_S - 5400),
        ("15m", NOW_S - 900),
        ("15min", NOW_S - 900),
        ("7d", NOW_S - 7 * DAY_S),
        ("999999999d", 0.0),
        ("2025-12-31T23:00:00Z", NOW_S - 3600),
        ("2025-12-31T23:00", NOW_S - 3600),
        ("2026-01-01T00:30+01:00", NOW_S - 1800),
        ("2025-12-31", NOW_S - DAY_S),
    ],
)
def test_since_is_a_duration_or_a_moment(since: str, moment_s: float) -> None:
    assert moment_of(since, NOW_S) == moment_s


@pytest.mark.parametrize(
    "since", ["", "yesterday", "-5m", "5", "5w", "2026-13-01", "9" * 400 + "s", "0001-01-01T00:00+23:59x"]
)
def test_anything_else_is_refused_with_what_is_allowed(since: str) -> None:
    with pytest.raises(ProfilerError, match=r"is neither a duration nor a moment; use 90s, 15m, 2h, 7d, or 2026"):
        moment_of(since, NOW_S)


def test_a_moment_that_is_yet_to_come_is_refused() -> None:
    with pytest.raises(ProfilerError, match="is yet to come"):
        moment_of("2026-01-02", NOW_S)


def two_days(directory: Path) -> float:
    """A worker's file with the same lines on two days, the stack only on the first; when the second began."""
    header, *rest = (json.loads(line) for line in next(iter(sorted(EXAMPLE.glob("*.jsonl")))).read_text().splitlines())
    later: list[dict[str, Any]] = [{**line, "t": line["t"] + DAY_S} for line in rest]
    for line in later:
        if line["type"] == "site":
            line["stack"] = []
    lines = [header, *rest, *later]
    (directory / "worker-a-1-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return float(header["t"]) + DAY_S


def test_what_is_older_does_not_count_but_its_stacks_are_still_known(tmp_path: Path) -> None:
    whole_s = two_days(tmp_path)
    whole, recent = build(read([str(tmp_path)])), build(read([str(tmp_path)], whole_s))
    assert [2 * worker["requests"] for worker in recent["workers"]] == [
        worker["requests"] for worker in whole["workers"]
    ]
    assert [2 * site["count"] for site in recent["sites"]] == [site["count"] for site in whole["sites"]]
    assert [site["stack"] for site in recent["sites"]] == [site["stack"] for site in whole["sites"]]
    assert all(site["stack"] for site in recent["sites"])
    assert [2 * route["requests"] for route in recent["routes"]] == [route["requests"] for route in whole["routes"]]
    assert recent["window"]["start"] == "2026-01-02T00:00:00.000Z"
    assert whole["window"]["duration_s"] > DAY_S > 10 > recent["window"]["duration_s"]


def test_a_worker_of_which_nothing_is_recent_is_not_shown(tmp_path: Path) -> None:
    since_s = two_days(tmp_path)
    second = sorted(EXAMPLE.glob("*.jsonl"))[1]
    (tmp_path / second.name).write_bytes(second.read_bytes())
    assert len(build(read([str(tmp_path)]))["workers"]) == 2
    assert [worker["pid"] for worker in build(read([str(tmp_path)], since_s))["workers"]] == [4001]


def test_the_command_takes_it_and_says_when_nothing_is_that_new(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(EXAMPLE), "--since", "2026-01-01"]) == 0
    assert "2 workers, 1,006 requests, 2.1 s from 2026-01-01T00:00:00Z to" in capsys.readouterr().out
    assert main(["report", str(EXAMPLE), "--since", "1s"]) == 2
    assert "is that new; go back further with --since" in capsys.readouterr().err
    assert main(["report", str(EXAMPLE), "--since", "soon"]) == 2
    assert capsys.readouterr().err.count("\n") == 1

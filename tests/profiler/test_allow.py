"""What an allow list allows, and which files are none."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from profiler.allow import AllowList, Entry, load
from profiler.errors import ProfilerError
from profiler.report import main

EXAMPLE = Path(__file__).with_name("data") / "two_workers"
DAY = date(2026, 6, 30)
ENTRY = Entry("app/export.py", "write_sheet", "no streaming writer yet", DAY)


def site(**changed: Any) -> dict[str, Any]:
    found = {"file": "/srv/app/export.py", "function": "write_sheet", "cause": "python", "busy_ms": {"max": 70.0}}
    return {**found, **changed}


@pytest.mark.parametrize(
    ("changed", "covered"),
    [
        ({}, True),
        ({"file": "app/export.py"}, True),
        ({"file": "/srv/myapp/export.py"}, False),
        ({"file": "/srv/app/export.pyx"}, False),
        ({"function": "write"}, False),
        ({"cause": "blocking"}, True),
    ],
)
def test_an_entry_covers_a_function_of_a_file_named_by_its_end(changed: dict[str, Any], covered: bool) -> None:
    assert ENTRY.covers(site(**changed)) is covered


@pytest.mark.parametrize(
    ("limits", "covered"),
    [({"cause": "python"}, True), ({"cause": "gc"}, False), ({"up_to_ms": 70}, True), ({"up_to_ms": 69.9}, False)],
)
def test_an_entry_may_be_narrowed_to_a_cause_and_a_length(limits: dict[str, Any], covered: bool) -> None:
    assert Entry("app/export.py", "write_sheet", "why", DAY, **limits).covers(site()) is covered


def test_an_entry_allows_to_the_end_of_its_last_day_and_then_says_that_it_is_over() -> None:
    listed = AllowList([ENTRY])
    for today, expired in ((DAY, False), (date(2026, 7, 1), True)):
        sites = [site(), site(function="other")]
        listed.mark(sites, today)
        said = {"until": "2026-06-30", "expired": expired, "reason": "no streaming writer yet"}
        assert [one["allowed"] for one in sites] == [said, None]


def test_of_several_entries_the_one_that_ends_last_counts() -> None:
    earlier = Entry(ENTRY.file, ENTRY.function, "was", date(2026, 1, 1))
    assert AllowList([earlier, ENTRY, earlier]).covering(site()) is ENTRY


def test_a_file_is_read_to_its_entries(tmp_path: Path) -> None:
    (tmp_path / "stalls.toml").write_text(
        '[[allow]]\nfile = "app/export.py"\nfunction = "write_sheet"\ncause = "python"\nup_to_ms = 80\n'
        'reason = "no streaming writer yet"\nexpires = 2026-06-30\n'
    )
    (entry,) = load(tmp_path / "stalls.toml").entries
    assert entry == Entry("app/export.py", "write_sheet", "no streaming writer yet", DAY, "python", 80)
    (tmp_path / "stalls.toml").write_text(f"[[allow]]\n{COMPLETE}".replace("a.py", "./app//export.py"))
    assert load(tmp_path / "stalls.toml").entries[0].covers(site(function="f"))
    (tmp_path / "stalls.toml").write_text("")
    assert load(tmp_path / "stalls.toml").entries == []


COMPLETE = 'file = "a.py"\nfunction = "f"\nreason = "r"\nexpires = 2026-06-30'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("allow = [", "is no TOML: "),
        ("[[allowed]]\n", "may hold [[allow]] entries alone, not 'allowed'"),
        ('allow = "x"\n', "may hold [[allow]] entries alone, not an allow that is no [[allow]]"),
        ("allow = [1]\n", "[[allow]] 1 is no table"),
        (f"[[allow]]\n{COMPLETE}\nline = 7\n", "[[allow]] 1 does not know 'line'"),
        ('[[allow]]\nfile = "a.py"\nfunction = "f"\nexpires = 2026-06-30\n', "[[allow]] 1 lacks 'reason'"),
        ("[[allow]]\n" + COMPLETE.replace("2026-06-30", '"2026-06-30"'), "expires = '2026-06-30' does not fit"),
        ("[[allow]]\n" + COMPLETE.replace("2026-06-30", "2026-06-30T12:00:00"), "does not fit"),
        ("[[allow]]\n" + COMPLETE.replace('"r"', '" "'), "reason = ' ' does not fit"),
        (f"[[allow]]\n{COMPLETE}\nup_to_ms = 0\n", "up_to_ms = 0 does not fit"),
        (f"[[allow]]\n{COMPLETE}\n[[allow]]\n{COMPLETE}\nup_to_ms = true\n", "[[allow]] 2: up_to_ms = True"),
    ],
)
def test_a_file_that_is_no_allow_list_is_refused_with_the_place(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "stalls.toml"
    path.write_text(text)
    with pytest.raises(ProfilerError) as raised:
        load(path)
    assert problem in raised.value.problem
    assert str(path) in raised.value.problem
    assert raised.value.remedy.startswith("an entry has file = ")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfilerError, match=r"cannot read the allow list '.*missing.toml': No such file or directory"):
        load(tmp_path / "missing.toml")


def test_a_report_marks_what_is_allowed_and_what_no_longer_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "stalls.toml"
    entries = [
        f'[[allow]]\nfile = "{file}"\nfunction = "{function}"\nreason = "{reason}"\nexpires = {expires}\n'
        for file, function, reason, expires in [
            ("shop/prices.py", "fetch_rate", "known since spring", "9999-12-31"),
            ("shop/ranking.py", "score", "once", "2020-01-01"),
        ]
    ]
    path.write_text("".join(entries))
    assert main(["report", str(EXAMPLE), "--allow", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "   it is allowed until 9999-12-31: known since spring\n" in shown
    assert "   it was allowed until 2020-01-01, which is over: once\n" in shown
    assert main(["report", str(EXAMPLE), "--allow", str(path), "--format", "json"]) == 0
    marks = {site["function"]: site["allowed"] for site in json.loads(capsys.readouterr().out)["sites"]}
    assert marks.pop("fetch_rate") == {"until": "9999-12-31", "expired": False, "reason": "known since spring"}
    assert marks.pop("score")["expired"]
    assert set(marks.values()) == {None}


def test_a_file_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stalls.toml"
    path.write_text("x = " + "[" * 100_000)
    with pytest.raises(ProfilerError, match="is nested too deeply; an entry has file = "):
        load(path)

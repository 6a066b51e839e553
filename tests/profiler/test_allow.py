"""What an allow list allows, and which files are none."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from profiler.allow import AllowList, Entry, load
from profiler.errors import ProfilerError

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


def test_an_entry_allows_to_the_end_of_its_last_day_and_is_known_to_have_expired_after() -> None:
    listed = AllowList([ENTRY])
    assert (listed.allows(site(), DAY), listed.expired(site(), DAY)) == (True, None)
    after = date(2026, 7, 1)
    assert (listed.allows(site(), after), listed.expired(site(), after)) == (False, ENTRY)
    assert listed.expired(site(function="other"), after) is None


def test_of_several_entries_one_that_has_not_expired_is_enough() -> None:
    earlier = Entry(ENTRY.file, ENTRY.function, "was", date(2026, 1, 1))
    assert AllowList([earlier, ENTRY]).allows(site(), DAY)


def test_a_file_is_read_to_its_entries(tmp_path: Path) -> None:
    (tmp_path / "stalls.toml").write_text(
        '[[allow]]\nfile = "app/export.py"\nfunction = "write_sheet"\ncause = "python"\nup_to_ms = 80\n'
        'reason = "no streaming writer yet"\nexpires = 2026-06-30\n'
    )
    (entry,) = load(tmp_path / "stalls.toml").entries
    assert entry == Entry("app/export.py", "write_sheet", "no streaming writer yet", DAY, "python", 80)
    (tmp_path / "stalls.toml").write_text("")
    assert load(tmp_path / "stalls.toml").entries == []


COMPLETE = 'file = "a.py"\nfunction = "f"\nreason = "r"\nexpires = 2026-06-30'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("allow = [", "is no TOML: "),
        ("[[allowed]]\n", "may hold [[allow]] entries alone, not 'allowed'"),
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

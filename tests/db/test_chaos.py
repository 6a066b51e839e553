"""The chaos benchmark in its short form: it keeps its promises, and its judges notice what would break them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from benchmarks import chaos, chaos_data, chaos_harm
from benchmarks.chaos_data import Additions, Fates
from tests.services.requirements import program


@pytest.mark.real
@pytest.mark.slow
def test_no_wrong_row_and_no_leak_under_kills_and_restarts() -> None:
    program("mariadbd")
    result = chaos.run(None, queries=4000, legs=1, seed=1)
    assert result["problems"] == []
    queries, harm = result["queries"], result["harm"]
    assert queries["answered"] >= 4000
    assert queries["killed"] > 50
    assert queries["unavailable"] > 50
    assert harm["KILL CONNECTION"] > 5
    assert harm["KILL QUERY"] > 5
    assert {"stop_and_start", "kill_and_start", "freeze"} <= harm.keys()
    assert "Every promise was kept." in chaos.table(result)


@pytest.mark.real
@pytest.mark.slow
def test_no_wrong_row_and_no_leak_on_sqlite_when_requests_are_killed() -> None:
    result = chaos.run(None, queries=2000, legs=1, seed=1, database="sqlite")
    assert result["problems"] == []
    assert result["queries"]["killed"] > 20


def _row(id_: int, asked: int = 7) -> dict[str, Any]:
    names = [name.strip() for name in chaos_data.COLUMNS.split(",")]
    return {"asked": asked, **dict(zip(names, chaos_data.item(id_, random.Random(id_)), strict=True))}


def test_a_row_is_right_only_whole_and_for_its_own_question() -> None:
    for id_ in (1, 50, 400):  # short, long, huge
        row = _row(id_)
        assert chaos_data.is_right(row, 7, id_)
        assert not chaos_data.is_right(row, 8, id_)
        assert not chaos_data.is_right(_row(id_ + 1), 7, id_)
        for name in chaos_data.CONTENTS:
            assert not chaos_data.is_right({**row, name: _row(id_ + 1)[name]}, 7, id_)
        assert not chaos_data.is_right({**row, "text": row["text"][:-1]}, 7, id_)
    assert not chaos_data.is_right(None, 7, 1)


def _asked(answers: dict[str, list[dict[str, Any]]]) -> Any:
    """Answers by the table that is asked."""
    return lambda sql: answers[sql.partition(" FROM ")[2].split()[0]]


def _kept() -> tuple[dict[str, list[dict[str, Any]]], Fates, Fates, Additions]:
    """A database in which all is as it should be: two of each kind done, one undone, one unknown and done."""
    tokens, transfers = Fates(10), Fates(10)
    for fates in (tokens, transfers):
        for fate in (Fates.DONE, Fates.DONE, Fates.UNDONE, Fates.UNKNOWN):
            fates.settle(fates.next(), fate)
    answers = {
        "tokens": [{"token": token, "n": 1} for token in (0, 1, 3)],
        "counters": [{"n": 3}],
        "ledger": [{"token": token, "n": 2, "amount": 0, "account": 0} for token in (0, 1, 3)],
        "accounts": [],
        "items": [{**_row(5), "asked": 0}],
    }
    return answers, tokens, transfers, Additions(done=2, unknown=1)


def test_promises_that_were_kept_are_no_problem() -> None:
    answers, *known = _kept()
    assert chaos_data.broken_promises(_asked(answers), *known) == []


@pytest.mark.parametrize(
    ("table", "found", "problem"),
    [
        ("tokens", [{"token": 0, "n": 1}, {"token": 3, "n": 1}], "INSERTs missing: tokens [1]"),
        ("tokens", [{"token": n, "n": 1} for n in range(4)], "INSERTs undone but there: tokens [2]"),
        ("tokens", [{"token": 0, "n": 1}, {"token": 1, "n": 1}, {"token": 3, "n": 2}], "INSERTs twice: tokens [3]"),
        ("counters", [{"n": 4}], "the counters hold 4"),
        ("counters", [{"n": 1}], "the counters hold 1"),
        ("ledger", [{"token": n, "n": 2, "amount": 0, "account": 0} for n in (0, 3)], "transfers missing: tokens [1]"),
        ("ledger", [{"token": 0, "n": 1, "amount": 5, "account": 0}], "transfer 0"),
        ("accounts", [{"id": 4, "balance": chaos_data.BALANCE + 1}], "account 4"),
        ("items", [{**_row(5), "asked": 0, "text": "?"}], "item 5"),
    ],
)
def test_what_a_repeated_or_forgotten_statement_leaves_behind_is_found(
    table: str, found: list[dict[str, Any]], problem: str
) -> None:
    answers, *known = _kept()
    answers["ledger"] = [{**line, "n": line["n"]} for line in answers["ledger"]]
    problems = chaos_data.broken_promises(_asked({**answers, table: found}), *known)
    assert any(problem in each for each in problems), problems


def test_outages_are_spread_over_the_queries_and_each_kind_comes_at_least_once() -> None:
    plan = chaos_harm.plan(10_000, random.Random(1))
    assert [due for due, _ in plan] == sorted(due for due, _ in plan)
    assert 0 < plan[0][0] < plan[-1][0] < 10_000
    names = [name for _, name in plan]
    assert min(names.count(name) for name in ("stop_and_start", "kill_and_start", "exhaust", "freeze")) == 1
    assert len(chaos_harm.plan(1_000_000, random.Random(1))) == 50


def test_memory_counts_from_the_first_quarter_on() -> None:
    samples = [{"answered": 250 * n, "resident_kib": kib} for n, kib in enumerate((10, 500, 510, 505, 520))]
    assert chaos.grown_kib(samples) == 20

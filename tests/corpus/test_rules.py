"""The cases and the rules belong together: rules.toml names what shows each rule, rfc.txt every sentence quoted."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatchcase
from typing import Any, Final

import pytest

from tests.corpus.case import HERE, Case, all_cases

RULES: Final[dict[str, dict[str, Any]]] = {
    f"{part}: {rule}": found
    for part, rules in tomllib.loads((HERE / "rules.toml").read_text("ascii")).items()
    for rule, found in rules.items()
}


def cases_of(patterns: list[str]) -> list[Case]:
    """Every case that a pattern means; each has to mean one."""
    found = []
    for pattern in patterns:
        meant = [case for case in all_cases() if fnmatchcase(case.name, pattern)]
        assert meant, f"{pattern}: no such case"
        found += meant
    return found


def is_refused(case: Case) -> bool:
    """Something of it is answered with an error, or with nothing at all."""
    return not case.answers or any(answer.status >= 400 for answer in case.answers)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_shown_and_what_breaks_it_is_refused(rule: str) -> None:
    """What is refused needs a neighbour that is not: else refusing everything would do."""
    found = RULES[rule]
    assert set(found) <= {"shows", "refuses", "tests"}
    refused = cases_of(found.get("refuses", []))
    shown = [case for case in cases_of(found.get("shows", [])) if case not in refused]
    assert shown or "tests" in found
    assert [case.name for case in refused if not is_refused(case)] == []
    if refused:
        assert [case.name for case in shown if not is_refused(case)]
    for test in found.get("tests", []):
        path, _, name = test.partition("::")
        text = (HERE.parent / path).read_text("utf-8")
        assert re.search(rf"^def {name}\(", text, re.MULTILINE), f"{test}: no such test"


def test_every_case_shows_a_rule() -> None:
    patterns = [pattern for found in RULES.values() for kind in ("shows", "refuses") for pattern in found.get(kind, [])]
    assert [case.name for case in all_cases() if not any(fnmatchcase(case.name, p) for p in patterns)] == []


def test_every_quotation_is_one_that_was_read_against_the_rfc() -> None:
    """One list, so that a sentence is proofread once, and a slip of a case's is noticed."""
    read = (HERE / "rfc.txt").read_text("ascii").splitlines()
    read = [line for line in read if line and not line.startswith("#")]
    assert set(read) == {quote for case in all_cases() for quote in case.quotes}
    assert len(set(read)) == len(read)

"""From figures to verdicts: nothing is said to be met that was not counted."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import bounds, contestants, scenarios


def figure(contestant: str, scenario: str, user: int, kernel: int | None, cpu_us: float = 10.0) -> dict[str, Any]:
    return {
        "contestant": contestant,
        "scenario": scenario,
        "instructions": {"method": "perf" if kernel else "callgrind", "user": user, "kernel": kernel, "samples": []},
        "cpu_us": {"median": cpu_us, "min": cpu_us, "max": cpu_us},
        "kernel_share": 0.4,
    }


def verdict(what: str, *figures: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in bounds.verdicts(figures) if each["bound"] == what)


def test_every_bound_is_on_figures_that_a_run_makes() -> None:
    made = {(c.name, each.name) for c in contestants.CONTESTANTS for each in c.scenarios if each.counted_requests}
    for bound in bounds.BOUNDS:
        assert (bound.contestant, bound.scenario) in made
        assert bound.beside is None or bound.beside in made


@pytest.mark.parametrize(("kernel", "word"), [(9_000, "met"), (12_000, "missed")])
def test_with_the_kernel_s_instructions_counted_a_bound_is_met_or_missed(kernel: int, word: str) -> None:
    made = verdict("hello", figure("tafe", "hello", 50_000, kernel))
    assert (made["figure"], made["user_mode_only"], made["verdict"]) == (50_000 + kernel, False, word)


def test_user_instructions_below_a_bound_do_not_meet_it_alone() -> None:
    made = verdict("hello", figure("tafe", "hello", 50_000, None))
    assert (made["figure"], made["user_mode_only"], made["verdict"]) == (50_000, True, "met in user mode")


def test_user_instructions_above_a_bound_miss_it_for_certain() -> None:
    assert verdict("hello", figure("tafe", "hello", 60_001, None))["verdict"] == "missed"


def test_a_ratio_of_user_instructions_is_said_to_be_one_and_has_the_ratio_of_cpu_time_beside_it() -> None:
    ours, many = figure("tafe", "hello", 50_000, None), figure("tafe", "hello, ten headers", 70_000, None, cpu_us=13.0)
    made = verdict("ten headers / hello", ours, many)
    assert (made["figure"], made["cpu_time_ratio"], made["verdict"]) == (1.4, 1.3, "missed in user mode")


def test_as_many_as_granian_is_not_fewer() -> None:
    figures = [figure(name, "hello", 50_000, 10_000) for name in ("tafe", "granian")]
    assert verdict("hello / granian's hello", *figures)["verdict"] == "missed"


def test_at_least_eight_times_is_met_by_eight_times() -> None:
    figures = [figure("tafe", "hello", 50_000, 10_000), figure("gunicorn -k gevent", "hello", 400_000, 80_000)]
    assert verdict("hello of gunicorn -k gevent / ours", *figures)["verdict"] == "met"


def test_what_was_not_measured_has_no_verdict() -> None:
    uncounted = figure("tafe", scenarios.ECHO.name, 0, None) | {"instructions": None}
    for made in bounds.verdicts([uncounted]):
        assert (made["figure"], made["verdict"]) == (None, "not measured")


def test_the_table_has_a_line_for_each_bound() -> None:
    text = bounds.table(bounds.verdicts([figure("tafe", "hello", 50_000, None)]))
    assert "| hello | at most 60,000 | 50,000 | - | 40% | met in user mode |" in text
    assert text.count("\n") == 1 + len(bounds.BOUNDS)

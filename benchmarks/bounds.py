"""What we hold ourselves to, and whether a run shows it.

A bound is on instructions in user and kernel mode together. Where only callgrind could count, the kernel's are
missing, so a figure in user mode above an absolute bound misses it for certain, and one below it is only said to be
below in user mode. Ratios are then of user instructions; the same ratio of CPU time, kernel included, stands beside.
Pure: figures in, verdicts out.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.scenarios import ECHO, HELLO, QUERY, TEN_HEADERS

_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "at most": operator.le,
    "less than": operator.lt,
    "at least": operator.ge,
}


@dataclasses.dataclass(frozen=True)
class Bound:
    """On the instructions of one contestant's scenario or, with `beside`, on those divided by another's."""

    what: str
    contestant: str
    scenario: str
    sign: str  # of `_SIGNS`
    limit: float
    beside: tuple[str, str] | None = None  # contestant and scenario


_OWN_API = "tafe, its own API"  # with our reader of results; plain WSGI with PyMySQL's stands in the table

BOUNDS = (
    Bound("hello", "tafe", HELLO.name, "at most", 60_000),
    Bound("hello, interpreted hook", "tafe, interpreted hook", HELLO.name, "at most", 67_000),
    Bound("hello, access log on", "tafe, access log", HELLO.name, "at most", 70_000),
    Bound("ten headers / hello", "tafe", TEN_HEADERS.name, "at most", 1.35, ("tafe", HELLO.name)),
    Bound("echo of 1 KiB", "tafe", ECHO.name, "at most", 90_000),
    Bound("hello / granian's hello", "tafe", HELLO.name, "less than", 1.0, ("granian", HELLO.name)),
    Bound(
        "hello of gunicorn -k gevent / ours", "gunicorn -k gevent", HELLO.name, "at least", 8.0, ("tafe", HELLO.name)
    ),
    Bound("query", _OWN_API, QUERY.name, "at most", 200_000),
    Bound("query / granian's with asyncmy", _OWN_API, QUERY.name, "less than", 1.0, ("granian ASGI", QUERY.name)),
    Bound(
        "query of gunicorn -k gevent / ours", "gunicorn -k gevent", QUERY.name, "at least", 4.0, (_OWN_API, QUERY.name)
    ),
)

MET, MISSED, UNKNOWN = "met", "missed", "not measured"
MET_IN_USER_MODE, MISSED_IN_USER_MODE = "met in user mode", "missed in user mode"


def verdicts(figures: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One for each bound, as plain values."""
    by_name = {(figure["contestant"], figure["scenario"]): figure for figure in figures}
    return [_verdict(bound, by_name) for bound in BOUNDS]


def _verdict(bound: Bound, by_name: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, Any]:
    figure = by_name.get((bound.contestant, bound.scenario))
    beside = by_name.get(bound.beside) if bound.beside else None
    made: dict[str, Any] = {
        "bound": bound.what,
        "limit": f"{bound.sign} {_shown(bound.limit, bound.beside)}",
        "figure": None,
    }
    made |= {"user_mode_only": None, "cpu_time_ratio": None, "kernel_share": None, "verdict": UNKNOWN}
    value = _instructions(figure)
    other = _instructions(beside) if bound.beside else 1
    if figure is None or value is None or other is None:
        return made
    user_only = figure["instructions"]["kernel"] is None
    reached = value / other
    kept = _SIGNS[bound.sign](reached, bound.limit)
    made |= {
        "figure": round(reached, 3) if bound.beside else round(reached),
        "user_mode_only": user_only,
        "kernel_share": figure["kernel_share"],
        "verdict": _word(kept, user_only=user_only, is_ratio=beside is not None),
    }
    if beside is not None:
        made["cpu_time_ratio"] = round(figure["cpu_us"]["median"] / beside["cpu_us"]["median"], 3)
    return made


def _word(kept: bool, *, user_only: bool, is_ratio: bool) -> str:
    if not user_only:
        return MET if kept else MISSED
    if kept:
        return MET_IN_USER_MODE
    return MISSED_IN_USER_MODE if is_ratio else MISSED


def _instructions(figure: Mapping[str, Any] | None) -> int | None:
    """User and, where it was counted, kernel instructions."""
    if figure is None or figure["instructions"] is None:
        return None
    total: int = figure["instructions"]["user"] + (figure["instructions"]["kernel"] or 0)
    return total


def _shown(value: float, is_ratio: object) -> str:
    return f"{value:.2f}" if is_ratio else f"{value:,.0f}"


def table(made: Sequence[Mapping[str, Any]]) -> str:
    """The verdicts for a reader: markdown."""
    lines = [
        "| instructions a request | bound | reached | by CPU time | kernel's share of CPU time | verdict |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for each in made:
        ratio, kernel = each["cpu_time_ratio"], each["kernel_share"]
        cells = [
            each["bound"],
            each["limit"],
            "-" if each["figure"] is None else _shown(each["figure"], ratio is not None),
            "-" if ratio is None else f"{ratio:.2f}",
            "-" if kernel is None else f"{kernel:.0%}",
            each["verdict"],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)

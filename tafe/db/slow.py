"""The log of slow statements: one line each, to the logger `tafe.db`, with the request that asked.

A line holds the statement's text with `%s` for its values, never a value, and where the greenlet works for a request
(`lifecycle.origin`) its route and id. When a database is slow every statement is, so lines are bounded: a burst may
write some, the next line says how many were left out. Every slow statement is counted in `Stats.slow`.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from tafe import lifecycle
from tafe.db.driver import Result
from tafe.db.sql import Statement, shown

log = logging.getLogger("tafe.db")

# A line is 40 us of the hub. Five a second name the statements to blame within seconds, and cost nothing.
LINES = 5
PERIOD_S = 1.0
SHOWN_WAIT_S = 0.001  # less is no wait worth a word
# Routes of tafe.App are templates, of other applications perhaps paths, which come from strangers.
_LONGEST_ROUTE = 200


class Allowance:
    """At most `LINES` in each `PERIOD_S`. Pure: is told the time."""

    __slots__ = ("_began_s", "_left_out", "_used")

    def __init__(self) -> None:
        self._began_s = -math.inf
        self._used = 0
        self._left_out = 0

    def ask(self, now_s: float) -> int | None:
        """How many were left out since the last one, if this one may be written; else None."""
        if now_s - self._began_s >= PERIOD_S:
            self._began_s = now_s
            self._used = 0
        if self._used >= LINES:
            self._left_out += 1
            return None
        self._used += 1
        left_out, self._left_out = self._left_out, 0
        return left_out


class SlowLog:
    """One database's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._allowance = Allowance()

    def note(self, statement: Statement, now_s: float, waited_s: float, took_s: float, outcome: Any) -> None:
        """Write a line, if it may be. `waited_s`: for a connection; `outcome`: what was returned or raised."""
        left_out = self._allowance.ask(now_s)
        if left_out is None:
            return
        log.warning(
            "database %s: slow query, %.3f s%s, %s: %s%s%s",
            self._name,
            took_s,
            f" after {waited_s:.3f} s for a connection" if waited_s >= SHOWN_WAIT_S else "",
            _shown_outcome(outcome),
            shown(statement),
            _asked_by(),
            f"; {left_out} others were not logged" if left_out else "",
        )


def _shown_outcome(outcome: Any) -> str:
    if isinstance(outcome, BaseException):
        return type(outcome).__name__
    if isinstance(outcome, Result):
        outcome = outcome.rowcount
    count = len(outcome) if isinstance(outcome, list) else outcome if isinstance(outcome, int) else 0
    return f"{count} row{'' if count == 1 else 's'}"


def _asked_by() -> str:
    origin = lifecycle.origin()
    if origin is None:
        return ""
    return f" [{ascii(origin.route[:_LONGEST_ROUTE])[1:-1]}, request {origin.request_id}]"

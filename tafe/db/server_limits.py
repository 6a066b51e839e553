"""How a server is asked to end a statement by itself, so that nobody's question keeps it busy.

A session is given the database's `read_timeout_s` once, at login, which costs a statement nothing; a `timeout_s` of a
statement's own travels in its text:
- MariaDB since 10.1: `max_statement_time`, and `SET STATEMENT ... FOR` before any statement. In a stored procedure the
  time is counted anew for each statement, so a CALL as a whole is not limited.
- MySQL since 5.7.8, and what speaks like it: `max_execution_time`, and a hint behind the first top-level SELECT.
  Statements that change something cannot be limited.
Everything else (older servers, proxies that refuse) says so at login and is not asked again.

Pure: makes text and looks at text. Quotes and comments are known by sql.py's rules.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from tafe.db.sql import LEAD, MYSQL_TOKEN

_FLAGS = re.IGNORECASE | re.DOTALL
_CALL = re.compile(LEAD + r"CALL\b", _FLAGS)
_SELECT = re.compile(LEAD + r"SELECT\b", _FLAGS)
_WITH = re.compile(LEAD + r"WITH\b", _FLAGS)
_HINTS = re.compile(r"\s*/\*\+")
_WORD_OR_BRACKET = re.compile(
    rf"{MYSQL_TOKEN.pattern} | (?P<bracket>[()]) | \b(?P<select>SELECT)\b", _FLAGS | re.VERBOSE
)


@dataclass(frozen=True)
class Dialect:
    """One kind of server."""

    at_login: Callable[[float], str]  # for every statement of the session
    limit: Callable[[str, float], str | None]  # for one statement, in its text; None: this one cannot be limited
    limits_writes: bool


def dialect_of(server_version: str) -> Dialect:
    """The one to try with a server that introduces itself so at login."""
    return MARIADB if "mariadb" in server_version.lower() else MYSQL


def _seconds(limit_s: float) -> str:
    return f"{limit_s:.6f}"  # it counts microseconds


def _limit_any(text: str, limit_s: float) -> str | None:
    return None if _CALL.match(text) else f"SET STATEMENT max_statement_time={_seconds(limit_s)} FOR {text}"


def _milliseconds(limit_s: float) -> int:
    return math.ceil(limit_s * 1000)  # never 0, which is no limit


def _limit_select(text: str, limit_s: float) -> str | None:
    select = _SELECT.match(text)
    end = select.end() if select else _end_of_main_select(text) if _WITH.match(text) else None
    if end is None:
        return None
    hint = f"MAX_EXECUTION_TIME({_milliseconds(limit_s)})"
    hints = _HINTS.match(text, end)
    if hints:  # a second comment with hints would be ignored; of two limits the first counts
        return f"{text[: hints.end()]} {hint} {text[hints.end() :]}"
    return f"{text[:end]} /*+ {hint} */{text[end:]}"


def _end_of_main_select(text: str) -> int | None:
    """Where the word SELECT ends that is in no brackets, as those of a WITH are."""
    depth = 0
    for token in _WORD_OR_BRACKET.finditer(text):
        if token["bracket"]:
            depth += 1 if token["bracket"] == "(" else -1
        elif token["select"] and not depth:
            return token.end()
    return None


MARIADB = Dialect(lambda limit_s: f"SET max_statement_time={_seconds(limit_s)}", _limit_any, limits_writes=True)
MYSQL = Dialect(lambda limit_s: f"SET max_execution_time={_milliseconds(limit_s)}", _limit_select, limits_writes=False)

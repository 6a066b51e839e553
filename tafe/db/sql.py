"""Statements: where the parameters are, how many, and whether the statement only reads.

One rule for every database: outside of quotes and comments `%s` is a parameter; `%%` is a percent sign
everywhere; any other `%` stands for itself. So text written for PyMySQL keeps its meaning, and `LIKE 'a%'` and
`id % 2` need no doubling. A list or tuple as a value becomes `(v1, v2, ...)` for `IN %s`.

The scanner knows quotes and comments only, not SQL. It assumes that a backslash escapes inside MySQL literals
(true unless the server runs with NO_BACKSLASH_ESCAPES; then a literal ending in a backslash hides the
parameters behind it, which the count reports). Pure; results are kept in a bounded cache, since the same few
statements come again with every request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from tafe.errors import QueryError

# Statements of an application number in the hundreds; one whose text changes each time must not fill memory.
_CACHED_STATEMENTS = 1024
LIST_TYPES = (list, tuple, set, frozenset)

# An unterminated quote or comment extends to the end of the text: the database will say what is wrong with it.
MYSQL_TOKEN = re.compile(
    r"""'(?:[^'\\]++|\\.|'')*+(?:'|\\?\Z)     # text
      | "(?:[^"\\]++|\\.|"")*+(?:"|\\?\Z)     # text, or a name under ANSI_QUOTES
      | `(?:[^`]++|``)*+(?:`|\Z)              # name
      | \#[^\n]*+                             # comment
      | --(?=[\s\x00-\x20]|\Z)[^\n]*+         # comment, only with white space behind it
      | /\*.*?(?:\*/|\Z)                      # comment
      | %s | %%""",
    re.DOTALL | re.VERBOSE,
)
_SQLITE_TOKEN = re.compile(
    r"""'(?:[^']++|'')*+(?:'|\Z)              # text
      | "(?:[^"]++|"")*+(?:"|\Z)              # name
      | `(?:[^`]++|``)*+(?:`|\Z)              # name, as in MySQL
      | \[[^\]]*+(?:\]|\Z)                    # name, as in SQL Server
      | --[^\n]*+                             # comment
      | /\*.*?(?:\*/|\Z)                      # comment
      | %s | %%""",
    re.DOTALL | re.VERBOSE,
)
# What may stand before a statement's first word.
LEAD = r"(?:[\s(]|--[^\n]*\n|\#[^\n]*\n|/\*(?!!).*?\*/)*+"
_READ = re.compile(LEAD + r"(?:SELECT|SHOW)\b", re.IGNORECASE | re.DOTALL)


class Statement(NamedTuple):
    """A scanned statement: `pieces` is the text around its parameters, so there is one more piece than parameters.

    `text` is what goes to the driver: with `?` for SQLite; for MySQL a `%` template, or, without parameters, as sent.
    `is_read` says that running it twice does no harm (a SELECT that calls a function with side effects excepted).
    """

    text: str
    pieces: tuple[str, ...]
    is_read: bool
    parameters: int


@lru_cache(_CACHED_STATEMENTS)
def for_mysql(sql: str) -> Statement:
    """Scan `sql` by MySQL's and MariaDB's rules."""
    pieces = _split(sql, MYSQL_TOKEN)
    text = "%s".join(piece.replace("%", "%%") for piece in pieces) if len(pieces) > 1 else pieces[0]
    return Statement(text, pieces, _READ.match(sql) is not None, len(pieces) - 1)


@lru_cache(_CACHED_STATEMENTS)
def for_sqlite(sql: str) -> Statement:
    """Scan `sql` by SQLite's rules."""
    pieces = _split(sql, _SQLITE_TOKEN)
    return Statement("?".join(pieces), pieces, _READ.match(sql) is not None, len(pieces) - 1)


def _split(sql: str, token: re.Pattern[str]) -> tuple[str, ...]:
    pieces: list[str] = []
    piece: list[str] = []
    position = 0
    for match in token.finditer(sql):
        piece.append(sql[position : match.start()])
        position = match.end()
        if match[0] == "%s":
            pieces.append("".join(piece))
            piece = []
        else:
            piece.append(match[0].replace("%%", "%"))
    piece.append(sql[position:])
    pieces.append("".join(piece))
    return tuple(pieces)


def check(statement: Statement, params: Sequence[Any]) -> None:
    """Raise `QueryError` unless `params` fit the statement; asked before a connection is taken from the pool."""
    if params.__class__ is not tuple and params.__class__ is not list:
        raise QueryError(
            f"parameters must be a tuple or a list, not {type(params).__name__}: write (value,) for a single one"
        )
    if len(params) != statement.parameters:
        raise QueryError(
            f"the statement has {statement.parameters} parameters (%s), {len(params)} were given: {shown(statement)}"
        )
    for value in params:
        if value.__class__ in LIST_TYPES and not value:
            raise QueryError(f"an empty list matches nothing and is not valid SQL: {shown(statement)}")


def check_timeout(timeout_s: Any) -> None:
    """Raise `QueryError` unless a statement can be given so long; as long as the database's own limit may be."""
    if not isinstance(timeout_s, int | float) or isinstance(timeout_s, bool) or not 0.001 <= timeout_s <= 86_400:
        raise QueryError(f"timeout_s={timeout_s!r} cannot be used: it is 0.001 to 86400 seconds, or left out")


def expanded(statement: Statement, params: Sequence[Any]) -> tuple[str, list[Any]]:
    """For SQLite: the text and flat values, each list value spread over as many `?` as it has members."""
    text = [statement.pieces[0]]
    values: list[Any] = []
    for value, piece in zip(params, statement.pieces[1:], strict=True):
        if value.__class__ in LIST_TYPES:
            text.append(f"({', '.join('?' * len(value))})")
            values.extend(value)
        else:
            text.append("?")
            values.append(value)
        text.append(piece)
    return "".join(text), values


def shown(statement: Statement) -> str:
    """The beginning of a statement for an error: without values, on one line."""
    text = " ".join("%s".join(statement.pieces).split())
    return text if len(text) <= 100 else f"{text[:97]}..."

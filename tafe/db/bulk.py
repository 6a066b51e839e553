"""Bulk inserts for MySQL: many rows of parameters as few statements.

`INSERT ... VALUES (%s, %s) ...` becomes one statement with many groups; every other statement is sent once a row.
Pure: makes text only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from tafe.db.sql import Statement, check

# A batch is built without yielding: 64 KiB is about 1,000 short rows, some 3 ms. Larger ones gain little,
# and every server's max_allowed_packet (at least 1 MiB) holds it unless a single row does not fit.
BATCH_BYTES = 64 * 1024

_INSERT = re.compile(r"\s*(?:INSERT|REPLACE)\b", re.IGNORECASE)
_VALUES = re.compile(r"(.*\bVALUES?\s*)(\([^()]*)\Z", re.IGNORECASE | re.DOTALL)
_END = re.compile(r"([^()]*\))(\s*(?:ON\s+DUPLICATE\s+KEY\s+UPDATE\b.*)?;?\s*)\Z", re.IGNORECASE | re.DOTALL)


def batches(
    statement: Statement,
    rows: Iterable[Sequence[Any]],
    literals: Callable[[Sequence[Any]], tuple[str, ...]],
) -> Iterator[str]:
    """Check `rows` and yield the statements that insert them; `literals` escapes one row."""
    parts = _parts(statement)
    if parts is None:
        for row in rows:
            check(statement, row)
            yield statement.text % literals(row) if row else statement.text
        return
    prefix, group, suffix = parts
    groups: list[str] = []
    size = 0
    for row in rows:
        check(statement, row)
        text = group % literals(row)
        if groups and size + len(text) > BATCH_BYTES:
            yield f"{prefix}{','.join(groups)}{suffix}"
            groups, size = [], 0
        groups.append(text)
        size += len(text)
    if groups:
        yield f"{prefix}{','.join(groups)}{suffix}"


@lru_cache(256)
def _parts(statement: Statement) -> tuple[str, str, str] | None:
    """Split into the text before the group of values, the group as a `%` template, and the rest; None: no bulk insert.

    All parameters must stand in one group without inner parentheses: anything else is rare, and slow is safe.
    """
    if not statement.parameters:
        return None
    first, *middle, last = statement.pieces
    start, end = _VALUES.match(first), _END.match(last)
    if not _INSERT.match(first) or start is None or end is None:
        return None
    if any("(" in piece or ")" in piece for piece in middle):
        return None
    inner = [start[2], *middle, end[1]]
    return start[1], "%s".join(piece.replace("%", "%%") for piece in inner), end[2]

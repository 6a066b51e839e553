"""What is asked for in sqlite_delay.py: a file of orders, and four kinds of queries for up to 200 of them.

By key, by an index and then sorted, filtered in a walk along the table, and the dearest of 2,000, sorted for it.
"""

from __future__ import annotations

import dataclasses
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

MOST = 200  # rows of an answer
_ORDERS = 20_000
_CUSTOMERS = 100  # hence as many orders each as an answer holds
_COLUMNS = "id, customer, status, priority, total, tax, currency, city, placed_at, note"
_CITIES = ("Lisbon", "Oslo", "Graz", "Zürich", "Porto", "Gdańsk", "Turin")
_STATES = ("open", "paid", "sent", "done")

QUERIES = {
    "by-key": f"SELECT {_COLUMNS} FROM orders WHERE id >= %s ORDER BY id LIMIT %s",
    "customer": f"SELECT {_COLUMNS} FROM orders WHERE customer = %s ORDER BY placed_at DESC LIMIT %s",
    "open": f"SELECT {_COLUMNS} FROM orders WHERE id > %s AND status = 'open' AND total > 100 LIMIT %s",
    "dearest": (
        f"SELECT {_COLUMNS} FROM (SELECT * FROM orders WHERE id > %s ORDER BY id LIMIT 2000)"
        " ORDER BY total DESC, id LIMIT %s"
    ),
}


@dataclasses.dataclass(frozen=True)
class Question:
    """One request's."""

    kind: str  # of QUERIES
    start: int
    limit: int

    @property
    def path(self) -> str:
        """Of the request."""
        return f"/orders/{self.kind}?start={self.start}&limit={self.limit}"

    def rows(self, file: Path) -> list[dict[str, Any]]:
        """The answer, by sqlite3 itself."""
        with closing(sqlite3.connect(file)) as database:
            cursor = database.execute(QUERIES[self.kind].replace("%s", "?"), (self.start, self.limit))
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]


def questions() -> list[Question]:
    """One for each of 32 connections: eight of each kind, half of them for `MOST` rows."""
    limits = (MOST, 50, MOST, 10, MOST, 100, MOST, 150)
    starts = {"customer": 11}  # apart from each other; the other kinds' are places in the table
    return [
        Question(kind, 1 + starts.get(kind, 1250) * number, limit)
        for number, limit in enumerate(limits)
        for kind in QUERIES
    ]


def fill(file: Path) -> None:
    """Make the database."""
    draw = random.Random(7)
    with closing(sqlite3.connect(file)) as database:
        database.execute(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER, status TEXT, priority INTEGER, total REAL,"
            " tax REAL, currency TEXT, city TEXT, placed_at TEXT, note TEXT)"
        )
        database.execute("CREATE INDEX by_customer ON orders (customer)")
        database.executemany(
            "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, 'EUR', ?, ?, ?)",
            (
                (
                    number,
                    number % _CUSTOMERS,
                    draw.choice(_STATES),
                    draw.randrange(5),
                    round(draw.uniform(1, 900), 2),
                    round(draw.uniform(0, 90), 2),
                    draw.choice(_CITIES),
                    f"2026-{draw.randrange(1, 13):02}-{draw.randrange(1, 29):02} {draw.randrange(24):02}:15:00",
                    "x" * draw.randrange(40) if number % 3 else None,
                )
                for number in range(1, _ORDERS + 1)
            ),
        )
        database.commit()

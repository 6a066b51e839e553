"""The tables that chaos.py's load asks, a check value in each row, and what must hold of them when all is over.

- `items`: rows to read, of 100 bytes to 300 KiB, some of them rewritten all the time. `checked` is a hash of the key
  and the contents, made by whoever wrote the row: a row that was torn, mixed or cut does not fit its own.
- `tokens`: one row for each INSERT, its token in it. There is no unique key on purpose: an INSERT that was done twice
  must show, not fail.
- `counters`: each UPDATE adds one, so here too a statement that was done twice shows.
- `accounts` and `ledger`: a transfer changes two balances and writes a line. Whatever fails, an account's balance is
  what it began with and the sum of its lines.

A statement's or a transfer's token says what its sender knows of it (`Fates`). Pure: text and values only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

ITEMS = 2000
REWRITTEN = 400  # the first so many items
COUNTERS = 20
ACCOUNTS = 40
BALANCE = 1_000_000

# A connection's first buffer holds 16 KiB and its further ones 128 KiB (tafe/db/fast.py): rows beyond both.
_LONG_EVERY, _LONG_CHARACTERS = 50, (17_000, 40_000)
_HUGE_EVERY, _HUGE_BYTES = 400, (131_072, 300_000)
_LETTERS = "abcdefghij '\"\\%\0\n\u00e9\u20ac\U0001f980"

CONTENTS = ("text", "data", "number", "ratio")
COLUMNS = "id, text, data, number, ratio, checked"

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Dialect:
    """What the two kinds of database say differently."""

    serial: str
    text: str
    binary: str
    for_update: str
    slow: str  # takes the question's number and a duration
    units_per_s: float  # of that duration
    inserts: tuple[str, ...]  # ways to insert a token, all of which do so once


INSERT = "INSERT INTO tokens (token) VALUES (%s)"
# A connection that ends during these milliseconds does not end the statement: the server notices when it answers.
# Whoever takes it for not done, and repeats it, does it twice. (SLEEP is 1 when it is interrupted.)
INSERT_LATE = "INSERT INTO tokens (token) SELECT %s FROM DUAL WHERE SLEEP(0.01) IN (0, 1)"

MYSQL = Dialect(
    "BIGINT AUTO_INCREMENT PRIMARY KEY",
    "LONGTEXT",
    "LONGBLOB",
    " FOR UPDATE",
    "SELECT %s AS asked, SLEEP(%s) AS n",
    1.0,
    (INSERT, INSERT_LATE),
)
SQLITE = Dialect(
    "INTEGER PRIMARY KEY AUTOINCREMENT",
    "TEXT",
    "BLOB",
    "",  # a transaction that begins has the write lock already
    "WITH RECURSIVE q(asked) AS (SELECT %s), c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < %s)"
    " SELECT asked, (SELECT COUNT(*) FROM c) AS n FROM q",
    3e5,  # steps, while 15 others run too
    (INSERT,),
)

# Two results and an OK: the first one is returned, the others must be read all the same.
PROCEDURE = f"""CREATE PROCEDURE two_items(IN asked BIGINT, IN first BIGINT)
BEGIN
    SELECT asked AS asked, {COLUMNS} FROM items WHERE id = first;
    SELECT asked AS asked, {COLUMNS} FROM items WHERE id > first ORDER BY id LIMIT 1;
END"""


def tables(dialect: Dialect) -> list[str]:
    """The statements that make the tables."""
    contents = f"text {dialect.text} NOT NULL, data {dialect.binary}, number BIGINT, ratio DOUBLE"
    line = "token BIGINT NOT NULL, account BIGINT NOT NULL, amount BIGINT NOT NULL"
    return [
        f"CREATE TABLE items (id BIGINT PRIMARY KEY, {contents}, checked CHAR(32) NOT NULL)",
        f"CREATE TABLE tokens (id {dialect.serial}, token BIGINT NOT NULL)",
        "CREATE TABLE counters (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)",
        "CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL)",
        f"CREATE TABLE ledger (id {dialect.serial}, {line})",
    ]


def item(id_: int, chance: random.Random) -> tuple[Any, ...]:
    """A row for `id_` in the order of `COLUMNS`: contents by chance, their size by the id, and the check value."""
    text = "".join(chance.choices(_LETTERS, k=chance.randrange(100)))
    data = chance.randbytes(chance.randrange(64)) if chance.random() < 0.75 else None
    if id_ % _LONG_EVERY == 0:
        text *= chance.randrange(*_LONG_CHARACTERS) // (len(text) or 1)
    if id_ % _HUGE_EVERY == 0:
        data = chance.randbytes(chance.randrange(*_HUGE_BYTES))
    number = chance.randrange(-(1 << 62), 1 << 62) if chance.random() < 0.75 else None
    ratio = chance.random() if chance.random() < 0.75 else None
    return id_, text, data, number, ratio, check_value(id_, text, data, number, ratio)


def items(chance: random.Random) -> Iterator[tuple[Any, ...]]:
    """All rows of the table, to begin with."""
    return (item(id_, chance) for id_ in range(ITEMS))


def check_value(id_: int, text: str, data: bytes | None, number: int | None, ratio: float | None) -> str:
    """A hash of a row's key and contents."""
    parts = hashlib.md5(f"{id_} {number} {ratio!r} {len(text)} ".encode(), usedforsecurity=False)
    parts.update(text.encode())
    parts.update(b"-" if data is None else b"+" + data)
    return parts.hexdigest()


def is_right(row: Row | None, asked: int, id_: int) -> bool:
    """True if this is the row `id_`, whole, and in answer to this very question."""
    return (
        row is not None
        and row["asked"] == asked
        and row["id"] == id_
        and row["checked"] == check_value(id_, *(row[name] for name in CONTENTS))
    )


class Fates:
    """What is known of each change that was asked for, by its token; a byte each, all there from the start."""

    UNUSED, UNKNOWN, DONE, UNDONE = range(4)

    def __init__(self, most: int) -> None:
        self._fates = bytearray(b"\0") * most
        self._used = 0

    def next(self) -> int:
        """A token that nobody has; until it is settled, nobody knows."""
        token, self._used = self._used, self._used + 1
        self._fates[token] = self.UNKNOWN
        return token

    def settle(self, token: int, fate: int) -> None:
        """It was done, or it cannot have been."""
        self._fates[token] = fate

    def count(self, fate: int) -> int:
        """How many there are."""
        return self._fates.count(fate)

    def against(self, found: Mapping[int, int]) -> dict[str, list[int]]:
        """Where `found`, how often each token was found, is not what its fate says. At most ten tokens of a kind."""
        wrong: dict[str, list[int]] = {"missing": [], "undone but there": [], "twice": []}
        for token in range(self._used):
            there = found.get(token, 0)
            if self._fates[token] == self.DONE and not there:
                wrong["missing"].append(token)
            elif self._fates[token] == self.UNDONE and there:
                wrong["undone but there"].append(token)
            if there > 1:
                wrong["twice"].append(token)
        return {kind: tokens[:10] for kind, tokens in wrong.items() if tokens}


@dataclasses.dataclass
class Additions:
    """What was added to the counters, as far as is known."""

    done: int = 0
    unknown: int = 0


def broken_promises(
    ask: Callable[[str], list[dict[str, Any]]], tokens: Fates, transfers: Fates, additions: Additions
) -> list[str]:
    """Ask the database, when all is over, and say what does not hold."""
    problems = []
    found = {row["token"]: row["n"] for row in ask("SELECT token, COUNT(*) AS n FROM tokens GROUP BY token")}
    problems += [f"INSERTs {kind}: tokens {some}" for kind, some in tokens.against(found).items()]
    (row,) = ask("SELECT SUM(n) AS n FROM counters")
    if not additions.done <= row["n"] <= additions.done + additions.unknown:
        problems.append(f"the counters hold {row['n']}, where {additions} was added")
    # Two lines a transfer: one is half of it.
    lines = ask("SELECT token, COUNT(*) AS n, SUM(amount) AS amount FROM ledger GROUP BY token")
    problems += [f"transfer {line['token']}: {line}" for line in lines if line["n"] != 2 or line["amount"]][:10]
    found = {line["token"]: line["n"] // 2 for line in lines}
    problems += [f"transfers {kind}: tokens {some}" for kind, some in transfers.against(found).items()]
    changed = {row["account"]: row["n"] for row in ask("SELECT account, SUM(amount) AS n FROM ledger GROUP BY account")}
    for account in ask("SELECT id, balance FROM accounts"):
        if account["balance"] != BALANCE + changed.get(account["id"], 0):
            problems.append(f"account {account['id']}: {account['balance']}, where its lines say {changed}")
    problems += [
        f"item {row['id']} does not fit its check value"
        for row in ask(f"SELECT 0 AS asked, {COLUMNS} FROM items")
        if not is_right(row, 0, row["id"])
    ]
    return problems

"""The load of chaos.py: requests that ask all kinds of things, check each row, and may be killed at any moment.

Each request is a greenlet of its own, as in a worker; `CLIENTS` of them run at once. A request asks through `Load.ask`,
which counts a query when it begins and once more by what became of it, so that a query that never comes back shows.
Rows carry the number of the question that they answer, the key that was asked for, and their check value.
"""

from __future__ import annotations

import collections
import dataclasses
import random
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import gevent
from gevent import GreenletExit

from benchmarks import chaos_data as data
from benchmarks.chaos_data import COLUMNS, Fates
from tafe.concurrency import SingleFlight, gather
from tafe.db import Database
from tafe.db.driver import ConnectionLost
from tafe.errors import DatabaseUnavailable, PoolTimeout, QueryError

T = TypeVar("T")

CLIENTS = 64
# After a failure, as a caller that was told to try again later; or failing at once would be most of the queries.
_PAUSE_S = 0.05
# A share of requests has a timer of its own around it, short enough to fire in mid-query.
_IMPATIENT_SHARE, _IMPATIENT_S = 0.03, (0.0002, 0.02)
# And a share of reads has a timeout of the database's own.
_TIMEOUT_SHARE, _TIMEOUT_S = 0.02, (0.001, 0.05)
_SLOW_S = (0.02, 2.5)  # of a slow query; some outlast the read timeout
# What the server may refuse while it is disturbed; any other refusal is a fault. Interrupted (KILL QUERY; SQLite's 9),
# a lock waited for too long, a deadlock, a statement that its time limit ended.
_EXPECTED_REFUSALS = frozenset({1317, 1205, 1213, 1969, 9})
_SHARED = 5  # items that are asked for so often that the questions overlap
_MOST_EXAMPLES = 20


class Killed(Exception):
    """Thrown into a request from outside, as an application's own kind of cancellation."""


class Gone(BaseException):
    """The same, of a kind that `except Exception` does not catch."""


KILLS: tuple[type[BaseException], ...] = (GreenletExit, Killed, Gone)


@dataclasses.dataclass
class Books:
    """Counts since the load began."""

    asked: int = 0
    answered: int = 0
    refused: int = 0  # by the database: the statement was interrupted, a lock was not had
    unavailable: int = 0  # no connection, or lost, or timed out
    busy: int = 0  # no connection of the pool was free in time
    killed: int = 0  # the request's greenlet was killed or its own timer fired
    faulty: int = 0  # anything else
    swallowed: int = 0  # exceptions thrown into requests that did not come out of them
    rows: int = 0  # checked
    wrong: int = 0
    transactions: int = 0
    committed: int = 0
    undone: int = 0
    unknown: int = 0  # killed or lost in COMMIT
    longest_s: float = 0.0  # a query took
    examples: list[str] = dataclasses.field(default_factory=list)  # of what is wrong or faulty

    @property
    def open(self) -> int:
        """Queries that have not come back."""
        ends = (self.answered, self.refused, self.unavailable, self.busy, self.killed, self.faulty)
        return self.asked - sum(ends)

    def fault(self, what: str) -> None:
        """Keep an example of something that must not be."""
        self.faulty += 1
        self.example(what)

    def example(self, what: str) -> None:
        """Keep it, if there are not many already."""
        if len(self.examples) < _MOST_EXAMPLES:
            self.examples.append(what)


class Load:
    """Clients that send requests from `start` to `stop`."""

    def __init__(self, database: Database, dialect: data.Dialect, chance: random.Random, most_tokens: int) -> None:
        self.books = Books()
        self.tokens = Fates(most_tokens)
        self.transfers = Fates(most_tokens)
        self.additions = data.Additions()
        self.running: list[Any] = []  # requests
        self.struck = 0
        self._struck: set[Any] = set()  # requests that were thrown into and run on
        self.refusals: collections.Counter[int | None] = collections.Counter()
        self._database = database
        self._dialect = dialect
        self._chance = chance
        self._clients: list[Any] = []
        self._going = False
        self._flights = SingleFlight()
        kinds: list[tuple[float, Callable[[], None]]] = [
            (40, self._one),
            (5, self._shared),
            (15, self._several),
            (10, self._listed),
            (8, self._insert),
            (5, self._add),
            (4, self._rewrite),
            (6, self._transfer),
            (4, self._gather),
            (0.3, self._slow),
        ]
        if dialect is data.MYSQL:
            kinds.append((5, self._call))
        self._weights, self._kinds = zip(*kinds, strict=True)

    def start(self) -> None:
        """Begin."""
        self._going = True
        self._clients = [gevent.spawn(self._client) for _ in range(CLIENTS)]

    def stop(self) -> None:
        """Let the requests that run come to their ends."""
        self._going = False
        gevent.joinall(self._clients, raise_error=True)
        self._clients = []

    def strike(self, request: Any, kind: type[BaseException]) -> None:
        """Throw into a request, if it still runs; for the hub to call. It must come out again."""
        if request.gr_frame is not None:
            self.struck += 1
            self._struck.add(request)
            request.throw(kind)

    def _client(self) -> None:
        running = self.running
        while self._going:
            (kind,) = self._chance.choices(self._kinds, self._weights)
            request = gevent.spawn(self._request, kind)
            running.append(request)
            request.join()
            running.remove(request)
            failure = request.value
            if request in self._struck:
                self._struck.remove(request)
                self._must_be_a_kill(failure, kind)
            if failure is not None:
                gevent.sleep(_PAUSE_S)

    def _request(self, kind: Callable[[], None]) -> BaseException | None:
        """Run a request; return how it failed."""
        chance = self._chance
        timer = failure = None
        if chance.random() < _IMPATIENT_SHARE:
            own: Any = chance.choice((None, Killed, Gone))
            timer = gevent.Timeout.start_new(chance.uniform(*_IMPATIENT_S), own)
        try:
            kind()
        except (DatabaseUnavailable, PoolTimeout, QueryError, gevent.Timeout, *KILLS) as error:
            failure = error  # counted by `ask`, or killed while nothing was asked
        except Exception as error:  # noqa: BLE001 - whatever it is, it is shown at the end
            failure = error
            self.books.example(traceback.format_exc())
        if timer is not None:
            if not timer.pending:
                self.struck += 1
                self._must_be_a_kill(failure, kind)
            timer.close()
        return failure

    def _must_be_a_kill(self, failure: BaseException | None, kind: Callable[[], None]) -> None:
        """A request that was thrown into ended otherwise: somebody took the exception for something else."""
        if not isinstance(failure, (gevent.Timeout, *KILLS)):
            self.books.swallowed += 1
            self.books.example(
                f"{kind.__name__} was killed, and ended with {failure!r}, from {failure and failure.__cause__!r}"
            )

    def ask(self, query: Callable[..., T], *args: Any, **options: Any) -> T:
        """Run a query and count what becomes of it."""
        books = self.books
        books.asked += 1
        begun_s = monotonic()
        try:
            value = query(*args, **options)
        except PoolTimeout:
            books.busy += 1
            raise
        except DatabaseUnavailable:
            books.unavailable += 1
            raise
        except QueryError as error:
            self.refusals[error.number] += 1
            if error.number in _EXPECTED_REFUSALS:
                books.refused += 1
            else:
                books.fault(traceback.format_exc())
            raise
        except (gevent.Timeout, *KILLS):
            books.killed += 1
            raise
        except BaseException:
            books.fault(traceback.format_exc())
            raise
        finally:
            books.longest_s = max(books.longest_s, monotonic() - begun_s)
        books.answered += 1
        return value

    def _check(self, rows: Sequence[data.Row | None], asked: int, ids: Sequence[int]) -> None:
        books = self.books
        books.rows += len(rows)
        if len(rows) != len(ids):
            books.wrong += 1
            books.example(f"question {asked} for items {ids}: {len(rows)} rows")
        for row, id_ in zip(rows, ids, strict=False):
            if not data.is_right(row, asked, id_):
                books.wrong += 1
                books.example(f"question {asked} for item {id_}: {row!r:.500}")

    def _limits(self) -> dict[str, float]:
        chance = self._chance
        return {"timeout_s": chance.uniform(*_TIMEOUT_S)} if chance.random() < _TIMEOUT_SHARE else {}

    # Requests that read

    def _one(self) -> None:
        id_ = self._chance.randrange(data.ITEMS)
        asked, row = self._read(id_)
        self._check([row], asked, [id_])

    def _shared(self) -> None:
        id_ = self._chance.randrange(_SHARED)
        asked, row = self._flights(id_, partial(self._read, id_))
        self._check([row], asked, [id_])

    def _read(self, id_: int) -> tuple[int, data.Row | None]:
        """An item, and the question's number."""
        asked = self.books.asked
        sql = f"SELECT %s AS asked, {COLUMNS} FROM items WHERE id = %s"
        return asked, self.ask(self._database.fetch_one, sql, (asked, id_), **self._limits())

    def _several(self) -> None:
        asked, first = self.books.asked, self._chance.randrange(data.ITEMS)
        ids = range(first, min(first + self._chance.randrange(1, 40), data.ITEMS))
        sql = f"SELECT %s AS asked, {COLUMNS} FROM items WHERE id >= %s AND id < %s ORDER BY id"
        rows = self.ask(self._database.fetch_all, sql, (asked, ids.start, ids.stop), **self._limits())
        self._check(rows, asked, ids)

    def _listed(self) -> None:
        asked, ids = self.books.asked, sorted(self._chance.sample(range(data.ITEMS), 5))
        sql = f"SELECT %s AS asked, {COLUMNS} FROM items WHERE id IN %s ORDER BY id"
        self._check(self.ask(self._database.fetch_all, sql, (asked, ids)), asked, ids)

    def _call(self) -> None:
        asked, id_ = self.books.asked, self._chance.randrange(data.ITEMS - 1)
        self._check(self.ask(self._database.fetch_all, "CALL two_items(%s, %s)", (asked, id_)), asked, [id_])

    def _gather(self) -> None:
        gather(self._one, self._several, self._one)

    def _slow(self) -> None:
        asked, slow_s = self.books.asked, self._chance.uniform(*_SLOW_S)
        row = self.ask(self._database.fetch_one, self._dialect.slow, (asked, slow_s * self._dialect.units_per_s))
        self.books.rows += 1
        if row is None or row["asked"] != asked:
            self.books.wrong += 1
            self.books.example(f"question {asked}, slow: {row!r}")

    # Requests that change something

    def _insert(self) -> None:
        token = self.tokens.next()
        self.tokens.settle(token, self._changed(self._chance.choice(self._dialect.inserts), (token,)))

    def _add(self) -> None:
        self.additions.unknown += 1
        where = (self._chance.randrange(data.COUNTERS),)
        fate = self._changed("UPDATE counters SET n = n + 1 WHERE id = %s", where)
        if fate != Fates.UNKNOWN:
            self.additions.unknown -= 1
            self.additions.done += fate == Fates.DONE

    def _rewrite(self) -> None:
        id_, *contents = data.item(self._chance.randrange(data.REWRITTEN), self._chance)
        sql = "UPDATE items SET text = %s, data = %s, number = %s, ratio = %s, checked = %s WHERE id = %s"
        self._changed(sql, (*contents, id_))

    def _changed(self, sql: str, params: Sequence[Any]) -> int:
        """Change one row; return what is known of it. Raises what leaves it unknown."""
        try:
            result = self.ask(self._database.execute, sql, params)
        except (DatabaseUnavailable, PoolTimeout, QueryError) as error:
            if not _did_nothing(error):
                raise
            gevent.sleep(_PAUSE_S)
            return Fates.UNDONE
        if result.rowcount != 1:
            self.books.wrong += 1
            self.books.example(f"{sql}: {result}")
        return Fates.DONE

    def _transfer(self) -> None:
        books, transfers = self.books, self.transfers
        books.transactions += 1
        token = transfers.next()
        whole = False
        try:
            with self._database.transaction() as tx:
                self._move(tx, token)
                whole = True
        except BaseException as error:
            if whole and not _did_nothing(error):
                books.unknown += 1
            else:
                books.undone += 1
                transfers.settle(token, Fates.UNDONE)
            raise
        books.committed += 1
        transfers.settle(token, Fates.DONE)

    def _move(self, tx: Any, token: int) -> None:
        chance = self._chance
        amount = chance.randrange(1, 100)
        giver, taker = sorted(chance.sample(range(data.ACCOUNTS), 2))  # one order for all: few deadlocks
        sql = f"SELECT id, balance FROM accounts WHERE id IN %s ORDER BY id{self._dialect.for_update}"
        before = self.ask(tx.fetch_all, sql, ((giver, taker),))
        if [row["id"] for row in before] != [giver, taker]:
            self.books.wrong += 1
            self.books.example(f"accounts {giver}, {taker}: {before}")
        for row, change in zip(before, (-amount, amount), strict=True):
            # The balance as it was read and not as it is, so that a statement outside of its transaction would show.
            self.ask(tx.execute, "UPDATE accounts SET balance = %s WHERE id = %s", (row["balance"] + change, row["id"]))
            line = (token, row["id"], change)
            self.ask(tx.execute, "INSERT INTO ledger (token, account, amount) VALUES (%s, %s, %s)", line)


def _did_nothing(error: BaseException) -> bool:
    """True if the database cannot have done what was asked, by what the error says."""
    lost = error if isinstance(error, ConnectionLost) else error.__cause__
    if isinstance(lost, ConnectionLost):
        return not lost.sent
    return isinstance(error, DatabaseUnavailable | PoolTimeout | QueryError)

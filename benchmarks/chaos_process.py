"""The process of chaos.py that asks: gevent-patched as a worker is, with a database of its own. Prints a JSON object.

The load runs in legs. After each one everybody rests, and what the process, its pool and the server hold is written
down: by then each query must have come back, each connection be in the pool or closed, on both sides.
"""

# ruff: noqa: E402  (nothing may be imported before the patching)
from gevent import monkey

monkey.patch_all()

import dataclasses
import gc
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import gevent
import gevent.util
import greenlet

import tafe
from benchmarks import chaos_data, chaos_harm
from benchmarks.chaos_load import CLIENTS, Load
from benchmarks.measure import say
from tafe.db import Database
from tafe.errors import Unavailable
from tests.services.mariadb import MariaDB

MIN_SIZE, MAX_SIZE = 8, 16  # of the pool: it grows under load, and 64 clients wait for it
ACQUIRE_TIMEOUT_S = 0.3
READ_TIMEOUT_S = 1.0
# So that what was acknowledged outlives SIGKILL: to the kernel at each commit; and no page is half written.
_MARIADB_OPTIONS = ("--innodb-flush-log-at-trx-commit=2", "--innodb-doublewrite=1")
# A query waits for a connection, is found lost, waits again and is asked again; a ping may come before either.
_LONGEST_QUERY_S = 10.0
_SETTLE_S = 15.0  # for the last statements of clients that are gone; the longest one sleeps for 2.5 s
_LEAVE_S = 60.0  # for the last request
_LONGEST_S = 45 * 60.0
_FULL_STRENGTH_S = 0.2  # a query, all at once: longer than it takes to make the connections that are missing
_POLL_S = 0.02
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


@dataclasses.dataclass(frozen=True)
class Sample:
    """What was held when everybody rested."""

    answered: int  # queries until then
    seconds: float
    resident_kib: int
    descriptors: int
    greenlets: int
    open_queries: int
    size: int  # of the pool, from here on
    in_use: int
    waiters: int
    on_server: int | None  # connections; SQLite has no server

    def problems(self, first: "Sample") -> list[str]:
        """What is not as it must be."""
        wanted = {
            "open_queries": 0,
            "size": MAX_SIZE,
            "in_use": 0,
            "waiters": 0,
            "on_server": MAX_SIZE if self.on_server is not None else None,
            "descriptors": first.descriptors,
            "greenlets": min(self.greenlets, first.greenlets),
        }
        found = dataclasses.asdict(self)
        return [
            f"after {self.answered:,} queries: {name} {found[name]}, not {value}"
            for name, value in wanted.items()
            if found[name] != value
        ]


class Arena:
    """A database, a load and its harm."""

    def __init__(self, database: Database, mariadb: MariaDB | None, queries: int, seed: int) -> None:
        self.database = database
        self._admin = chaos_harm.Admin(mariadb) if mariadb is not None else None
        self._dialect = chaos_data.SQLITE if mariadb is None else chaos_data.MYSQL
        self._queries = queries
        self._chance = random.Random(seed)
        # Twice as many queries are asked as answered, at the very most; a sixth of them takes a token.
        self.load = Load(database, self._dialect, self._chance, queries)
        plan = chaos_harm.plan(queries, self._chance) if mariadb is not None else []
        self.harm = chaos_harm.Harm(self.load, self._chance, mariadb, plan)
        self.problems: list[str] = []
        self._begun_s = time.monotonic()

    def fill(self) -> None:
        """Make the tables and their rows."""
        database = self.database
        for sql in chaos_data.tables(self._dialect):
            database.execute(sql)
        if self._dialect is chaos_data.MYSQL:
            database.execute(chaos_data.PROCEDURE)
        marks = ", ".join(["%s"] * len(chaos_data.COLUMNS.split(",")))
        database.execute_many(
            f"INSERT INTO items ({chaos_data.COLUMNS}) VALUES ({marks})", chaos_data.items(self._chance)
        )
        database.execute_many("INSERT INTO counters VALUES (%s, 0)", ((n,) for n in range(chaos_data.COUNTERS)))
        database.execute_many(
            "INSERT INTO accounts VALUES (%s, %s)", ((n, chaos_data.BALANCE) for n in range(chaos_data.ACCOUNTS))
        )

    def leg(self, answered: int) -> None:
        """Load and harm until so many queries are answered; then everybody comes to rest."""
        self.load.start()
        self.harm.start()
        while self.load.books.answered < answered and not self.problems:
            gevent.sleep(_POLL_S)
            if time.monotonic() - self._begun_s > _LONGEST_S:
                self.problems.append(f"{answered:,} queries were not answered within {_LONGEST_S:.0f} s")
        self.harm.stop()
        try:
            with gevent.Timeout(_LEAVE_S):
                self.load.stop()
        except gevent.Timeout:
            self.problems.append(f"requests did not end within {_LEAVE_S:g} s")
            gevent.util.print_run_info(file=sys.stderr)

    def sample(self) -> Sample:
        """Bring the pool to its full size, let both sides settle, and look."""
        _wait(lambda: not (self.database.stats.in_use or self.database.stats.waiters))
        _wait(self._at_full_strength)
        size = self.database.stats.size
        _wait(lambda: self._on_server() in (None, size))
        gc.collect()
        stats = self.database.stats
        return Sample(
            answered=self.load.books.answered,
            seconds=round(time.monotonic() - self._begun_s, 1),
            resident_kib=int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_KIB,
            descriptors=len(os.listdir("/proc/self/fd")),
            greenlets=sum(isinstance(each, greenlet.greenlet) for each in gc.get_objects()),
            open_queries=self.load.books.open,
            size=stats.size,
            in_use=stats.in_use,
            waiters=stats.waiters,
            on_server=self._on_server(),
        )

    def _at_full_strength(self) -> bool:
        """True if as many queries as the pool may have connections ran at once, and none was lost."""
        slow = self._dialect.slow, (0, _FULL_STRENGTH_S * self._dialect.units_per_s)

        def ask() -> None:
            try:
                self.database.fetch_one(*slow)
            except Unavailable:
                pass  # the pool was still growing; another try is made

        asking = [gevent.spawn(ask) for _ in range(MAX_SIZE)]
        reached = False
        while not all(each.dead for each in asking):
            reached = reached or self.database.stats.in_use == MAX_SIZE
            gevent.sleep(0.002)
        stats = self.database.stats
        return reached and stats.size == MAX_SIZE and not stats.in_use

    def _on_server(self) -> int | None:
        if self._admin is None:
            return None
        try:
            return len(self._admin.clients())
        finally:
            self._admin.close()  # its descriptor is not to be counted, and the next restart would end it

    def result(self, samples: list[Sample]) -> dict[str, Any]:
        """All that was seen, and what of it must not be."""
        load, books = self.load, self.load.books
        problems = self.problems + [problem for sample in samples for problem in sample.problems(samples[0])]
        for name in ("wrong", "faulty", "swallowed", "open"):
            if getattr(books, name):
                problems.append(f"queries {name}: {getattr(books, name):,}")
        problems += [f"example: {example}" for example in books.examples]
        if books.transactions != books.committed + books.undone + books.unknown:
            problems.append(f"transactions do not add up: {books}")
        if books.longest_s > _LONGEST_QUERY_S:
            problems.append(f"a query took {books.longest_s:.1f} s")
        ask = self.database.fetch_all
        problems += chaos_data.broken_promises(ask, load.tokens, load.transfers, load.additions)
        return {
            "queries": {**dataclasses.asdict(books), "open": books.open},
            "refusals": {str(number): count for number, count in sorted(load.refusals.items(), key=str)},
            "tokens": _fates(load.tokens),
            "transfers": _fates(load.transfers),
            "additions": dataclasses.asdict(load.additions),
            "harm": {**self.harm.done, "exceptions that reached a request": load.struck},
            "pool": self.database.stats._asdict(),
            "samples": [dataclasses.asdict(sample) for sample in samples],
            "problems": problems,
        }


def _fates(fates: chaos_data.Fates) -> dict[str, int]:
    return {name.lower(): fates.count(getattr(fates, name)) for name in ("DONE", "UNDONE", "UNKNOWN")}


def _wait(condition: Callable[[], bool]) -> None:
    """Until it holds, or for long enough; the sample shows which."""
    deadline_s = time.monotonic() + _SETTLE_S
    while not condition() and time.monotonic() < deadline_s:
        gevent.sleep(_POLL_S)


def _run(arena: Arena, queries: int, legs: int) -> dict[str, Any]:
    errors: list[str] = []
    gevent.get_hub().handle_error = lambda *what: errors.append(f"in the hub: {what!r:.500}")
    arena.database.open()
    arena.fill()
    samples = [arena.sample()]
    for leg in range(1, legs + 1):
        arena.leg(queries * leg // legs)
        samples.append(arena.sample())
        say("  ".join(f"{name} {value}" for name, value in dataclasses.asdict(samples[-1]).items()))
        if arena.problems or samples[-1].problems(samples[0]):
            break  # the other legs would only wait longer for the same
    result = arena.result(samples)
    result["problems"] += errors
    return result


@click.command()
@click.option("--queries", required=True, type=int)
@click.option("--seed", required=True, type=int)
@click.option("--legs", required=True, type=int)
@click.option("--database", "kind", required=True, type=click.Choice(["mariadb", "sqlite"]))
@click.option("--reader", required=True, type=click.Choice(["auto", "fast", "stock"]))
def main(*, queries: int, seed: int, legs: int, kind: str, reader: str) -> None:
    """For chaos.py."""
    this = gevent.getcurrent()
    hub = gevent.get_hub()
    log = logging.getLogger("tafe.db")  # says of each outage and each slow query what the load provoked
    log.addHandler(logging.NullHandler())
    log.propagate = False
    signal.signal(signal.SIGTERM, lambda *_: hub.loop.run_callback(this.throw, SystemExit("SIGTERM")))
    mariadb = None
    with tempfile.TemporaryDirectory(prefix="tafe-chaos-") as folder:
        directory = Path(folder)
        try:
            url = f"sqlite:///{directory / 'chaos.db'}"
            if kind == "mariadb":
                mariadb = MariaDB(directory / "mariadb", directory / "template", options=_MARIADB_OPTIONS)
                mariadb.directory.mkdir()
                mariadb.start()
                url = f"{mariadb.create_database('chaos')}?reader={reader}"
            database = Database.from_url(
                url,
                min_size=MIN_SIZE,
                max_size=MAX_SIZE,
                acquire_timeout_s=ACQUIRE_TIMEOUT_S,
                read_timeout_s=READ_TIMEOUT_S,
            )
            result = _run(Arena(database, mariadb, queries, seed), queries, legs)
            database.close()
        finally:
            if mariadb is not None:
                mariadb.remove()
    settings = {"queries": queries, "seed": seed, "legs": legs, "database": kind, "reader": reader, "clients": CLIENTS}
    print(json.dumps({"settings": settings, "interpreted": tafe.why_interpreted, **result}))


if __name__ == "__main__":
    main()

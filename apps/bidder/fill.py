"""Fills a database for the bidder: `python -m apps.bidder.fill URL` (or scripts/fill).

Makes the tables, puts the invented users and campaigns of population.py in, and writes down last what it has put
in. So a second run sees that there is nothing to do, and one after an interruption starts over. Starting over drops
the bidder's own tables, the recorded wins among them; it happens only to an unfinished fill or when other sizes or
another seed are asked for. Two fills of one database at the same time are not guarded against.
"""

from __future__ import annotations

import logging
import sys
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from apps.bidder import population, schema
from apps.bidder.config import CHECKOUT, Config, default_database_url
from apps.bidder.progress import Progress
from tafe import Database
from tafe.errors import DatabaseUnavailable, QueryError, TafeError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Users a transaction: some 20,000 rows, 300 kB of SQL, far below MySQL's default packet of 16 MiB.
_USERS_A_BATCH = 5_000
_VERSION = 1  # of the schema and the population; a change makes every fill start over


def fill(db: Database, dialect: str, users: int, campaigns: int, seed: int) -> bool:
    """Bring the database to the asked-for contents; False if it has them already. Raises what `Database` raises."""
    contents = f"v{_VERSION} seed {seed}: {users} users, {campaigns} campaigns"
    present = _present_contents(db)
    if present == contents:
        return False
    if present:
        click.echo(f"the database has {present}; filling it again")
    for statement in (*schema.drop_statements(), *schema.create_statements(dialect)):
        db.execute(statement)
    rows = population.campaigns(campaigns, seed)
    _insert(db, {"campaigns": rows, "creatives": population.creatives(rows, seed)})
    _insert_users(db, users, seed)
    for statement in schema.INDEXES:
        db.execute(statement)
    _insert(db, {"fill_state": [(contents,)]})
    return True


def _present_contents(db: Database) -> str:
    """What a complete fill wrote down; empty if there is none."""
    try:
        row = db.fetch_one("SELECT contents FROM fill_state")
    except QueryError:  # no such table; a lost connection is another error
        return ""
    return str(row["contents"]) if row else ""


def _insert_users(db: Database, users: int, seed: int) -> None:
    progress = Progress("users", users, sys.stdout)
    source, done = population.user_segments(users, seed), 0
    while batch := list(islice(source, _USERS_A_BATCH)):
        links = [(user, segment) for user, segments in batch for segment in segments]
        _insert(db, {"users": [(user,) for user, _ in batch], "user_segments": links})
        done += len(batch)
        progress.update(done)


def _insert(db: Database, tables: dict[str, Sequence[tuple[Any, ...]]]) -> None:
    """Put rows into tables, in one transaction."""
    with db.transaction() as tx:
        for table, rows in tables.items():
            if rows:
                markers = ", ".join("%s" for _ in rows[0])
                tx.execute_many(f"INSERT INTO {table} VALUES ({markers})", rows)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("url", required=False)
@click.option("--users", type=click.IntRange(1, 10_000_000), default=100_000, show_default=True)
@click.option("--campaigns", type=click.IntRange(1, 100_000), default=1_000, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="the same seed gives the same contents")
def main(url: str | None, users: int, campaigns: int, seed: int) -> None:
    """Fill the database at URL (mysql:// or sqlite:///) with invented users and campaigns.

    Without URL: BIDDER_DATABASE_URL, or else a SQLite file in the checkout's .run folder. Contents that are
    complete are left alone; anything else in the bidder's tables is replaced.
    """
    url = url or Config.from_environ().database_url
    if url == default_database_url():
        (CHECKOUT / ".run").mkdir(exist_ok=True)
    logging.getLogger("tafe").addHandler(logging.NullHandler())  # what goes wrong is said once, below
    began_s = time.monotonic()
    try:
        db = Database.from_url(url, min_size=1, max_size=1)
        filled = fill(db, schema.dialect(url), users, campaigns, seed)
        db.close()
    except DatabaseUnavailable as error:
        click.echo(f"fill: the database cannot be reached: {error}", err=True)
        sys.exit(1)
    except TafeError as error:
        click.echo(f"fill: {error}", err=True)
        sys.exit(getattr(error, "exit_status", 1))
    took_s = time.monotonic() - began_s
    click.echo(
        f"{users:,} users and {campaigns:,} campaigns put in, in {took_s:.1f} s"
        if filled
        else f"already there: {users:,} users and {campaigns:,} campaigns"
    )
    if url != default_database_url():
        click.echo("next: BIDDER_DATABASE_URL=<the same URL> tafe serve apps.bidder:app --workers 2")


if __name__ == "__main__":
    main()

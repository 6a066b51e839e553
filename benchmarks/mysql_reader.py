"""What PyMySQL's connection and ours cost a query, in instructions: one row, and 100 rows of 10 columns.

    python -m benchmarks.mysql_reader                starts a MariaDB of its own, counts under valgrind, prints a table
    python -m benchmarks.mysql_reader --only fast    one of: stock, fast, database

`stock` and `fast` are `pymysql.connections.Connection` and `tafe.db.fast.Connection` under a `DictCursor`, as in
plain_wsgi.py, in a process that gevent has patched; `database` is `tafe.Database.fetch_all`. One greenlet asks, so
each answer is waited for on the hub: two switches, a turn of the loop and its system calls are in the figure; what
the kernel and the database do is not. (2 N queries - N queries) / N, so start and login are not in it either.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers import contract

READERS = ("stock", "fast", "database")
SHAPES = {"one row": contract.QUERY, "100 x 10": "SELECT * FROM wide WHERE id <= 100"}
COUNTED = {"one row": 1000, "100 x 10": 60}  # queries under valgrind: some seconds each
WARM_UP = 100  # queries until the interpreter has specialised its bytecode
PATIENCE_S = 60.0  # under valgrind a login takes a second, and nothing of it is to be counted as slow
_WIDE = (
    "CREATE TABLE wide (id INT PRIMARY KEY, customer BIGINT, price DECIMAL(10,2), score DOUBLE, active TINYINT, "
    "name VARCHAR(40), email VARCHAR(80), note TEXT, made DATETIME, born DATE)"
)
_FILL = (
    "INSERT INTO wide SELECT seq, seq * 1000003, seq * 1.25, seq / 7, MOD(seq, 2), CONCAT('name ', seq), "
    "CONCAT('user', seq, '@example.org'), REPEAT('note ', 8), '2026-01-01' + INTERVAL seq MINUTE, "
    "'1980-01-01' + INTERVAL seq DAY FROM seq_1_to_200"
)


def asker(reader: str, sql: str) -> Callable[[], Any]:
    """A call that runs the query once and returns its rows."""
    params = (7,) if "%s" in sql else ()
    if reader == "database":
        from tafe.db import Database

        database = Database.from_url(
            os.environ[contract.DATABASE_URL_VARIABLE],
            min_size=1,
            max_size=1,
            connect_timeout_s=PATIENCE_S,
            read_timeout_s=PATIENCE_S,
            slow_query_s=PATIENCE_S,
        )
        database.open()
        return lambda: database.fetch_all(sql, params)

    import pymysql.connections

    from benchmarks.peers.connections import connect
    from tafe.db import fast

    kind = pymysql.connections.Connection if reader == "stock" else fast.Connection
    target = contract.database()
    assert target is not None
    connection = connect(target, kind, read_timeout=10)

    def ask() -> Any:
        with connection.cursor() as cursor:
            cursor.execute(sql, params)
            return cursor.fetchall()

    return ask


def run(reader: str, shape: str, queries: int) -> None:
    """Nothing but the queries."""
    from gevent import monkey

    monkey.patch_all()
    ask = asker(reader, SHAPES[shape])
    for _ in range(WARM_UP + queries):
        ask()
    os._exit(0)  # the end of the interpreter is not to be counted


def instructions(reader: str, shape: str) -> float:
    """What a query executes in user space, by valgrind."""
    counted = []
    queries = COUNTED[shape]
    for number in (queries, 2 * queries):
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable]
        printed = subprocess.run(
            [*command, "-m", "benchmarks.mysql_reader", "--count", reader, shape, str(number)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        found = re.search(r"Collected : (\d+)", printed.stderr)
        if found is None:
            raise SystemExit(f"valgrind said something unexpected:\n{printed.stderr}")
        counted.append(int(found[1]))
    return (counted[1] - counted[0]) / queries


def table(readers: tuple[str, ...]) -> None:
    """Count and print."""
    print(f"{'instructions a query':<22}" + "".join(f"{shape:>14}" for shape in SHAPES))
    for reader in readers:
        print(f"{reader:<22}" + "".join(f"{instructions(reader, shape):>14,.0f}" for shape in SHAPES), flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=READERS, action="append")
    parser.add_argument("--count", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.count:
        reader, shape, queries = given.count
        run(reader, shape, int(queries))
    from tests.services.mariadb import MariaDB

    with tempfile.TemporaryDirectory(prefix="tafe-bench-") as folder:
        mariadb = MariaDB(Path(folder) / "mariadb", Path(folder) / "mariadb-template")
        mariadb.directory.mkdir()
        try:
            mariadb.start()
            url = mariadb.create_database("bench")
            mariadb.query("CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(64) NOT NULL)", database="bench")
            mariadb.query("INSERT INTO users SELECT seq, CONCAT('user ', seq) FROM seq_1_to_1000", database="bench")
            mariadb.query(_WIDE, database="bench")
            mariadb.query(_FILL, database="bench")
            os.environ[contract.DATABASE_URL_VARIABLE] = url
            table(tuple(given.only or READERS))
        finally:
            mariadb.remove()


if __name__ == "__main__":
    main()

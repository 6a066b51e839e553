"""What PyMySQL's connection and ours cost a query, in instructions: one row, and 100 rows of 10 columns.

    benchmarks/run --sections reader                 starts a MariaDB of its own, counts under valgrind
    python -m benchmarks.mysql_reader                the same, and prints it only
    python -m benchmarks.mysql_reader --only fast    one of: stock, fast, database

`stock` and `fast` are `pymysql.connections.Connection` and `tafe.db.fast.Connection` under a `DictCursor`, as in
plain_wsgi.py, in a process that gevent has patched; `database` is `tafe.Database.fetch_all`. One greenlet asks, so
each answer is waited for on the hub: two switches, a turn of the loop and its system calls are in the figure; what
the kernel and the database do is not. Counting begins after a warm-up, so start and login are not in it either.
What we hold ourselves to: 100 rows of 10 columns at most half of what PyMySQL's connection takes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import bounds, counters, database, environment
from benchmarks.peers import contract

NAMES = {
    "stock": "PyMySQL's connection",
    "fast": "ours, with PyMySQL's cursor",
    "database": "tafe.Database.fetch_all",
}
READERS = tuple(NAMES)
BOUND_SHAPE, BOUND = "100 x 10", 0.5
QUICK = {"readers": ("stock", "fast"), "shapes": (BOUND_SHAPE,)}
SHAPES = {"one row": contract.QUERY, "100 x 10": "SELECT * FROM wide WHERE id <= 100"}
COUNTED = {"one row": 1000, "100 x 10": 20}  # queries under valgrind: some seconds each
WARM_UP = {"one row": 100, "100 x 10": 4}  # until the interpreter has specialised its bytecode, of rows too
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


def ask_often(reader: str, shape: str) -> None:
    """Warm up, then ask each time a line comes in; a line goes out when that is done."""
    from gevent import monkey

    monkey.patch_all()
    ask = asker(reader, SHAPES[shape])
    queries = WARM_UP[shape]
    while True:
        for _ in range(queries):
            ask()
        print("done", flush=True)
        if not sys.stdin.readline():
            return
        queries = COUNTED[shape]


def instructions(reader: str, shape: str, url: str) -> float:
    """What a query executes in user space, by valgrind."""
    environ = {**environment.clean_environment(), "PYTHONHASHSEED": "0", contract.DATABASE_URL_VARIABLE: url}
    with tempfile.TemporaryDirectory(prefix="tafe-bench-") as folder:
        callgrind = counters.Callgrind(Path(folder), main_thread_only=True)
        command = callgrind.wrap([sys.executable, "-m", "benchmarks.mysql_reader", "--count", reader, shape])
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=environment.ROOT, env=environ
        ) as asking:
            _await(asking)
            callgrind.begin([asking.pid])
            _go_on(asking)  # callgrind sees everything for the first time now
            _await(asking)
            callgrind.take([asking.pid])
            _go_on(asking)
            _await(asking)
            counted = callgrind.take([asking.pid])
            asking.communicate()
    return counted / COUNTED[shape]


def _go_on(asking: subprocess.Popen[str]) -> None:
    assert asking.stdin is not None
    asking.stdin.write("\n")
    asking.stdin.flush()


def _await(asking: subprocess.Popen[str]) -> None:
    assert asking.stdout is not None
    if asking.stdout.readline() != "done\n":
        raise RuntimeError(f"the process that asks ended by itself, with status {asking.wait()}")


def verdict(readers: Mapping[str, Mapping[str, float]]) -> dict[str, Any] | None:
    """Our connection's share of PyMySQL's instructions against the bound; None where either was not counted."""
    counted = [readers.get(reader, {}).get(BOUND_SHAPE) for reader in ("fast", "stock")]
    if counted[0] is None or counted[1] is None:
        return None
    share = counted[0] / counted[1]
    word = bounds.MET_IN_USER_MODE if share <= BOUND else bounds.MISSED_IN_USER_MODE
    return {"shape": BOUND_SHAPE, "limit": BOUND, "figure": round(share, 3), "verdict": word}


def run(
    cores: tuple[int, int], *, readers: Sequence[str] = READERS, shapes: Sequence[str] = tuple(SHAPES)
) -> dict[str, Any]:
    """Count every reader on every shape. `cores` are not told apart: nothing here is a time."""
    del cores
    if not counters.callgrind_is_here():
        raise RuntimeError("valgrind is not installed; try: apt-get install valgrind")
    counted: dict[str, dict[str, int]] = {}
    with _filled() as url:
        for reader in readers:
            counted[reader] = {}
            for shape in shapes:
                counted[reader][shape] = round(instructions(reader, shape, url))
                print(f"{reader:<10} {shape:<10} {counted[reader][shape]:>12,}", file=sys.stderr, flush=True)
    return {"readers": counted, "bound": verdict(counted), "interpreted": environment.interpreted()}


def table(result: Mapping[str, Any]) -> str:
    """The result for a reader: markdown."""
    readers: Mapping[str, Mapping[str, int]] = result["readers"]
    shapes = list(next(iter(readers.values())))
    lines = [
        f"| user instructions a query | {' | '.join(shapes)} |",
        "| --- |" + " ---: |" * len(shapes),
        *(f"| {NAMES[name]} | {' | '.join(f'{of[shape]:,}' for shape in shapes)} |" for name, of in readers.items()),
    ]
    bound = result["bound"]
    if bound is not None:
        reached = f"{bound['shape']}: ours takes {bound['figure']:.0%} of PyMySQL's own"
        lines += ["", f"{reached}; bound: at most {bound['limit']:.0%}; {bound['verdict']}."]
    return "\n".join(lines)


@contextmanager
def _filled() -> Iterator[str]:
    """A database with both tables; its URL."""
    with tempfile.TemporaryDirectory(prefix="tafe-bench-") as folder, database.filled(Path(folder)) as url:
        from benchmarks.peers.connections import connect  # PyMySQL, which `ask_often` imports patched

        connection = connect(contract.parsed(url))
        with connection.cursor() as cursor:
            cursor.execute(_WIDE)
            cursor.execute(_FILL)
        connection.close()
        yield url


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=READERS, action="append")
    parser.add_argument("--count", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.count:
        ask_often(*given.count)
        return
    print(table(run((0, 0), readers=given.only or READERS)))


if __name__ == "__main__":
    main()

"""SQLite's threads: they never hold up the hub, take turns, and are waited for however late they come back."""

from __future__ import annotations

import _thread
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import gevent
import pytest

from tafe.db import native, sqlite
from tafe.errors import DatabaseUnavailable, PoolTimeout, QueryTimeout
from tests.db.settling import settled
from tests.db.sqlite_inside import ENDLESS, connection_of, native_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from tafe.db import Database


@pytest.fixture
def database(sqlite_url: str, connect: Callable[..., Database]) -> Database:
    return connect(sqlite_url, min_size=1, max_size=2)


def test_the_hub_runs_while_a_statement_does(sqlite_url: str, connect: Callable[..., Database]) -> None:
    database = connect(sqlite_url, read_timeout_s=0.2)
    ticks = []

    def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            gevent.sleep(0.005)

    ticker = gevent.spawn(tick)
    with pytest.raises(QueryTimeout, match=r"no answer within read_timeout_s=0\.2"):
        database.fetch_one(ENDLESS)
    ticker.kill()
    assert len(ticks) > 10


def test_long_results_let_short_ones_in_between(
    sqlite_url: str, connect: Callable[..., Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_TURN_S", 60.0)  # turns end only as batches do
    database = connect(sqlite_url, min_size=2, max_size=2)
    database.open()
    order: list[str] = []
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i FROM n"
    long = gevent.spawn(lambda: order.append(f"long {len(database.fetch_all(f'SELECT * FROM ({many})'))}"))
    gevent.idle()
    short = gevent.spawn(lambda: order.append(f"short {database.fetch_all('SELECT 1 AS a')}"))
    gevent.joinall([long, short], raise_error=True)
    assert order == ["short [{'a': 1}]", "long 5000"]


def test_a_statement_that_gets_no_turn_in_time_is_not_run(
    sqlite_url: str, connect: Callable[..., Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_TURN_S", 60.0)
    database = connect(sqlite_url, min_size=2, max_size=2)
    database.open()
    endless = gevent.spawn(database.fetch_one, f"SELECT * FROM ({ENDLESS})", timeout_s=0.3)
    gevent.idle()
    with pytest.raises(QueryTimeout, match=r"no answer within timeout_s=0\.02"):
        database.fetch_one("SELECT 1 AS a", timeout_s=0.02)
    with pytest.raises(QueryTimeout):
        endless.get()
    assert database.fetch_one("SELECT 1 AS a") == {"a": 1}
    assert (database.stats.discarded, database.stats.created) == (0, 2)


def test_a_result_whose_rest_gets_no_turn_in_time_leaves_no_statement_open(
    sqlite_url: str, connect: Callable[..., Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_TURN_S", 60.0)
    database = connect(sqlite_url, min_size=2, max_size=2)
    database.open()
    many = f"SELECT value FROM json_each('[{', '.join('1' * 1000)}]')"
    first = gevent.spawn(database.fetch_all, many, timeout_s=0.1)
    gevent.idle()
    endless = gevent.spawn(database.fetch_one, f"SELECT * FROM ({ENDLESS})", timeout_s=0.4)
    with pytest.raises(QueryTimeout, match=r"timeout_s=0\.1"):
        first.get()
    assert connection_of(database)._file._cursor is None
    with pytest.raises(QueryTimeout, match=r"timeout_s=0\.4"):
        endless.get()
    assert len(database.fetch_all(many)) == 1000
    assert (database.stats.discarded, database.stats.created) == (0, 2)


class Hang:
    """A SQL function that hangs as a file system may: no interrupt reaches it."""

    def __init__(self, database: Database) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()
        raw = connection_of(database)._file._raw
        raw.create_function("hang", 0, lambda: self._lock.acquire() and self._lock.release())

    def end(self) -> None:
        self._lock.release()


def test_a_thread_that_does_not_come_back_keeps_its_place_in_the_pool_until_it_does(
    sqlite_url: str,
    connect: Callable[..., Database],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sqlite, "_STUCK_S", 0.03)
    monkeypatch.setattr(sqlite, "_LEAVE_S", 0.03)
    database = connect(sqlite_url, min_size=1, max_size=1, acquire_timeout_s=0.1)
    database.open()
    hang = Hang(database)
    with pytest.raises(DatabaseUnavailable, match="no answer within timeout_s") as caught:
        database.fetch_one("SELECT hang()", timeout_s=0.02)
    assert not isinstance(caught.value, QueryTimeout)
    for _ in range(2):
        with pytest.raises(PoolTimeout):
            database.fetch_one("SELECT 1 AS a")
    assert (database.stats.size, database.stats.in_use, database.stats.created) == (1, 1, 1)
    told = [record.getMessage() for record in caplog.records if "does not end" in record.getMessage()]
    assert len(told) == 1
    assert "database test" in told[0]
    hang.end()
    settled(database)
    assert database.fetch_one("SELECT 1 AS a") == {"a": 1}
    assert (database.stats.size, database.stats.discarded, database.stats.created) == (1, 1, 2)


def test_a_file_that_hangs_when_it_is_opened_is_not_opened_again_until_it_does_not(
    sqlite_url: str, connect: Callable[..., Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    lock = _thread.allocate_lock()
    lock.acquire()
    really = sqlite.File.open

    def slowly(*args: Any) -> Any:
        opened.append("begun")
        with lock:
            file = really(*args)
        opened.append("done")
        return file

    monkeypatch.setattr(sqlite.File, "open", slowly)
    database = connect(sqlite_url, min_size=1, max_size=2, connect_timeout_s=0.02)
    with pytest.raises(DatabaseUnavailable, match=r"did not open within connect_timeout_s=0\.02"):
        database.open()
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable, match="hangs: 1 earlier attempts to open it go on"):
            database.open()
    assert opened == ["begun"]
    lock.release()
    with gevent.Timeout(5):
        while not database.ready:
            gevent.sleep(0.01)  # the pool tries again by itself
    assert database.fetch_one("SELECT 1 AS a") == {"a": 1}


def test_a_connection_closed_while_it_is_in_use_finishes_its_statement_and_its_thread_ends(
    sqlite_url: str, connect: Callable[..., Database]
) -> None:
    before = native_threads()
    database = connect(sqlite_url, min_size=2, max_size=2)
    database.open()
    busy = gevent.spawn(database.fetch_all, f"SELECT * FROM ({ENDLESS})", timeout_s=0.1)
    gevent.idle()
    assert len(native_threads() - before) == 2
    database.close()
    with pytest.raises(QueryTimeout):
        busy.get()
    with gevent.Timeout(5):
        while native_threads() - before:
            gevent.sleep(0.002)
    assert database.stats.size == 0


def test_rows_stay_right_and_every_thread_comes_back_when_requests_are_killed_anywhere(
    sqlite_url: str, connect: Callable[..., Database]
) -> None:
    before = native_threads()
    database = connect(sqlite_url, min_size=1, max_size=4, acquire_timeout_s=5)
    database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, square INTEGER)")
    database.execute_many("INSERT INTO t VALUES (%s, %s)", ((n, n * n) for n in range(600)))
    draw = random.Random(11)
    answered = 0

    def ask(first: int, rows: int) -> None:
        nonlocal answered
        found = database.fetch_all("SELECT id, square FROM t WHERE id >= %s ORDER BY id LIMIT %s", (first, rows))
        assert found == [{"id": n, "square": n * n} for n in range(first, min(600, first + rows))]
        answered += 1

    for _ in range(60):
        asking = [gevent.spawn(ask, draw.randrange(600), draw.choice([1, 10, 256, 400])) for _ in range(8)]
        for victim in draw.sample(asking, 3):
            gevent.sleep(draw.choice([0, 0.0003]))
            victim.kill(block=False)
        gevent.joinall(asking, raise_error=True)
    settled(database)
    assert answered >= 60 * 5
    assert database.stats.discarded > 0
    with gevent.Timeout(5):
        while len(native_threads() - before) != database.stats.size:
            gevent.sleep(0.002)


FORKS = """
import os, sys
from gevent import monkey; monkey.patch_all()
from tafe.db import Database
database = Database.from_url(sys.argv[1], min_size=2, max_size=2)
database.open()
database.execute("CREATE TABLE t (a INTEGER)")
child = os.fork()
if child:
    waitpid = monkey.get_original("os", "waitpid")  # gevent's may wait for ever: it has missed the signal
    status = os.waitstatus_to_exitcode(waitpid(child, 0)[1])
    database.execute("INSERT INTO t VALUES (2)")
    print(status, [row["a"] for row in database.fetch_all("SELECT a FROM t")], database.stats.created)
else:
    assert database.execute("INSERT INTO t VALUES (1)").rowcount == 1
    assert database.fetch_all("SELECT a FROM t") == [{"a": 1}]
    assert database.stats.discarded == 2 and database.stats.in_use == 0, database.stats
    database.close()
"""


def test_a_forked_child_makes_connections_of_its_own_and_leaves_its_parents_alone(sqlite_url: str) -> None:
    argv = [sys.executable, "-W", "error", "-c", FORKS, sqlite_url]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert (done.stdout, done.stderr) == ("0 [1, 2] 2\n", "")


def test_a_process_ends_at_once_although_a_statement_runs(sqlite_url: str) -> None:
    program = (
        "import sys, gevent; from tafe.db import Database; database = Database.from_url(sys.argv[1])\n"
        f"asking = gevent.spawn(database.fetch_one, '{ENDLESS}', timeout_s=60)\n"
        "gevent.sleep(0.1); print(database.stats.in_use)"
    )
    argv = [sys.executable, "-W", "error", "-c", program, sqlite_url]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_a_greenlet_killed_in_mid_statement_frees_its_slot_only_when_the_thread_has_left(
    database: Database,
) -> None:
    greenlet = gevent.spawn(database.fetch_one, ENDLESS)
    while not database.stats.in_use:
        gevent.sleep(0.001)
    gevent.sleep(0.02)
    greenlet.kill()
    assert database.stats.in_use == 1  # the thread may still be in it
    settled(database)
    assert database.stats.discarded == 1
    assert database.fetch_one("SELECT 2 AS a") == {"a": 2}


def test_a_connection_that_is_given_up_keeps_its_place_until_it_is_closed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing, may_close = [], _thread.allocate_lock()
    may_close.acquire()
    really = sqlite.File.close

    def slowly(file: sqlite.File) -> None:
        closing.append(file)
        with may_close:
            really(file)

    monkeypatch.setattr(sqlite.File, "close", slowly)
    greenlet = gevent.spawn(database.fetch_one, ENDLESS)
    while not database.stats.in_use:
        gevent.sleep(0.001)
    greenlet.kill()
    with gevent.Timeout(5):
        while not closing:
            gevent.sleep(0.001)
    gevent.sleep(0.002)  # a turn or two of the loop, in which it might be taken for gone
    assert database.stats.in_use == 1
    may_close.release()
    settled(database)


def test_a_killed_transaction_is_rolled_back_and_its_lock_released(database: Database) -> None:
    database.execute("CREATE TABLE t (a INTEGER)")

    def change() -> None:
        with database.transaction() as tx:
            tx.execute("INSERT INTO t VALUES (1)")
            tx.fetch_one(ENDLESS)

    greenlet = gevent.spawn(change)
    while not database.stats.in_use:
        gevent.sleep(0.001)
    gevent.sleep(0.05)
    greenlet.kill()
    settled(database)
    assert database.execute("INSERT INTO t VALUES (2)").rowcount == 1
    assert database.fetch_all("SELECT a FROM t") == [{"a": 2}]

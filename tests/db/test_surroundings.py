"""What goes on around a statement does not change its meaning: errors being handled, logging, forks, other threads."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import gevent
import pytest
from gevent.server import StreamServer

from tafe.errors import DatabaseUnavailable, IntegrityError, QueryError, QueryTimeout
from tests.db import protocol
from tests.db.fake_server import FakeServer, done, refused
from tests.db.settling import settled
from tests.db.sqlite_inside import ENDLESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tafe.db import Database

READERS = pytest.mark.parametrize("reader", ["fast", "stock"])
_OPEN_TRANSACTION = protocol.packets([protocol.ok(status=3)])  # autocommit, in a transaction


@pytest.fixture
def start_fake(cooperative: None) -> Iterator[Callable[..., FakeServer]]:
    made: list[FakeServer] = []

    def start(answer: Callable[[str], bytes | None]) -> FakeServer:
        made.append(FakeServer(answer))
        return made[-1]

    yield start
    for server in made:
        server.close()


# The application's own errors


@READERS
def test_a_statement_asked_while_a_timeout_is_handled_fails_for_its_own_reason(
    mysql_url: str, reader: str, connect: Callable[..., Database]
) -> None:
    database = connect(f"{mysql_url}?reader={reader}", min_size=1, max_size=1)
    database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    database.execute("INSERT INTO t VALUES (1)")
    try:
        raise TimeoutError("something else took too long")
    except TimeoutError:
        with pytest.raises(IntegrityError):
            database.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(QueryError):
            database.fetch_one("SELECT nonsense")
    assert (database.stats.timed_out, database.stats.discarded) == (0, 0)


def test_a_connection_lost_while_a_timeout_is_handled_is_not_taken_for_late(
    start_fake: Callable[..., FakeServer], connect: Callable[..., Database]
) -> None:
    database = connect(start_fake(lambda text: done() if text.startswith("SET") else refused(1927)).url)
    try:
        raise TimeoutError("something else took too long")
    except TimeoutError:
        with pytest.raises(DatabaseUnavailable) as caught:
            database.execute("UPDATE t SET a = 1")
    assert not isinstance(caught.value, QueryTimeout)
    assert (database.stats.timed_out, database.stats.lost) == (0, 1)


@pytest.mark.parametrize("kind", [QueryError, DatabaseUnavailable])
def test_an_error_of_ours_thrown_into_a_query_does_not_lend_its_connection_while_its_thread_runs(
    sqlite_url: str, connect: Callable[..., Database], kind: type[Exception]
) -> None:
    database = connect(sqlite_url, min_size=1, max_size=1, read_timeout_s=10)
    database.open()
    with pytest.raises(kind, match="thrown"), gevent.Timeout(0.02, kind("thrown")):
        database.fetch_one(ENDLESS)
    settled(database)
    assert database.stats.discarded == 1


def test_an_error_thrown_into_a_transactions_query_and_caught_undoes_the_transaction(
    sqlite_url: str, connect: Callable[..., Database]
) -> None:
    database = connect(sqlite_url, min_size=1, max_size=1, read_timeout_s=10)
    database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")

    def change() -> None:
        with database.transaction() as tx:
            tx.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(QueryError, match="thrown"), gevent.Timeout(0.02, QueryError("thrown")):
                tx.fetch_one(ENDLESS)
            tx.execute("INSERT INTO t VALUES (2)")

    with pytest.raises(DatabaseUnavailable, match="given up while it ran"):
        change()
    assert database.fetch_all("SELECT id FROM t") == []


# What the server does to a transaction


@READERS
@pytest.mark.parametrize("number", [1020, 1205])
@pytest.mark.parametrize("undone", [True, False], ids=["undone", "open"])
def test_an_error_that_may_have_undone_the_transaction_lets_nothing_be_done_outside_of_it(
    start_fake: Callable[..., FakeServer],
    connect: Callable[..., Database],
    reader: str,
    number: int,
    undone: bool,
) -> None:
    answers = {"BEGIN": _OPEN_TRANSACTION, "UPDATE t": refused(number), "DO 0": done() if undone else _OPEN_TRANSACTION}
    server = start_fake(lambda text: answers.get(text, _OPEN_TRANSACTION if text == "INSERT t" else done()))
    database = connect(f"{server.url}?reader={reader}")

    def change() -> None:
        with database.transaction() as tx:
            with pytest.raises(QueryError, match=str(number)):
                tx.execute("UPDATE t")
            tx.execute("INSERT t")

    if undone:
        with pytest.raises(QueryError, match="the transaction is not open"):
            change()
        assert "INSERT t" not in server.statements
    else:
        change()
        assert server.statements[-2:] == ["INSERT t", "COMMIT"]
    assert database.stats.discarded == 0


def test_a_server_that_does_not_say_whether_the_transaction_is_open_loses_its_connection(
    start_fake: Callable[..., FakeServer], connect: Callable[..., Database]
) -> None:
    answers = {"BEGIN": _OPEN_TRANSACTION, "UPDATE t": refused(1205), "DO 0": refused(1064)}
    server = start_fake(lambda text: answers.get(text, done()))
    database = connect(server.url)

    def change() -> None:
        with database.transaction() as tx:
            with pytest.raises(QueryError, match="1205"):
                tx.execute("UPDATE t")
            tx.execute("INSERT t")

    with pytest.raises(DatabaseUnavailable):
        change()
    assert "INSERT t" not in server.statements


# Time


@READERS
def test_a_long_statement_that_the_server_does_not_take_is_given_up_after_its_own_time(
    start_fake: Callable[..., FakeServer], connect: Callable[..., Database], reader: str
) -> None:
    server = start_fake(lambda _text: done())
    database = connect(f"{server.url}?reader={reader}", min_size=1, connect_timeout_s=30, read_timeout_s=0.1)
    database.open()
    connection: Any = database._source.pool._idle[0]
    # As a server that is stopped: nobody reads what is sent.
    deaf = StreamServer(("127.0.0.1", 0), lambda _client, _address: gevent.sleep(60))
    deaf.start()
    there = gevent.socket.create_connection(deaf.address)
    connection._wire._channel = None
    connection._wire._sock, known = there, connection._wire._sock
    try:
        with gevent.Timeout(10), pytest.raises(QueryTimeout, match=r"read_timeout_s=0\.1"):
            database.fetch_one("SELECT %s", ("x" * 16_000_000,))
    finally:
        known.close()
        there.close()
        deaf.stop()


# Logging


def test_a_greenlet_stopped_while_the_log_waits_gives_its_connection_back(
    any_url: str, connect: Callable[..., Database]
) -> None:
    database = connect(any_url, min_size=1, max_size=1, slow_query_s=0.001)
    database.open()
    database._source.slow_query_s = 0.0  # every statement is slow
    waits = gevent.event.Event()

    class Waits(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            waits.set()
            gevent.sleep(60)

    handler = Waits()
    log = logging.getLogger("tafe.db")
    log.addHandler(handler)
    try:
        asking = gevent.spawn(database.fetch_one, "SELECT 1 AS a")
        waits.wait()
        asking.kill()
    finally:
        log.removeHandler(handler)
    assert database.fetch_one("SELECT 2 AS a") == {"a": 2}
    assert (database.stats.in_use, database.stats.created) == (0, 1)


# Processes, threads, and closing

FORKS = """
import sys, os
from gevent import monkey
monkey.patch_all()
from tafe.db import Database
database = Database.from_url(sys.argv[1], min_size=2, max_size=2)
database.open()
before = [connection._number for connection in database._source.pool._idle]
child = os.fork()
for number in range(100):
    assert database.fetch_one("SELECT %s AS number, %s AS process", (number, os.getpid())) == {
        "number": number, "process": os.getpid()
    }
assert database.execute("DO 0").rowcount == 0
now = database.fetch_one("SELECT CONNECTION_ID() AS id")["id"]
if child:
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, now in before, database.stats.created, database.stats.discarded)
else:
    assert now not in before and database.stats.in_use == 0, database.stats
    os._exit(0)
"""


@READERS
def test_a_forked_child_asks_on_connections_of_its_own_and_leaves_its_parents_alone(
    mysql_url: str, reader: str
) -> None:
    argv = [sys.executable, "-W", "error", "-c", FORKS, f"{mysql_url}?reader={reader}"]
    done_ = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert (done_.stdout, done_.stderr) == ("0 True 2 0\n", "")


def test_a_database_that_was_closed_can_be_opened_by_another_thread(
    any_url: str, connect: Callable[..., Database]
) -> None:
    database = connect(any_url, min_size=1)
    database.open()
    database.close()
    found: list[object] = []

    def use() -> None:
        try:
            database.open()
            found.append(database.fetch_one("SELECT 1 AS a"))
        except Exception as error:
            found.append(error)
        finally:
            database.close()
            gevent.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(10)
    assert found == [{"a": 1}]


def test_a_database_opened_again_while_it_still_closes_serves(
    sqlite_url: str, connect: Callable[..., Database]
) -> None:
    database = connect(sqlite_url, min_size=1, max_size=1)
    database.open()
    closing = gevent.spawn(database.close)
    gevent.sleep(0)  # it waits for the connection's thread
    opening = gevent.spawn(database.open)
    asking = [gevent.spawn(database.fetch_one, "SELECT 1 AS a") for _ in range(3)]
    gevent.joinall([closing, opening, *asking], timeout=5)
    assert [one.value for one in asking] == [{"a": 1}] * 3

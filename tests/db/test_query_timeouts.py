"""Statements that take too long: who ends them, what stays of their connection, and that the server is rid of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import gevent
import pytest

from tafe.db.mysql import MySQLDriver
from tafe.errors import DatabaseUnavailable, QueryError, QueryTimeout
from tests.db.fake_server import FakeServer, done, refused, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tafe.db import Database
    from tafe.db.killer import Killer
    from tests.services.mariadb import MariaDB

READERS = pytest.mark.parametrize("reader", ["fast", "stock"])
# Nothing that would notice that the client is gone, as SLEEP does; some minutes.
BUSY = "BENCHMARK(1000000000, MD5('x'))"
LOOP = "CREATE PROCEDURE work_often() BEGIN FOR i IN 1..1000 DO DO BENCHMARK(50000, MD5('x')); END FOR; END"


@pytest.fixture
def database(mysql_url: str, connect: Callable[..., Database]) -> Database:
    """One connection, whose statements may take 0.2 s, and a table of ten rows."""
    made = connect(mysql_url, min_size=1, max_size=1, read_timeout_s=0.2)
    made.open()
    made.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, n INTEGER)")
    made.execute_many("INSERT INTO items VALUES (%s, 0)", [(number,) for number in range(10)])
    return made


@pytest.fixture
def fake(cooperative: None) -> Iterator[Callable[..., FakeServer]]:
    made: list[FakeServer] = []

    def start(answer: Any, **settings: Any) -> FakeServer:
        made.append(FakeServer(answer, **settings))
        return made[-1]

    yield start
    for server in made:
        server.close()


def number_of(database: Database) -> int:
    row = database.fetch_one("SELECT CONNECTION_ID() AS id")
    assert row is not None
    return int(row["id"])


def runs(mariadb: MariaDB, number: int) -> bool:
    """True while the server has a statement of that connection under way."""
    return bool(
        mariadb.query("SELECT 1 FROM information_schema.processlist WHERE id = %s AND command = 'Query'", (number,))
    )


def killer_of(database: Database) -> Killer:
    driver = database._driver
    assert isinstance(driver, MySQLDriver)
    return driver._killer


def wait_until(condition: Callable[[], bool], seconds: float = 3.0) -> None:
    with gevent.Timeout(seconds):
        while not condition():
            gevent.sleep(0.01)


# The server ends it


@READERS
def test_the_server_ends_a_statement_after_read_timeout_and_its_connection_stays(
    mysql_url: str, connect: Callable[..., Database], reader: str
) -> None:
    database = connect(f"{mysql_url}?reader={reader}", min_size=1, max_size=1, read_timeout_s=0.1)
    before = number_of(database)
    with pytest.raises(QueryTimeout, match=r"took too long: the server ended the statement after read_timeout_s=0\.1"):
        database.fetch_one("SELECT SLEEP(3)")
    assert number_of(database) == before
    assert database.stats.discarded == 0


@pytest.mark.parametrize(
    "ask",
    [
        lambda db: db.fetch_one("SELECT SLEEP(3)", timeout_s=0.05),
        lambda db: db.fetch_all("(SELECT SLEEP(%s)) UNION (SELECT 2)", (3,), timeout_s=0.05),
        lambda db: db.fetch_one("WITH w AS (SELECT SLEEP(3) AS s) SELECT s FROM w", timeout_s=0.05),
        lambda db: db.execute("UPDATE items SET n = n + 1 + SLEEP(1)", timeout_s=0.05),
        lambda db: db.execute_many("INSERT INTO items VALUES (%s, SLEEP(1))", [(20,), (21,)], timeout_s=0.05),
        lambda db: db.execute_many("UPDATE items SET n = SLEEP(1) WHERE id = %s", [(1,), (2,)], timeout_s=0.05),
    ],
)
def test_the_server_ends_a_statement_after_its_own_timeout_and_nothing_of_it_is_kept(
    database: Database, ask: Callable[[Any], Any]
) -> None:
    before = number_of(database)
    begun_s = time.monotonic()
    with pytest.raises(QueryTimeout, match=r"after timeout_s=0\.05$") as caught:
        ask(database)
    assert time.monotonic() - begun_s < 0.15
    assert (caught.value.code, caught.value.__suppress_context__) == ("database_timeout", True)
    assert number_of(database) == before
    assert database.fetch_one("SELECT COUNT(*) AS c, SUM(n) AS n FROM items") == {"c": 10, "n": 0}


def test_a_timeout_of_its_own_may_be_longer_than_the_database_s(database: Database) -> None:
    assert database.fetch_one("SELECT SLEEP(0.3) AS s", timeout_s=2) == {"s": 0}
    assert database.fetch_one("SELECT @@max_statement_time AS s") == {"s": 0.2}


@pytest.mark.parametrize("timeout_s", [0, -1, 1e9, float("nan"), True, "1"])
def test_a_timeout_that_cannot_be_used_is_an_error_and_nothing_is_sent(database: Database, timeout_s: Any) -> None:
    with pytest.raises(QueryError, match=r"timeout_s=.* cannot be used: it is 0\.001 to 86400 seconds"):
        database.execute("UPDATE items SET n = 1", timeout_s=timeout_s)
    assert database.fetch_one("SELECT SUM(n) AS n FROM items") == {"n": 0}
    assert database.stats.discarded == 0


@pytest.mark.parametrize("timeout_s", [0, -1, 1e9, float("nan"), True, "1"])
def test_sqlite_refuses_the_same_timeouts(sqlite_url: str, connect: Callable[..., Database], timeout_s: Any) -> None:
    database = connect(sqlite_url)
    with pytest.raises(QueryError, match=r"timeout_s=.* cannot be used: it is 0\.001 to 86400 seconds"):
        database.fetch_one("SELECT 1", timeout_s=timeout_s)
    assert database.stats.discarded == 0


def test_only_the_statement_that_took_too_long_is_undone_in_a_transaction(database: Database) -> None:
    with database.transaction() as tx:
        tx.execute("UPDATE items SET n = 1 WHERE id = 1")
        with pytest.raises(QueryTimeout):
            tx.execute("UPDATE items SET n = 2 + SLEEP(1)", timeout_s=0.05)
        tx.execute("UPDATE items SET n = 3 WHERE id = 3")
    assert database.fetch_all("SELECT id, n FROM items WHERE n > 0") == [{"id": 1, "n": 1}, {"id": 3, "n": 3}]
    assert database.stats.discarded == 0


def test_a_transaction_whose_statement_took_too_long_rolls_back_if_nobody_catches_it(database: Database) -> None:
    def change() -> None:
        with database.transaction() as tx:
            tx.execute("UPDATE items SET n = 1 WHERE id = 1")
            tx.fetch_one("SELECT SLEEP(1)")

    with pytest.raises(QueryTimeout):
        change()
    assert database.fetch_one("SELECT SUM(n) AS n FROM items") == {"n": 0}
    assert database.stats.discarded == 0


@READERS
def test_an_answer_may_be_ended_among_its_rows_and_the_connection_stays(
    mysql_url: str, connect: Callable[..., Database], reader: str
) -> None:
    database = connect(f"{mysql_url}?reader={reader}", min_size=1, max_size=1, read_timeout_s=0.2)
    before = number_of(database)
    with pytest.raises(QueryTimeout, match="the server ended"):
        database.fetch_all("SELECT REPEAT('x', 9000) AS x, SLEEP(0.005) AS s FROM seq_1_to_1000")
    assert number_of(database) == before


@READERS
def test_an_answer_of_more_rows_than_the_time_allows_is_not_read_to_its_end(
    mysql_url: str, mariadb: MariaDB, connect: Callable[..., Database], reader: str
) -> None:
    database = connect(f"{mysql_url}?reader={reader}", min_size=1, max_size=1, read_timeout_s=0.1)
    before = number_of(database)
    begun_s = time.monotonic()
    with pytest.raises(QueryTimeout):
        database.fetch_all("SELECT seq FROM seq_1_to_100000000")
    assert time.monotonic() - begun_s < 1
    wait_until(lambda: not runs(mariadb, before))


# We give up


def kept_busy(statement: str) -> Callable[[str], bytes | None]:
    """Answers to everything but a statement that begins like that."""
    return lambda text: None if statement in text else done()


def test_mysql_is_told_at_login_and_in_hints_and_may_not_end_what_changes_something(
    fake: Callable[..., FakeServer], connect: Callable[..., Database]
) -> None:
    server = fake(lambda text: table(["a"], [[b"1"]]) if "SELECT" in text else done())
    database = connect(server.url, min_size=1, max_size=1, read_timeout_s=1.5)
    assert database.fetch_one("SELECT a FROM t") == {"a": "1"}
    assert database.fetch_one("SELECT a FROM t WHERE b = %s", ("SELECT",), timeout_s=0.25) == {"a": "1"}
    database.execute("UPDATE t SET a = 1", timeout_s=0.25)
    assert server.statements[0] == "SET max_execution_time=1500"
    assert server.statements[-3:] == [
        "SELECT a FROM t",
        "SELECT /*+ MAX_EXECUTION_TIME(250) */ a FROM t WHERE b = 'SELECT'",
        "UPDATE t SET a = 1",
    ]


def test_mysql_s_word_for_too_long_is_understood(
    fake: Callable[..., FakeServer], connect: Callable[..., Database]
) -> None:
    server = fake(lambda text: refused(3024, "maximum statement execution time exceeded") if "slow" in text else done())
    database = connect(server.url, min_size=1, max_size=1)
    with pytest.raises(QueryTimeout):
        database.fetch_one("SELECT slow", timeout_s=0.25)
    database.execute("DO 1")
    assert (database.stats.discarded, len(server.peers)) == (0, 1)


@READERS
def test_a_server_that_knows_no_limit_is_used_without_and_given_up_in_time(
    fake: Callable[..., FakeServer], connect: Callable[..., Database], reader: str
) -> None:
    server = fake(
        lambda text: refused(1193, "Unknown system variable") if "max_" in text else kept_busy("slow")(text),
        version="5.6.51",
    )
    database = connect(f"{server.url}?reader={reader}", min_size=1, max_size=1, read_timeout_s=0.1)
    begun_s = time.monotonic()
    with pytest.raises(QueryTimeout, match=r"is unavailable: no answer within read_timeout_s=0\.1$"):
        database.fetch_one("SELECT slow")
    with pytest.raises(QueryTimeout, match=r"is unavailable: no answer within timeout_s=0\.05$"):
        database.fetch_one("SELECT slow", timeout_s=0.05)
    assert 0.15 <= time.monotonic() - begun_s < 0.35
    assert server.statements.count("SELECT slow") == 2  # neither was repeated
    assert database.stats.discarded == 2


@READERS
def test_an_answer_that_trickles_is_given_up_when_the_time_for_the_whole_is_up(
    fake: Callable[..., FakeServer], connect: Callable[..., Database], reader: str
) -> None:
    rows: list[list[bytes | None]] = [[b"%d" % number] for number in range(1000)]
    server = fake(lambda text: table(["a"], rows) if "slow" in text else done(), version="5.6.51")
    database = connect(f"{server.url}?reader={reader}", min_size=1, max_size=1, read_timeout_s=20)
    database.open()
    server.slow_s = 0.002
    begun_s = time.monotonic()
    with pytest.raises(QueryTimeout, match=r"no answer within timeout_s=0\.2$"):
        database.fetch_all("CALL slow()", timeout_s=0.2)
    assert 0.2 <= time.monotonic() - begun_s < 0.5


# What was given up is ended on the server


def test_a_procedure_that_was_given_up_is_ended_on_the_server(database: Database, mariadb: MariaDB) -> None:
    database.execute(LOOP)
    before = number_of(database)
    with pytest.raises(QueryTimeout, match="no answer within timeout_s"):
        database.execute("CALL work_often()", timeout_s=0.1)
    wait_until(lambda: not runs(mariadb, before))
    assert number_of(database) != before


def test_what_a_killed_greenlet_waited_for_is_ended_on_the_server(database: Database, mariadb: MariaDB) -> None:
    before = number_of(database)
    asking = gevent.spawn(database.fetch_one, f"SELECT {BUSY}", timeout_s=8)
    wait_until(lambda: runs(mariadb, before))
    asking.kill()
    wait_until(lambda: not runs(mariadb, before))


def test_what_the_server_will_soon_end_by_itself_is_left_to_it(
    database: Database, mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = number_of(database)
    monkeypatch.setattr(killer_of(database), "kill", lambda number, port: pytest.fail("not needed"))
    asking = gevent.spawn(database.fetch_one, "SELECT SLEEP(20)")
    wait_until(lambda: runs(mariadb, before))
    asking.kill()
    assert database.stats.discarded == 1
    wait_until(lambda: not runs(mariadb, before))


def test_many_statements_that_were_given_up_are_killed_over_one_connection(
    fake: Callable[..., FakeServer], connect: Callable[..., Database]
) -> None:
    def answer(text: str) -> bytes | None:
        if text != "SHOW PROCESSLIST":
            return kept_busy("slow")(text)
        rows: list[list[bytes | None]] = [
            [b"%d" % number, b"127.0.0.1:%d" % port, b"Sleep" if number == 3 else b"Query"]
            for number, port in server.peers.items()
        ]
        rows[1][1] = b"127.0.0.1:1"  # another server's, or what a proxy makes of it
        return table(["Id", "Host", "Command"], rows)

    server = fake(answer)
    database = connect(server.url, min_size=5, max_size=5, read_timeout_s=0.1)
    database.open()
    asking = [gevent.spawn(database.execute, "UPDATE slow SET a = 1") for _ in range(5)]
    gevent.joinall(asking)
    assert {type(greenlet.exception).__mro__[2] for greenlet in asking} == {QueryTimeout}
    wait_until(lambda: any(text.startswith("KILL") for text in server.statements))
    wait_until(lambda: not killer_of(database)._working)
    killed = sorted(text for text in server.statements if text.startswith("KILL"))
    assert killed == ["KILL 1", "KILL 4", "KILL 5"]


def test_a_server_that_nobody_can_log_in_to_any_more_is_not_asked_again_and_again(
    fake: Callable[..., FakeServer], connect: Callable[..., Database]
) -> None:
    server = fake(kept_busy("slow"))
    database = connect(server.url, min_size=1, max_size=1, read_timeout_s=0.1, connect_timeout_s=0.2)
    database.open()
    server.close()
    with pytest.raises(DatabaseUnavailable):
        database.execute("UPDATE slow SET a = 1")
    killer = killer_of(database)
    assert killer._working
    wait_until(lambda: not killer._working)
    assert not killer._doomed

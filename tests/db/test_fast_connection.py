"""The fast connection beside PyMySQL's on a real MariaDB: every type, and all that is not a plain result."""

from __future__ import annotations

import itertools
import select
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import gevent
import pymysql
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymysql import converters, cursors, err
from pymysql.constants import CLIENT

from tafe.db import fast, wire
from tafe.errors import UsageError
from tests.db.protocol import Replay, everything, logged_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tafe.db import Database
    from tests.services.mariadb import MariaDB

CURSORS = (cursors.Cursor, cursors.DictCursor, cursors.SSCursor, cursors.SSDictCursor)

TYPES = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint"), st.integers(-128, 127)),
    **dict.fromkeys(("tinyint unsigned", "int(8) zerofill", "bigint unsigned"), st.integers(0, 255)),
    **dict.fromkeys(("float", "double"), st.floats(-1e30, 1e30)),
    **dict.fromkeys(("decimal(65,30)", "decimal(5,0)"), st.decimals(-9999, 9999, places=4)),
    **dict.fromkeys(("char(20)", "varchar(20)", "tinytext", "text", "mediumtext", "longtext"), st.text(max_size=20)),
    "varchar(300) character set latin1": st.text("abcäöü", max_size=300),
    **dict.fromkeys(("binary(20)", "varbinary(20)", "tinyblob", "blob", "longblob"), st.binary(max_size=20)),
    **dict.fromkeys(("date", "datetime", "datetime(1)", "datetime(3)", "datetime(6)"), st.datetimes().map(str)),
    "timestamp(6) null": st.datetimes().map(lambda moment: str(moment.replace(year=2004, hour=12))),
    **dict.fromkeys(("time", "time(3)", "time(6)"), st.timedeltas().map(lambda delta: delta % (1 << 5))),
    "year": st.integers(1901, 2155),
    "enum('a', 'b', '\N{GRINNING FACE}')": st.sampled_from(["a", "\N{GRINNING FACE}"]),
    "set('x', 'y')": st.sampled_from(["", "x", "x,y"]),
    "json": st.sampled_from(["{}", '{"a": ["ü", null]}', '"\N{GRINNING FACE}"']),
    **dict.fromkeys(("bit(1)", "bit(64)"), st.integers(0, 1)),
    "inet6": st.sampled_from(["::1", "192.0.2.1"]),
    "uuid": st.uuids().map(str),
}
TYPES["time"] = TYPES["time(3)"] = TYPES["time(6)"] = st.sampled_from(
    ["00:00:00", "-838:59:59", "838:59:59.000000", "-00:00:01.5", "12:34:56.789012"]
)
GEOMETRY = st.sampled_from(
    ["POINT(1 2)", "LINESTRING(0 0, 1 1)", "GEOMETRYCOLLECTION EMPTY", "POLYGON((0 0,1 0,1 1,0 0))"]
)


def same(pair: list[Any], sql: str, cursor_class: Any = None, args: Any = None) -> list[Any]:
    """What both tell of a statement, which must be the same."""
    expected, found = (everything(connection, sql, cursor_class, args) for connection in pair)
    assert repr(found) == repr(expected)
    return found


def test_our_class_reads_with_this_release_of_pymysql() -> None:
    assert pymysql.VERSION_STRING in wire.TESTED, "run all of tests/db with it, then add it to TESTED"


def test_a_release_that_was_not_tested_is_read_by_pymysql_s_class_and_the_log_says_so_once(
    mysql_url: str, connect: Callable[..., Database], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wire._say_once.cache_clear()
    monkeypatch.setattr(pymysql, "VERSION_STRING", "1.2.99")
    for _ in range(2):
        database = connect(mysql_url)
        assert database.fetch_one("SELECT 1 AS a") == {"a": 1}
        assert not isinstance(database._pool._idle[0]._wire, fast.Connection)
    (record,) = caplog.records
    assert "1.2.99 is installed" in record.getMessage()
    wire._say_once.cache_clear()


def test_the_url_chooses_the_reader(
    mysql_url: str, connect: Callable[..., Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    for reader, is_fast in (("fast", True), ("stock", False), ("auto", True)):
        database = connect(f"{mysql_url}?reader={reader}")
        assert database.fetch_one("SELECT 1 AS a") == {"a": 1}
        assert isinstance(database._pool._idle[0]._wire, fast.Connection) is is_fast
    monkeypatch.setattr(pymysql, "VERSION_STRING", "1.2.99")
    with pytest.raises(UsageError, match=r"reader=fast cannot be used.*1\.2\.99 is installed"):
        connect(f"{mysql_url}?reader=fast")


def fill(connection: Any, rows: list[dict[str, Any]]) -> None:
    """A table with a column of every type and these rows, NULL where a row says nothing."""
    columns = [f"c{index} {kind}" for index, kind in enumerate(TYPES)]
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE OR REPLACE TABLE every (id INT PRIMARY KEY AUTO_INCREMENT, {', '.join(columns)}, g GEOMETRY)"
        )
        cursor.execute("SET sql_mode = ''")  # lets values in that do not fit, so that there are warnings and zero dates
        for row in rows:
            names = [f"c{index}" for index, kind in enumerate(TYPES) if kind in row]
            values = [row[kind] for kind in TYPES if kind in row]
            if "geometry" in row:
                names, values = [*names, "g"], [*values, row["geometry"]]
            places = ["ST_GeomFromText(%s)" if name == "g" else "%s" for name in names]
            cursor.execute(f"INSERT INTO every ({', '.join(names)}) VALUES ({', '.join(places)})", values)


EVERY_ROW = st.fixed_dictionaries({}, optional={**TYPES, "geometry": GEOMETRY})


def test_every_column_type_is_told_as_pymysql_tells_it(both: Callable[..., list[Any]]) -> None:
    # PyMySQL cannot make a Decimal of bytes.
    for_bytes = {key: value for key, value in converters.conversions.items() if value is not Decimal}
    pairs = [both(), both(use_unicode=False, conv=for_bytes)]

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(rows=st.lists(EVERY_ROW, max_size=4))
    def check(rows: list[dict[str, Any]]) -> None:
        zero = dict.fromkeys((kind for kind in TYPES if kind.startswith(("date", "time("))), "0000-00-00 00:00:00")
        fill(pairs[0][0], [*rows, {}, zero])
        for pair, cursor_class in itertools.product(pairs, CURSORS):
            told = same(pair, "SELECT * FROM every ORDER BY id", cursor_class)
            assert len(told[2]) == len(rows) + 2
        # Bytes that MariaDB's latin1 has and Python's has not cannot be read, which ends the connection.
        same(both(charset="latin1"), "SELECT * FROM every ORDER BY id")

    check()


EXPRESSIONS = [
    "SELECT NULL, '', 0, -1, 1e300, 1.50, 0x41, b'1', TRUE, NOW(6) - NOW(6), DATE '2024-02-29', TIME '-00:00:01'",
    "SELECT CAST('{\"a\": 1}' AS JSON)",
    "SELECT JSON_OBJECT('a', 'ü'), CONVERT('é' USING latin1), _binary 'x', UUID() IS NULL",
    "SELECT 18446744073709551615, -9223372036854775808, CAST(1 AS DECIMAL(30,10)), POINT(1, 2)",
    "SELECT seq, NULL, REPEAT('ab', seq), 'x' AS seq FROM seq_0_to_300",
    "SELECT 1 FROM dual WHERE 0",
    "SELECT 1 AS `a b`, 2 AS ``, 3 AS `ä`",
    "SET @a = 1",
    "SELECT 1/0",
    "DO SLEEP(0)",
    "SELEC 1",
    "SELECT * FROM no_such_table",
    "INSERT INTO t (a) VALUES (1), (2)",
    "INSERT INTO t (a) VALUES ('not a number')",
    "INSERT INTO t (id) VALUES (1)",
    "UPDATE t SET a = 5",
    "SHOW WARNINGS",
    "DELETE FROM t",
    "SELECT 1; SELECT 2, 3; SET @b = 2; SELECT * FROM seq_1_to_5",
    "SELECT 1; SELEC 2; SELECT 3",
    "SELECT seq, limited(seq) FROM seq_1_to_1000",
    "CALL several(3)",
    "CALL failing()",
    "EXPLAIN SELECT 1",
    "SHOW VARIABLES LIKE 'version%'",
]


PREPARED = """
CREATE OR REPLACE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, a INT)

CREATE OR REPLACE FUNCTION limited(n INT) RETURNS INT DETERMINISTIC BEGIN
    IF n > 700 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'enough'; END IF; RETURN n; END

CREATE OR REPLACE PROCEDURE several(IN n INT) BEGIN
    SELECT n; SELECT seq FROM seq_1_to_300 LIMIT n; SELECT 'last', NULL; END

CREATE OR REPLACE PROCEDURE failing() BEGIN SELECT 1; SELECT 2; SIGNAL SQLSTATE '45000'; END

CREATE OR REPLACE PROCEDURE doubling(INOUT n INT) BEGIN SET n = n * 2; SELECT n; END
"""


def prepare(connection: Any) -> None:
    for sql in PREPARED.strip().split("\n\n"):
        connection.query(sql)


def all_of(connection: Any, cursor_class: Any) -> list[Any]:
    """The statements above one after the other, on tables that are new."""
    prepare(connection)
    return [everything(connection, sql, cursor_class) for sql in EXPRESSIONS]


@pytest.mark.parametrize("cursor_class", CURSORS)
def test_results_errors_warnings_and_procedures_are_told_as_pymysql_tells_them(
    both: Callable[..., list[Any]], cursor_class: Any
) -> None:
    told = [all_of(connection, cursor_class) for connection in both(client_flag=CLIENT.MULTI_STATEMENTS)]
    for sql, expected, found in zip(EXPRESSIONS, *told, strict=True):
        assert repr(found) == repr(expected), sql
    in_the_middle = told[1][EXPRESSIONS.index("SELECT seq, limited(seq) FROM seq_1_to_1000")]
    assert in_the_middle[-2:] == [err.OperationalError, "(1644, 'enough')"]


def test_more_results_than_there_are_packet_numbers_are_told_in_order(both: Callable[..., list[Any]]) -> None:
    told = same(both(client_flag=CLIENT.MULTI_STATEMENTS), ";".join(f"SELECT {n}, 'x'" for n in range(300)))
    assert [part for part in told if isinstance(part, tuple) and part[0][-1] == "x"] == [
        ((n, "x"),) for n in range(300)
    ]


def test_a_procedure_s_parameters_come_back(both: Callable[..., list[Any]]) -> None:
    pair = both()
    prepare(pair[0])
    for connection in pair:
        with connection.cursor() as cursor:
            assert cursor.callproc("doubling", (21,)) == (21,)
            assert cursor.fetchall() == ((42,),)
            cursor.nextset()
            cursor.execute("SELECT @_doubling_0")
            assert cursor.fetchone() == (42,)


@pytest.mark.parametrize("cursor_class", [cursors.Cursor, cursors.SSDictCursor])
def test_rows_and_statements_of_more_than_16_mib_arrive_whole(
    large_packets: None, both: Callable[..., list[Any]], cursor_class: Any
) -> None:
    pair = both()
    for size in ((1 << 24) - 2, 35_000_000):
        told = same(
            pair,
            f"SELECT 1 AS a, REPEAT('xy', {size // 2}) AS b, LENGTH('{'z' * size}') AS c UNION SELECT 2, '', 3",
            cursor_class,
        )
        first = told[2][0]
        assert len(first["b"] if isinstance(first, dict) else first[1]) == size // 2 * 2


def test_a_result_of_many_rows_and_more_than_16_mib_arrives_whole(both: Callable[..., list[Any]]) -> None:
    told = same(both(), "SELECT seq, REPEAT('x', 1000) FROM seq_1_to_20000")
    assert [row[0] for row in told[2]] == list(range(1, 20001))


def test_a_local_file_is_loaded_and_one_that_is_not_there_is_an_error(
    mariadb: MariaDB, both: Callable[..., list[Any]], tmp_path: Path
) -> None:
    mariadb.query("SET GLOBAL local_infile = ON")
    pair = both(local_infile=True)
    prepare(pair[0])
    file = tmp_path / "rows"
    file.write_text("".join(f"{n}\t{n * n}\n" for n in range(1, 20001)) + "30000\tnonsense\n")
    for connection in pair:
        prepare(connection)
        connection.query("SET sql_mode = ''")
        told = everything(connection, f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE t")
        assert told[0] == 20001
        assert everything(connection, "SELECT COUNT(*), MAX(a) FROM t")[2] == ((20001, 400_000_000),)
        missing = everything(connection, f"LOAD DATA LOCAL INFILE '{tmp_path}/none' INTO TABLE t")
        assert missing[-2] is err.OperationalError
        assert everything(connection, "SELECT 1")[2] == ((1,),)
    refusing = both()
    for connection in refusing:
        assert everything(connection, f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE t")[-2:] != []
    same(refusing, "SELECT 1")


def test_an_unbuffered_result_that_is_left_is_read_to_its_end_before_the_next_statement(
    both: Callable[..., list[Any]],
) -> None:
    for connection in both():
        cursor = connection.cursor(cursors.SSCursor)
        cursor.execute("SELECT seq FROM seq_1_to_100000")
        assert cursor.fetchmany(3) == [(1,), (2,), (3,)]
        gevent.sleep(0.01)  # more arrives than anybody wants yet
        with pytest.warns(UserWarning, match="left incomplete"):
            connection.query("SELECT 'next'")
        assert connection._result.rows == (("next",),)


def test_what_is_set_at_the_start_and_changed_later_counts(both: Callable[..., list[Any]]) -> None:
    pair = both(init_command="SET @started = 7", sql_mode="ANSI_QUOTES", autocommit=False, charset="latin1")
    assert same(pair, "SELECT @started, @@autocommit, @@sql_mode, @@character_set_client, 'é'")[2][0][:2] == (7, 0)
    for connection in pair:
        connection.set_character_set("utf8mb4")
        connection.autocommit(True)
        connection.begin()
        connection.select_db("mysql")
        connection.commit()
        connection.ping()
    assert same(pair, "SELECT DATABASE(), @@character_set_client, 'é'")[2] == (("mysql", "utf8mb4", "é"),)


def test_a_connection_that_was_lost_connects_again_when_it_is_asked_to(
    ours: Callable[..., Any], mariadb: MariaDB
) -> None:
    connection = ours()
    mariadb.query(f"KILL {connection.thread_id()}")
    assert select.select([connection._sock.fileno()], [], [], 5)[0]  # the end has arrived
    with pytest.raises(err.OperationalError):
        connection.query("SELECT 1")
    with pytest.raises(err.Error, match="Already closed"):
        connection.ping()
    with pytest.warns(DeprecationWarning, match="reconnect"):
        connection.ping(reconnect=True)
    connection.query("SELECT 2")
    assert connection._result.rows == ((2,),)


def test_tls_is_read_through_pymysql_s_own_socket(ours: Callable[..., Any], mariadb: MariaDB) -> None:
    (there,) = mariadb.query("SELECT @@have_ssl AS ssl_")
    connection = ours()
    carries = connection._channel is not None
    connection.query("SHOW STATUS LIKE 'Ssl_cipher'")
    assert bool(connection._result.rows[0][1]) is not carries
    assert carries is (there["ssl_"] != "YES")


def test_bytes_sent_before_tls_begins_are_not_taken_for_what_comes_after() -> None:
    connection = logged_in(fast.Connection, Replay(b"0123456789", [10]))
    assert connection._read_bytes(4) == b"0123"
    connection._sock = Replay(b"abcdef")
    assert connection._read_bytes(4) == b"abcd"

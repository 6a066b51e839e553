"""What is written into a statement so that the server ends it in time."""

from __future__ import annotations

import pytest

from tafe.db.server_limits import MARIADB, MYSQL, dialect_of

PREFIX = "SET STATEMENT max_statement_time=0.250000 FOR "
HINT = "/*+ MAX_EXECUTION_TIME(250) */"


@pytest.mark.parametrize("version", ["5.5.5-10.11.6-MariaDB-0+deb12u1-log", "11.4.2-MariaDB"])
def test_a_server_that_calls_itself_mariadb_is_asked_as_one(version: str) -> None:
    assert dialect_of(version) is MARIADB


@pytest.mark.parametrize("version", ["8.0.36", "5.7.25-TiDB-v6.1.0", "8.0.30-Vitess", "5.5.30 (ProxySQL)"])
def test_every_other_server_is_asked_as_mysql(version: str) -> None:
    assert dialect_of(version) is MYSQL


def test_a_session_s_limit_is_never_rounded_to_none() -> None:
    assert MARIADB.at_login(0.001) == "SET max_statement_time=0.001000"
    assert MYSQL.at_login(1) == "SET max_execution_time=1000"
    assert MYSQL.at_login(0.0012) == "SET max_execution_time=2"


@pytest.mark.parametrize(
    "text", ["SELECT 1", " /* a */ SELECT 1", "UPDATE t SET a = 1", "WITH w AS (SELECT 1) TABLE w"]
)
def test_mariadb_is_told_before_the_statement(text: str) -> None:
    assert MARIADB.limit(text, 0.25) == PREFIX + text


@pytest.mark.parametrize("text", ["CALL p()", " -- why\n call p(1)", "/* x */CALL p"])
def test_mariadb_cannot_limit_a_procedure_as_a_whole(text: str) -> None:
    assert MARIADB.limit(text, 0.25) is None


@pytest.mark.parametrize(
    ("text", "limited"),
    [
        ("SELECT a FROM t", f"SELECT {HINT} a FROM t"),
        ("select(1)", f"select {HINT}(1)"),
        ("(SELECT 1) UNION (SELECT 2)", f"(SELECT {HINT} 1) UNION (SELECT 2)"),
        ("-- it's\n/* b */ SELECT 1", f"-- it's\n/* b */ SELECT {HINT} 1"),
        ("SELECT /* c */ 1", f"SELECT {HINT} /* c */ 1"),
        ("SELECT /*+ NO_ICP(t) */ a FROM t", "SELECT /*+ MAX_EXECUTION_TIME(250)  NO_ICP(t) */ a FROM t"),
        ("WITH w AS (SELECT 1) SELECT * FROM w", f"WITH w AS (SELECT 1) SELECT {HINT} * FROM w"),
        (
            "WITH w AS (SELECT ') SELECT ' a /* ) */) SELECT a, (SELECT 1) FROM w",
            f"WITH w AS (SELECT ') SELECT ' a /* ) */) SELECT {HINT} a, (SELECT 1) FROM w",
        ),
    ],
)
def test_mysql_is_told_in_a_hint_behind_the_first_select_that_counts(text: str, limited: str) -> None:
    assert MYSQL.limit(text, 0.25) == limited


@pytest.mark.parametrize(
    "text",
    [
        "UPDATE t SET a = (SELECT 1)",
        "INSERT INTO t SELECT 1",
        "SHOW TABLES",
        "CALL p()",
        "SELECTED",
        "WITH w AS (SELECT 1) UPDATE t, w SET t.a = (SELECT 1)",
        "/*! SELECT */ 1",
    ],
)
def test_mysql_can_limit_nothing_but_a_select(text: str) -> None:
    assert MYSQL.limit(text, 0.25) is None

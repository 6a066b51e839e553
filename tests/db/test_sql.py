"""Where a statement's parameters are: outside of quotes and comments, and nowhere else."""

from __future__ import annotations

import sqlite3
from typing import Any

import pymysql.converters
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tafe.db import sql
from tafe.db.bulk import BATCH_BYTES, batches
from tafe.errors import QueryError


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("SELECT %s, %s", ("SELECT ", ", ", "")),
        ("SELECT '%s', %s", ("SELECT '%s', ", "")),
        ("SELECT 'it''s %s', %s", ("SELECT 'it''s %s', ", "")),
        ('SELECT "a""%s", %s', ('SELECT "a""%s", ', "")),
        ("SELECT `a``%s`, %s", ("SELECT `a``%s`, ", "")),
        ("SELECT /* %s\n ' */ %s", ("SELECT /* %s\n ' */ ", "")),
        ("SELECT 1 -- don't %s\n, %s", ("SELECT 1 -- don't %s\n, ", "")),
        ("SELECT '100%%', 7 %% 2, 7 % 2, 'a%'", ("SELECT '100%', 7 % 2, 7 % 2, 'a%'",)),
        ("SELECT %%s", ("SELECT %s",)),
        ("SELECT '%s", ("SELECT '%s",)),
        ("SELECT 1 /* %s", ("SELECT 1 /* %s",)),
        ("%s", ("", "")),
        ("", ("",)),
    ],
)
def test_parameters_are_found_outside_of_quotes_and_comments_in_both_dialects(
    text: str, pieces: tuple[str, ...]
) -> None:
    assert sql.for_mysql(text).pieces == pieces
    assert sql.for_sqlite(text).pieces == pieces


def test_each_dialect_has_its_own_quotes_and_comments() -> None:
    assert sql.for_mysql(r"SELECT 'it\'s %s', %s").parameters == 1
    assert sql.for_sqlite(r"SELECT 'a\', %s, 'b'").parameters == 1
    assert sql.for_mysql("SELECT 1 # %s\n, %s").parameters == 1
    assert sql.for_mysql("SELECT 5--%s").parameters == 1  # minus minus: a comment needs a space
    assert sql.for_sqlite("SELECT 5--%s").parameters == 0
    assert sql.for_sqlite("SELECT [%s], %s").parameters == 1
    assert sql.for_mysql("SELECT a[%s]").parameters == 1


# Pieces of SQL, each with what it means: its text for SQLite and the parameters in it.
_SQLITE_PARTS = st.one_of(
    st.just(("%s", "?", 1)),
    st.just(("%%", "%", 0)),
    st.text("abc ,()%", max_size=5).map(lambda t: t.replace("%", "% ")).map(lambda t: (t, t, 0)),
    st.text("ab%s'\\\n-*/[\"`", max_size=6)
    .map(lambda t: t.replace("'", "''"))
    .map(lambda t: (f"'{t}'", f"'{t.replace('%%', '%')}'", 0)),
    st.text("ab%s\"\\'-*/[`", max_size=6)
    .map(lambda t: t.replace('"', '""'))
    .map(lambda t: (f'"{t}"', f'"{t.replace("%%", "%")}"', 0)),
    st.text("ab%s'\"`-/[", max_size=6).map(lambda t: (f"/*{t}*/", f"/*{t.replace('%%', '%')}*/", 0)),
    st.text("ab%s'\"`/*[", max_size=6).map(lambda t: (f"--{t}\n", f"--{t.replace('%%', '%')}\n", 0)),
    st.text("ab%s'\"`-/*", max_size=6).map(lambda t: (f"[{t}]", f"[{t.replace('%%', '%')}]", 0)),
)


@given(st.lists(_SQLITE_PARTS, max_size=8))
def test_a_translation_is_the_sum_of_its_parts(parts: list[tuple[str, str, int]]) -> None:
    # A space between parts keeps two of them from making a third, as "/" and "*" would.
    statement = sql.for_sqlite(" ".join(part[0] for part in parts))
    assert statement.text == " ".join(part[1] for part in parts)
    assert statement.parameters == sum(part[2] for part in parts)


@given(st.lists(st.text(alphabet="a%s?'\"\\`[]-/*# \n\u00e9", max_size=12), min_size=1, max_size=4), st.data())
def test_sqlite_understands_literals_as_the_scanner_does(literals: list[str], data: st.DataObject) -> None:
    shown = [text.replace("'", "''").replace("%", "%%") for text in literals]
    values = data.draw(st.lists(st.integers(-9, 9), min_size=len(literals), max_size=len(literals)))
    text = "SELECT " + ", ".join(f"'{literal}' AS a{i}, %s AS b{i}" for i, literal in enumerate(shown))
    connection = sqlite3.connect(":memory:")
    try:
        row = connection.execute(sql.for_sqlite(text).text, values).fetchone()
    finally:
        connection.close()
    assert row == tuple(item for pair in zip(literals, values, strict=True) for item in pair)


@given(st.text(alphabet="ab%s'\"`\\-/*#[]\n ", max_size=40))
def test_any_text_can_be_scanned_and_nothing_is_lost(text: str) -> None:
    for statement in (sql.for_mysql(text), sql.for_sqlite(text)):
        assert "%s".join(statement.pieces).replace("%%", "%") == text.replace("%%", "%").replace("%%", "%")


def test_a_long_unterminated_literal_is_scanned_in_linear_time() -> None:
    assert sql.for_mysql("SELECT '" + "a''" * 200_000).parameters == 0
    assert sql.for_sqlite("SELECT '" + "a''" * 200_000).parameters == 0


@pytest.mark.parametrize(
    ("text", "is_read"),
    [
        ("SELECT 1", True),
        ("  (select 1)", True),
        ("/* why */ -- how\n SELECT 1", True),
        ("SHOW TABLES", True),
        ("/*! DELETE FROM t */ SELECT 1", False),
        ("SELECTED", False),
        ("WITH a AS (SELECT 1) DELETE FROM t", False),
        ("UPDATE t SET a = 1", False),
        ("CALL p()", False),
    ],
)
def test_only_what_surely_reads_counts_as_a_read(text: str, is_read: bool) -> None:
    assert sql.for_mysql(text).is_read is is_read
    assert sql.for_sqlite(text).is_read is is_read


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ((1,), r"has 2 parameters \(%s\), 1 were given: SELECT %s, %s"),
        ((1, 2, 3), r"3 were given"),
        ("ab", "must be a tuple or a list, not str"),
        ({"a": 1, "b": 2}, "must be a tuple or a list, not dict"),
        (7, "not int"),
        ((1, []), "an empty list"),
    ],
)
def test_parameters_that_do_not_fit_are_a_clear_error(params: Any, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        sql.check(sql.for_mysql("SELECT %s, %s"), params)


def test_a_list_is_spread_over_as_many_question_marks() -> None:
    statement = sql.for_sqlite("SELECT * FROM t WHERE a IN %s AND b = %s")
    assert sql.expanded(statement, ([1, 2, 3], 4)) == (
        "SELECT * FROM t WHERE a IN (?, ?, ?) AND b = ?",
        [1, 2, 3, 4],
    )


def test_the_cache_of_statements_is_bounded() -> None:
    for number in range(3000):
        sql.for_sqlite(f"SELECT {number}")
    info = sql.for_sqlite.cache_info()
    assert info.currsize == info.maxsize == 1024


def _literals(row: Any) -> tuple[str, ...]:
    return tuple(pymysql.converters.escape_item(value, "utf8mb4") for value in row)


def test_rows_of_an_insert_go_into_few_statements() -> None:
    statement = sql.for_mysql("INSERT INTO t VALUES (%s, 'x%%', %s) ON DUPLICATE KEY UPDATE b = VALUES(b)")
    expected = (
        "INSERT INTO t VALUES (1, 'x%', 'p'),(2, 'x%', '%s'),(3, 'x%', '(') ON DUPLICATE KEY UPDATE b = VALUES(b)"
    )
    assert list(batches(statement, [(1, "p"), (2, "%s"), (3, "(")], _literals)) == [expected]


def test_a_batch_is_bounded_in_bytes_and_no_row_is_lost() -> None:
    statement = sql.for_mysql("INSERT INTO t VALUES (%s)")
    rows = [("x" * 1000,) for _ in range(200)]
    texts = list(batches(statement, rows, _literals))
    assert len(texts) == 4
    assert max(map(len, texts)) <= BATCH_BYTES + 300
    assert sum(text.count("x" * 1000) for text in texts) == 200


@pytest.mark.parametrize(
    "text",
    [
        "UPDATE t SET a = %s",
        "INSERT INTO t VALUES (%s), (%s)",
        "INSERT INTO t VALUES (NOW(), %s)",
        "INSERT INTO t SELECT %s",
        "INSERT INTO t VALUES (%s) ON DUPLICATE KEY UPDATE a = %s",
        "INSERT INTO t VALUES (1)",
    ],
)
def test_whatever_is_not_a_plain_insert_is_sent_row_by_row(text: str) -> None:
    statement = sql.for_mysql(text)
    row = (1,) * statement.parameters
    assert list(batches(statement, [row, row], _literals)) == [text.replace("%s", "1")] * 2


def test_a_row_with_too_few_values_is_found_before_it_is_sent() -> None:
    with pytest.raises(QueryError, match="1 were given"):
        list(batches(sql.for_mysql("INSERT INTO t VALUES (%s, %s)"), [(1, 2), (3,)], _literals))

"""The API, the same on SQLite and MariaDB: queries, errors, transactions."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from typing import TYPE_CHECKING, Any

import gevent
import pytest

from tafe import lifecycle
from tafe.errors import DatabaseUnavailable, IntegrityError, QueryError, UsageError
from tests.db.settling import settled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tafe.db import Database

# About 0.1 s.
SLOW_SQLITE = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000) SELECT COUNT(*) FROM n"


def names(database: Database) -> list[str]:
    return [row["name"] for row in database.fetch_all("SELECT name FROM people ORDER BY id")]


def test_rows_are_dicts_and_no_row_is_none(people: Database) -> None:
    assert people.fetch_one("SELECT id, name FROM people WHERE id = %s", (2,)) == {"id": 2, "name": "ben"}
    assert people.fetch_one("SELECT id FROM people WHERE id = %s", (9,)) is None
    assert people.fetch_all("SELECT id FROM people ORDER BY id") == [{"id": 1}, {"id": 2}]
    assert people.fetch_all("SELECT id FROM people WHERE id > 9") == []


def test_execute_tells_how_many_rows_and_the_last_key(people: Database, any_url: str) -> None:
    kind = "INTEGER PRIMARY KEY" if any_url.startswith("sqlite") else "INTEGER PRIMARY KEY AUTO_INCREMENT"
    people.execute(f"CREATE TABLE logs (id {kind}, text VARCHAR(9))")
    assert people.execute("INSERT INTO logs (text) VALUES (%s)", ("a",)) == (1, 1)
    assert people.execute("INSERT INTO logs (text) VALUES (%s)", ("b",)) == (1, 2)
    assert people.execute("DELETE FROM logs WHERE id = %s", (9,)) == (0, 0)


def test_an_update_counts_the_rows_it_matched_even_if_nothing_changed(people: Database) -> None:
    assert people.execute("UPDATE people SET name = %s WHERE id = 1", ("ada",)).rowcount == 1
    assert people.execute("UPDATE people SET name = %s WHERE id = 9", ("ada",)).rowcount == 0


@pytest.mark.parametrize(
    "value",
    [
        'it\'s \\ "quoted" %s `x` -- # /* \0 \n',
        "\N{SNOWMAN}\U0001f600",
        b"\x00\xff'\\",
        -(2**63),
        2**63 - 1,
        1.5e-300,
        None,
        "",
    ],
)
def test_a_value_comes_back_as_it_was_sent(people: Database, value: Any) -> None:
    assert people.fetch_one("SELECT %s AS v", (value,)) == {"v": value}


def test_dates_and_decimals_are_understood_as_such(people: Database) -> None:
    moment = datetime.datetime(2024, 2, 29, 13, 5, 6, tzinfo=None)
    people.execute("CREATE TABLE t (d DATETIME, n DECIMAL(10, 2))")
    people.execute("INSERT INTO t (d, n) VALUES (%s, %s)", (moment, decimal.Decimal("1.50")))
    row = people.fetch_one("SELECT d, n FROM t WHERE d = %s AND n = %s", (moment, decimal.Decimal("1.50")))
    assert row is not None
    assert str(row["d"]) == "2024-02-29 13:05:06"
    assert float(row["n"]) == 1.5


class Colour(int, enum.Enum):
    RED = 3


class Kind(enum.StrEnum):
    OLD = "o'ld"


class Half(float):
    def __repr__(self) -> str:
        return "half"


@pytest.mark.parametrize(("value", "sent"), [(Colour.RED, 3), (Kind.OLD, "o'ld"), (Half(0.5), 0.5)])
def test_a_value_of_a_derived_type_is_sent_as_what_it_is_derived_from(people: Database, value: Any, sent: Any) -> None:
    assert people.fetch_one("SELECT %s AS v", (value,)) == {"v": sent}


@pytest.mark.parametrize("value", [object(), uuid.UUID(int=7), {"a": 1}, 1j, range(3)])
def test_a_parameter_of_a_type_that_no_database_knows_is_an_error_that_names_it_and_its_place(
    people: Database, value: Any
) -> None:
    said = rf"parameter 2\b.*type '{type(value).__name__}' is not supported"
    with pytest.raises(QueryError, match=said):
        people.fetch_one("SELECT %s, %s AS v", (1, value))
    with pytest.raises(QueryError, match=said):
        people.fetch_one("SELECT %s + 1 IN %s AS v", (1, [value, 1]))
    with pytest.raises(QueryError, match=said):
        people.execute_many("INSERT INTO people VALUES (%s, %s)", [(5, "eve"), (6, value)])
    assert names(people) == ["ada", "ben"]
    settled(people)


def test_a_list_is_a_value_for_in(people: Database) -> None:
    rows = people.fetch_all("SELECT name FROM people WHERE id IN %s AND name <> %s", ([1, 2, 3], "ada"))
    assert rows == [{"name": "ben"}]


def test_percent_signs_mean_the_same_on_both(people: Database) -> None:
    row = people.fetch_one("SELECT 7 % 4 AS a, 7 %% 4 AS b, '%s 5%%' AS c, %s AS d", ("%s",))
    assert row == {"a": 3, "b": 3, "c": "%s 5%", "d": "%s"}
    assert people.fetch_all("SELECT id FROM people WHERE name LIKE 'a%'") == [{"id": 1}]


@pytest.mark.parametrize("method", ["fetch_one", "fetch_all", "execute"])
def test_a_wrong_number_of_parameters_is_an_error_before_a_connection_is_taken(people: Database, method: str) -> None:
    acquired = people.stats.acquired
    with pytest.raises(QueryError, match="has 1 parameters"):
        getattr(people, method)("SELECT %s", ())
    assert people.stats.acquired == acquired


def test_constraints_raise_an_integrity_error_with_the_database_s_number(people: Database, any_url: str) -> None:
    for statement in (
        "INSERT INTO people VALUES (1, 'eve')",
        "INSERT INTO people VALUES (3, 'ada')",
        "INSERT INTO people VALUES (3, NULL)",
    ):
        with pytest.raises(IntegrityError) as caught:
            people.execute(statement)
        assert caught.value.number
    people.execute("CREATE TABLE t (a INTEGER, CHECK (a > 0))")
    with pytest.raises(IntegrityError):
        people.execute("INSERT INTO t VALUES (0)")


def test_a_foreign_key_is_enforced(people: Database) -> None:
    people.execute("CREATE TABLE pets (owner INTEGER, FOREIGN KEY (owner) REFERENCES people (id))")
    people.execute("INSERT INTO pets VALUES (1)")
    with pytest.raises(IntegrityError):
        people.execute("INSERT INTO pets VALUES (9)")
    with pytest.raises(IntegrityError):
        people.execute("DELETE FROM people WHERE id = 1")


@pytest.mark.parametrize("value", ["\ud800", {"a": 1}, [{"a": 1}]])
def test_a_value_that_cannot_be_sent_is_a_query_error_and_costs_no_connection(people: Database, value: Any) -> None:
    discarded = people.stats.discarded
    with pytest.raises(QueryError):
        people.fetch_one("SELECT name FROM people WHERE name = %s", (value,))
    assert people.stats.discarded == discarded
    assert people.fetch_one("SELECT 5 AS v") == {"v": 5}


def test_a_statement_that_fails_gives_its_connection_back(people: Database) -> None:
    discarded = people.stats.discarded
    for _ in range(20):
        with pytest.raises(QueryError) as caught:
            people.fetch_all("SELECT nothing FROM nowhere")
        assert caught.value.number
    assert people.stats.discarded == discarded
    settled(people)


def test_a_transaction_left_open_by_hand_is_reported_and_leaks_to_nobody(people: Database) -> None:
    with pytest.raises(QueryError, match=r"left a transaction open.*BEGIN"):
        people.execute("BEGIN")
    people.execute("INSERT INTO people VALUES (3, 'eve')")
    settled(people)
    assert names(people) == ["ada", "ben", "eve"]


def test_execute_many_inserts_all_or_nothing(people: Database) -> None:
    result = people.execute_many("INSERT INTO people VALUES (%s, %s)", ((n, f"n{n}") for n in range(10, 2510)))
    assert result.rowcount == 2500
    assert people.fetch_one("SELECT COUNT(*) AS c FROM people") == {"c": 2502}
    with pytest.raises(IntegrityError):
        people.execute_many("INSERT INTO people VALUES (%s, %s)", [(5000, "new"), (1, "again")])
    assert people.fetch_one("SELECT COUNT(*) AS c FROM people") == {"c": 2502}


def test_execute_many_checks_each_row_and_undoes_those_before(people: Database) -> None:
    with pytest.raises(QueryError, match="1 were given"):
        people.execute_many("UPDATE people SET name = %s WHERE id = %s", [("zoe", 1), ("bad",)])
    assert names(people) == ["ada", "ben"]
    assert people.execute_many("UPDATE people SET name = %s WHERE id = %s", []).rowcount == 0


# Transactions


def test_a_transaction_is_committed_at_the_end_of_its_block(people: Database) -> None:
    with people.transaction() as tx:
        tx.execute("INSERT INTO people VALUES (3, 'eve')")
        assert tx.fetch_one("SELECT name FROM people WHERE id = 3") == {"name": "eve"}
        assert people.fetch_one("SELECT name FROM people WHERE id = 3") is None
    assert names(people) == ["ada", "ben", "eve"]
    settled(people)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, gevent.GreenletExit, GeneratorExit])
def test_whatever_leaves_the_block_by_raising_rolls_back(people: Database, error: type[BaseException]) -> None:
    def change() -> None:
        with people.transaction() as tx:
            tx.execute("DELETE FROM people")
            raise error

    with pytest.raises(error):
        change()
    assert names(people) == ["ada", "ben"]
    settled(people)


def test_a_time_out_in_the_block_rolls_back(people: Database) -> None:
    def change() -> None:
        with gevent.Timeout(0.01), people.transaction() as tx:
            tx.execute("DELETE FROM people")
            gevent.sleep(5)

    with pytest.raises(gevent.Timeout):
        change()
    assert names(people) == ["ada", "ben"]
    settled(people)


def test_a_greenlet_killed_in_the_block_rolls_back(people: Database) -> None:
    def change() -> None:
        with people.transaction() as tx:
            tx.execute("DELETE FROM people")
            gevent.sleep(5)

    greenlet = gevent.spawn(change)
    while not people.stats.in_use:
        gevent.sleep(0.001)
    gevent.sleep(0.01)
    greenlet.kill()
    assert names(people) == ["ada", "ben"]
    settled(people)


def test_a_generator_that_is_dropped_in_its_transaction_rolls_back(people: Database) -> None:
    def stream() -> Iterator[str]:
        with people.transaction() as tx:
            tx.execute("DELETE FROM people")
            yield "first"
            yield "second"

    generator = stream()
    assert next(generator) == "first"
    del generator
    gevent.idle()
    assert names(people) == ["ada", "ben"]
    settled(people)


def test_a_failed_statement_leaves_the_transaction_usable(people: Database) -> None:
    with people.transaction() as tx:
        tx.execute("INSERT INTO people VALUES (3, 'eve')")
        with pytest.raises(IntegrityError):
            tx.execute("INSERT INTO people VALUES (1, 'dup')")
        tx.execute("INSERT INTO people VALUES (4, 'fay')")
    assert names(people) == ["ada", "ben", "eve", "fay"]


def test_a_transaction_inside_another_is_an_error_and_the_outer_one_goes_on(people: Database) -> None:
    with people.transaction() as tx:
        with pytest.raises(QueryError, match=r"inside transaction\(\)"), people.transaction():
            pass
        tx.execute("INSERT INTO people VALUES (3, 'eve')")
    assert names(people) == ["ada", "ben", "eve"]
    with people.transaction():  # one after the other is no nesting
        pass


def test_a_statement_that_ends_the_transaction_is_reported(people: Database) -> None:
    def change() -> None:
        with people.transaction() as tx:
            tx.execute("COMMIT")

    with pytest.raises(QueryError, match=r"ended the transaction.*COMMIT"):
        change()
    settled(people)


def test_going_on_after_the_transaction_was_ended_changes_nothing(people: Database) -> None:
    def change() -> None:
        with people.transaction() as tx:
            with pytest.raises(QueryError):
                tx.execute("ROLLBACK")
            with pytest.raises(QueryError, match="not open"):
                tx.execute("DELETE FROM people")

    with pytest.raises(QueryError, match="ended by the database"):
        change()
    assert names(people) == ["ada", "ben"]


def test_a_transaction_cannot_be_used_before_or_after_its_block(people: Database) -> None:
    transaction = people.transaction()
    with pytest.raises(QueryError, match="not open"):
        transaction.execute("DELETE FROM people")
    with transaction:
        pass
    with pytest.raises(QueryError, match="not open"):
        transaction.execute("DELETE FROM people")
    with pytest.raises(QueryError, match="entered once"), transaction:
        pass


def test_a_transaction_used_by_two_greenlets_at_once_is_an_error(people: Database, any_url: str) -> None:
    slow = SLOW_SQLITE if any_url.startswith("sqlite") else "SELECT SLEEP(0.1)"
    with people.transaction() as tx:
        other = gevent.spawn(tx.fetch_all, slow)
        gevent.sleep(0.01)
        with pytest.raises(QueryError, match="two greenlets"):
            tx.fetch_all("SELECT id FROM people")
        assert len(other.get()) == 1


# Opening and closing


def test_from_url_registers_the_database_so_that_the_worker_opens_it(sqlite_url: str, connect: Any) -> None:
    database = connect(sqlite_url, name="people")
    assert database in lifecycle.resources()
    assert (database.name, database.ready) == ("people", False)
    database.open()
    assert database.ready


def test_open_fills_the_pool_to_min_size_and_close_empties_it(any_url: str, connect: Any) -> None:
    database = connect(any_url, min_size=5, max_size=6)
    database.open()
    assert (database.stats.size, database.stats.idle) == (5, 5)
    database.close()
    assert (database.stats.size, database.ready) == (0, False)
    with pytest.raises(DatabaseUnavailable, match="was closed"):
        database.fetch_one("SELECT 1")
    database.open()
    assert database.fetch_one("SELECT 1 AS a") == {"a": 1}


def test_a_connection_in_use_at_closing_is_closed_when_it_comes_back(people: Database) -> None:
    with people.transaction() as tx:
        tx.execute("INSERT INTO people VALUES (3, 'eve')")
        people.close()
        assert people.stats.size == 1
    assert people.stats.size == 0
    people.open()
    assert names(people) == ["ada", "ben", "eve"]


def test_repr_shows_the_state_in_one_line_without_user_and_password(any_url: str, connect: Any) -> None:
    database = connect(any_url, name="shop", min_size=1, max_size=3)
    assert " new size=0/3 in_use=0 waiters=0>" in repr(database)
    database.open()
    text = repr(database)
    assert text.startswith("<Database shop ")
    assert " up size=1/3 in_use=0 waiters=0>" in text
    assert "s3cret" not in text
    assert "tafe:" not in text


@pytest.mark.parametrize(
    "setting",
    [
        {"max_size": 0},
        {"max_size": 1001},
        {"min_size": 9},
        {"min_size": 0},
        {"min_size": True},
        {"max_size": "8"},
        {"acquire_timeout_s": 0},
        {"connect_timeout_s": -1},
        {"read_timeout_s": None},
        {"read_timeout_s": float("nan")},
        {"max_lifetime_s": 0},
        {"max_lifetime_s": 0.5},
        {"max_idle_s": float("inf")},
        {"max_idle_s": "60"},
        {"slow_query_s": 0},
        {"slow_query_s": True},
    ],
)
def test_a_setting_out_of_bounds_says_what_is_allowed(sqlite_url: str, connect: Any, setting: dict[str, Any]) -> None:
    before = lifecycle.resources()
    with pytest.raises(UsageError) as caught:
        connect(sqlite_url, **setting)
    assert next(iter(setting)) in caught.value.problem
    assert caught.value.allowed
    assert lifecycle.resources() == before

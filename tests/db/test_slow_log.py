"""Slow statements in the log: what a line says, what it never says, and how many lines there are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import gevent
import pytest

from tafe import lifecycle
from tafe.db.slow import LINES, PERIOD_S, Allowance
from tafe.errors import DatabaseUnavailable, QueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tafe.db import Database

SECRET = "5ecret"
# About 30 ms; anything that is not quick counts as slow here, however fast the machine is.
SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %s) SELECT COUNT(*) AS c FROM n"
ENDLESS = SLOW.replace("%s", "1000000000")


@pytest.fixture
def database(sqlite_url: str, connect: Callable[..., Database]) -> Database:
    made = connect(sqlite_url, name="shop", slow_query_s=0.001, min_size=1, max_size=1)
    made.open()
    return made


@pytest.fixture
def asked_by() -> Iterator[None]:
    """Every greenlet works for this request."""

    def teller() -> lifecycle.Origin:
        return lifecycle.Origin("GET /users/\n\x1b[31m{id}", "request-7")

    lifecycle.add_teller(teller)
    yield
    lifecycle.remove_teller(teller)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "tafe.db"]


def test_a_slow_statement_is_logged_with_its_text_and_without_its_values(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    database.fetch_all(SLOW + "\n  WHERE %s <> ''", (150_000, SECRET))
    database._source.slow_query_s = 60.0  # however busy the machine is
    database.fetch_all("SELECT 1")
    (line,) = lines(caplog)
    assert re.fullmatch(
        r"database shop: slow query, 0\.\d{3} s, 1 row: WITH RECURSIVE n\(i\) AS .* WHERE i < %s\) SELECT .*", line
    )
    assert SECRET not in line
    assert "150000" not in line
    assert database.stats.slow == 1


@pytest.mark.usefixtures("asked_by")
def test_the_line_names_route_and_request_and_cannot_be_broken_by_them(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    database.fetch_one(SLOW, (150_000,))
    (line,) = lines(caplog)
    assert line.endswith(r" [GET /users/\n\x1b[31m{id}, request request-7]")


def test_the_line_tells_how_long_the_statement_waited_for_a_connection(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    gevent.joinall([gevent.spawn(database.fetch_one, SLOW, (150_000,)) for _ in range(2)], raise_error=True)
    first, second = lines(caplog)
    assert "for a connection" not in first
    assert re.search(r" s after \d\.\d{3} s for a connection, 1 row: ", second)


def test_statements_that_time_out_fail_or_are_stopped_are_logged_with_what_they_ended_in(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DatabaseUnavailable):
        database.fetch_all(ENDLESS, timeout_s=0.03)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
        database.fetch_all(ENDLESS)
    with pytest.raises(QueryError):
        database.fetch_all(f"SELECT json(1 || (c = %s) || 'x') FROM ({SLOW})", (SECRET, 150_000))
    outcomes = [re.findall(r", (\w+): ", line) for line in lines(caplog)]
    assert outcomes == [["QueryTimeout"], ["Timeout"], ["QueryError"]]
    assert SECRET not in caplog.text
    stats = database.stats
    assert (stats.slow, stats.timed_out, stats.failed, stats.lost) == (3, 1, 1, 0)


def test_statements_of_a_transaction_are_logged_too(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    with database.transaction() as tx:
        tx.fetch_one(SLOW, (150_000,))
    assert any("WITH RECURSIVE" in line for line in lines(caplog))  # BEGIN and COMMIT may be slow as well


def test_none_is_slow_where_the_setting_is_none(
    sqlite_url: str, connect: Callable[..., Database], caplog: pytest.LogCaptureFixture
) -> None:
    connect(sqlite_url, slow_query_s=None).fetch_one(SLOW, (300_000,))
    assert lines(caplog) == []


def test_a_burst_of_slow_statements_writes_a_few_lines_and_the_next_one_says_how_many_were_left_out() -> None:
    allowance = Allowance()
    burst = [allowance.ask(10.0 + number / 1000) for number in range(LINES + 7)]
    assert burst == [0] * LINES + [None] * 7
    assert allowance.ask(10.0 + PERIOD_S) == 7
    assert allowance.ask(10.0 + PERIOD_S) == 0


def test_what_was_left_out_is_told_in_the_next_line(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    database._source.slow_query_s = 0.0  # every statement is slow
    for _ in range(LINES + 7):
        database.fetch_one("SELECT 1")
    assert len(lines(caplog)) == LINES
    database._source.slow_log._allowance._began_s -= PERIOD_S
    database.fetch_one("SELECT 1")
    assert lines(caplog)[-1].endswith(": SELECT 1; 7 others were not logged")
    assert database.stats.slow == LINES + 8

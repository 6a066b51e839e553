"""However a transaction's greenlet is stopped, all of it is done or nothing, and its connection is given back or gone.

An exception thrown by a callback of the loop arrives at the next place where the greenlet waits: here that is the
answer to BEGIN, COMMIT or ROLLBACK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gevent
import pytest

from tests.db.settling import settled

if TYPE_CHECKING:
    from tafe.db import Database

STOPS: list[type[BaseException]] = [gevent.GreenletExit, gevent.Timeout, SystemExit, KeyboardInterrupt]


def names(database: Database) -> list[str]:
    return [row["name"] for row in database.fetch_all("SELECT name FROM people ORDER BY id")]


def at_next_wait(stop: type[BaseException]) -> None:
    """Have the current greenlet stopped where it waits next."""
    gevent.get_hub().loop.run_callback(gevent.getcurrent().throw, stop)


def add_two(database: Database) -> None:
    with database.transaction() as tx:
        tx.execute("INSERT INTO people VALUES (3, 'eve')")
        tx.execute("INSERT INTO people VALUES (4, 'fay')")


@pytest.mark.parametrize("stop", STOPS)
def test_stopped_at_begin_nothing_is_held(people: Database, stop: type[BaseException]) -> None:
    at_next_wait(stop)
    with pytest.raises(stop):
        add_two(people)
    settled(people)
    assert names(people) == ["ada", "ben"]
    add_two(people)  # nor is the greenlet taken for one that is in a transaction
    assert len(names(people)) == 4


@pytest.mark.parametrize("stop", STOPS)
def test_stopped_at_commit_all_is_done_or_nothing(people: Database, stop: type[BaseException]) -> None:
    def change() -> None:
        with people.transaction() as tx:
            tx.execute("INSERT INTO people VALUES (3, 'eve')")
            tx.execute("INSERT INTO people VALUES (4, 'fay')")
            at_next_wait(stop)

    discarded = people.stats.discarded
    with pytest.raises(stop):
        change()
    settled(people)
    assert people.stats.discarded == discarded + 1
    assert names(people) in (["ada", "ben"], ["ada", "ben", "eve", "fay"])
    people.execute("UPDATE people SET name = 'zoe' WHERE id = 1")  # no lock was left behind


@pytest.mark.parametrize("stop", STOPS)
def test_stopped_at_rollback_nothing_is_done(people: Database, stop: type[BaseException]) -> None:
    def change() -> None:
        with people.transaction() as tx:
            tx.execute("DELETE FROM people")
            at_next_wait(stop)
            raise ValueError

    discarded = people.stats.discarded
    with pytest.raises(stop):
        change()
    settled(people)
    assert people.stats.discarded == discarded + 1
    with gevent.Timeout(5):
        while names(people) != ["ada", "ben"]:
            gevent.sleep(0.01)
    people.execute("UPDATE people SET name = 'zoe' WHERE id = 1")


@pytest.mark.parametrize("stop", STOPS)
def test_stopped_in_mid_statement_nothing_is_done(people: Database, stop: type[BaseException]) -> None:
    def change() -> None:
        with people.transaction() as tx:
            tx.execute("DELETE FROM people WHERE id = 1")
            at_next_wait(stop)
            tx.execute("DELETE FROM people WHERE id = 2")

    with pytest.raises(stop):
        change()
    settled(people)
    assert names(people) == ["ada", "ben"]
    people.execute("UPDATE people SET name = 'zoe' WHERE id = 1")


def test_a_generator_closed_between_two_statements_rolls_back(people: Database) -> None:
    def stream() -> Any:
        with people.transaction() as tx:
            tx.execute("DELETE FROM people WHERE id = 1")
            yield 1
            tx.execute("DELETE FROM people WHERE id = 2")

    generator = stream()
    next(generator)
    generator.close()
    settled(people)
    assert names(people) == ["ada", "ben"]

"""The heaviest of very many, found in one reading and in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from profiler.report.table import Table, Weight


@dataclass
class Sum:
    """What is counted of a key."""

    heavy: int = 0
    light: int = 0

    @property
    def weight(self) -> Weight:
        return float(self.heavy), float(self.light)

    def merge(self, other: Sum) -> None:
        self.heavy += other.heavy
        self.light += other.light


def _rest_of(key: int) -> int:
    return key if key < 0 else -1 if key % 2 else -2


def table_of(additions: list[tuple[int, int, int]], wanted: int) -> Table[int, Sum]:
    table: Table[int, Sum] = Table(wanted, Sum, _rest_of)
    for key, heavy, light in additions:
        entry = table.at(key)
        assert len(table.entries) <= 2 * wanted
        entry.merge(Sum(heavy, light))
    table.shrink()
    return table


ADDITIONS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9), st.integers(0, 9)), max_size=200)


@given(ADDITIONS, st.integers(1, 6))
def test_nothing_is_lost_and_what_is_missing_is_no_heavier_than_is_said(
    additions: list[tuple[int, int, int]], wanted: int
) -> None:
    table = table_of(additions, wanted)
    truth: dict[int, Sum] = {}
    for key, heavy, light in additions:
        truth.setdefault(key, Sum()).merge(Sum(heavy, light))
    held = [*table.entries.values(), *table.rest.values()]
    assert sum(one.heavy for one in held) == sum(one.heavy for one in truth.values())
    assert sum(one.light for one in held) == sum(one.light for one in truth.values())
    assert len(table.entries) <= wanted
    for key, one in truth.items():
        assert key in table.entries or one.weight <= table.lightest
    assert table.lightest[0] <= sum(one.heavy for one in truth.values()) / wanted


def test_the_rest_is_kept_apart_as_it_is_asked_for() -> None:
    table = table_of([(key, key, 0) for key in range(10)], 2)
    assert sorted(table.entries) == [8, 9]
    assert table.rest[-1].heavy == 1 + 3 + 5 + 7
    assert table.rest[-2].heavy == 2 + 4 + 6
    assert table.merged == 7, "one of the ten had nothing"


def test_a_key_that_comes_in_small_pieces_between_many_others_is_found() -> None:
    pieces = [one for n in range(200) for one in ((1, 3, 0), *((1000 + 10 * n + m, 2, 0) for m in range(8)))]
    assert 1 in table_of(pieces, 8).entries, "it has 3 of 19, more than one of 8"


def test_what_was_added_up_elsewhere_as_the_rest_joins_the_rest() -> None:
    table = table_of([(-2, 5, 0), (4, 1, 0)], 3)
    assert (list(table.entries), table.rest[-2].heavy, table.merged) == ([4], 5, 0)

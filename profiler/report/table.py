"""The heaviest of very many: a table that holds a bounded number of entries, and one for all the rest.

Entries are added to as lines are read, in any order. When twice as many as are wanted are there, the lighter half is
merged into the rest: every count is in an entry or in the rest, so sums are those of everything that was read. An
entry that comes (again) has the weight of the heaviest that ever went credited to it, as in the Space-Saving algorithm
(Metwally, Agrawal, El Abbadi, 2005): so what is missing at the end is never heavier than `lightest`, and that is at
most the weight of all divided by the number wanted. What came back shows only what it had since.
Pure: knows neither sites nor routes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, Self, TypeVar

Weight = tuple[float, float]  # what counts first, and what decides between equals


class Entry(Protocol):
    """What a table holds."""

    @property
    def weight(self) -> Weight:
        """Of what was added to it; (0, 0): nothing was."""

    def merge(self, other: Self) -> None:
        """Add what the other holds."""


Key = TypeVar("Key")
Value = TypeVar("Value", bound=Entry)


class Table(Generic[Key, Value]):
    """`wanted` entries at the end, twice as many on the way. `rest_of` names the rest that a key belongs to."""

    def __init__(self, wanted: int, new: Callable[[], Value], rest_of: Callable[[Key], Key]) -> None:
        self._wanted = wanted
        self._new = new
        self._rest_of = rest_of
        self._credits: dict[Key, Weight] = {}
        self.entries: dict[Key, Value] = {}
        self.rest: dict[Key, Value] = {}
        self.merged = 0  # entries that went into the rest; one that came back and went again counts twice
        self.lightest: Weight = (0.0, 0.0)  # no entry that is missing is heavier
        self.came_merged = False  # some of the rest came as such: of what was in that, `lightest` says nothing

    def at(self, key: Key) -> Value:
        """The entry of this key, to be added to."""
        entry = self.entries.get(key)
        if entry is None:
            if self._rest_of(key) == key:
                self.came_merged = True
                return self.rest.setdefault(key, self._new())
            if len(self.entries) >= 2 * self._wanted:
                self.shrink()
            entry = self.entries[key] = self._new()
            self._credits[key] = self.lightest
        return entry

    def shrink(self) -> None:
        """Merge what is beyond the wanted number into the rest, the lightest first."""
        ranked = sorted(self.entries, key=self._rank, reverse=True)
        for key in ranked[self._wanted :]:
            self.lightest = max(self.lightest, self._rank(key))
            entry = self.entries.pop(key)
            del self._credits[key]
            if entry.weight > (0.0, 0.0):
                self.merged += 1
                self.rest.setdefault(self._rest_of(key), self._new()).merge(entry)

    def _rank(self, key: Key) -> Weight:
        (first, second), (first_credit, second_credit) = self.entries[key].weight, self._credits[key]
        return first + first_credit, second + second_credit

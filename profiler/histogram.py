"""Histograms of times: sparse maps from bucket to count, as tally.py divides them; of any range, added up to merge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiler.tally import bucket, middle

if TYPE_CHECKING:
    from collections.abc import Iterable

    from profiler.tally import Tally

BUCKETS = 8160  # up to 2**128 s
MAX_COUNT = 2**53  # of anything that is read back: more is no count but a mistake


class Histogram:
    """Counts by bucket. Quantiles are within 1.6 % of a value that was really added."""

    __slots__ = ("counts",)

    def __init__(self, counts: dict[int, int] | None = None) -> None:
        self.counts: dict[int, int] = {} if counts is None else counts

    @classmethod
    def of(cls, *tallies: Tally | None) -> Histogram:
        """What these have counted together."""
        histogram = cls()
        histogram.merge(cls(tally.buckets()) for tally in tallies if tally)
        return histogram

    @classmethod
    def of_packed(cls, packed: object) -> Histogram:
        """The inverse of `packed`; raises ValueError or TypeError for what is none."""
        if not isinstance(packed, list):
            raise TypeError("a histogram is a list")
        counts: dict[int, int] = {}
        index = 0
        for number in packed:
            if type(number) is not int or not -BUCKETS < number <= MAX_COUNT:
                raise ValueError("a histogram is a list of counts, with what is skipped between them as -n")
            if number > 0:
                counts[index] = number
            index += -number if number < 0 else 1
        if index > BUCKETS:
            raise ValueError("a histogram has no such bucket")
        return cls(counts)

    def packed(self) -> list[int]:
        """The counts in the order of their buckets, from 0; -n skips n empty buckets. How a histogram is stored.

        Neighbours need no number of their own, which is 40 % of the size of bucket and count in turn.
        """
        packed: list[int] = []
        following = 0
        for index, count in sorted(self.counts.items()):
            if index > following:
                packed.append(following - index)
            packed.append(count)
            following = index + 1
        return packed

    def add(self, value: float, count: int = 1) -> None:
        """Count `value`, `count` times."""
        index = bucket(value)
        self.counts[index] = self.counts.get(index, 0) + count

    def merge(self, others: Iterable[Histogram]) -> None:
        """Add what the others counted."""
        counts = self.counts
        for other in others:
            for index, count in other.counts.items():
                counts[index] = counts.get(index, 0) + count

    @property
    def count(self) -> int:
        """How many values were added."""
        return sum(self.counts.values())

    def quantile(self, share: float) -> float:
        """The smallest value that at least `share` (0 to 1) of all values do not exceed; 0.0 when there are none."""
        wanted = share * self.count
        seen = 0
        index = 0
        for index in sorted(self.counts):
            seen += self.counts[index]
            if seen >= wanted:
                break
        return middle(index)

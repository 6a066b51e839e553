"""Times of many workers, hosts and hours in bounded memory: counts by bucket, of which quantiles are taken at the end.

The buckets are those of the workers (profiler/tally.py): 32 an octave, so a quantile is within 1.6 % of a value that
was really measured, from a nanosecond to three days. What is merged in any order, or was never apart, is the same
sketch, which no quantile of quantiles can promise. Counts lie in one array from the first bucket in use to the last:
some 1,500 at most, 12 KB; the times of one route, or the slices of one line, take a tenth of that.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING

from profiler.tally import bucket, middle

if TYPE_CHECKING:
    from profiler.histogram import Histogram

FIRST = bucket(1e-9)  # nothing shorter is told from zero
LAST = bucket(float("inf"))
MAX_BUCKETS = LAST - FIRST + 1
_MIDDLES_S = [middle(index) for index in range(FIRST, LAST + 1)]
_MOST = 2**64 - 1  # of an array's element: there a damaged file's counts end


class Sketch:
    """Counts of times by bucket."""

    __slots__ = ("_counts", "_first", "_zeros")

    def __init__(self) -> None:
        self._zeros = 0
        self._first = FIRST  # the bucket of the first element
        self._counts = array("Q")

    def add(self, histogram: Histogram) -> None:
        """Count what a line of a file tells; what is beyond the buckets is in the last, or zero."""
        counted = [(min(index, LAST), count) for index, count in histogram.counts.items() if index >= FIRST]
        self._zeros += histogram.count - sum(count for _, count in counted)
        self._count(counted)

    def merge(self, other: Sketch) -> None:
        """Add what the other counted."""
        self._zeros += other._zeros
        self._count(list(enumerate(other._counts, other._first)))

    def _count(self, counted: list[tuple[int, int]]) -> None:
        if not counted:
            return
        self._cover(min(counted)[0], max(counted)[0])
        counts, first = self._counts, self._first
        for index, count in counted:
            total = counts[index - first] + count
            counts[index - first] = total if total <= _MOST else _MOST

    def _cover(self, least: int, most: int) -> None:
        counts = self._counts
        if not counts:
            self._first = least
        elif least < self._first:
            counts[:0] = array("Q", bytes(8 * (self._first - least)))
            self._first = least
        missing = most + 1 - self._first - len(counts)
        if missing > 0:
            counts.frombytes(bytes(8 * missing))

    @property
    def count(self) -> int:
        """How many values were counted."""
        return self._zeros + sum(self._counts)

    @property
    def buckets(self) -> int:
        """How many are held."""
        return len(self._counts)

    @property
    def total_s(self) -> float:
        """The sum of the values, as near as the buckets tell."""
        return sum(map(float.__mul__, self._middles_s(), map(float, self._counts)))

    def quantile(self, share: float) -> float:
        """The least value that at least `share` (0 to 1) of all values do not exceed, in seconds; 0.0 without any."""
        wanted = share * self.count
        seen, value_s = self._zeros, 0.0
        if seen >= wanted:
            return 0.0
        for middle_s, count in zip(self._middles_s(), self._counts, strict=False):
            if count:
                seen += count
                value_s = middle_s
                if seen >= wanted:
                    break
        return value_s

    def _middles_s(self) -> Iterator[float]:
        return iter(_MIDDLES_S[self._first - FIRST : self._first - FIRST + len(self._counts)])

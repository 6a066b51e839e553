"""Buckets of times, and counting many at once: the part of the histograms that runs on the hub.

The bucket of a value is the upper 14 bits of its 32-bit float: sign, exponent and five bits of mantissa, so 32 buckets
an octave, each within 1.6 % of its middle.
The one module with two sources. In Python it is quickest to have C code of the standard library do one step for all
values after the other; compiled, a loop over the requests is (tally.pyx). Both pass the same tests.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from struct import Struct, pack
from sys import getrefcount
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from profiler.model import Span

_FLOAT = Struct("<f")
_DROPPED_BITS = 18  # of the 32
_RAW_DROPPED_BITS = 2  # from the 16 bits that are counted to the 14 of a bucket
_NOTHING = _FLOAT.unpack(_FLOAT.pack(1e-9))[0]  # below a nanosecond is rounding error: zero
_LONGEST_S = 262144.0  # three days: what takes longer is counted as that
_RAW_INFINITY = 0x7F80  # what is above, without a sign, is no number
_UPPER_HALF = 1 if sys.byteorder == "little" else 0
_ALONE: Final = next(map(getrefcount, [object()]))  # what it says of what only a list has


def bucket(value: float) -> int:
    """The bucket that `value` falls into; what is under a nanosecond, or negative, or no number, is in bucket 0."""
    if not value >= _NOTHING:
        return 0
    return int.from_bytes(_FLOAT.pack(min(value, _LONGEST_S)), "little") >> _DROPPED_BITS


def middle(index: int) -> float:
    """The value in the middle of a bucket; 0.0 for bucket 0."""
    if not index:
        return 0.0
    bits = (index << _DROPPED_BITS) | (1 << (_DROPPED_BITS - 1))
    value: float = _FLOAT.unpack(bits.to_bytes(4, "little"))[0]
    return value


class Tally:
    """Counts of values by bucket."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, values: list[float]) -> None:
        """Count each of them."""
        self._counts.update(array("H", pack(f"{len(values)}f", *values))[_UPPER_HALF::2])

    def buckets(self) -> dict[int, int]:
        """The counts."""
        least, most = bucket(_NOTHING), bucket(_LONGEST_S)
        counts: dict[int, int] = {}
        for upper, count in self._counts.items():
            index = 0 if upper > _RAW_INFINITY else min(upper >> _RAW_DROPPED_BITS, most)
            if index < least:
                index = 0
            counts[index] = counts.get(index, 0) + count
        return counts

    def coarse(self, edges: list[int]) -> list[int]:
        """The counts below the first of these buckets, from each of them to the next, and from the last on."""
        least, most = bucket(_NOTHING), bucket(_LONGEST_S)
        keys = sorted(self._counts)
        values = list(map(self._counts.__getitem__, keys))
        positive = bisect_right(keys, _RAW_INFINITY)
        counts = []
        begin = 0
        for edge in edges:  # what is under `least` is in bucket 0, what is over `most` in that
            end = (
                bisect_left(keys, max(edge, least) << _RAW_DROPPED_BITS) if 0 < edge <= most else positive * (edge > 0)
            )
            counts.append(sum(values[begin:end]))
            begin = end
        counts.append(sum(values[begin:positive]))
        counts[bisect_right(edges, 0)] += sum(values[positive:])
        return counts


class RouteTimes:
    """The requests of one route, while figures of it are gathered."""

    __slots__ = (
        "at_once", "errors", "longest", "longest_s", "outcomes", "queued", "queued_s", "requests", "running",
        "running_s", "total", "total_s", "waiting", "waiting_s",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.outcomes: dict[int, int] = {}  # requests by outcome, as far as they had one
        self.total_s = self.running_s = self.waiting_s = self.queued_s = self.longest_s = 0.0  # sums
        self.total = Tally()
        self.queued = Tally()
        # Of requests that were one slice: their running time, and their longest slice.
        self.at_once: Tally | None = None
        # Of the others.
        self.running: Tally | None = None
        self.longest: Tally | None = None
        self.waiting: Tally | None = None

    def add(self, spans: list[Span]) -> float:
        """Count finished requests. The longest of their total times."""
        self.requests += len(spans)
        totals_s = [span.total_s for span in spans]
        self.total.add(totals_s)
        self.total_s += sum(totals_s)
        queued_s = [span.queued_s for span in spans]
        self.queued.add(queued_s)
        self.queued_s += sum(queued_s)
        waited = [span for span in spans if span._out_s]  # noqa: SLF001
        if len(waited) < len(spans):
            self.at_once = self.at_once or Tally()
            running_s = [span.running_s for span in spans if not waited or not span._out_s]  # noqa: SLF001
            self.at_once.add(running_s)
            at_once_s = sum(running_s)
            self.running_s += at_once_s
            self.longest_s += at_once_s
        if waited:
            self.running = self.running or Tally()
            self.longest = self.longest or Tally()
            self.waiting = self.waiting or Tally()
            running_s = [span.running_s for span in waited]
            self.running.add(running_s)
            self.running_s += sum(running_s)
            longest_s = [span.longest_slice_s for span in waited]
            self.longest.add(longest_s)
            self.longest_s += sum(longest_s)
            waiting_s = [span.waiting_s for span in waited]
            self.waiting.add(waiting_s)
            self.waiting_s += sum(waiting_s)
        return max(totals_s)

    def end_unusually(self, span: Span) -> None:
        """Count a request, which `add` counts too, by how it ended."""
        self.errors += span.error
        self.outcomes[span.outcome] = self.outcomes.get(span.outcome, 0) + 1


def spare(spans: list[Span], into: list[Span]) -> None:
    """Add those of `spans` that nothing else refers to, which can be other requests'."""
    references = list(map(getrefcount, spans))
    if references.count(_ALONE) == len(spans):
        into += spans
    else:
        into += [span for span, count in zip(spans, references, strict=True) if count == _ALONE]

"""Buckets of times, and counting many at once: the part of a histogram that runs on the hub.

The bucket of a value is the upper 14 bits of its 32-bit float: sign, exponent and five bits of mantissa, so 32 buckets
an octave, each within 1.6 % of its middle.
The one module with two sources. In Python it is quickest to have C code of the standard library do one step for all
values after the other; compiled, a loop over the values is (tally.pyx). Both pass the same tests.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from struct import Struct, pack

_FLOAT = Struct("<f")
_DROPPED_BITS = 18  # of the 32
_RAW_DROPPED_BITS = 2  # from the 16 bits that are counted to the 14 of a bucket
_RAW_SIGN = 0x8000
_NOTHING = _FLOAT.unpack(_FLOAT.pack(1e-9))[0]  # below a nanosecond is rounding error: zero
_LONGEST_S = 262144.0  # three days: what takes longer is counted as that
_UPPER_HALF = 1 if sys.byteorder == "little" else 0


def bucket(value: float) -> int:
    """The bucket that `value` falls into; what is under a nanosecond, or negative, is in bucket 0."""
    if value < _NOTHING:
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
            index = 0 if upper & _RAW_SIGN else min(upper >> _RAW_DROPPED_BITS, most)
            if index < least:
                index = 0
            counts[index] = counts.get(index, 0) + count
        return counts

    def coarse(self, edges: list[int]) -> list[int]:
        """The counts below the first of these buckets, from each of them to the next, and from the last on."""
        least, most = bucket(_NOTHING), bucket(_LONGEST_S)
        keys = sorted(self._counts)
        values = list(map(self._counts.__getitem__, keys))
        positive = bisect_left(keys, _RAW_SIGN)
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

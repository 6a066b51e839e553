"""Buckets of times, and counting many at once: the part of the histograms that runs on the hub.

The bucket of a value is the upper 14 bits of its 32-bit float: sign, exponent and five bits of mantissa, so 32 buckets
an octave, each within 1.6 % of its middle.
The one module with two sources. In Python it is quickest to have C code of the standard library do one step for all
values after the other; compiled, a loop over the requests is (tally.pyx). Both pass the same tests.
"""

# ruff: noqa: SLF001 - what the hook wrote down is read

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import defaultdict
from struct import Struct, pack
from sys import getrefcount
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from profiler.model import Span

_FLOAT = Struct("<f")
_DROPPED_BITS = 18  # of the 32
_NOTHING = _FLOAT.unpack(_FLOAT.pack(1e-9))[0]  # below a nanosecond is rounding error: zero
_LONGEST_S = 262144.0  # three days: what takes longer is counted as that
_INFINITY = 0x7F800000 >> _DROPPED_BITS  # what is above, without a sign, is no number
_ALONE: Final = next(map(getrefcount, [object()]))  # what it says of what only a list has

# A group is eight octaves, so that a bucket's place in it is a byte. Of a float's bytes, which are translated all at
# once, the highest tells the group and two bits of the place, the second its other six.
_BYTES_UP = sys.byteorder == "little"
_HIGHEST, _SECOND = (slice(3, None, 4), slice(2, None, 4)) if _BYTES_UP else (slice(0, None, 4), slice(1, None, 4))
_GROUP = bytes(byte >> 2 for byte in range(256))
_UPPER_PLACE = bytes((byte & 3) << 6 for byte in range(256))
_LOWER_PLACE = bytes(byte >> 2 for byte in range(256))
_BELOW = [bytes(range(byte)) for byte in range(128)]  # highest bytes of less; from 128 on they are of what is negative


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


def _no_counts() -> list[float]:
    return [0.0] * 256


class Tally:
    """Counts of values by bucket."""

    __slots__ = ("_groups",)

    def __init__(self) -> None:
        # By group and place. As floats: CPython adds one to an integer over 256 in 440 instructions, to a float in 360.
        self._groups: defaultdict[int, list[float]] = defaultdict(_no_counts)

    def add(self, values: list[float]) -> None:
        """Count each of them."""
        self._count(values)

    def _count(self, values: list[float]) -> bytes:
        # Returns each one's highest byte, which tells it to a factor of four.
        number = len(values)
        data = pack(f"{number}f", *values)
        highest = data[_HIGHEST]
        upper = int.from_bytes(highest.translate(_UPPER_PLACE), "little")
        lower = int.from_bytes(data[_SECOND].translate(_LOWER_PLACE), "little")
        places = (upper | lower).to_bytes(number, "little")
        groups = highest.translate(_GROUP)
        by_group = self._groups
        if groups == groups[:1] * number:  # as a rule, and a third cheaper
            for group in groups[:1]:
                counts = by_group[group]
                for place in places:
                    counts[place] += 1.0
        else:
            for group, place in zip(groups, places, strict=True):
                by_group[group][place] += 1.0
        return highest

    def buckets(self) -> dict[int, int]:
        """The counts."""
        least, most = bucket(_NOTHING), bucket(_LONGEST_S)
        buckets: dict[int, int] = {}
        for group, counts in self._groups.items():
            for place, count in enumerate(counts, group << 8):
                if count:
                    index = min(place, most) if least <= place <= _INFINITY else 0
                    buckets[index] = buckets.get(index, 0) + int(count)
        return buckets

    def coarse(self, edges: list[int]) -> list[int]:
        """The counts below the first of these buckets, from each of them to the next, and from the last on."""
        coarse = [0] * (len(edges) + 1)
        for index, count in self.buckets().items():
            coarse[bisect_right(edges, index)] += count
        return coarse


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

    def add_at_once(self, spans: list[Span], shorter_s: float) -> bool:
        """Count requests that were one slice. Whether some of their total times are over `shorter_s`."""
        self.at_once = self.at_once or Tally()
        total_s = [span.total_s for span in spans]
        queued_s = [span.queued_s for span in spans]
        running_s = [span.total_s - span.queued_s for span in spans]
        highest = self.total._count(total_s)
        self.queued._count(queued_s)
        self.at_once._count(running_s)
        sum_s, sum_queued_s = sum(total_s), sum(queued_s)
        self.requests += len(spans)
        self.total_s += sum_s
        self.queued_s += sum_queued_s
        self.running_s += sum_s - sum_queued_s
        self.longest_s += sum_s - sum_queued_s
        # Most are far below, and to look at their highest bytes takes a tenth of what `max` does.
        return bool(highest.translate(None, _BELOW[bucket(shorter_s) >> 6])) and max(total_s) > shorter_s

    def add_waited(self, spans: list[Span], shorter_s: float) -> bool:
        """Count requests that were not. As `add_at_once`."""
        self.running = self.running or Tally()
        self.longest = self.longest or Tally()
        self.waiting = self.waiting or Tally()
        total_s = [span.total_s for span in spans]
        queued_s = [span.queued_s for span in spans]
        running_s = [span._running_s for span in spans]
        longest_s = [span._longest_s for span in spans]
        waiting_s = [span.waiting_s for span in spans]
        self.total.add(total_s)
        self.queued.add(queued_s)
        self.running.add(running_s)
        self.longest.add(longest_s)
        self.waiting.add(waiting_s)
        self.requests += len(spans)
        self.total_s += sum(total_s)
        self.queued_s += sum(queued_s)
        self.running_s += sum(running_s)
        self.longest_s += sum(longest_s)
        self.waiting_s += sum(waiting_s)
        return max(total_s) > shorter_s

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

"""Convoys: many short slices in one turn of the loop, which together keep others waiting as a long one does.

A turn is what the hub runs between two polls. The rule, for a threshold of 10 ms:

| | |
| --- | --- |
| members | slices of half a millisecond or more that are not slow themselves |
| a convoy | `FEWEST` members or more in one turn, of the threshold's length or more together |
| no convoy | what follows a stall in the same turn or the next: the requests that had to wait for it come all at once |

So a worker that is merely loaded has none: it has many slices in a turn, but they are shorter than members are.
What comes right after a stall belongs to a convoy all the same if it works for the same request as that convoy.
Pure: no clock. The hook tells it of members and stalls only, neither of which is frequent.
Limits: slices of half the threshold, with a poll after each, are none; nor are members of a backlog that never ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from profiler.model import Span

# Of the threshold: a member. 0.5 ms is five times what a request to a database takes of the hub (100 us, measured).
MEMBER = 0.05
FEWEST = 5  # fewer are nearly slow slices, each of which took a fifth of the threshold


class Part(NamedTuple):
    """What a slice is a part of."""

    since_s: float  # when the convoy began
    members: int  # so far
    shared: bool  # they did not all work for one request


class Convoys:
    """Told of a turn's members in order."""

    def __init__(self, threshold_s: float) -> None:
        self._threshold_s = threshold_s
        self._turn = -1
        self._members = 0
        self._busy_s = 0.0
        self._since_s = 0.0
        self._found = False
        self._backlog = -1  # the last turn that pays for a stall
        self._latest: Span | None = None  # what the latest convoy worked for
        self._first: Span | None = None  # what the first member worked for
        self._shared = False  # and another did not

    def add(self, turn: int, turn_s: float, start_s: float, end_s: float, span: Span | None) -> Part | None:
        """A member has ended: the convoy it is part of, if there is one."""
        if turn != self._turn:
            self._begin(turn, turn_s)
        if not self._members:
            self._first = span
        self._shared = self._shared or span is None or span is not self._first
        self._members += 1
        self._busy_s += end_s - start_s
        if self._found:
            return Part(self._since_s, self._members, self._shared)
        if self._members < FEWEST or self._busy_s < self._threshold_s:
            return None
        behind = turn <= self._backlog
        self._backlog = turn + 1
        if behind and (span is None or span is not self._latest):
            return None
        self._found = True
        self._latest = span
        return Part(self._since_s, self._members, self._shared)

    def stalled(self, turn: int, end_s: float) -> None:
        """A slow slice has ended."""
        self._begin(turn, end_s)
        self._backlog = turn + 1

    def _begin(self, turn: int, since_s: float) -> None:
        self._turn = turn
        self._since_s = since_s
        self._members = 0
        self._busy_s = 0.0
        self._found = False
        self._first = None
        self._shared = False

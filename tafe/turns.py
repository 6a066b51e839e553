"""Fairness within a long transfer: whoever need not wait for its client lets the others run now and then.

A send that always finds room, or a receive that always finds bytes, never gives the hub back by itself; a quick client
with a gigabyte would stop all others. By time and not by bytes: a thousand tiny pieces cost more than one large one.
"""

from __future__ import annotations

from time import monotonic
from typing import Final, Protocol

# As long as some fifty of the smallest requests take, and long against what a turn of the loop costs (20 us).
TURN_S: Final = 0.001


class Pausable(Protocol):
    """What a turn belongs to."""

    def pause(self) -> None:
        """Let everybody else have a turn; returns at the next."""
        ...


class Turn:
    """One transfer's share of the hub. Waiting in between is not noticed: a pause too many does no harm."""

    __slots__ = ("_began_s", "_owner")

    def __init__(self, owner: Pausable) -> None:
        self._owner = owner
        self._began_s = monotonic()

    def share(self) -> None:
        """Pause if the turn is over."""
        if monotonic() - self._began_s > TURN_S:
            self._owner.pause()
            self._began_s = monotonic()

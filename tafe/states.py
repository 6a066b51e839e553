"""The states of a connection, and what each may become."""

from __future__ import annotations

import enum
from typing import Final


class State(enum.IntEnum):
    """What a connection is doing."""

    IDLE = 0  # nothing of a next request was read
    HEAD = 1  # part of a head
    BODY = 2  # a small declared body is being gathered
    WAITING = 3  # complete, and the worker runs as many requests as it may
    RUNNING = 4  # a greenlet has it
    LINGERING = 5  # answered for good; what still comes is thrown away
    CLOSED = 6


SUCCESSORS: Final[dict[State, frozenset[State]]] = {
    State.IDLE: frozenset({State.HEAD, State.BODY, State.WAITING, State.RUNNING, State.LINGERING, State.CLOSED}),
    State.HEAD: frozenset(
        {State.IDLE, State.BODY, State.WAITING, State.RUNNING, State.LINGERING, State.CLOSED}  # IDLE: an empty line
    ),
    State.BODY: frozenset({State.WAITING, State.RUNNING, State.LINGERING, State.CLOSED}),
    State.WAITING: frozenset({State.RUNNING, State.LINGERING, State.CLOSED}),
    State.RUNNING: frozenset({State.IDLE, State.LINGERING, State.CLOSED}),
    State.LINGERING: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}

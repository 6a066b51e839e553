"""The states of a connection, and what each may become."""

from __future__ import annotations

import enum
from typing import Final


class State(enum.IntEnum):
    """What a connection is doing."""

    IDLE = 0  # nothing of a next request was read
    NEXT = 1  # a next request, or part of it, was read ahead and comes in its turn
    HEAD = 2  # part of a head
    BODY = 3  # a small declared body is being gathered
    WAITING = 4  # complete, and the worker runs as many requests as it may
    RUNNING = 5  # a greenlet has it
    SENDING = 6  # the request is over, and a slow reader still takes its answer
    LINGERING = 7  # answered for good; what still comes is thrown away
    CLOSED = 8


SUCCESSORS: Final[dict[State, frozenset[State]]] = {
    State.IDLE: frozenset({State.HEAD, State.BODY, State.WAITING, State.RUNNING, State.LINGERING, State.CLOSED}),
    State.NEXT: frozenset({State.HEAD, State.CLOSED}),
    State.HEAD: frozenset({State.BODY, State.WAITING, State.RUNNING, State.LINGERING, State.CLOSED}),
    State.BODY: frozenset({State.WAITING, State.RUNNING, State.LINGERING, State.CLOSED}),
    State.WAITING: frozenset({State.RUNNING, State.LINGERING, State.CLOSED}),
    State.RUNNING: frozenset({State.IDLE, State.NEXT, State.SENDING, State.LINGERING, State.CLOSED}),
    State.SENDING: frozenset({State.IDLE, State.NEXT, State.LINGERING, State.CLOSED}),
    State.LINGERING: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}

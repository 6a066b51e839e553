"""What a worker must have before it is ready, and which state it is in.

A `Resource` (a database pool, say) registers itself when the application is loaded; the worker opens every
resource before it reports ready, retrying the ones that are down. The registry is per process: the application is
loaded after the fork, so a worker never shares it.
The states are a table: each names its successors. Knows neither HTTP nor databases.
"""

from __future__ import annotations

import enum
from typing import Protocol


class Resource(Protocol):
    """Something that a worker opens before it is ready and closes when it stops."""

    @property
    def name(self) -> str:
        """Short and without credentials, for logs and the readiness answer."""
        ...

    @property
    def ready(self) -> bool:
        """True while requests that need this resource can be served."""
        ...

    def open(self) -> None:
        """Fill up; raise `errors.Unavailable` when it cannot be done now. Called again after a failure."""
        ...

    def close(self) -> None:
        """Let go of everything; never raises."""
        ...


class State(enum.IntEnum):
    """A worker's state.

    STARTING loads the application; WAITING has loaded it but lacks a resource; READY serves; DRAINING finishes what is
    in flight; STOPPED is the end.
    """

    STARTING = 0
    WAITING = 1
    READY = 2
    DRAINING = 3
    STOPPED = 4


SUCCESSORS: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.WAITING, State.READY, State.DRAINING, State.STOPPED}),
    State.WAITING: frozenset({State.READY, State.DRAINING, State.STOPPED}),
    State.READY: frozenset({State.WAITING, State.DRAINING, State.STOPPED}),
    State.DRAINING: frozenset({State.STOPPED}),
    State.STOPPED: frozenset(),
}

_resources: list[Resource] = []


def register(resource: Resource) -> None:
    """Have the worker open `resource` before it is ready."""
    _resources.append(resource)


def unregister(resource: Resource) -> None:
    """Forget `resource`; no error if it is not known."""
    if resource in _resources:
        _resources.remove(resource)


def resources() -> tuple[Resource, ...]:
    """The registered resources, in order of registration."""
    return tuple(_resources)

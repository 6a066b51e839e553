"""What a worker must have before it is ready, and which state it is in.

A `Resource` (a database pool, say) registers itself when the application is loaded; the worker opens every
resource before it reports ready, retrying the ones that are down. The registry is per process: the application is
loaded after the fork, so a worker never shares it.
The states are a table: each names its successors. Knows neither HTTP nor databases.

Two questions go through here between parts that do not know each other: what there is to measure (`metrics`), and which
request a greenlet works for (`origin`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol, runtime_checkable


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


class Metric(NamedTuple):
    """One figure, by Prometheus' conventions: a name in `_total` only grows, in `_seconds` is in seconds."""

    name: str
    labels: Mapping[str, str]
    value: float


@runtime_checkable
class Measured(Protocol):
    """A resource that counts what it does."""

    def metrics(self) -> Iterator[Metric]:
        """What it has counted in this process; cheap enough to be asked every few seconds."""
        ...


class Origin(NamedTuple):
    """The request that a greenlet works for. `route` may hold what a client sent."""

    route: str
    request_id: str


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


def metrics() -> Iterator[Metric]:
    """What the registered resources have counted."""
    for resource in _resources:
        if isinstance(resource, Measured):
            yield from resource.metrics()


_tellers: list[Callable[[], Origin | None]] = []


def add_teller(teller: Callable[[], Origin | None]) -> None:
    """Have `teller` say which request the current greenlet works for. Asked rarely, so it may search."""
    _tellers.append(teller)


def remove_teller(teller: Callable[[], Origin | None]) -> None:
    """Ask `teller` no more; no error if it is not known."""
    if teller in _tellers:
        _tellers.remove(teller)


def origin() -> Origin | None:
    """The request that the current greenlet works for; None if that is not known."""
    return next((found for teller in _tellers if (found := teller()) is not None), None)

"""Who asks in a greenlet of its own, and calls that tell what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
from gevent.event import Event

import tafe


def in_greenlet(work: Callable[[], object]) -> tuple[gevent.Greenlet, list[Any]]:
    """Run `work` in a greenlet; what it returns or raises is put into the list."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    return gevent.spawn(run), outcome


class Calls:
    """Calls that tell what becomes of them."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []  # killed, and done with what they do then
        self.never = Event()

    def waits(self, name: str) -> None:
        """Waits for what never comes; takes a moment to end."""
        self.begun.append(name)
        try:
            self.never.wait()
        except gevent.GreenletExit:
            gevent.sleep(0.002)
            self.ended.append(name)
            raise

    def fails(self, after: int = 1) -> None:
        """Fails when so many others have begun."""
        while len(self.begun) < after:
            gevent.sleep(0)
        raise KeyError("the first")


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Read:
    """A read that ends when it is let; `made` counts them, `ended` those that were killed."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.made = 0
        self.ended = 0
        self.go = Event()
        self.error = error

    def __call__(self) -> list[int]:
        self.made += 1
        number = self.made
        try:
            self.go.wait()
        except gevent.GreenletExit:
            gevent.sleep(0.002)
            self.ended += 1
            raise
        if self.error is not None:
            raise self.error
        return [number]


def ask(flight: tafe.SingleFlight, key: Any, call: Callable[[], Any]) -> tuple[gevent.Greenlet, list[Any]]:
    """Ask in a greenlet; what it gets or is raised is put into the list."""
    return in_greenlet(partial(flight, key, call))


def outcomes(asked: list[tuple[gevent.Greenlet, list[Any]]]) -> list[Any]:
    gevent.joinall([asking for asking, _ in asked])
    return [outcome for _, (outcome,) in asked]

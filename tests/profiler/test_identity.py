"""Greenlets of classes that define `==` and `hash()`: each is one by itself, for the hook as for greenlet."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import greenlet
import pytest

import profiler
from profiler.identity import is_compared
from tests.profiler.test_hook import run_in_request, spin


@pytest.fixture(autouse=True)
def _no_class_left() -> Iterator[None]:
    """The next test's sessions are to find none."""
    yield
    gc.collect()
    assert not is_compared()


def alike() -> type[greenlet.greenlet]:
    class Alike(greenlet.greenlet):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

    return Alike


def raising() -> type[greenlet.greenlet]:
    class Raising(greenlet.greenlet):
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("not to be compared")

        def __hash__(self) -> int:
            raise RuntimeError("not to be a key")

    return Raising


def in_requests(kind: type[greenlet.greenlet], session: profiler.Session, *works: Callable[[], object]) -> list[Any]:
    """Each in a request of its own, in greenlets of that class, begun one after the other."""
    spans: list[Any] = [None] * len(works)
    hub = gevent.get_hub()

    def serve(number: int) -> None:
        span = session.begin(f"GET /{number}", "r")
        works[number]()
        session.end(span)
        spans[number] = span

    for number in range(len(works)):
        hub.loop.run_callback(kind(serve, hub).switch, number)
    with gevent.Timeout(5):
        while not all(spans):
            gevent.sleep(0.001)
    return spans


def waits_and_works() -> None:
    gevent.sleep(0.02)
    spin(0.02)


@pytest.mark.parametrize("made", [alike, raising])
@pytest.mark.parametrize("seen", ["before the session", "while it is open"])
@pytest.mark.parametrize("chained", [False, True])
def test_requests_in_greenlets_whose_class_compares_them_are_told_apart(
    install: Callable[..., profiler.Session], made: Any, seen: str, chained: bool
) -> None:
    if chained:
        greenlet.settrace(lambda _event, _args: None)
    kind = made() if seen == "before the session" else None
    session = install()
    if kind is None:
        kind = made()
        session._hook.sweep()  # as the pulse does
    first, _ = in_requests(kind, session, waits_and_works, lambda: gevent.sleep(0.04))
    counts = session._hook.counts()
    assert (counts.failures, counts.dropped, counts.displaced) == (0, 0, 0)
    assert first.running_s >= 0.02, "what it ran after it had waited is its own"
    assert first in [record.span for record, _ in first.blamed]
    del kind


def test_a_request_that_waits_when_such_a_class_is_first_seen_goes_on(session: profiler.Session) -> None:
    def waits_meanwhile() -> None:
        gevent.get_hub().loop.run_callback(session._hook.sweep)
        waits_and_works()

    kind = alike()
    (span,) = in_requests(kind, session, waits_meanwhile)
    assert span.running_s >= 0.02
    assert session._hook.counts().dropped == 0
    del kind


def test_what_such_a_greenlet_does_for_a_request_is_the_requests(install: Callable[..., profiler.Session]) -> None:
    kinds = [raising()]
    session = install()
    span = run_in_request(session, lambda: kinds.pop()(lambda: spin(0.02)).switch())
    assert span.blamed is not None
    assert span in [record.span for record, _ in span.blamed]
    assert session._hook.counts().failures == 0

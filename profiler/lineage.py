"""Whose work is it? How greenlets and native threads come to work for the request that started them.

| started by | known by |
| --- | --- |
| `gevent.spawn`, `spawn_later`, a `Pool`, `gevent.thread` | gevent's own callback for what is spawned |
| `gevent.spawn_raw` | the class that it makes its greenlets of, replaced in `gevent.hub` |
| `greenlet.greenlet(f)`, with the request's greenlet for its parent | its parent (hook.py) |
| `greenlet.greenlet(f, hub)` that the request switches to | that switch (hook.py) |
| a thread pool's `spawn`, `apply`, `map`; an executor on it | `ThreadPool.spawn`, replaced in the class |

A child's children are the request's too. Who begins a request of its own works for that.
The slow slices of a child count as its request's; its time does not: the request waits for it, or does not.
Of a thread's call only what it does to the hub counts, by holding the GIL: `caller` tells whose call a thread ran.
A greenlet that outlives its request works for it until `LEFT_BEHIND_S` after the request's start, and then for nobody:
what goes on after that, as a keeper that the first request started, is not a request's work.
Limits: a bare `loop.run_callback(...)` or timer tells nobody who asked for it, so what it runs is the hub's.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, Any

import gevent.hub
from gevent import Greenlet
from gevent.threadpool import ThreadPool

from profiler.native import get_ident

if TYPE_CHECKING:
    from collections.abc import Callable

    from profiler.model import Span

INHERITED = "_profiler_span"  # the attribute by which a greenlet knows the request it works for
LEFT_BEHIND_S = 30.0  # longer than what is done after an answer takes, and than clients wait for one, as a rule
SWEPT = 1000  # greenlets looked at in one go: 0.2 ms, interpreted

_FACTORIES = ("TrackedRawGreenlet", "RawGreenlet")  # what spawn_raw makes, with and without GEVENT_TRACK_GREENLET_TREE


class Lineage:
    """Made in the hub's thread. `working_for` tells the request that the current greenlet works for."""

    def __init__(self, working_for: Callable[[], Span | None]) -> None:
        self._working_for = working_for
        self._ident = get_ident()  # another thread may have a hub of its own
        self._calls: dict[int, tuple[Span, float]] = {}  # the latest of each pool's thread, and when it ended
        self._replaced: list[tuple[Any, str, Any, Any]] = []  # where, its name, what it was, what it is

    def install(self) -> None:
        """From now on."""
        Greenlet.add_spawn_callback(self._inherit)
        for name in _FACTORIES:
            self._replace(gevent.hub, name, self._factory(getattr(gevent.hub, name)))
        self._replace(ThreadPool, "spawn", self._spawn(ThreadPool.spawn))

    def remove(self) -> None:
        """No more. What somebody else has wrapped meanwhile stays in their chain, and does nothing."""
        Greenlet.remove_spawn_callback(self._inherit)
        self._working_for = lambda: None
        for where, name, was, present in self._replaced:
            if vars(where)[name] is present:
                setattr(where, name, was)
        self._replaced.clear()

    def caller(self, ident: int, since_s: float) -> Span | None:
        """For whom a thread of a pool has worked since then; None: for no request, or it is no pool's."""
        span, ended_s = self._calls.get(ident, (None, 0.0))
        return span if ended_s > since_s else None

    def _replace(self, where: Any, name: str, present: Any) -> None:
        self._replaced.append((where, name, vars(where)[name], present))
        setattr(where, name, present)

    def _span(self) -> Span | None:
        return self._working_for() if get_ident() == self._ident else None

    def _inherit(self, child: Any) -> None:
        span = self._span()
        if span is not None:
            setattr(child, INHERITED, span)

    def _factory(self, raw: Callable[..., Any]) -> Callable[..., Any]:
        def make(*args: Any) -> Any:
            child = raw(*args)
            self._inherit(child)
            return child

        return make

    def _spawn(self, spawn: Callable[..., Any]) -> Callable[..., Any]:
        def spawn_for_request(pool: ThreadPool, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            span = self._span()
            if span is None:
                return spawn(pool, func, *args, **kwargs)
            return spawn(pool, self._call, span, func, args, kwargs)

        return spawn_for_request

    def _call(self, span: Span, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """In a thread of the pool."""
        ident = get_ident()
        self._calls[ident] = span, float("inf")
        try:
            return func(*args, **kwargs)
        finally:
            self._calls[ident] = span, time.perf_counter()


def sweep(suspended: dict[Any, Span]) -> int:
    """Forget the requests of dead greenlets: looks at some, at others the next time. How many had not ended."""
    abandoned = 0
    rotate = len(suspended) > SWEPT
    for one in list(islice(suspended, SWEPT)):
        dead = one.dead
        if dead or rotate:
            span = suspended.pop(one)
            if not dead:
                suspended[one] = span  # the last from now on
            elif span.total_s < 0.0:
                span.total_s = 0.0
                abandoned += 1
    return abandoned

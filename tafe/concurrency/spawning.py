"""Greenlets that work for another one: how they are started, and how it makes sure that they have ended.

They are `gevent.Greenlet`s and not raw ones, which would be 1.7 us cheaper each, for their spawn callbacks: by these
the profiler knows for which request a greenlet works.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextvars import Context
from typing import Any

from gevent import Greenlet, getcurrent
from gevent.exceptions import LoopExit

_FAMILY = "spawn_tree_locals"


def start(context: Context, run: Callable[[Any], object], arguments: Iterable[Any]) -> list[Greenlet]:
    """Have the hub call `run`, which must not raise, for each argument, in a greenlet and a copy of `context` each."""
    spawner = getcurrent().__dict__
    marked = _FAMILY in spawner
    children = []
    for argument in arguments:
        child = Greenlet(run, argument)
        child.gr_context = context.copy()
        child.start()
        children.append(child)
    if not marked:
        # gevent leaves this on whoever spawns; a request's greenlet that is left as it was can be kept for the next.
        spawner.pop(_FAMILY, None)
    return children


def end(children: Collection[Greenlet]) -> None:
    """Kill `children` and return when each has ended, so that nothing of theirs is still in use.

    What is thrown in meanwhile (a kill, a timeout) is raised then, the last of it. A child that swallows its
    `GreenletExit` is waited for.
    """
    thrown: BaseException | None = None
    for child in children:
        child.kill(block=False)
    for child in children:
        while not child.ready():
            try:
                child.join()
            except LoopExit:  # it waits for what nobody is left to do; so would we
                raise
            except BaseException as error:  # noqa: BLE001 - raised below
                thrown = error
    if thrown is not None:
        try:
            raise thrown
        finally:
            del thrown  # its traceback holds this frame

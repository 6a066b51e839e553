"""Greenlets that run requests, kept for the next one only when provably clean.

A new raw greenlet costs 10 us (its data stack is mapped and unmapped), a kept one 0.5 us. But a kept one could carry
something over: a `gevent.local`, a context variable, a `gevent.Timeout` still running, a `kill` still on its way.
So a greenlet is taken again only if nobody but the pool refers to it and its `__dict__` is empty, asked at the
moment it is taken; each request gets a fresh copy of the context the server was started in. A greenlet that fails the
test is let go: it ends when its last reference does, and whatever was still aimed at it hits nobody else.
Knows neither HTTP nor connections.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from sys import getrefcount
from typing import Any, Final

import greenlet

from tafe.keeping import keep

# Idle greenlets kept. Each holds a 16 KiB data stack, so 4 MiB; with more at once, creation is not what hurts.
_MAX_IDLE: Final = 256


def _own_references() -> int:
    """What `getrefcount` says of what a local variable alone holds: 2 interpreted, with its argument; 1 compiled."""
    held = object()
    return getrefcount(held)


_OWN_REFERENCES: Final = _own_references()


class GreenletPool:
    """Runs `run(job)`, which must not raise, in a greenlet a job. `dispatch` is called from the hub only."""

    def __init__(self, hub: greenlet.greenlet, run: Callable[[Any], None]) -> None:
        self._hub = hub
        self._idle: list[greenlet.greenlet] = []
        self._loop = keep(run, self._idle, hub, _MAX_IDLE)
        self._context = contextvars.copy_context()
        self._inherits = len(self._context) > 0  # else a greenlet that has no context yet is as good as a copy
        self.created = 0

    def dispatch(self, job: object) -> None:
        """Run `job` until it first waits, then return; the hub resumes it as any other greenlet."""
        idle = self._idle
        while idle:
            runner = idle.pop()
            if getrefcount(runner) == _OWN_REFERENCES and not runner.__dict__:
                break
        else:
            runner = greenlet.greenlet(self._loop, self._hub)
            self.created += 1
        if self._inherits or runner.gr_context is not None:
            runner.gr_context = self._context.copy()
        runner.switch(job)

    def close(self) -> None:
        """Let the idle greenlets go."""
        self._idle.clear()

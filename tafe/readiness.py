"""What a worker still lacks before it may serve: start hooks that have not run, resources that are not open.

Each resource has a keeper, a greenlet that opens it, tries again with growing delay while that fails, and looks after
it for the worker's whole life, so that a database that comes back is found again. The application's start hooks, which
may want to use the resources, run after every one was tried; if they fail because something is unavailable they are
tried again, any other failure ends the worker.
Knows neither processes nor sockets; `changed` is set whenever the answer may have changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent.event import Event

from tafe.errors import TafeError, Unavailable
from tafe.lifecycle import Resource

FIRST_RETRY_S = 0.1  # a database that restarts is back within seconds; nobody should wait much longer than it takes
LONGEST_RETRY_S = 1.0
# A resource whose first attempt takes longer (a host that swallows packets) counts as tried: better a quick 503 than
# silence. Opening a pool takes some tens of milliseconds.
FIRST_TRY_S = 1.0
LOOK_S = 0.25  # between two looks at a resource that is fine

_log = logging.getLogger("tafe.worker")


class Readiness:
    """`start` begins, `stop` ends; `lacking` and `tried` are asked in between."""

    def __init__(self, start_hooks: Callable[[], object] | None, resources: Sequence[Resource]) -> None:
        self.changed = Event()
        self.failure: BaseException | None = None  # of the start hooks, beyond repair
        self._start_hooks = start_hooks
        self._started = start_hooks is None
        self._resources = tuple(resources)
        self._untried = {id(resource) for resource in resources}
        self._resources_tried = Event()
        self._hooks_tried = self._started
        self._reasons: dict[str, str] = {}
        self._keepers: list[Any] = []

    def start(self) -> None:
        """Open everything, then run the start hooks, in greenlets."""
        self._keepers = [gevent.spawn(self._keep, resource) for resource in self._resources]
        self._keepers.append(gevent.spawn_later(FIRST_TRY_S, self._note_tried, *self._resources))
        self._note_tried()
        if self._start_hooks is not None:
            self._keepers.append(gevent.spawn(self._run_hooks, self._start_hooks))

    def stop(self) -> None:
        """Look after nothing any more, and close the resources."""
        gevent.killall(self._keepers, timeout=1)
        for resource in reversed(self._resources):
            resource.close()

    @property
    def tried(self) -> bool:
        """Everything was attempted at least once."""
        return self._hooks_tried and not self._untried

    def lacking(self) -> list[str]:
        """Names of what is not there; empty: ready."""
        names = [] if self._started else ["start hooks"]
        return names + [resource.name for resource in self._resources if not resource.ready]

    @property
    def started(self) -> bool:
        """The start hooks have run."""
        return self._started

    @property
    def why(self) -> str:
        """The last failures, for the log and the arbiter."""
        return "; ".join(f"{name}: {reason}" for name, reason in self._reasons.items())

    def _note_tried(self, *resources: Resource) -> None:
        """These were attempted."""
        self._untried -= {id(resource) for resource in resources}
        if not self._untried and not self._resources_tried.is_set():
            self._resources_tried.set()
            self.changed.set()

    def _run_hooks(self, hooks: Callable[[], object]) -> None:
        self._resources_tried.wait()
        delay_s = FIRST_RETRY_S
        while not self._started:
            try:
                hooks()
                self._started = True
                self._reasons.pop("start hooks", None)
            except Unavailable as error:
                self._reasons["start hooks"] = _first_line(error)
            except Exception as error:  # noqa: BLE001  whatever the application raised ends the worker, not this greenlet
                self.failure = error
                self.changed.set()
                return
            self._hooks_tried = True
            self.changed.set()
            gevent.sleep(0 if self._started else delay_s)
            delay_s = min(2 * delay_s, LONGEST_RETRY_S)

    def _keep(self, resource: Resource) -> None:
        delay_s = FIRST_RETRY_S
        was_ready = False
        while True:
            if not resource.ready:
                self._open(resource)
            self._note_tried(resource)
            if resource.ready:
                delay_s = FIRST_RETRY_S
                self._reasons.pop(resource.name, None)
            if resource.ready != was_ready:
                was_ready = resource.ready
                self.changed.set()
            gevent.sleep(LOOK_S if was_ready else delay_s)
            delay_s = delay_s if was_ready else min(2 * delay_s, LONGEST_RETRY_S)

    def _open(self, resource: Resource) -> None:
        try:
            resource.open()
        except TafeError as error:
            self._reasons[resource.name] = _first_line(error)
        except Exception as error:  # noqa: BLE001  a resource of the user's own may raise anything
            _log.exception("opening %s failed", resource.name)
            self._reasons[resource.name] = _first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

"""What a worker still lacks before it may serve: start hooks that have not run, resources that are not open.

Each resource has a keeper, a greenlet that opens it, tries again with growing delay while that fails, and looks after
it for the worker's whole life, so that a database that comes back is found again. The application's start hooks run
once; if they fail because something is unavailable they are tried again too, any other failure ends the worker.
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
        self._untried = {id(resource) for resource in resources} | ({id(self)} if start_hooks else set())
        self._reasons: dict[str, str] = {}
        self._keepers: list[Any] = []

    def start(self) -> None:
        """Run the start hooks and open everything, in greenlets."""
        if self._start_hooks is not None:
            self._keepers.append(gevent.spawn(self._run_hooks, self._start_hooks))
        self._keepers += [gevent.spawn(self._keep, resource) for resource in self._resources]

    def stop(self) -> None:
        """Look after nothing any more, and close the resources."""
        gevent.killall(self._keepers, timeout=1)
        for resource in reversed(self._resources):
            resource.close()

    @property
    def tried(self) -> bool:
        """Everything was attempted at least once."""
        return not self._untried

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

    def _run_hooks(self, hooks: Callable[[], object]) -> None:
        delay_s = FIRST_RETRY_S
        while True:
            try:
                hooks()
            except Unavailable as error:
                self._failed(self, "start hooks", error)
            except Exception as error:  # noqa: BLE001  whatever the application raised ends the worker, not this greenlet
                self.failure = error
                break
            else:
                self._started = True
                self._reasons.pop("start hooks", None)
                break
            gevent.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_RETRY_S)
        self._untried.discard(id(self))
        self.changed.set()

    def _keep(self, resource: Resource) -> None:
        delay_s = FIRST_RETRY_S
        was_ready = False
        while True:
            if not resource.ready:
                try:
                    resource.open()
                except TafeError as error:
                    self._failed(resource, resource.name, error)
                except Exception as error:  # noqa: BLE001  a resource of the user's own may raise anything
                    _log.exception("opening %s failed", resource.name)
                    self._failed(resource, resource.name, error)
            self._untried.discard(id(resource))
            if resource.ready:
                delay_s = FIRST_RETRY_S
                self._reasons.pop(resource.name, None)
            if resource.ready != was_ready:
                was_ready = resource.ready
                self.changed.set()
            gevent.sleep(LOOK_S if was_ready else delay_s)
            delay_s = delay_s if was_ready else min(2 * delay_s, LONGEST_RETRY_S)

    def _failed(self, what: object, name: str, error: Exception) -> None:
        self._reasons[name] = str(error).partition("\n")[0]
        if id(what) in self._untried:
            self._untried.discard(id(what))
            self.changed.set()

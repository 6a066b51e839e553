"""What an application asks to run around its worker's life, and after its answers.

Start hooks run in the order of registration, before the worker is ready; the first that fails or outlives its
deadline stops the start, and a worker that tries again (its database was down) goes on with that one. Stop hooks run
in the opposite order, each whatever became of the others.
Deferred work runs in a greenlet of its own under a TAFE worker, so that the next request on the same connection does
not wait for it (a balancer reuses the connection it used last); the worker's stop waits for it as long as it can.
Under any other WSGI server, where nothing may run greenlets, it runs in the `close()` of the answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tafe.app.binding import name_of, where
from tafe.app.deadline import Deadline, is_gevent_timeout
from tafe.app.logs import log

if TYPE_CHECKING:
    from gevent.pool import Pool

    from tafe.app.request import Request

# Loading a model or a cache takes seconds; Kubernetes' default probes give up after 30 (3 failures, 10 s apart).
START_DEADLINE_S = 30.0
# A sixth of the usual grace period (30 s at Kubernetes and gunicorn), most of which belongs to requests in flight.
STOP_DEADLINE_S = 5.0
# For each stop hook when the time is up already: to close what is open takes milliseconds.
LEAST_STOP_S = 0.1
# Deferred work that takes this long is stuck: any answer it serves was given long ago.
DEFERRED_DEADLINE_S = 30.0
# More than a database pool can serve at once by far; beyond it the next request to defer waits, which bounds memory.
DEFERRED_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class _Hook:
    fn: Callable[[], object]
    deadline_s: float

    def run(self, when: str, left_s: float = math.inf) -> None:
        what = f"the {when} hook {name_of(self.fn)} ({where(self.fn)})"
        if left_s < self.deadline_s:
            limit_s, message = left_s, f"{what} took longer than the {left_s:.3g} s that were left of the worker's stop"
        else:
            limit_s, message = self.deadline_s, f"{what} took longer than its deadline_s={self.deadline_s:g}"
        try:
            Deadline(limit_s, TimeoutError, message).run(self.fn)
        except BaseException as exc:
            exc.add_note(f"raised in {what}")
            raise


@dataclass(slots=True)
class WorkerHooks:
    """The hooks of a worker's start and stop."""

    start: list[_Hook] = field(default_factory=list)
    stop: list[_Hook] = field(default_factory=list)
    _started: int = 0  # start hooks that have run

    def add_start(self, fn: Callable[[], object], deadline_s: float) -> None:
        """Run `fn` when the worker starts."""
        self.start.append(_Hook(fn, deadline_s))

    def add_stop(self, fn: Callable[[], object], deadline_s: float) -> None:
        """Run `fn` when the worker stops."""
        self.stop.append(_Hook(fn, deadline_s))

    def run_start(self) -> None:
        """Run the start hooks; raises what a hook raised, with a note that names it, or `TimeoutError`."""
        while self._started < len(self.start):
            self.start[self._started].run("start")
            self._started += 1

    @property
    def stop_deadline_s(self) -> float:
        """What the stop hooks may take one after the other."""
        return sum(hook.deadline_s for hook in self.stop)

    def run_stop(self, end_s: float) -> None:
        """Run the stop hooks, which shall be done at `end_s` of the monotonic clock; what they raise is logged."""
        self._started = 0
        for hook in reversed(self.stop):
            try:
                hook.run("stop", max(end_s - time.monotonic(), LEAST_STOP_S))
            except Exception:  # noqa: BLE001 - the hooks after it must run whatever a user's raises
                log.exception("a stop hook failed")


class DeferredWork:
    """Work that requests left for after their answers, in one worker."""

    def __init__(self) -> None:
        self._pool: Pool | None = None

    def run(self, request: Request) -> None:
        """Do what `request` deferred, in order: here, or in a greenlet under a TAFE worker."""
        if not request.deferred:
            return
        if "tafe.request_id" not in request.environ:
            _run_jobs(request, None)
            return
        if self._pool is None:
            from gevent.pool import Pool

            self._pool = Pool(DEFERRED_AT_ONCE)
        self._pool.spawn(_run_jobs, request, DEFERRED_DEADLINE_S)

    def join(self, timeout_s: float) -> None:
        """Wait for what is still running (inf: until it is done); what is left then is logged and abandoned."""
        if self._pool is not None and not self._pool.join(timeout=timeout_s if timeout_s < math.inf else None):
            log.error("deferred work of %d requests was abandoned at the worker's stop", len(self._pool))


def _run_jobs(request: Request, deadline_s: float | None) -> None:
    jobs, request.deferred = request.deferred or [], None
    for fn, args, kwargs in jobs:
        what = f"deferred {name_of(fn)} ({where(fn)})"
        try:
            _run_job(fn, args, kwargs, deadline_s)
        except BaseException as exc:
            if not (isinstance(exc, Exception) or is_gevent_timeout(exc)):
                raise
            log.exception("%s: %s failed (request %s)", request.route.label, what, request.request_id)


def _run_job(
    fn: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float | None
) -> None:
    if deadline_s is None:
        fn(*args, **kwargs)
    else:
        Deadline(deadline_s, TimeoutError, f"took longer than {deadline_s:g} s").run(fn, *args, **kwargs)

"""The connection pool: carries out what policy.py decides, with gevent's hub.

A waiter is a greenlet parked on the hub. Whoever brings a connection back hands it to the oldest waiter by name, so
it is never up for grabs; a waiter that was killed or timed out in between passes it on. All waiters have the same
`acquire_timeout_s`, so their queue is ordered by expiry and one timer serves them all. Attempts to
connect run in greenlets of the pool, never in the request that needs the connection: killing a request does not
waste an attempt, and an attempt serves whoever is first in the queue when it is done. So do the closing of connections
that are too old or not needed; one more timer finds those that idle.

A pool belongs to the thread (the hub) that used it first. It knows neither SQL nor which database it talks to.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from random import random
from time import monotonic
from typing import Any

import gevent
from gevent.exceptions import InvalidSwitchError

from tafe.db.driver import Connection, ConnectionLost, Driver
from tafe.db.policy import Fate, Limits, Policy, Verdict
from tafe.db.stats import Stats, Tally, look
from tafe.errors import DatabaseUnavailable, PoolTimeout, QueryError, Unavailable

# As globals: an attribute of an enum class takes some 800 instructions.
_TAKE, _WAIT, _REFUSE = Verdict
_HAND_OVER, _KEEP, _CLOSE = Fate

log = logging.getLogger("tafe.db")


class _Waiting:
    """A greenlet in the queue. Exactly one of `connection`, `error` is set when it is woken."""

    __slots__ = ("connection", "deadline_s", "error", "left", "parked")

    def __init__(self, deadline_s: float, greenlet: Any) -> None:
        self.deadline_s = deadline_s
        self.parked: Any = greenlet  # None once it runs again: killed, say, after it was served and before it was woken
        self.connection: Connection | None = None
        self.error: Unavailable | None = None
        self.left = False  # no longer to be served; its place in the queue is skipped

    def wake(self) -> None:
        """For the hub to call."""
        if self.parked is not None:
            self.parked.switch(self)


class Pool:
    """Lends connections; see `acquire`, and give back with exactly one of `release` and `discard`."""

    def __init__(self, driver: Driver, limits: Limits, *, name: str, acquire_timeout_s: float) -> None:
        self.name = name
        self.acquire_timeout_s = acquire_timeout_s
        self.tally = Tally()
        self._driver = driver
        self._policy = Policy(limits)
        self._idle: list[Connection] = []  # last in, first out: the surplus stays idle
        self._queue: deque[_Waiting] = deque()
        self._connectors: set[Any] = set()
        self._hub: Any = None
        self._expiry: Any = None  # timer: the oldest waiter's deadline
        self._retry: Any = None  # timer: the next attempt while the database cannot be reached
        self._look: Any = None  # timer: the next look at idle connections
        self._reason = ""  # why the last attempt failed
        self._down_since_s = 0.0  # 0 while up; for the log

    @property
    def ready(self) -> bool:
        return self._policy.ready

    @property
    def down(self) -> bool:
        return self._policy.down

    @property
    def closed(self) -> bool:
        return self._policy.closed

    @property
    def stats(self) -> Stats:
        return look(self._policy, self.tally)

    def open(self) -> None:
        """Connect up to `min_size`; raise `DatabaseUnavailable` at the first attempt that fails."""
        self._check_hub()
        policy = self._policy
        policy.open()
        while policy.size < policy.limits.min_size:
            self._settle()
            gevent.joinall(list(self._connectors))
            if policy.failures or policy.closed:
                raise self._refusal()

    def close(self) -> None:
        """Close idle connections, refuse waiters; connections in use or in the making are closed when done."""
        self._policy.close()
        self._fail_waiters()
        idle, self._idle = self._idle, []
        for timer in (self._expiry, self._retry, self._look):
            if timer is not None:
                timer.close()
        self._expiry = self._retry = self._look = self._hub = None
        for connection in idle:  # at last: it may wait, and the pool be opened again meanwhile
            connection.close()

    def acquire(self, now_s: float) -> Connection:
        """Return a connection that was alive a moment ago; raise `PoolTimeout` or `DatabaseUnavailable`."""
        if gevent.get_hub() is not self._hub:
            self._check_hub()
        policy = self._policy
        while True:
            verdict = policy.acquire(now_s)
            if verdict is _TAKE:
                connection = self._idle.pop()
                if policy.must_check(now_s, connection.last_used_s):
                    alive = self._answers(connection)
                    now_s = monotonic()
                    if not alive:
                        continue
            elif verdict is _WAIT:
                connection = self._wait(now_s + self.acquire_timeout_s)
                asked_s, now_s = now_s, monotonic()
                self.tally.wait(now_s - asked_s)
            else:
                self.tally.refused += 1
                raise self._refusal()
            self.tally.acquired += 1
            connection.taken_s = now_s
            return connection

    def release(self, connection: Connection) -> bool:
        """Take back a connection in good order; one that is not `clean` is discarded, and False returned.

        Its `last_used_s` is the borrower's to set.
        """
        if not connection.clean:
            self.discard(connection, False)
            return False
        if connection.last_used_s >= connection.retire_at_s:
            self._release_old(connection)
            return True
        fate = self._policy.release()
        if fate is _KEEP:
            self._idle.append(connection)
        else:
            self._place(connection, fate)
        return True

    def discard(self, connection: Connection, lost: bool) -> None:
        """Throw away a connection; `lost`: it was dead, so the idle ones may be as well."""
        self.tally.discarded += 1
        if lost:
            self._policy.lost(monotonic())
        connection.abandon(self._gone)

    def _gone(self) -> None:
        self._policy.gone()
        self._settle()
        self._log_change()

    def _place(self, connection: Connection, fate: Fate) -> None:
        if fate is _KEEP:
            self._idle.append(connection)
        elif fate is _HAND_OVER:
            waiting = self._next_waiting()
            waiting.left = True
            waiting.connection = connection
            self._hub.loop.run_callback(waiting.wake)
        else:
            connection.close()

    def _next_waiting(self) -> _Waiting:
        while True:
            waiting = self._queue.popleft()
            if not waiting.left:
                return waiting

    def _wait(self, deadline_s: float) -> Connection:
        waiting = _Waiting(deadline_s, gevent.getcurrent())
        self._queue.append(waiting)
        if self._expiry is None:
            self._arm_expiry(deadline_s)
        if not self._policy.full:
            self._settle()
        try:
            woken_by = self._hub.switch()
            if woken_by is not waiting:
                raise InvalidSwitchError(f"a greenlet that waits for a connection was switched to with {woken_by!r}")
        except BaseException:
            waiting.parked = None
            if waiting.connection is not None:
                self.release(waiting.connection)
            elif not waiting.left:
                waiting.left = True
                self._policy.give_up()
            raise
        waiting.parked = None
        connection: Connection | None = waiting.connection
        if connection is None:
            assert waiting.error is not None
            raise waiting.error
        return connection

    def _answers(self, connection: Connection) -> bool:
        try:
            connection.ping()
        except ConnectionLost as lost:
            self.discard(connection, True)
            if lost.timed_out:
                self.tally.timed_out += 1
                raise  # the next one would take as long
            return False
        except BaseException:
            self.discard(connection, False)
            raise
        return True

    # Waiters that leave without a connection

    def _arm_expiry(self, deadline_s: float) -> None:
        self._expiry = self._hub.loop.timer(max(0.0, deadline_s - monotonic()))
        self._expiry.start(self._expire)

    def _expire(self) -> None:
        self._expiry.close()
        self._expiry = None
        now_s = monotonic()
        queue = self._queue
        while queue and (queue[0].left or queue[0].deadline_s <= now_s):
            waiting = queue.popleft()
            if not waiting.left:
                self._fail(waiting, self._timed_out())
        if queue:
            self._arm_expiry(queue[0].deadline_s)

    def _fail_waiters(self) -> None:
        while self._queue:
            waiting = self._queue.popleft()
            if not waiting.left:
                self.tally.refused += 1
                self._fail(waiting, self._refusal())

    def _fail(self, waiting: _Waiting, error: Unavailable) -> None:
        waiting.left = True
        waiting.error = error
        self._policy.give_up()
        self._hub.loop.run_callback(waiting.wake)

    def _timed_out(self) -> Unavailable:
        self.tally.timeouts += 1
        policy = self._policy
        limit = f"acquire_timeout_s={self.acquire_timeout_s:g}"
        stayed = f"all {policy.size} connections stayed in use for {limit}"
        if not policy.size:
            detail = self._reason or f"no connection was made within {limit}"
        elif policy.failures:  # those in use may be dead as well: a transaction finds out with its next statement
            detail = f"{stayed}, and no other can be made: {self._reason}"
        else:
            return PoolTimeout(f"database {self.name} is busy", detail=stayed)
        return DatabaseUnavailable(f"database {self.name} is unavailable", detail=detail)

    def _refusal(self) -> DatabaseUnavailable:
        reason = "it was closed" if self._policy.closed else self._reason
        return DatabaseUnavailable(f"database {self.name} is unavailable", detail=reason)

    # Attempts to connect

    def _settle(self) -> None:
        """Do what the counts call for after any of them changed."""
        if self._hub is None:
            return  # closed
        policy = self._policy
        now_s = monotonic()
        if policy.waiters and policy.refusing(now_s):
            self._fail_waiters()
        for _ in range(policy.attempts_to_start(now_s)):
            self._connectors.add(gevent.spawn(self._connect))
        pause_s = policy.retry_in_s(now_s)
        if pause_s is not None and self._retry is None:
            # Not counted by the loop: a script that is otherwise done need not wait for a database to return.
            self._retry = self._hub.loop.timer(pause_s, ref=False)
            self._retry.start(self._retry_due)

    def _retry_due(self) -> None:
        self._retry.close()
        self._retry = None
        self._settle()

    def _connect(self) -> None:
        try:
            connection = self._driver.connect()
        except DatabaseUnavailable as error:
            self._attempt_failed(str(error))
        except BaseException as error:
            self._attempt_failed(f"internal error ({type(error).__name__})")
            raise
        else:
            self._connectors.discard(gevent.getcurrent())
            self.tally.created += 1
            self._reason = ""
            connection.last_used_s = now_s = monotonic()
            connection.retire_at_s = self._policy.retire_at_s(now_s, random())  # noqa: S311 - spreads, hides nothing
            self._place(connection, self._policy.connected())
            self._settle()
            self._arm_look(connection.retire_at_s)
            self._log_change()

    # Connections that are too old or not needed

    def _release_old(self, connection: Connection) -> None:
        fate = self._policy.release_old()
        if fate is _CLOSE:
            self._retire(connection)
        else:
            self._place(connection, fate)
        self._settle()

    def _retire(self, connection: Connection) -> None:
        self.tally.retired += 1
        gevent.spawn(connection.close)  # which waits for the database

    def _arm_look(self, due_s: float) -> None:
        if self._look is None and self._hub is not None:
            now_s = monotonic()
            pause_s = self._policy.look_in_s(now_s, due_s)
            if pause_s is not None:
                self._look = self._hub.loop.timer(pause_s, ref=False)
                self._look.start(self._look_at_idle)

    def _look_at_idle(self) -> None:
        self._look.close()
        self._look = None
        policy, now_s = self._policy, monotonic()
        kept: list[Connection] = []
        for connection in self._idle:  # in the order of their last use
            if policy.look(now_s, connection.last_used_s, connection.retire_at_s) is _KEEP:
                kept.append(connection)
            else:
                self._retire(connection)
        self._idle = kept
        self._settle()
        due_s = min((policy.due_s(known.last_used_s, known.retire_at_s) for known in kept), default=math.inf)
        self._arm_look(due_s)

    # The end of attempts

    def _attempt_failed(self, reason: str) -> None:
        self._connectors.discard(gevent.getcurrent())
        self._reason = reason
        self._policy.connect_failed(monotonic())
        self._settle()
        self._log_change()

    def _log_change(self) -> None:
        """Log once when the database goes down and once when it is back. Not from the hub: a handler may wait."""
        now_s = monotonic()
        if self._policy.down and not self._down_since_s:
            self._down_since_s = now_s
            log.warning("database %s (%s) is down: %s", self.name, self._driver.shown, self._reason)
        elif self._down_since_s and self._policy.size:
            log.warning("database %s is back after %.1f s", self.name, now_s - self._down_since_s)
            self._down_since_s = 0.0

    def _check_hub(self) -> None:
        hub = gevent.get_hub()
        if hub is not self._hub:
            if self._hub is not None:
                raise QueryError(
                    f"database {self.name} is used by another thread than the one that opened it;"
                    " query in the request's greenlet and offload only what is done with the rows"
                )
            self._hub = hub

"""Pool policy: who gets a connection, when to make one, when to refuse at once.

Pure: it keeps the counts, is told the time, and answers with what to do; pool.py does it. Its rules:
- Waiters are served in order of arrival, and a connection is idle only while nobody waits; so nobody overtakes.
- Connections are made for waiters and up to `min_size`, a few at a time; after a failed attempt one at a
  time, with a growing pause between.
- The database is *down* when the last attempt failed and no connection is left. Then requests are refused at once with
  the reason, instead of queueing up behind attempts, until an attempt succeeds. While connections are left (the
  server has too many clients, say, or its name cannot be resolved for a moment) they go on serving.
- After one connection was lost, every other one is checked before its next use, since they probably died together.
- A connection that has lived for `max_lifetime_s` is closed when it comes back or is looked at while idle: one at a
  time, only while connecting works, and after its successor was made, so that nobody waits for that. Only where there
  is no room for both (`max_size` is a promise to the server) is it closed first.
- What is above `min_size` is closed when it has idled for `max_idle_s`. Who is used is used last again, so these are
  the connections that nobody needs.
"""

from __future__ import annotations

import enum
import math
from typing import NamedTuple

# While the database is up: enough to fill a pool quickly, few enough not to fill the server's accept queue
# (MariaDB's back_log is 80) when 20 workers start at once.
CONNECTS_AT_ONCE = 4
# Pause after the first failed attempt, doubled at each further one: the first is short because a single login may
# fail without an outage (killed, a restart that is over by now). The longest decides how soon a database
# that came back is noticed (within a second, the connect included); a refused attempt costs 0.3 ms.
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5
# A connection idle for longer is checked before use: load balancers and firewalls drop idle connections without
# telling, some after as little as 10 s, and servers after their `wait_timeout`; a busy pool never reaches this. So a
# `wait_timeout` below `max_idle_s` costs an idle pool a check and a connect before its next statement, and no error.
CHECK_AFTER_IDLE_S = 5.0
# A lifetime is this much longer or shorter, at random: after a deploy, connections of one age would all be replaced at
# once. With 30 minutes they are spread over 6.
JITTER = 0.1
# Idle connections are looked at no more often, so that a pool's connections are replaced one a second at most ...
SHORTEST_LOOK_S = 1.0
# ... and no less often: what comes back in between may be due earlier than what was seen.
LONGEST_LOOK_S = 60.0


class Verdict(enum.Enum):
    """What a greenlet that asks for a connection shall do."""

    TAKE = enum.auto()  # the idle one that was used last
    WAIT = enum.auto()  # in the queue
    REFUSE = enum.auto()  # fail now: the database is down or the pool is closed


class Fate(enum.Enum):
    """What becomes of a connection that somebody is done with."""

    HAND_OVER = enum.auto()  # to the oldest waiter
    KEEP = enum.auto()  # idle
    CLOSE = enum.auto()


# As globals: an attribute of an enum class takes some 800 instructions.
_TAKE, _WAIT, _REFUSE = Verdict
_HAND_OVER, _KEEP, _CLOSE = Fate


class Limits(NamedTuple):
    """1 <= min_size <= max_size; the times are infinite where nothing expires."""

    min_size: int
    max_size: int
    max_lifetime_s: float = math.inf
    max_idle_s: float = math.inf


class Policy:
    """The counts of one pool. Every method is one event; invariant: idle + in_use + connecting <= max_size."""

    __slots__ = (
        "closed",
        "connecting",
        "failures",
        "filled",
        "idle",
        "in_use",
        "limits",
        "opened",
        "replacing",
        "retry_at_s",
        "spare",
        "suspect_since_s",
        "waiters",
    )

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.idle = 0
        self.in_use = 0  # with requests, and those abandoned but not gone yet
        self.connecting = 0
        self.waiters = 0
        self.failures = 0  # failed attempts since the last success
        self.retry_at_s = 0.0  # no attempt before this while failures > 0
        self.replacing = False  # a successor is being made
        self.spare = False  # ... and is here; the next connection that has outlived its time goes
        self.suspect_since_s = -math.inf  # a connection last used before this is checked before use
        self.opened = False  # min_size is kept up from open() on; a script that never opens gets only what it uses
        self.filled = False  # min_size was reached since open(): an attempt that is still under way proves nothing
        self.closed = False

    @property
    def size(self) -> int:
        return self.idle + self.in_use

    @property
    def down(self) -> bool:
        return self.failures > 0 and not self.idle and not self.in_use

    @property
    def ready(self) -> bool:
        """Requests can be served: true again after an outage from the first connection on."""
        return self.filled and not self.down

    @property
    def full(self) -> bool:
        """Nothing is to be done for another waiter: no connection may be added, and those there are serve."""
        return (
            not self.failures and not self.closed and self.idle + self.in_use + self.connecting >= self.limits.max_size
        )

    def refusing(self, now_s: float) -> bool:
        """True while waiting is pointless: closed, or down and the next attempt is running or not due yet."""
        return self.closed or (self.down and (self.connecting > 0 or now_s < self.retry_at_s))

    # What requests do

    def acquire(self, now_s: float) -> Verdict:
        if self.idle:
            self.idle -= 1
            self.in_use += 1
            return _TAKE
        if self.refusing(now_s):
            return _REFUSE
        self.waiters += 1
        return _WAIT

    def give_up(self) -> None:
        """A waiter left: timed out, refused or killed."""
        self.waiters -= 1

    def must_check(self, now_s: float, last_used_s: float) -> bool:
        return last_used_s < self.suspect_since_s or now_s - last_used_s > CHECK_AFTER_IDLE_S

    def release(self) -> Fate:
        """A connection in use came back in good order."""
        if self.closed:
            self.in_use -= 1
            return _CLOSE
        if self.waiters:
            self.waiters -= 1
            return _HAND_OVER
        self.in_use -= 1
        self.idle += 1
        return _KEEP

    def release_old(self) -> Fate:
        """The same of one that has outlived its time."""
        if not self.closed and self._may_go():
            self.in_use -= 1
            return _CLOSE
        return self.release()

    def lost(self, now_s: float) -> None:
        """A connection turned out to be dead."""
        self.suspect_since_s = now_s

    def gone(self) -> None:
        """A connection that was in use exists no more."""
        self.in_use -= 1

    # What attempts to connect do

    def attempts_to_start(self, now_s: float) -> int:
        """How many attempts to start now; they count as connecting from here on."""
        wanted = self._wanted()
        if self.failures:
            wanted = min(wanted, 1) if not self.connecting and now_s >= self.retry_at_s else 0
        else:
            wanted = min(wanted, CONNECTS_AT_ONCE - self.connecting)
        wanted = max(wanted, 0)
        self.connecting += wanted
        return wanted

    def retry_in_s(self, now_s: float) -> float | None:
        """When to ask `attempts_to_start` again although nothing has happened; None: not needed."""
        if not self.failures or self.connecting or self._wanted() <= 0:
            return None
        return max(0.0, self.retry_at_s - now_s)

    def connected(self) -> Fate:
        """An attempt succeeded; say what becomes of the connection."""
        self.connecting -= 1
        self.in_use += 1
        self.failures = 0
        if self.replacing:
            self.replacing = False
            self.spare = True
        self._note_filled()
        return self.release()

    def connect_failed(self, now_s: float) -> None:
        self.connecting -= 1
        self.replacing = False
        if self.failures and now_s < self.retry_at_s:
            return  # one of several that were started together: one failure, one pause
        self.retry_at_s = now_s + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self.failures, 10))
        self.failures += 1

    def _wanted(self) -> int:
        if self.closed:
            return 0
        planned = self.size + self.connecting
        floor = max(self._kept, 1 if self.down else 0)
        room = self.limits.max_size - planned
        for_waiters = min(self.waiters - self.connecting, room)
        successor = 1 if self.replacing and not self.connecting else 0
        return max(floor - planned, for_waiters, min(successor, room))

    @property
    def _kept(self) -> int:
        return self.limits.min_size if self.opened else 0

    # How connections end that are in good order

    def retire_at_s(self, now_s: float, drawn: float) -> float:
        """When a connection that was made now has lived for long enough; `drawn` at random from 0 to 1."""
        return now_s + self.limits.max_lifetime_s * (1.0 + JITTER * (2.0 * drawn - 1.0))

    def look(self, now_s: float, last_used_s: float, retire_at_s: float) -> Fate:
        """What becomes of an idle connection; to be asked of those that have idled longest first."""
        unneeded = self.size > self._kept and now_s - last_used_s >= self.limits.max_idle_s
        if unneeded or (now_s >= retire_at_s and self._may_go()):
            self.idle -= 1
            return _CLOSE
        return _KEEP

    def due_s(self, last_used_s: float, retire_at_s: float) -> float:
        """When an idle connection is to be looked at."""
        return min(retire_at_s, last_used_s + self.limits.max_idle_s if self.size > self._kept else math.inf)

    def look_in_s(self, now_s: float, due_s: float) -> float | None:
        """When to look again, the first of the idle ones being due at `due_s`; None: nothing can expire."""
        expires = self.limits.max_idle_s < math.inf and self.size > self._kept
        if not self.size or not (expires or self.limits.max_lifetime_s < math.inf):
            return None
        return min(max(due_s - now_s, SHORTEST_LOOK_S), LONGEST_LOOK_S)

    def _may_go(self) -> bool:
        """May a connection that has outlived its time be closed now? If not, its successor is sent for."""
        if self.spare:
            self.spare = False
            return True
        if self.failures or self.replacing:
            return False
        if self.size + self.connecting >= self.limits.max_size:
            return not self.connecting
        self.replacing = True
        return False

    # What the owner does

    def open(self) -> None:
        """Keep `min_size` from now on; the first attempt need not wait for the pause to end."""
        self.opened = True
        self.closed = False
        self.retry_at_s = 0.0
        self._note_filled()

    def close(self) -> None:
        """Refuse from now on; the idle connections are the caller's to close."""
        self.closed = True
        self.opened = self.filled = self.replacing = self.spare = False
        self.idle = 0

    def _note_filled(self) -> None:
        if self.opened and self.size >= self.limits.min_size:
            self.filled = True

"""`SingleFlight`: identical calls that overlap are made once, and all who asked share the outcome.

The call runs in a greenlet of its own, not in that of whoever asked first, so all who ask are equal: one that is
killed or times out leaves alone, and the call goes on for the others. When the last one leaves, the call is killed, and
has ended before that one goes on. What leaves the call is the call's: no timeout of one who waits is taken for it.

    ASKED     -> UNDER WAY     the first who asks starts it; others join
    UNDER WAY -> LANDED        it returned or raised; who waits gets that; a result is kept for `ttl_s`
    UNDER WAY -> ABANDONED     nobody waits any more; who asks from now on starts another
    UNDER WAY -> FORGOTTEN     `forget`: goes on for those who wait; nobody joins, nothing is kept
An error is never kept. Each who waited gets an exception object of its own, since raising one adds to its traceback.

Calls may ask for other keys; calls that would wait for each other in a circle are refused with an error, known by the
context that a call and what it gathers run in (a plain `gevent.spawn` inside a call hides that).
Per worker, and of one hub: workers share nothing. Keys under way are bounded by who waits, kept ones by `max_keys`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

from gevent import Greenlet, get_hub
from gevent.hub import Waiter

from tafe.concurrency.spawning import end, start
from tafe.errors import UsageError

T = TypeVar("T")

# Rows of 1 KiB, as dicts, are a megabyte a worker then.
MAX_KEYS = 1000

_inside: ContextVar[_Flight | None] = ContextVar("tafe.flight", default=None)


class SingleFlight:
    """Share identical reads: `rates = tafe.SingleFlight(ttl_s=0.5)`, then `rates(currency, lambda: db.fetch_one(...))`.

    `ttl_s`: seconds for which a result is also given to who asks after the call has returned; 0: not at all.
    `max_keys`: results kept at most; beyond, the one nearest to its expiry goes. `clock`: seconds that only grow.
    """

    def __init__(
        self, *, ttl_s: float = 0.0, max_keys: int = MAX_KEYS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if type(ttl_s) not in (int, float) or not 0 <= ttl_s < float("inf"):
            raise UsageError(f"SingleFlight: ttl_s={ttl_s!r} is not a time to live", allowed="seconds, 0 or more")
        if type(max_keys) is not int or max_keys < 1:
            raise UsageError(f"SingleFlight: max_keys={max_keys!r} is not a number of keys", allowed="1 or more")
        self._ttl_s = ttl_s
        self._max_keys = max_keys
        self._clock = clock
        self._hub: Any = None  # of the thread that used it first
        self._under_way: dict[Hashable, _Flight] = {}
        self._kept: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()  # until when; ordered by that

    def __repr__(self) -> str:
        kept = f"{len(self._kept)} of {self._max_keys} kept" if self._ttl_s else "none kept"
        return f"<SingleFlight ttl_s={self._ttl_s:g}, {len(self._under_way)} under way, {kept}>"

    def __call__(self, key: Hashable, call: Callable[[], T]) -> T:
        """Return what `call()` returns, or raise what it raises; a call for an equal `key` may be made in its place.

        `key` must name all that the result depends on: the user too, if users see different things. Everybody gets the
        same object, so it must not be changed. It may have been read before this was asked, by the time the call takes
        and `ttl_s`; after a write, `forget` the key. The call runs in a copy of the context of who asked first.
        Raises `UsageError` when a call asks for its own key, directly or in a circle, and in another thread.
        """
        if get_hub() is not self._hub:
            self._bind()
        kept = self._kept.get(key)
        if kept is not None:
            if self._clock() < kept[0]:
                value: T = kept[1]
                return value
            del self._kept[key]
        flight = self._under_way.get(key)
        if flight is None:
            if not callable(call):
                raise UsageError(
                    f"SingleFlight: the second argument is of type {type(call).__name__}, which cannot be called",
                    allowed="a function without arguments",
                    try_="flight(key, lambda: db.fetch_one(sql, params))",
                )
            flight = self._under_way[key] = _Flight(self, key)
            flight.take_off(call)
        outcome: T = flight.wait()
        return outcome

    def forget(self, key: Hashable) -> None:
        """Have the next who asks for `key` start a new call, as after a write that changes the result."""
        self._kept.pop(key, None)
        self._under_way.pop(key, None)

    def landed(self, flight: _Flight) -> None:
        """For the flight: it is over."""
        key = flight.key
        if self._under_way.get(key) is not flight:
            return  # forgotten or abandoned
        del self._under_way[key]
        if self._ttl_s and not flight.failed:
            now_s = self._clock()
            kept = self._kept
            while kept and (len(kept) >= self._max_keys or next(iter(kept.values()))[0] <= now_s):
                kept.popitem(last=False)
            kept[key] = (now_s + self._ttl_s, flight.value)

    def abandoned(self, flight: _Flight) -> None:
        """For the flight: nobody waits for it any more."""
        if self._under_way.get(flight.key) is flight:
            del self._under_way[flight.key]

    def _bind(self) -> None:
        if self._hub is not None:
            raise UsageError(
                "SingleFlight: used by another thread than the one that used it first",
                allowed="greenlets of one thread",
                try_="flight(key, lambda: tafe.offload(fn)), which offloads the call alone",
            )
        self._hub = get_hub()


class _Flight:
    """One call, and who waits for it."""

    __slots__ = ("_errors", "_greenlet", "_owner", "_waiters", "done", "failed", "key", "value", "waits_for")

    def __init__(self, owner: SingleFlight, key: Hashable) -> None:
        self.key = key
        self.value: Any = None
        self.done = False
        self.failed = False
        self.waits_for: list[_Flight] = []  # others that its call asked for
        self._owner = owner
        self._greenlet: Greenlet | None = None  # while it may run
        self._waiters: dict[Waiter, None] = {}  # in order of arrival
        self._errors: list[BaseException] = []  # one for each who waits

    def take_off(self, call: Callable[[], object]) -> None:
        """Start the call."""
        (self._greenlet,) = start(copy_context(), self._run, [call])

    def wait(self) -> Any:
        """In a greenlet that asks: the outcome."""
        outer = _inside.get()
        if outer is None:
            return self._wait()
        if self.leads_to(outer):
            raise UsageError(
                f"SingleFlight: the call for key {outer.key!r} waits for key {self.key!r}, which waits for it",
                try_="making the inner call without SingleFlight",
            )
        outer.waits_for.append(self)
        try:
            return self._wait()
        finally:
            outer.waits_for.remove(self)

    def leads_to(self, other: _Flight) -> bool:
        """For a flight: does this wait for `other`, or for one that does? No circles: they are refused."""
        return self is other or any(one.leads_to(other) for one in self.waits_for)

    def _wait(self) -> Any:
        waiter = Waiter()
        self._waiters[waiter] = None
        try:
            while not self.done:  # again after a stray switch, which is no result
                waiter.get()
        except BaseException:
            del self._waiters[waiter]
            if not self._waiters:
                self._abandon()
            raise
        if self.failed:
            raise self._errors.pop()
        return self.value

    def _abandon(self) -> None:
        """Nobody waits any more; nothing to do if it is done."""
        self._owner.abandoned(self)
        if self._greenlet is not None:
            end([self._greenlet])
            self._greenlet = None

    def _run(self, call: Callable[[], object]) -> None:
        """In the call's greenlet and context. Raises nothing: gevent would print it."""
        _inside.set(self)
        try:
            self.value = call()
        except BaseException as error:
            self.failed = True
            if self._waiters:
                # All are made before one is raised.
                self._errors = [_twin(error) for _ in range(len(self._waiters) - 1)]
                self._errors.append(error)
            elif isinstance(error, KeyboardInterrupt | SystemExit):
                raise  # nobody's but the process's: gevent gives it to the main greenlet
        finally:
            self.done = True
            self._greenlet = None
            for waiter in self._waiters:
                waiter.hub.loop.run_callback(waiter.switch, None)
            self._owner.landed(self)


def _twin(error: BaseException) -> BaseException:
    """An exception that says the same, to be raised by another greenlet.

    Made by the built-in class that it derives from, so that no constructor of the application's runs: many of those
    take other arguments than they leave in `args`. One that cannot be made so is shared as it is.
    """
    kind = type(error)
    base: Any = next(one for one in kind.__mro__ if one.__module__ == "builtins")
    try:
        _, args, *state = base.__reduce__(error)
        twin: BaseException = base.__new__(kind, *args)
        base.__init__(twin, *args)
        if state:
            base.__setstate__(twin, *state)
    except Exception:  # noqa: BLE001 - an odd class must not cost the others their answer
        return error
    if "__notes__" in vars(twin):
        twin.__notes__ = list(twin.__notes__)
    twin.__cause__ = error.__cause__
    twin.__context__ = error.__context__
    twin.__suppress_context__ = error.__suppress_context__
    return twin.with_traceback(error.__traceback__)

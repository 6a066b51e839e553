"""Reading a gevent socket that answers: one watcher for the life of the connection, one timer now and then.

`gevent.socket` tries to read, is told that nothing is there, starts a watcher, makes a timer, waits, stops both, and
reads. Whoever has just sent a request knows that nothing is there, so this waits first; its watcher stays active
between two waits, as the next answer will be waited for as well; and the timer is one that may already be running: when
it fires early it is set anew for what is left.

The watcher is level-triggered. Where something arrives that nobody waits for, the end of an idle connection or rows
that are not wanted yet, it is stopped until the next wait; otherwise the loop would spin. Watcher and timer keep the
loop alive only during a wait. The loop refers to the channel, so the channel must not refer to the connection that
owns it: a connection that is dropped without being closed would never be collected.

For the thread of the socket's hub, and one greenlet at a time. Writes are tried at once; a write that does not fit into
the socket's buffer is gevent's own business.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from gevent import get_hub, getcurrent
from gevent.exceptions import ConcurrentObjectUseError, InvalidSwitchError, InvalidThreadUseError
from gevent.monkey import get_original
from gevent.socket import socket as gevent_socket

# For the profiler (profiler/waits.py): whoever called knows the socket.
__waits_on__: Final = {"receive": ""}
_READ: Final = 1  # libev's EV_READ
_NEVER: Final = float("inf")
_thread_id: Final[Any] = get_original("_thread", "get_ident")  # patched, it tells greenlets apart


def left_s(expires_s: float) -> float:
    """The time until then; `TimeoutError` if there is none left."""
    left = expires_s - monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def can_carry(sock: Any) -> bool:
    """True for a plain gevent socket of this thread's hub. TLS reads by itself, and a blocking socket just blocks."""
    return type(sock) is gevent_socket and sock.hub is get_hub()


class Thrown(BaseException):
    """Somebody threw `error`, of a kind that sockets raise, into the greenlet that waits; the socket is well."""

    def __init__(self, error: OSError) -> None:
        self.error = error


class _Closed(OSError):
    """What `close` throws."""


class Channel:
    """The reading end of one socket. `close` comes before the socket's own."""

    __slots__ = (
        "_active",
        "_expires_s",
        "_hub",
        "_recv",
        "_switch",
        "_thread",
        "_timer",
        "_timer_due_s",
        "_waiting",
        "_watcher",
        "send",
    )

    def __init__(self, sock: Any) -> None:
        raw = sock._sock  # noqa: SLF001  # gevent's documented way to the socket that does not wait
        self._hub = get_hub()
        self._thread = _thread_id()
        self._recv: Callable[[int], bytes] = raw.recv
        self._switch = self._hub.switch
        self.send = raw.send  # may take less than all, or raise BlockingIOError
        self._watcher = self._hub.loop.io(raw.fileno(), _READ, ref=False)
        self._active = False
        self._waiting: Any = None  # the greenlet in `receive`
        self._expires_s = _NEVER  # when it shall give up
        self._timer: Any = None
        self._timer_due_s = _NEVER  # NEVER while the timer is not running

    def receive(self, size: int, timeout_s: float | None, expires_s: float | None = None) -> bytes:
        """Wait, then return what is there, at most `size` bytes; b"" at the end.

        `expires_s` (monotonic) counts in place of `timeout_s`: for all the pieces of an answer together. Once it has
        passed, at most one piece more is returned. Raises `OSError`, `TimeoutError`, `Thrown`.
        """
        watcher = self._watcher
        if watcher is None:
            raise OSError(errno.EBADF, "the socket is closed")
        if _thread_id() != self._thread:
            raise InvalidThreadUseError("a connection is used by another thread than the one that made it")
        if self._waiting is not None:
            raise ConcurrentObjectUseError("two greenlets read from one connection at the same time")
        if expires_s is not None:
            self._expires_s = expires_s
            if expires_s < self._timer_due_s:
                self._start_timer(left_s(expires_s))
        elif timeout_s is None:
            self._expires_s = _NEVER
        else:
            self._expires_s = expires_s = monotonic() + timeout_s
            if expires_s < self._timer_due_s:
                self._start_timer(timeout_s)
        self._waiting = getcurrent()
        watcher.ref = True
        if not self._active:
            self._active = True
            watcher.start(self._on_readable)
        try:
            while True:
                try:
                    outcome = self._switch()
                except OSError as error:
                    if isinstance(error, _Closed):
                        raise
                    raise Thrown(error) from None
                if outcome is not _READABLE and outcome is not _EXPIRED:
                    raise InvalidSwitchError(
                        f"a greenlet that reads from a connection was switched to with {outcome!r}"
                    )
                try:
                    return self._recv(size)
                except BlockingIOError:
                    if outcome is _EXPIRED:
                        raise TimeoutError("timed out") from None
        finally:
            self._waiting = None
            if self._watcher is not None:
                watcher.ref = False

    def close(self) -> None:
        """Let watcher and timer go; a greenlet that waits gets `OSError`. May be called again, and from any thread."""
        watcher, self._watcher = self._watcher, None
        timer, self._timer = self._timer, None
        if watcher is None or _thread_id is None:  # the second: the interpreter is ending, and the loop is gone
            return
        if _thread_id() == self._thread:
            self._let_go(watcher, timer)
        else:  # the collector ran in another thread, while the loop may be in a call of the kernel
            self._hub.loop.run_callback_threadsafe(self._let_go, watcher, timer)

    def _let_go(self, watcher: Any, timer: Any) -> None:
        watcher.close()
        if timer is not None:
            timer.close()
        if self._waiting is not None:
            self._hub.loop.run_callback(self._cancel, self._waiting)

    def _cancel(self, waiting: Any) -> None:
        if self._waiting is waiting:
            waiting.throw(_Closed(errno.EBADF, "the socket was closed by another greenlet"))

    def _on_readable(self) -> None:
        waiting = self._waiting
        if waiting is not None:
            waiting.switch(_READABLE)
        elif self._watcher is not None:  # closed by another thread, it is let go of a turn later
            self._active = False
            self._watcher.stop()

    def _start_timer(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.close()
        self._timer = self._hub.loop.timer(delay_s, ref=False)
        self._timer_due_s = monotonic() + delay_s
        self._timer.start(self._on_timer, update=True)  # counted from now, not from when this turn of the loop began

    def _on_timer(self) -> None:
        self._timer_due_s = _NEVER
        waiting = self._waiting
        if waiting is None or self._expires_s == _NEVER:
            return
        left_s = self._expires_s - monotonic()
        if left_s > 0:
            self._start_timer(left_s)
        else:
            waiting.switch(_EXPIRED)


class _Outcome:
    """What a wait ended with; compared by identity, so nobody else's switch is taken for it."""


_READABLE: Final = _Outcome()
_EXPIRED: Final = _Outcome()

"""When did it come? What the kernel, the loop and the watchdog know of things that became ready during a stall.

While a slice keeps the hub nobody polls, so what comes then is noticed late. Asked afterwards, and only then:

| what came | who knows when |
| --- | --- |
| bytes on a TCP connection | the kernel stamps each packet; a look at unread bytes (`MSG_PEEK`) shows the stamp |
| the same, without a stamp or read already | `TCP_INFO`: how long ago the last came, in steps of the kernel's clock |
| anything else in libev's epoll: unix sockets, pipes, room to write | the watchdog, which polls it too (`Sightings`) |
| a callback, as by an event that was set | the watchdog, which puts a mark behind it (`Sightings`) |
| a timer | libev: an expired timer holds how late it is (waits.py) |

Each answer is a moment by which it was there, never one before it came; 0.0: nobody knows. Times are as in model.py.
The stamps are there for sockets that were never asked to have them, as long as one socket of the machine was: so the
session keeps such a one, and the flag is set on another for the moment when its stamp is wanted.
What is looked at belongs to somebody else, who must find it as it was. A read that finds no bytes returns the socket's
error and so clears it, a reset as any other: hence only TCP is read, where bytes come before the error, and only when
there are some. A socket whose owner has asked the kernel for something that a look would change is not read either.
`TCP_INFO`, `FIONREAD` and polling change nothing; `SO_ERROR` would clear the error and is never asked for.
Limits: what the watchdog cannot see, while C code holds the GIL, is known for TCP alone; a wait that began in the turn
of the stall is not in the kernel's set before the loop polls.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import struct
import sys
import termios
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from gevent.monkey import get_original

from profiler.native import sleep, undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable

PEEK_BYTES: Final = 16 * 1024  # the server's one read: the stamp is that of the last of these
_SO_TIMESTAMPNS: Final = 35  # asm-generic/socket.h, as those below; Python has no names for them
# What somebody may have set and a look would change: SO_TIMESTAMP and SO_TIMESTAMPING share their flags with the one
# above, SO_PEEK_OFF moves with each look. With the value of who has not set it.
_UNSET: Final = ((29, 0), (_SO_TIMESTAMPNS, 0), (37, 0), (42, -1))
_TCP_ULP: Final = 31  # linux/tcp.h; kernel TLS: its bytes are no whole record, and then a look finds the error
_TCP_ULP_BYTES: Final = 16
_INT: Final = struct.Struct("@i")
_TCP_INFO_BYTES: Final = 104  # of struct tcp_info; as much as Linux had when it got the field
_LAST_DATA_RECV: Final = 52  # offset of tcpi_last_data_recv, an unsigned number of milliseconds
_CLOCK_MONOTONIC_COARSE: Final = 6  # linux/time.h; its resolution is the kernel's step, which TCP_INFO counts in
_LINUX: Final = sys.platform == "linux"  # whose numbers these are
_TIMESPEC: Final = struct.Struct("@qq")
_IN_FAMILIES: Final = (_socket.AF_INET, _socket.AF_INET6)
_FAILED: Final = 0x8 | 0x10  # EPOLLERR, EPOLLHUP: ready for anything
READ: Final = 0x1 | _FAILED  # with EPOLLIN
WRITE: Final = 0x4 | _FAILED  # with EPOLLOUT

SHORTEST_GAP_S = 0.0005  # between two looks: the hub's code needs the GIL more than they do
KEPT_SLICES = 4  # of which sightings are kept: what they saw is asked for in the next turn

_space = bytearray(PEEK_BYTES)  # what is looked at and left; never read


def stamping() -> _socket.socket | None:
    """A socket that makes the kernel stamp what comes, while it is open; None where it does not."""
    if not _LINUX:
        return None
    try:
        keeper = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
        keeper.setsockopt(_socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    except OSError:
        return None
    return keeper


def stamp_s(sock: Any, size: int = PEEK_BYTES) -> float:
    """When the last of the first `size` unread bytes of a TCP connection came; 0.0: unknown, or there are none."""
    if not _LINUX or not _is_tcp(sock):
        return 0.0
    try:
        unread = bytearray(_INT.size)
        fcntl.ioctl(sock.fileno(), termios.FIONREAD, unread)
        if not _INT.unpack(unread)[0]:
            return 0.0
        return (_look_s(sock, size) if _is_plain(sock) else 0.0) or last_s(sock)
    except (OSError, ValueError):  # closed meanwhile, or it listens
        return 0.0


def _is_tcp(sock: Any) -> bool:
    return (
        sock.family in _IN_FAMILIES
        and sock.type == _socket.SOCK_STREAM
        and sock.proto in (0, _socket.IPPROTO_TCP)  # 0: the family's default
    )


def _is_plain(sock: Any) -> bool:
    """Nobody has set what a look would change, or is changed by."""
    for option, unset in _UNSET:
        try:
            if sock.getsockopt(_socket.SOL_SOCKET, option) != unset:
                return False
        except OSError:  # this kernel does not have it
            continue
    return not sock.getsockopt(_socket.IPPROTO_TCP, _TCP_ULP, _TCP_ULP_BYTES)


def _look_s(sock: Any, size: int) -> float:
    """Of the unread bytes that there are."""
    sock.setsockopt(_socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    try:
        flags = _socket.MSG_PEEK | _socket.MSG_DONTWAIT
        _, ancillary, _, _ = sock.recvmsg_into([memoryview(_space)[:size]], 64, flags)
    finally:
        sock.setsockopt(_socket.SOL_SOCKET, _SO_TIMESTAMPNS, 0)
    for level, kind, data in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _SO_TIMESTAMPNS) and len(data) == _TIMESPEC.size:
            seconds, ns = _TIMESPEC.unpack(data)
            age_ns = time.time_ns() - (seconds * 1_000_000_000 + ns)
            return time.perf_counter() - age_ns * 1e-9 if age_ns >= 0 else 0.0
    return 0.0


def last_s(sock: Any) -> float:
    """When the last bytes of a TCP connection came, read or not, or up to a step of the kernel's clock later."""
    if not _LINUX:
        return 0.0
    try:
        info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:  # no TCP
        return 0.0
    ago_ms: int = struct.unpack_from("@I", info, _LAST_DATA_RECV)[0]
    step_s: float = time.clock_getres(_CLOCK_MONOTONIC_COARSE)
    return time.perf_counter() - max(0.0, ago_ms / 1000 - step_s)


def _no_slice() -> tuple[float, bool, object]:
    return 0.0, True, None


class Mark:
    """Stands behind the callbacks that were in the loop's queue at `at_s`."""

    __slots__ = ("at_s", "passed")

    def __init__(self) -> None:
        self.at_s = 0.0
        self.passed = False


class Sightings:
    """What became ready in the loop while one slice had the hub.

    `begin` and `seen_before` are called by the watchdog, `sighted_s` and `queued_by_s` by the hub's thread; `close` by
    anybody when neither calls any more. All that both touch is replaced or appended to as a whole.
    """

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self.peek: Callable[[], tuple[float, bool, object]] = _no_slice  # the hook's, when there is one
        self._stamping = stamping()
        # When each slice began, and what was seen in it: by descriptor and event the moment it was first seen ready.
        self._slices: deque[tuple[float, dict[tuple[int, int], float]]] = deque(maxlen=KEPT_SLICES)
        self._marks: deque[Mark] = deque()
        self._marked = 0  # callbacks that were in the queue when the last mark was put there
        self._slice_s = 0.0  # the slice that is watched; 0.0: none
        self.asked_s = 0.0  # see `seen_before`
        self._ready: Any = None  # the loop's epoll instance
        self._news: Any = None  # another that waits for it, edge-triggered: it wakes for what is new in the first alone
        if loop.backend == "epoll":
            epoll = get_original("select", "epoll")
            self._ready = epoll.fromfd(os.dup(loop.fileno()))
            self._news = epoll()
            self._news.register(self._ready.fileno(), 0x1 | 0x80000000)  # EPOLLIN, EPOLLET

    def close(self) -> None:
        """Let go of the loop."""
        for one in (self._ready, self._news, self._stamping):
            if one is not None:
                one.close()
        self._ready = self._news = self._stamping = None

    def begin(self, start_s: float) -> None:
        """The hub has been in this slice for long: look now, and at what comes from now on."""
        if not self._slices or self._slices[-1][0] != start_s:
            self._slices.append((start_s, {}))
        self._slice_s = start_s
        self._look()

    def seen_before(self, due_s: float) -> bool:
        """Wait for something to become ready while that slice goes on; True: before `due_s`.

        If False comes late, the GIL was asked for in vain since `asked_s`.
        """
        self.asked_s = due_s
        if self._news is None or not self._slice_s:
            return False
        now_s = time.perf_counter()
        left_s = int((due_s - now_s) * 1000) / 1000  # epoll rounds up to milliseconds
        if left_s > 0.0:
            self.asked_s = now_s + left_s
            if undisturbed.outside(self._news.poll, left_s, 1):
                self.asked_s = due_s  # or earlier, but that is not known
                if time.perf_counter() - due_s < sys.getswitchinterval() and self.peek()[0] == self._slice_s:
                    self._look()
                    self.asked_s = time.perf_counter() + SHORTEST_GAP_S
                    sleep(SHORTEST_GAP_S)
                    if time.perf_counter() < due_s:
                        return True
        self._slice_s = 0.0
        return False

    def _look(self) -> None:
        if self._ready is None:
            return
        found = self._ready.poll(0)
        now_s = time.perf_counter()
        slice_s, seen = self._slices[-1]
        loop = self._loop
        if self.peek()[0] != slice_s:  # it is over, and what is ready may be what another turn found
            return
        for fd, events in found:
            for kind in (READ, WRITE):
                if events & kind:
                    seen.setdefault((fd, kind), now_s)
        if len(loop._callbacks) and (not self._marks or self._marks[-1].passed or len(loop._callbacks) != self._marked):  # noqa: SLF001
            mark = Mark()
            loop.run_callback_threadsafe(self._pass, mark)
            self._marked = len(loop._callbacks)  # noqa: SLF001
            mark.at_s = time.perf_counter()
            self._marks.append(mark)

    def _pass(self, mark: Mark) -> None:
        """The hub has run the callbacks in front of it."""
        mark.passed = True

    def sighted_s(self, fd: int, kind: int, since_s: float) -> float:
        """When this descriptor, waited for since then, was first seen ready to `READ` or `WRITE`."""
        for _, seen in list(self._slices):
            at_s = seen.get((fd, kind), 0.0)
            if at_s and at_s >= since_s:
                return at_s
        return 0.0

    def queued_by_s(self) -> float:
        """By when the callback that the loop runs now was in its queue."""
        marks = self._marks
        while marks and marks[0].passed:
            marks.popleft()
        return marks[0].at_s if marks else 0.0

"""Lines for a file, a pipe or standard output, written by a native thread: the hub never waits for a disk or a reader.

The hub gathers lines in a list for a tenth of a second; a greenlet then has gevent's native thread write them, one
hand-over at a time, so that all state belongs to the hub and no lock is needed. What is held is bounded: beyond
`MAX_HELD_BYTES` further lines are dropped and counted, and a line made by `loss` stands where they would have been.
A write that fails (a full disk, a pipe that is not read) is tried again with the rest, so that nothing is lost before
the bound is reached. Files are appended to, so that several workers share one; to pipes and sockets, which several
workers may share too, no write is longer than what the kernel takes whole (pipe(7): PIPE_BUF), so lines never mix.
Knows nothing of what the lines say. A worker that is killed loses what it held; a thread that hangs in a write cannot
be interrupted: `close` gives up on it, and it ends with the process.
"""

from __future__ import annotations

import collections
import errno
import logging
import os
import select
import stat
from collections.abc import Callable
from typing import Final

import gevent
from gevent.event import Event
from gevent.threadpool import ThreadPool

MAX_HELD_BYTES: Final = 4 * 1024 * 1024  # 20,000 lines of 200 bytes: a second of the busiest worker
GATHER_S: Final = 0.1  # as quick as anybody watches a log, and ten hand-overs a second cost nothing beside the lines
RETRY_S: Final = 0.1  # after a write that failed
CLOSE_TIMEOUT_S: Final = 1.0  # for the last lines; workers that stop have two seconds for all that is to be closed
_BATCH_LINES: Final = 256  # joined at once: lines as single strings take twice their memory

_log = logging.getLogger("tafe.server")


class LogWriter:
    """Writes lines to `target`: a path, `-` for standard output, or `fd:N`. Raises OSError if it cannot be opened.

    Made and used on one hub. `loss(count)` returns the line, with its end, that tells how many lines are missing.
    """

    def __init__(self, target: str, loss: Callable[[int], str]) -> None:
        self._target = target
        self._loss = loss
        self._fd = _open(target)
        self._lines: list[str] = []  # not joined yet, fewer than `_BATCH_LINES`
        self._queue: collections.deque[bytes] = collections.deque()  # whole lines, in order
        self._held_bytes = 0  # in the queue and in the thread's hands
        self.lost = 0  # lines that were dropped, ever
        self._untold = 0  # ... and that no line has told of yet
        self._problem: int | None = None  # errno of the last write; None: it went well
        self._wanted = Event()  # there is something to do
        self._hurry = Event()  # ... and not to be put off
        self._reopens = False
        self._closing = False
        self._pool = ThreadPool(1)
        self._greenlet = gevent.spawn(self._run)

    def write(self, line: str) -> None:
        """Have `line`, which ends with a newline, written soon. Never waits."""
        lines = self._lines
        lines.append(line)
        if len(lines) == 1:
            self._wanted.set()
        elif len(lines) >= _BATCH_LINES:
            self._hand_over()

    def lose(self) -> None:
        """Count a line that could not be made."""
        self._hand_over()
        self._drop(1)
        self._wanted.set()

    def reopen(self) -> None:
        """Go on in a new file of the same name, for the old one was renamed. Lines held now are in one or the other."""
        self._reopens = True
        self._wanted.set()
        self._hurry.set()

    def close(self) -> None:
        """Write what is held and close; waits for `CLOSE_TIMEOUT_S` at most. What is left then is lost, and logged."""
        self._closing = True
        self._wanted.set()
        self._hurry.set()
        self._greenlet.join(CLOSE_TIMEOUT_S)
        if not self._greenlet.dead:
            self._greenlet.kill(block=False)
            _log.error("%s: %d bytes of log could not be written in time and are lost", self._name(), self._held_bytes)
            return  # the thread may still be writing to the descriptor
        self._pool.kill()
        _close(self._target, self._fd)

    # -- on the hub

    def _hand_over(self) -> None:
        """Join the lines there are and queue them, if there is room."""
        count = len(self._lines)
        data = "".join(self._lines).encode("ascii", "backslashreplace")
        self._lines.clear()
        if self._held_bytes + len(data) > MAX_HELD_BYTES:
            self._drop(count)
        elif data:
            self._tell_loss()
            self._queue.append(data)
            self._held_bytes += len(data)

    def _drop(self, count: int) -> None:
        if not self.lost:
            _log.error("%s: lines are lost; lines in their place will say how many", self._name())
        self._untold += count
        self.lost += count

    def _tell_loss(self) -> None:
        if self._untold:
            told = self._loss(self._untold).encode("ascii", "backslashreplace")
            self._untold = 0
            self._queue.append(told)
            self._held_bytes += len(told)

    def _run(self) -> None:
        """The greenlet that feeds the thread."""
        while not self._closing or self._lines or self._queue or self._untold:
            self._wanted.wait()
            self._hurry.wait(GATHER_S)
            self._wanted.clear()
            if self._reopens:
                self._reopen()
            self._hand_over()
            self._write_queue()
            if self._untold:
                self._tell_loss()
                self._write_queue()

    def _write_queue(self) -> None:
        """Write until nothing is queued, however long it takes."""
        while self._queue:
            if self._reopens:  # perhaps the new file can be written
                self._reopen()
            chunks = list(self._queue)
            self._queue.clear()
            rest, error = self._pool.apply(_write, (self._fd, chunks))
            self._held_bytes += len(rest) - sum(map(len, chunks))
            if error is not None:
                self._queue.appendleft(rest)
                self._note(error)
                gevent.sleep(RETRY_S)
            elif self._problem is not None:
                self._problem = None
                _log.warning("%s is written again; %d lines are lost so far", self._name(), self.lost)

    def _note(self, error: OSError) -> None:
        """Say once what is wrong. A reader that is slow is no fault until lines are lost."""
        if error.errno not in (errno.EAGAIN, self._problem):
            self._problem = error.errno
            _log.error("%s cannot be written: %s; lines are kept while there is room", self._name(), error.strerror)

    def _reopen(self) -> None:
        self._reopens = False
        if not self._closing:
            self._hurry.clear()
        if not _is_path(self._target):
            return
        opened = self._pool.apply(_try_to_open, (self._target,))
        if isinstance(opened, OSError):
            _log.error("%s cannot be reopened: %s; the old file is used on", self._name(), opened.strerror)
            return
        old, self._fd = self._fd, opened
        self._pool.apply(_close, (self._target, old))  # on a remote file system this is where writing happens

    def _name(self) -> str:
        return "standard output" if self._target == "-" else self._target


def try_target(target: str) -> None:
    """Raise the OSError, if any, that a `LogWriter` of this target would raise."""
    _close(target, _open(target))


def _open(target: str) -> int:
    """A descriptor to write to. Raises OSError."""
    if target == "-":
        fd = 1
    elif not _is_path(target):
        fd = int(target.removeprefix("fd:"))
    else:
        # Not blocking, for a named pipe that nobody reads; to a file it means nothing. 0640: it holds who asked what.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(target, flags, 0o640)
    os.fstat(fd)
    return fd


def _is_path(target: str) -> bool:
    return target != "-" and not target.startswith("fd:")


# -- in the native thread: a raised exception would be printed by gevent, so errors are returned


def _write(fd: int, chunks: list[bytes]) -> tuple[bytes, OSError | None]:
    """Write whole lines; returns those that could not be written, and why."""
    data = b"".join(chunks)
    view = memoryview(data)
    written = 0
    try:
        mode = os.fstat(fd).st_mode
        at_once = select.PIPE_BUF if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else len(data)
        while written < len(data):
            written += os.write(fd, view[written : _lines_end(data, written, at_once)])
    except OSError as error:
        # A line that was cut is written again, on a line of its own.
        begin = data.rfind(b"\n", 0, written) + 1
        return (b"" if begin == written else b"\n") + data[begin:], error
    return b"", None


def _lines_end(data: bytes, begin: int, most: int) -> int:
    """Where the last line ends that begins at `begin` or later and fits into `most` bytes; a longer one is not cut."""
    if len(data) - begin <= most:
        return len(data)
    return (data.rfind(b"\n", begin, begin + most) + 1) or (data.index(b"\n", begin) + 1)


def _try_to_open(target: str) -> int | OSError:
    try:
        return _open(target)
    except OSError as error:
        return error


def _close(target: str, fd: int) -> None:
    if _is_path(target):
        try:
            os.close(fd)
        except OSError:  # what close(2) has to tell comes too late: the lines are not there any more
            pass

"""The worker's files: append-only JSON lines, written by a native thread, never by the hub.

Every `FLUSH_S` the thread takes what the hub and the watchdog have handed over, makes lines of it and writes
them in one `write`: slow slices are at most about that old when a worker is killed, the hub's figures as old as its
hand-overs are apart (session.py). Each line is complete in itself; figures are since the line of the same kind before,
so a reader adds them up. Lines hold routes, request ids, times, source lines and stacks: no query strings, headers or
local variables. A file is created with mode 0600; when it is full, another is begun (retention.py), which starts with
the same header. A file that was deleted while it was written is begun anew.
A full disk loses lines, which are counted in the next one that gets through. So are lines that cannot be made: whatever
a source raises, the thread goes on.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from profiler import why_interpreted
from profiler.errors import ProfilerError
from profiler.model import SCHEMA
from profiler.native import Signal, sleep, start_thread, undisturbed
from profiler.retention import MAX_FILE_AGE_S, MAX_FILE_BYTES, file_name, prune

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from profiler.flight import Flight
    from profiler.sites import SiteTable

FLUSH_S = 1.0  # what a killed worker may lose of its slow slices
STOP_TIMEOUT_S = 2.0  # for the last flush to a slow disk; then the process ends without it
MAX_HANDED_OVER = 3  # half a minute, for a disk that blocks; one of 200 busy routes takes 6 MB


def _no_glance() -> None:
    """Nobody else has to look."""


class Source(Protocol):
    """Something that makes lines when asked, outside the hub's thread."""

    @property
    def records(self) -> int: ...  # what is lost with it

    def lines(self) -> Iterator[dict[str, Any]]: ...


class Writer:
    """Writes what is handed over, and what appears in `table` and `flight`, until stopped."""

    def __init__(
        self,
        directory: str,
        worker: str,
        threshold_s: float,
        table: SiteTable,
        flight: Flight | None = None,
        remedies: Mapping[str, str] | None = None,
    ) -> None:
        self._directory = directory
        self._outbox: deque[Source] = deque()
        self._overrun = 0  # records handed over too soon after others; only the hub's thread counts
        self._overrun_known = 0  # of them, those that are in `_lost`
        self._table = table
        self._flight = flight
        self._lost = 0  # lines that could not be written, and what was overrun, since a file told of it
        self._failed = 0  # lines that could not be written, since the start; only the thread counts
        self._cut = False  # the file ends in the middle of a line
        self._wake = Signal()
        self._stopping = False
        self._glance: Callable[[], None] = _no_glance
        self._done: Signal | None = None
        self._host = socket.gethostname()
        self._parts: list[str] = []  # the files of this writer that are kept, in order
        self._header = {
            "type": "worker",
            "schema": SCHEMA,
            "host": self._host,
            "pid": os.getpid(),
            "worker": worker,
            "threshold_s": threshold_s,
            "hook": "interpreted" if why_interpreted else "compiled",
            "remedies": dict(remedies or {}),
            "started": round(time.time(), 3),  # of the session: the same in all its files
        }
        try:
            self._fd = self._open()
        except OSError as error:
            raise ProfilerError(
                f"cannot write profiles in {directory!r}: {error.strerror}",
                "name a directory that this user can create files in",
            ) from error
        self._write([])

    @property
    def path(self) -> str:
        """Of the file that is written now."""
        return self._parts[-1]

    @property
    def unwritten(self) -> int:
        """Records and lines that are in no file: the disk was too slow or full, or they could not be made."""
        return self._overrun + self._failed

    def _open(self) -> int:
        """Begin a file; raises OSError."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        began_ms = int(time.time() * 1000)
        while True:
            path = os.path.join(self._directory, file_name(self._host, os.getpid(), began_ms))
            try:
                fd = os.open(path, flags, 0o600)
            except FileExistsError:
                began_ms += 1
                continue
            break
        self._parts.append(path)
        self._began_s = time.monotonic()
        self._header_due = True
        self._cut = False
        self._table.retell()  # each file is to be read without those before it
        return fd

    def start(self, glance: Callable[[], None] = _no_glance) -> None:
        """Start the thread, which calls `glance` whenever it has just got the GIL."""
        self._glance = lambda: self._try(glance)
        self._done = start_thread(self._run)

    def hand_over(self, source: Source) -> None:
        """Write this soon; for the hub's thread, never blocks.

        When the disk is too slow for `MAX_HANDED_OVER`, the oldest goes, and counts as dropped.
        """
        if len(self._outbox) >= MAX_HANDED_OVER:
            try:
                self._overrun += self._outbox.popleft().records
            except IndexError:  # the writer was quicker
                pass
        self._outbox.append(source)
        self._wake.announce()

    def stop(self) -> None:
        """Write the rest and close the file. Blocks the caller for as long as that takes, at most `STOP_TIMEOUT_S`."""
        self._stopping = True
        self._wake.announce()
        if self._done is None or self._done.wait(STOP_TIMEOUT_S):
            self.close()

    def close(self) -> None:
        """Close the file without writing: what a forked child does with its copy."""
        os.close(self._fd)

    def _run(self) -> None:
        self._try(self._prune)
        while True:
            self._wake.wait(FLUSH_S)
            stopping = self._stopping  # read before the flush, so that the last one is complete
            self._glance()
            self._try(self._flush)
            if stopping:
                return

    def _try(self, step: Callable[[], None]) -> None:
        """Do it; what it raises ends nothing else."""
        try:
            step()
        except Exception:  # noqa: BLE001 - whatever it is, all later lines are worth more
            self._lose(1)

    def _lose(self, lines: int) -> None:
        self._lost += lines
        self._failed += lines

    def _flush(self) -> None:
        lines: list[dict[str, Any]] = []
        while self._outbox:
            try:
                source = self._outbox.popleft()
            except IndexError:  # the hub took it back
                break
            self._take(lines, source.lines)
        if self._is_full():
            self._rotate()
        self._take(lines, self._table.take)
        if (flight := self._flight) is not None:
            self._take(lines, lambda: flight.take(float("inf") if self._stopping else time.perf_counter()))
        overrun = self._overrun
        self._lost += overrun - self._overrun_known
        self._overrun_known = overrun
        if lines or self._lost:
            self._write(lines)

    def _take(self, lines: list[dict[str, Any]], made: Callable[[], Iterable[dict[str, Any]]]) -> None:
        """Add what a source has made; from where it raises on, that is lost."""
        try:
            for line in made():
                lines.append(line)
                sleep(0)  # the hub may want the GIL: a line takes up to 0.2 ms to make
                self._glance()
        except Exception:  # noqa: BLE001 - the other sources are not to blame
            self._lose(1)

    def _is_full(self) -> bool:
        status = os.fstat(self._fd)
        aged = time.monotonic() - self._began_s >= MAX_FILE_AGE_S
        return status.st_size >= MAX_FILE_BYTES or status.st_nlink == 0 or aged

    def _rotate(self) -> None:
        try:
            old, self._fd = self._fd, undisturbed.outside(self._open)
        except OSError:  # a full disk: the next flush tries again
            return
        os.close(old)
        self._prune()

    def _prune(self) -> None:
        undisturbed.outside(prune, self._directory, self._host, self._parts)  # the disk may take its time

    def _write(self, lines: list[dict[str, Any]]) -> None:
        now = round(time.time(), 3)
        encoded = [self._encoded(now, line) for line in lines]
        if self._lost:  # some of these lines among them
            encoded.append(_line(now, {"type": "dropped", "count": self._lost}))
        if self._header_due:
            encoded.insert(0, _line(now, self._header))
        if self._cut:
            encoded.insert(0, b"\n")
        rest = b"".join(encoded)
        try:
            while rest:
                rest = rest[undisturbed.outside(os.write, self._fd, rest) :]
                self._glance()
            self._lost = 0
            self._cut = self._header_due = False
        except OSError:
            self._lose(rest.count(b"\n"))
            self._cut = True
            self._table.retell()

    def _encoded(self, now: float, line: dict[str, Any]) -> bytes:
        try:
            return _line(now, line)
        except Exception:  # noqa: BLE001 - TypeError, ValueError, RecursionError, or what an object raises
            self._lose(1)
            return b""


def _line(now: float, line: dict[str, Any]) -> bytes:
    return json.dumps({"t": now, **line}, separators=(",", ":")).encode() + b"\n"

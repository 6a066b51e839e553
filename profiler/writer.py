"""The worker's file: append-only JSON lines, written by a native thread, never by the hub.

Every `FLUSH_S` the thread takes what the hub and the watchdog have handed over, makes lines of it and writes
them in one `write`, so a worker that is killed loses about the last second. Each line is complete in itself;
figures are since the line of the same kind before, so a reader adds them up. Lines hold routes, request ids,
times, source lines and stacks: no query strings, headers or local variables. The file is created with mode
0600.
A line a route and second is some 2 KB when busy. A full disk loses lines, which are counted in the next one
that gets through.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from typing import TYPE_CHECKING, Any, Protocol

from profiler.errors import ProfilerError
from profiler.native import Signal, sleep, start_thread

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator

    from profiler.sites import SiteTable

SCHEMA = "profiler.data/2"
FLUSH_S = 1.0  # what a killed worker may lose, against a few KB each time
STOP_TIMEOUT_S = 2.0  # for the last flush to a slow disk; then the process ends without it
MAX_HANDED_OVER = 64  # a minute of hand-overs, for a disk that blocks


class Source(Protocol):
    """Something that makes lines when asked, outside the hub's thread."""

    def lines(self) -> Iterator[dict[str, Any]]: ...


class Writer:
    """Writes what appears in `outbox` and `table` until stopped."""

    def __init__(
        self, directory: str, worker: str, threshold_s: float, outbox: deque[Source], table: SiteTable
    ) -> None:
        started = time.time()
        host = socket.gethostname()
        self._outbox = outbox
        self._table = table
        self._lost = 0  # lines that could not be written
        self._cut = False  # the file ends in the middle of a line
        self._wake = Signal()
        self._stopping = False
        self._done: Signal | None = None
        plain_host = re.sub(r"[^A-Za-z0-9.-]", "_", host)
        self.path = os.path.join(directory, f"worker-{plain_host}-{os.getpid()}-{int(started * 1000)}.jsonl")
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise ProfilerError(
                f"cannot write profiles in {directory!r}: {error.strerror}",
                "name a directory that this user can create files in",
            ) from error
        header = {
            "type": "worker",
            "schema": SCHEMA,
            "host": host,
            "pid": os.getpid(),
            "worker": worker,
            "threshold_s": threshold_s,
        }
        self._write([header])

    def start(self) -> None:
        """Start the thread."""
        self._done = start_thread(self._run)

    def wake(self) -> None:
        """Write soon what was handed over; never blocks."""
        self._wake.announce()

    def stop(self) -> None:
        """Write the rest and close the file. Blocks the caller for as long as that takes, at most `STOP_TIMEOUT_S`."""
        self._stopping = True
        self.wake()
        if self._done is None or self._done.wait(STOP_TIMEOUT_S):
            self.close()

    def close(self) -> None:
        """Close the file without writing: what a forked child does with its copy."""
        os.close(self._fd)

    def _run(self) -> None:
        while True:
            self._wake.wait(FLUSH_S)
            stopping = self._stopping  # read before the flush, so that the last one is complete
            self._flush()
            if stopping:
                return

    def _flush(self) -> None:
        lines: list[dict[str, Any]] = []
        while self._outbox:
            for line in self._outbox.popleft().lines():
                lines.append(line)
                sleep(0)  # the hub may want the GIL: a line takes up to 0.2 ms to make
        lines += self._table.take()
        if self._lost:
            lines.append({"type": "dropped", "count": self._lost})
        if lines:
            self._write(lines)

    def _write(self, lines: list[dict[str, Any]]) -> None:
        now = round(time.time(), 3)
        rest = b"".join(json.dumps({"t": now, **line}, separators=(",", ":")).encode() + b"\n" for line in lines)
        if self._cut:
            rest = b"\n" + rest
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            self._lost = 0
            self._cut = False
        except OSError:
            self._lost += rest.count(b"\n")
            self._cut = True

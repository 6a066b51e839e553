"""How much of the disk profiles take: when a worker begins a new file, and which files of a directory go.

A worker begins a new file at `MAX_FILE_BYTES`, or when the one it writes is a day old, and keeps `KEPT_FILES` of its
own. Then, and at its start, it deletes from the directory what is older than `MAX_AGE_S`, and the oldest beyond
`MAX_TOTAL_BYTES`: only regular files that are named as ours, and never one of another process that may be alive. So a
directory holds `MAX_TOTAL_BYTES`, or, where that is more, `KEPT_FILES * MAX_FILE_BYTES` for each living worker.
Whether a process of another host lives is not known: its files stay for `FOREIGN_LIFE_S` after they were last written.
`expired` is pure; `prune` lists, asks and deletes, and what it cannot delete it leaves.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import NamedTuple

MAX_FILE_BYTES = 16 << 20  # an hour under full load; a report reads it in a second or two
MAX_FILE_AGE_S = 86_400.0  # a day: else the file of a quiet worker would never become old
KEPT_FILES = 4  # of one worker: a quarter of the total, so that one busy worker does not drive out the others
MAX_AGE_S = 7 * 86_400.0  # last week's deployment is what one compares with
MAX_TOTAL_BYTES = 256 << 20  # small on any disk; a report of all of it takes half a minute
FOREIGN_LIFE_S = 86_400.0  # a living worker begins a file a day, unless nobody asks it anything

_NAME = re.compile(r"worker-([A-Za-z0-9._-]+)-(\d{1,10})-(\d{13})\.jsonl")


class Stored(NamedTuple):
    """A file of ours in the directory."""

    path: str
    host: str  # as in its name
    pid: int
    began_ms: int  # Unix time
    written_s: float  # Unix time of the last write
    size_bytes: int


def plain_host(host: str) -> str:
    """A host's name as it is in a file's name."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", host)


def file_name(host: str, pid: int, began_ms: int) -> str:
    """Sorts by age for one process."""
    return f"worker-{plain_host(host)}-{pid}-{began_ms:013d}.jsonl"


def expired(files: list[Stored], now_s: float, may_be_written: Callable[[Stored], bool]) -> list[Stored]:
    """Which files go: of those that nobody writes any more, what is too old, and the oldest of what is too much."""
    gone: list[Stored] = []
    total_bytes = sum(file.size_bytes for file in files)
    for file in sorted(files, key=lambda file: (file.written_s, file.began_ms)):
        old = now_s - file.written_s > MAX_AGE_S
        if (old or total_bytes > MAX_TOTAL_BYTES) and not may_be_written(file):
            gone.append(file)
            total_bytes -= file.size_bytes
    return gone


def prune(directory: str, host: str, parts: list[str]) -> None:
    """Delete what has expired, and what is too much of `parts`: this process's files, of which it writes the last."""
    for path in parts[:-KEPT_FILES]:
        _delete(path)
    del parts[:-KEPT_FILES]
    own_pid, now_s = os.getpid(), time.time()
    own_host = plain_host(host)

    def may_be_written(file: Stored) -> bool:
        if file.host != own_host:
            return now_s - file.written_s <= FOREIGN_LIFE_S
        # An earlier process of this number is dead, as after the restart of a container.
        return file.path == parts[-1] if file.pid == own_pid else _is_alive(file.pid)

    for file in expired(_files(directory), now_s, may_be_written):
        _delete(file.path)


def _files(directory: str) -> list[Stored]:
    files: list[Stored] = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                name = _NAME.fullmatch(entry.name)
                if name is None or not entry.is_file(follow_symlinks=False):
                    continue
                status = entry.stat(follow_symlinks=False)
                host, pid, began_ms = name.groups()
                files.append(
                    Stored(entry.path, host, int(pid), int(began_ms), status.st_mtime, status.st_size),
                )
    except OSError:  # it goes away while it is read: the next time, then
        pass
    return files


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


def _delete(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:  # another worker was faster, or it is not ours
        pass

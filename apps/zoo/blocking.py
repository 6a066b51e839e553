"""Waits for the kernel with functions that gevent has not replaced: the hub's thread sleeps, and everybody with it.

Those who end the waiting (the peer, the other holder of a lock) are native threads, which run all the same.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from gevent import monkey, subprocess
from gevent.lock import BoundedSemaphore
from gevent.os import tp_read

from apps.zoo.table import DEFAULT_MS, stall, twin
from apps.zoo.tools import later, native_sleep
from tafe import offload

_libc = ctypes.CDLL(None)  # gives the GIL up while C runs
_libc_with_gil = ctypes.PyDLL(None)  # keeps it
_native_socket: Any = monkey.get_original("socket", "socket")
_native_select: Any = monkey.get_original("select", "select")
_native_lock: Any = monkey.get_original("_thread", "allocate_lock")
_native_getaddrinfo: Any = monkey.get_original("socket", "getaddrinfo")


@stall("sleep", "blocking")
def stall_sleep(ms: int = DEFAULT_MS) -> None:
    native_sleep(ms / 1000)  # stalls


@twin("sleep")
def yield_sleep(ms: int = DEFAULT_MS) -> None:
    gevent.sleep(ms / 1000)


def _native(cooperative: Any) -> Any:
    """The same connection as a socket that blocks."""
    native = _native_socket(fileno=cooperative.detach())
    native.setblocking(True)
    return native


@stall("socket", "blocking")
def stall_socket(ms: int = DEFAULT_MS) -> None:
    ours, theirs = map(_native, gevent.socket.socketpair())
    with ours, theirs:
        later(ms, theirs.sendall, b"x")
        ours.recv(1)  # stalls


@twin("socket")
def yield_socket(ms: int = DEFAULT_MS) -> None:
    ours, theirs = gevent.socket.socketpair()
    with ours, theirs:
        gevent.spawn_later(ms / 1000, theirs.sendall, b"x")
        ours.recv(1)


@stall("select", "blocking")
def stall_select(ms: int = DEFAULT_MS) -> None:
    _native_select([], [], [], ms / 1000)  # stalls


@twin("select")
def yield_select(ms: int = DEFAULT_MS) -> None:
    gevent.select.select([], [], [], ms / 1000)


@stall("lock", "blocking")
def stall_lock(ms: int = DEFAULT_MS) -> None:
    lock = _native_lock()
    lock.acquire()
    later(ms, lock.release)
    lock.acquire()  # stalls


@twin("lock")
def yield_lock(ms: int = DEFAULT_MS) -> None:
    lock = BoundedSemaphore()
    lock.acquire()
    gevent.spawn_later(ms / 1000, lock.release)
    lock.acquire()


@stall("dns", "native")
def stall_dns(ms: int = DEFAULT_MS) -> None:
    """A name that needs no network, so often that it takes the time: one look-up is mostly system calls."""
    until_s = time.perf_counter() + ms / 1000
    while time.perf_counter() < until_s:  # stalls
        _native_getaddrinfo("localhost", 80)


@twin("dns")
def yield_dns(ms: int = DEFAULT_MS) -> None:
    until_s = time.perf_counter() + ms / 1000
    while time.perf_counter() < until_s:
        gevent.socket.getaddrinfo("localhost", 80)


@stall("usleep", "blocking")
def stall_usleep(ms: int = DEFAULT_MS) -> None:
    _libc.usleep(ms * 1000)  # stalls


@twin("usleep")
def yield_usleep(ms: int = DEFAULT_MS) -> None:
    offload(_libc.usleep, ms * 1000)


@stall("usleep_with_gil", "blocking")
def stall_usleep_with_gil(ms: int = DEFAULT_MS) -> None:
    """No thread can look on while this sleeps."""
    _libc_with_gil.usleep(ms * 1000)  # stalls


@twin("usleep_with_gil")
def yield_usleep_with_gil(ms: int = DEFAULT_MS) -> None:
    offload(_libc.usleep, ms * 1000)


@stall("system", "blocking")
def stall_system(ms: int = DEFAULT_MS) -> None:
    os.system(f"sleep {ms / 1000}")  # noqa: S605 - a number  # stalls


@twin("system")
def yield_system(ms: int = DEFAULT_MS) -> None:
    subprocess.call(["sleep", str(ms / 1000)])


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


@stall("subprocess", "blocking")
def stall_subprocess(ms: int = DEFAULT_MS) -> None:
    """With a pipe of one's own to read the child's output from."""
    with _pipe() as (reader, writer), subprocess.Popen(["sh", "-c", f"sleep {ms / 1000}; echo"], stdout=writer):
        os.read(reader, 1)  # stalls


@twin("subprocess")
def yield_subprocess(ms: int = DEFAULT_MS) -> None:
    with subprocess.Popen(["sleep", str(ms / 1000)], stdout=subprocess.PIPE) as child:
        child.communicate()


@stall("pipe", "blocking")
def stall_pipe(ms: int = DEFAULT_MS) -> None:
    with _pipe() as (reader, writer):
        later(ms, os.write, writer, b"x")
        os.read(reader, 1)  # stalls


@twin("pipe")
def yield_pipe(ms: int = DEFAULT_MS) -> None:
    with _pipe() as (reader, writer):
        later(ms, os.write, writer, b"x")
        tp_read(reader, 1)


@stall("flock", "blocking")
def stall_flock(ms: int = DEFAULT_MS) -> None:
    with tempfile.NamedTemporaryFile() as held, open(held.name, "rb") as wanted:
        fcntl.flock(held, fcntl.LOCK_EX)
        later(ms, fcntl.flock, held.fileno(), fcntl.LOCK_UN)
        fcntl.flock(wanted, fcntl.LOCK_EX)  # stalls


@twin("flock")
def yield_flock(ms: int = DEFAULT_MS) -> None:
    with tempfile.NamedTemporaryFile() as held, open(held.name, "rb") as wanted:
        fcntl.flock(held, fcntl.LOCK_EX)
        later(ms, fcntl.flock, held.fileno(), fcntl.LOCK_UN)
        while not _try_flock(wanted.fileno()):
            gevent.sleep(0.002)


def _try_flock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _locked_database(ms: int) -> Iterator[sqlite3.Connection]:
    """A connection to a database that another one has locked for `ms`."""
    with tempfile.NamedTemporaryFile(suffix=".db") as file:
        holder = sqlite3.connect(file.name, isolation_level=None, check_same_thread=False)
        wanting = sqlite3.connect(file.name, isolation_level=None, check_same_thread=False, timeout=60)
        holder.execute("BEGIN IMMEDIATE")
        later(ms, _commit_and_close, holder)
        yield wanting
        wanting.close()


def _commit_and_close(connection: sqlite3.Connection) -> None:
    # Who waits for the lock has it before execute() returns: closed by them, the connection would be gone under it.
    connection.execute("COMMIT")
    connection.close()


@stall("sqlite", "blocking")
def stall_sqlite(ms: int = DEFAULT_MS) -> None:
    with _locked_database(ms) as database:
        database.execute("BEGIN IMMEDIATE")  # stalls


@twin("sqlite")
def yield_sqlite(ms: int = DEFAULT_MS) -> None:
    with _locked_database(ms) as database:
        offload(database.execute, "BEGIN IMMEDIATE")


def _write_through(ms: int) -> None:
    """Write to a disk until the time is over; where files live in memory this costs CPU instead."""
    until_s = time.perf_counter() + ms / 1000
    block = b"x" * 65_536
    with tempfile.TemporaryFile() as file:
        while time.perf_counter() < until_s:  # stalls
            os.pwrite(file.fileno(), block, 0)
            os.fsync(file.fileno())


@stall("fsync", "blocking", at=_write_through)
def stall_fsync(ms: int = DEFAULT_MS) -> None:
    _write_through(ms)


@twin("fsync")
def yield_fsync(ms: int = DEFAULT_MS) -> None:
    offload(_write_through, ms)


@contextmanager
def _fifo(ms: int) -> Iterator[str]:
    """A named pipe that somebody opens for writing in `ms`."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "fifo")
        os.mkfifo(path)
        later(ms, lambda: os.close(os.open(path, os.O_WRONLY)))
        yield path


@stall("open", "blocking")
def stall_open(ms: int = DEFAULT_MS) -> None:
    with _fifo(ms) as path:
        os.close(os.open(path, os.O_RDONLY))  # stalls


@twin("open")
def yield_open(ms: int = DEFAULT_MS) -> None:
    with _fifo(ms) as path:
        os.close(offload(os.open, path, os.O_RDONLY))


class _PipeHandler(logging.Handler):
    """Writes to a pipe, as to a log collector's."""

    def __init__(self, pipe: int) -> None:
        super().__init__()
        self.pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        os.write(self.pipe, self.format(record).encode())  # stalls


class _PoliteHandler(_PipeHandler):
    def emit(self, record: logging.LogRecord) -> None:
        offload(os.write, self.pipe, self.format(record).encode())


@contextmanager
def _full_pipe(ms: int) -> Iterator[int]:
    """A pipe that takes nothing more until somebody reads from it in `ms`."""
    with _pipe() as (reader, writer):
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writer, True)
        later(ms, os.read, reader, 65_536)
        yield writer


@stall("logging", "blocking", at=_PipeHandler.emit)
def stall_logging(ms: int = DEFAULT_MS) -> None:
    _log_into(_PipeHandler, ms)


@twin("logging")
def yield_logging(ms: int = DEFAULT_MS) -> None:
    _log_into(_PoliteHandler, ms)


def _log_into(kind: type[_PipeHandler], ms: int) -> None:
    with _full_pipe(ms) as pipe:
        logger = logging.Logger("zoo")
        logger.addHandler(kind(pipe))
        logger.warning("the collector is slow today")

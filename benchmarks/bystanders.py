"""Connections that nobody measures: idle ones, slow senders and slow readers, held by a process of their own.

    python -m benchmarks.bystanders idle PORT COUNT
    python -m benchmarks.bystanders slow PORT SENDERS READERS

It prints `ready` when all are there, keeps them until its standard input ends, and then prints a line of JSON that
tells what became of them. A process of its own, so that the measuring client does the same work with and without them;
`present` starts and ends it.

An idle connection has had one answer. Half of the slow senders send a head, a quarter a small body and a quarter one
too large to be gathered, each a byte at a time; half of the slow readers read an answer that the application gave in
one piece, half one that it gave bit by bit, a KiB at a time through the smallest of windows. Whoever was answered, was
cut off or has read all begins anew. Steps are spread evenly over time: bursts of our own making would be measured too.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import select
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import environment
from benchmarks.client import LoadError, parse_answer
from benchmarks.peers import contract

STEP_S = 0.3  # between two bytes of a slow sender, or two reads of a slow reader
_TICK_S = 0.0002  # so that one or two steps are due at once
_NICENESS = 10  # they share a core with the measuring client: theirs is what it leaves, half of the core
_WAVE = 500  # idle connections opened at once; well below every server's backlog
_READ_BYTES = 1024
_TIMEOUT_S = 60.0
_SPARE_DESCRIPTORS = 200  # beside the connections: files, listeners, database connections, epoll
# A local address has some 28,000 ports, of which other programs use some; Linux answers for all of 127.0.0.0/8.
_SOURCES = tuple(f"127.0.0.{number}" for number in range(2, 6))
# A network's, not loopback's 64 KiB: those would give each sender's socket a buffer of 2.5 MiB to write into.
_SEGMENT_BYTES = 1460
_NO_LINGER = struct.pack("ii", 1, 0)  # close with a reset, which keeps no port waiting


class DescriptorError(Exception):
    """This process, and so the server it starts, may not open as many connections as the measurement needs."""


def need_descriptors(connections: int) -> None:
    """Raise the limit on open files, for this process and its children. `DescriptorError` if that is not allowed."""
    needed = connections + _SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, max(hard, needed)))
    except (OSError, ValueError) as error:
        raise DescriptorError(
            f"{needed} open files are needed, the limit is {hard} (ulimit -Hn): {error}; "
            f"try: sudo prlimit --pid $$ --nofile={needed}, or LimitNOFILE={needed} in a systemd unit"
        ) from error


class Bystanders:
    """A running process of them."""

    def __init__(self, role: str, port: int, *counts: int) -> None:
        argv = [sys.executable, "-m", "benchmarks.bystanders", role, str(port), *map(str, counts)]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=environment.ROOT, text=True
        )
        self.fate: dict[str, Any] = {}  # what became of them; complete after `leave`

    def wait_ready(self) -> None:
        """Return when all are there. Raises `LoadError` if the server would not have them."""
        line = self._line()
        if line != "ready":
            raise LoadError(line or f"the crowd was not there after {_TIMEOUT_S} s")

    def leave(self) -> None:
        """End them all."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.poll() is None and (line := self._line()):
            self.fate = json.loads(line)
        self.kill()

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], _TIMEOUT_S)
        return self._process.stdout.readline().strip() if readable else ""


@contextmanager
def present(role: str, port: int, *counts: int) -> Iterator[Bystanders]:
    """`counts` connections of that role for as long as the block lasts."""
    bystanders = Bystanders(role, port, *counts)
    try:
        bystanders.wait_ready()
        yield bystanders
        bystanders.leave()
    finally:
        bystanders.kill()


def _unconnected(number: int) -> socket.socket:
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
    opened.settimeout(_TIMEOUT_S / 4)
    opened.bind((_SOURCES[number % len(_SOURCES)], 0))
    return opened


def _get(path: str, port: int) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()


def idle(port: int, count: int) -> dict[str, int]:
    """Open `count`, have each answered once, and hold them until stdin ends."""
    members: list[socket.socket] = []
    request = _get("/hello", port)
    while len(members) < count:
        wave = [_unconnected(number) for number in range(len(members), min(count, len(members) + _WAVE))]
        for member in wave:
            member.connect(("127.0.0.1", port))
            member.sendall(request)
        for number, member in enumerate(wave, len(members) + 1):
            answer = b""
            while (parsed := parse_answer(answer)) is None:
                try:
                    answer += _received(member)
                except TimeoutError:
                    raise LoadError(f"idle connection {number:,} got no answer") from None
            if parsed != (200, contract.HELLO_BYTES):
                raise LoadError(f"a wrong answer: {answer!r}")
        members += wave
    _ready()
    while not _told_to_end(_TIMEOUT_S):
        pass
    for member in members:
        member.setblocking(False)
    return {"opened": len(members), "closed_by_server": sum(map(_is_closed, members))}


def _received(member: socket.socket) -> bytes:
    data = member.recv(4096)
    if not data:
        raise LoadError("the server hung up on an idle connection")
    return data


def _is_closed(member: socket.socket) -> bool:
    try:
        return not member.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True


class _Slow:
    """One slow connection, which begins anew whenever it comes to an end."""

    def __init__(self, kind: str, number: int, port: int) -> None:
        self.kind = kind
        self._number = number
        self._port = port
        self._begin()

    def _begin(self) -> None:
        self._socket = _unconnected(self._number)
        if self._reads:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least that the kernel has
        self._socket.connect(("127.0.0.1", self._port))
        at_once, self._rest = _script(self.kind, self._port)
        self._socket.sendall(at_once)
        self._socket.setblocking(False)
        self._sent = 0

    @property
    def _reads(self) -> bool:
        return self.kind in READERS

    def step(self) -> str:
        """Send a byte or read a little; what ended it, or "" if it goes on."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            data = None
        except OSError:
            return self._again("reset")
        if data == b"":
            return self._again("closed")
        if self._reads:
            return ""
        if data is not None:
            return self._again(f"answered {data[9:12].decode()}")
        try:
            self._sent += self._socket.send(self._rest[self._sent : self._sent + 1])
        except BlockingIOError:
            pass
        except OSError:
            return self._again("reset")
        return ""

    def _again(self, end: str) -> str:
        self._socket.close()
        self._begin()
        return f"{self.kind} {end}"


SENDERS = ("head", "small body", "head", "large body")
READERS = ("whole answer", "answer in pieces")


def _script(kind: str, port: int) -> tuple[bytes, bytes]:
    """What is sent at once, and what byte by byte."""
    if kind == "head":
        return b"", _get("/hello", port)[:-2] + b"Cookie: %s\r\n\r\n" % (b"c" * 200)
    if kind in READERS:
        return _get("/large" if kind == READERS[0] else "/pieces", port), b""
    size = 1000 if kind == "small body" else 100_000  # servers gather up to some 64 KiB
    return f"POST /echo HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {size}\r\n\r\n".encode(), b"b" * size


def slow(port: int, senders: int, readers: int) -> dict[str, int]:
    """Keep so many slow connections going until stdin ends."""
    kinds = [*itertools.islice(itertools.cycle(SENDERS), senders), *itertools.islice(itertools.cycle(READERS), readers)]
    members = [_Slow(kind, number, port) for number, kind in enumerate(kinds)]
    _ready()
    steps_a_s = len(members) / STEP_S
    ends: Counter[str] = Counter()
    began_s, done = time.monotonic(), 0
    while not _told_to_end(_TICK_S):
        due = int((time.monotonic() - began_s) * steps_a_s)
        # Held up for long, by the core's other programs, the steps missed are left out.
        for number in range(max(done, due - len(members)), due):
            ends[members[number % len(members)].step()] += 1
        done = due
    return {"steps": done, **{end: count for end, count in sorted(ends.items()) if end}}


def _ready() -> None:
    print("ready", flush=True)


def _told_to_end(timeout_s: float) -> bool:
    return bool(select.select([sys.stdin], [], [], timeout_s)[0])


def main() -> None:
    """Be one of the two, as the command line says."""
    os.nice(_NICENESS)
    role, *numbers = sys.argv[1:]
    counts = [int(number) for number in numbers]
    try:
        print(json.dumps(idle(*counts) if role == "idle" else slow(*counts)), flush=True)
    except (LoadError, OSError) as error:
        print(error, flush=True)  # in place of `ready`
        sys.exit(1)


if __name__ == "__main__":
    main()

"""What profiler_truth.py serves: stalls that measure themselves, culprits that stall until they are told, and victims.

`/stalls/{kind}` blocks the hub in one of several ways and notes when, by `time.perf_counter`, which is one clock for
all processes of a machine; each visit is a route of its own, so that the report has a row for it. `/first` and
`/second` block until the script (profiler_truth_script.py) lets them go, over a socket that gevent has not patched.
The others yield, each in another way, and are asked for as victims.

    python -m benchmarks.profiler_truth_app SOCKET    serves what `/asks` asks for, as a database would be
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.socket
from gevent import monkey
from gevent.event import Event

import tafe

SCRIPT_VARIABLE = "BENCH_SCRIPT_SOCKET"  # a path: where the script listens
BACKEND_VARIABLE = "BENCH_BACKEND_SOCKET"
NAP_S = 0.005  # what a query of a few rows takes

_native_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")
_NativeSocket: type[socket.socket] = monkey.get_original("socket", "socket")
_NUMBERS = [random.Random(2).random() for _ in range(20_000)]

app = tafe.App()
_measured: list[tuple[int, float, float]] = []
_event = Event()
_over = Event()


def _sleeps(ms: float) -> None:
    _native_sleep(ms / 1000)


def _computes(ms: float) -> None:
    until_s = time.perf_counter() + ms / 1000
    while time.perf_counter() < until_s:
        pass


def _derives(ms: float) -> None:
    until_s = time.perf_counter() + ms / 1000
    while time.perf_counter() < until_s:  # each gives the GIL up for some milliseconds
        hashlib.pbkdf2_hmac("sha256", b"a password", b"its salt", 10_000)


def _sorts(ms: float) -> None:
    until_s = time.perf_counter() + ms / 1000
    while time.perf_counter() < until_s:  # each holds the GIL for some milliseconds
        sorted(_NUMBERS)


KINDS = {"sleeps": _sleeps, "computes": _computes, "derives": _derives, "sorts": _sorts}


@app.get("/stalls/{kind}")
def stalls(request: tafe.Request, kind: str, visit: int, ms: float) -> str:
    """Block for `ms` ms, or some more."""
    began_s = time.perf_counter()
    request.environ["tafe.span"].route = f"visit {visit}"
    KINDS[kind](ms)
    _measured.append((visit, began_s, time.perf_counter()))
    gevent.sleep(0)  # the slice ends here: to send the answer takes 0.2 ms more, or 1 if another thread gets the GIL
    return "stalled"


@app.get("/measured")
def measured() -> list[tuple[int, float, float]]:
    """Visit, beginning and end of each stall since this was last asked for."""
    noted = _measured.copy()
    _measured.clear()
    return noted


@app.get("/answers")
def answers() -> str:
    """At once."""
    return "answered"


@app.get("/naps")
def naps() -> str:
    """After a timer."""
    gevent.sleep(NAP_S)
    return "napped"


@app.get("/asks")
def asks() -> str:
    """After another server has answered."""
    with gevent.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as backend:
        backend.connect(os.environ[BACKEND_VARIABLE])
        return str(backend.recv(16).decode())


@app.get("/first")
def first() -> str:
    """Wake those who wait for the event, then block until the script says so."""
    _event.set()
    with _NativeSocket(socket.AF_UNIX, socket.SOCK_STREAM) as script:
        script.connect(os.environ[SCRIPT_VARIABLE])
        script.sendall(b"first\n")
        script.recv(1)  # first holds the hub
    _over.set()
    return "first"


@app.get("/second")
def second() -> str:
    """Block until the script says so."""
    with _NativeSocket(socket.AF_UNIX, socket.SOCK_STREAM) as script:
        script.connect(os.environ[SCRIPT_VARIABLE])
        script.sendall(b"second\n")
        script.recv(1)  # second holds the hub
    return "second"


@app.get("/waits/event")
def waits_event() -> str:
    """For what the first culprit sets before it blocks."""
    _event.wait()
    return "event"


@app.get("/waits/timer")
def waits_timer() -> str:
    """A short timer after the other, until the first culprit has blocked: one of them is due while it does."""
    while not _over.is_set():
        gevent.sleep(NAP_S)
    return "timer"


@app.get("/waits/{name}")
def waits(name: str) -> str:
    """For what the script sends."""
    with gevent.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as script:
        script.connect(os.environ[SCRIPT_VARIABLE])
        script.sendall(name.encode() + b"\n")
        script.recv(1)
    return name


def _serve_backend(path: str) -> None:
    from gevent.server import StreamServer

    listener: Any = gevent.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(128)

    def answer(client: Any, _address: object) -> None:
        gevent.sleep(NAP_S)
        client.sendall(b"asked")

    StreamServer(listener, answer).serve_forever()


if __name__ == "__main__":
    _serve_backend(sys.argv[1])

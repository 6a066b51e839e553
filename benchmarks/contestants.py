"""Who is measured and how each one is started: one worker, no access log, settings as its documents advise.

Every contestant serves `/hello` and, over its own pool of eight connections, `/users/{id}`
(peers/contract.py).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.contract import POOL_SIZE


@dataclasses.dataclass(frozen=True)
class Launch:
    """What a command line may need to know."""

    programs: Path  # where the peers' environment keeps its programs
    port: int
    directory: Path  # for whatever the server writes
    slowed_down: bool  # fifty times, by callgrind


@dataclasses.dataclass(frozen=True)
class Contestant:
    """One server with one set of settings."""

    name: str
    packages: tuple[str, ...]  # whose versions belong to its figures
    note: str  # what a reader of the table should know about its settings
    argv: Callable[[Launch], list[str]]
    ours: bool = False


_WSGI = "benchmarks.peers.plain_wsgi:app"
_ASGI = "benchmarks.peers.plain_asgi:app"
_OWN_API = "benchmarks.peers.ours:app"
_WORKER_TIMEOUT_S = 300  # under valgrind a start takes seconds; no worker may be taken for dead


def _tafe(launch: Launch, app: str, *options: str) -> list[str]:
    bind = ["--bind", f"127.0.0.1:{launch.port}"]
    return [sys.executable, "-m", "tafe", "serve", app, "--workers", "1", *bind, *options]


def _profiled(launch: Launch, app: str) -> list[str]:
    # Slowed down fifty times nearly everything would be a stall to look into, as nearly nothing is in the open.
    threshold = ["--slow-slice", "1s"] if launch.slowed_down else []
    return _tafe(launch, app, "--profile-dir", str(launch.directory / "profile"), *threshold)


def _gunicorn(launch: Launch) -> list[str]:
    program = str(launch.programs / "gunicorn")
    limits = ["--timeout", str(_WORKER_TIMEOUT_S), "--log-level", "error"]
    return [program, "-k", "gevent", "-w", "1", "-b", f"127.0.0.1:{launch.port}", *limits, _WSGI]


def _pywsgi(launch: Launch) -> list[str]:
    return [str(launch.programs / "python"), "-m", "benchmarks.peers.plain_wsgi", str(launch.port)]


def _granian(launch: Launch) -> list[str]:
    program = str(launch.programs / "granian")
    protocol = ["--interface", "wsgi", "--http", "1", "--no-ws", "--log-level", "warning"]
    size = ["--workers", "1", "--blocking-threads", str(POOL_SIZE)]
    return [program, *protocol, *size, "--port", str(launch.port), _WSGI]


def _uvicorn(launch: Launch) -> list[str]:
    program = str(launch.programs / "uvicorn")
    protocol = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    return [program, "--workers", "1", *protocol, "--port", str(launch.port), _ASGI]


def _tornado(launch: Launch) -> list[str]:
    return [str(launch.programs / "python"), "-m", "benchmarks.peers.plain_tornado", str(launch.port)]


CONTESTANTS = (
    Contestant(
        "tafe",
        ("gevent", "greenlet", "gunicorn", "pymysql"),
        "the same WSGI application as the other WSGI servers, profiler on",
        lambda launch: _profiled(launch, _WSGI),
        ours=True,
    ),
    Contestant(
        "tafe, no profiler",
        ("gevent", "greenlet", "gunicorn", "pymysql"),
        "the same, --no-profile",
        lambda launch: _tafe(launch, _WSGI, "--no-profile"),
        ours=True,
    ),
    Contestant(
        "tafe, its own API",
        ("gevent", "greenlet", "gunicorn", "pymysql"),
        "tafe.App and tafe.Database, profiler on",
        lambda launch: _profiled(launch, _OWN_API),
        ours=True,
    ),
    Contestant("gunicorn -k gevent", ("gunicorn", "gevent", "greenlet", "pymysql"), "PyMySQL", _gunicorn),
    Contestant(
        "gevent.pywsgi",
        ("gevent", "greenlet", "pymysql"),
        "PyMySQL; head and body in two writes, so a client's delayed ACK holds each answer back 40 ms",
        _pywsgi,
    ),
    Contestant(
        "granian",
        ("granian", "pymysql"),
        f"WSGI, {POOL_SIZE} blocking threads as the pool has connections, PyMySQL",
        _granian,
    ),
    Contestant("uvicorn", ("uvicorn", "uvloop", "httptools", "asyncmy"), "uvloop, httptools, asyncmy", _uvicorn),
    Contestant("Tornado", ("tornado", "asyncmy"), "asyncio loop, asyncmy", _tornado),
)
OURS = CONTESTANTS[0].name

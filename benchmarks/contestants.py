"""Who is measured and how each one is started: one worker, no access log, settings as its documents advise.

Every contestant serves `/hello`, `/echo` and, over its own pool of eight connections, `/users/{id}`
(peers/contract.py), unless its `scenarios` say that it takes part in some only: nginx, the floor, gives the fixed
answer alone, and what differs from a contestant in one setting is compared with it on the hello alone.
"""

from __future__ import annotations

import dataclasses
import getpass
import os
import string
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import environment
from benchmarks.peers.contract import HELLO_BYTES, POOL_SIZE
from benchmarks.scenarios import HELLO, HELLO_AB, QUERY, SCENARIOS, TEN_HEADERS, Scenario


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
    packages: tuple[str, ...]  # whose versions belong to its figures; empty: that of `program` does
    note: str  # what a reader of the table should know about its settings
    argv: Callable[[Launch], list[str]]
    ours: bool = False
    scenarios: tuple[Scenario, ...] = (HELLO,)  # which it takes part in
    environment: tuple[tuple[str, str], ...] = ()
    program: str = ""  # not a Python program but this one, of Debian's package of that name

    def takes(self, scenario: Scenario) -> bool:
        """Whether it takes part, in whatever length the scenario is run."""
        return any(each.name == scenario.name for each in self.scenarios)


_WSGI = "benchmarks.peers.plain_wsgi:app"
_ASGI = "benchmarks.peers.plain_asgi:app"
_OWN_API = "benchmarks.peers.ours:app"
_NGINX_CONF = Path(__file__).parent / "peers" / "nginx.conf"
_WORKER_TIMEOUT_S = 300  # under valgrind a start takes seconds; no worker may be taken for dead


def _tafe(launch: Launch, app: str, *options: str) -> list[str]:
    bind = ["--bind", f"127.0.0.1:{launch.port}"]
    return [sys.executable, "-m", "tafe", "serve", app, "--workers", "1", *bind, *options]


def _profiled(launch: Launch, app: str, *options: str) -> list[str]:
    # Slowed down fifty times nearly everything would be a stall to look into, as nearly nothing is in the open.
    threshold = ["--slow-slice", "1s"] if launch.slowed_down else []
    return _tafe(launch, app, "--profile-dir", str(launch.directory / "profile"), *threshold, *options)


def _gunicorn(launch: Launch, *options: str) -> list[str]:
    program = str(launch.programs / "gunicorn")
    # 75 s as nginx has it: two seconds, the default, are meant for clients that come without a balancer.
    limits = ["--timeout", str(_WORKER_TIMEOUT_S), "--keep-alive", "75", "--log-level", "error"]
    return [program, "-k", "gevent", "-w", "1", "-b", f"127.0.0.1:{launch.port}", *limits, *options, _WSGI]


def _logging_gunicorn(launch: Launch) -> list[str]:
    return _gunicorn(launch, "--access-logfile", str(launch.directory / "access.log"))


def _pywsgi(launch: Launch) -> list[str]:
    return [str(launch.programs / "python"), "-m", "benchmarks.peers.plain_wsgi", str(launch.port)]


def _granian(launch: Launch, interface: str, app: str, *options: str) -> list[str]:
    program = str(launch.programs / "granian")
    protocol = ["--interface", interface, "--http", "1", "--no-ws", "--log-level", "warning"]
    return [program, *protocol, "--workers", "1", *options, "--port", str(launch.port), app]


def _threaded_granian(launch: Launch, *options: str) -> list[str]:
    return _granian(launch, "wsgi", _WSGI, "--blocking-threads", str(POOL_SIZE), *options)


def _logging_granian(launch: Launch) -> list[str]:
    return _threaded_granian(launch, "--access-log")


def _asyncio_granian(launch: Launch) -> list[str]:
    return _granian(launch, "asgi", _ASGI, "--loop", "uvloop")


def _bjoern(launch: Launch) -> list[str]:
    return [str(launch.programs / "python"), "-m", "benchmarks.peers.plain_bjoern", str(launch.port)]


def _nginx(launch: Launch) -> list[str]:
    template = string.Template(_NGINX_CONF.read_text())
    conf = launch.directory / "nginx.conf"
    # Only a master that is root may, and must, be told whom its worker is to run as.
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    conf.write_text(
        template.substitute(user=user, port=launch.port, directory=launch.directory, hello=HELLO_BYTES.decode())
    )
    return [environment.found("nginx") or "nginx", "-p", str(launch.directory), "-c", str(conf)]


def _uvicorn(launch: Launch) -> list[str]:
    program = str(launch.programs / "uvicorn")
    protocol = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    return [program, "--workers", "1", *protocol, "--port", str(launch.port), _ASGI]


def _tornado(launch: Launch) -> list[str]:
    return [str(launch.programs / "python"), "-m", "benchmarks.peers.plain_tornado", str(launch.port)]


_OUR_PACKAGES = ("gevent", "greenlet", "gunicorn", "pymysql")
_INTERPRETED = (("TAFE_COMPILED", "0"), ("PROFILER_COMPILED", "0"))

CONTESTANTS = (
    Contestant(
        "tafe",
        _OUR_PACKAGES,
        "the same WSGI application as the other WSGI servers, profiler on",
        lambda launch: _profiled(launch, _WSGI),
        ours=True,
        scenarios=SCENARIOS,
    ),
    Contestant(
        "tafe, interpreted",
        _OUR_PACKAGES,
        "the same with no compiled module, as where no C compiler is",
        lambda launch: _profiled(launch, _WSGI),
        ours=True,
        environment=_INTERPRETED,
        scenarios=SCENARIOS,
    ),
    Contestant(
        "tafe, interpreted hook",
        _OUR_PACKAGES,
        "the same with the profiler's modules interpreted, the server's compiled",
        lambda launch: _profiled(launch, _WSGI),
        ours=True,
        environment=_INTERPRETED[1:],
    ),
    Contestant(
        "tafe, access log",
        _OUR_PACKAGES,
        "the same as tafe, --access-log to a file",
        lambda launch: _profiled(launch, _WSGI, "--access-log", str(launch.directory / "access.log")),
        ours=True,
    ),
    Contestant(
        "tafe, no profiler",
        _OUR_PACKAGES,
        "the same as tafe, --no-profile",
        lambda launch: _tafe(launch, _WSGI, "--no-profile"),
        ours=True,
        scenarios=(HELLO, QUERY),
    ),
    Contestant(
        "tafe, its own API",
        _OUR_PACKAGES,
        "tafe.App and tafe.Database, profiler on",
        lambda launch: _profiled(launch, _OWN_API),
        ours=True,
        scenarios=SCENARIOS,
    ),
    Contestant("gunicorn -k gevent", _OUR_PACKAGES, "PyMySQL", _gunicorn, scenarios=SCENARIOS),
    Contestant(
        "gunicorn, access log",
        _OUR_PACKAGES,
        "the same, one line a request written to a file",
        _logging_gunicorn,
    ),
    Contestant(
        "gevent.pywsgi",
        ("gevent", "greenlet", "pymysql"),
        "PyMySQL; head and body in two writes, so a client's delayed ACK holds each answer back 40 ms",
        _pywsgi,
        scenarios=SCENARIOS,
    ),
    Contestant(
        "granian",
        ("granian", "pymysql"),
        f"WSGI, {POOL_SIZE} blocking threads as the pool has connections, PyMySQL",
        _threaded_granian,
        scenarios=SCENARIOS,
    ),
    Contestant(
        "granian, access log",
        ("granian", "pymysql"),
        "the same, one line a request written to a file",
        _logging_granian,
    ),
    Contestant(
        "granian ASGI",
        ("granian", "uvloop", "asyncmy"),
        "uvloop, asyncmy",
        _asyncio_granian,
        scenarios=(HELLO, QUERY),
    ),
    Contestant(
        "uvicorn",
        ("uvicorn", "uvloop", "httptools", "asyncmy"),
        "uvloop, httptools, asyncmy",
        _uvicorn,
        scenarios=SCENARIOS,
    ),
    Contestant("Tornado", ("tornado", "asyncmy"), "asyncio loop, asyncmy", _tornado, scenarios=SCENARIOS),
    Contestant(
        "bjoern",
        ("bjoern", "pymysql"),
        "WSGI in C, one request at a time: a query that takes long would hold up every other request; PyMySQL",
        _bjoern,
        scenarios=SCENARIOS,
    ),
    Contestant(
        "nginx",
        (),
        "the floor: `return 200` of the fixed answer, no application",
        _nginx,
        scenarios=(HELLO, TEN_HEADERS, HELLO_AB),
        program="nginx",
    ),
)
OURS = CONTESTANTS[0].name

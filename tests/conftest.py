"""Fixtures that start real servers: MariaDB, nginx, HAProxy and `tafe serve`.

`mariadb` is shared by the whole run, so a test makes a database of its own name in it and never stops the
server; `mariadb_private` is for tests that kill it. The factories `tafe_serve`, `nginx` and `haproxy` stop
what they started at the test's end, and a `tafe serve` that leaves a process behind fails the test. Every
test that uses one of these is marked `real`.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.services import ports, processes
from tests.services.mariadb import MariaDB
from tests.services.proxies import Proxy, start_haproxy, start_nginx
from tests.services.tafe_server import Running, start_tafe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

_REAL_FIXTURES = {"mariadb", "mariadb_private", "tafe_serve", "nginx", "haproxy"}
# A database that is thrown away belongs on a RAM disk if there is room: the files of one run stay under 600
# MB.
_RAM_DISK = Path("/dev/shm")
_RAM_DISK_NEEDED_BYTES = 2 << 30


def pytest_configure(config: pytest.Config) -> None:
    """End the servers also when the run itself is told to end (a CI job's time limit sends SIGTERM)."""
    signal.signal(signal.SIGTERM, _end_on_sigterm)


def _end_on_sigterm(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt("SIGTERM")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses a real server, so that `-m 'not real'` is the fast set without anyone remembering it."""
    for item in items:
        if _REAL_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.real)


def pytest_sessionfinish() -> None:
    processes.end_all()


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A function that returns another free loopback port at each call."""
    return ports.free_port


@pytest.fixture(scope="session")
def servers_dir() -> Iterator[Path]:
    """A temporary folder, short-named (socket paths hold 107 bytes), on the RAM disk if there is room."""
    base = None
    if _RAM_DISK.is_dir() and os.access(_RAM_DISK, os.W_OK):
        base = _RAM_DISK if shutil.disk_usage(_RAM_DISK).free > _RAM_DISK_NEEDED_BYTES else None
    path = Path(tempfile.mkdtemp(prefix="tafe-test-", dir=base))
    yield path
    processes.end_all()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def mariadb(servers_dir: Path) -> Iterator[MariaDB]:
    """The run's shared MariaDB; make your own database with `create_database(name)`."""
    server = MariaDB(_folder(servers_dir, "mariadb"), servers_dir / "mariadb-template")
    server.start()
    yield server
    server.remove()


@pytest.fixture
def mariadb_private(servers_dir: Path) -> Iterator[MariaDB]:
    """A MariaDB for one test, which may `kill()`, `stop()` and `start()` it; the port stays the same."""
    server = MariaDB(_folder(servers_dir, "private"), servers_dir / "mariadb-template")
    server.start()
    yield server
    server.remove()


@pytest.fixture
def tafe_serve(servers_dir: Path) -> Iterator[Callable[..., Running]]:
    """`tafe_serve("apps.hello:app", "--workers", "2", env={...})` starts it and waits until ready."""
    started: list[Running] = []

    def serve(application: str, *options: str, **settings: Any) -> Running:
        running = start_tafe(_folder(servers_dir, "tafe"), application, *options, **settings)
        started.append(running)
        return running

    yield serve
    _stop_all(started)


@pytest.fixture
def nginx(servers_dir: Path) -> Iterator[Callable[..., Proxy]]:
    """`nginx(port, ...)` starts nginx from conf/nginx.conf in front of those ports."""
    yield from _proxies(servers_dir, "nginx", start_nginx)


@pytest.fixture
def haproxy(servers_dir: Path) -> Iterator[Callable[..., Proxy]]:
    """`haproxy(port, ...)` starts HAProxy from conf/haproxy.cfg in front of those ports."""
    yield from _proxies(servers_dir, "haproxy", start_haproxy)


def _proxies(servers_dir: Path, kind: str, start: Callable[..., Proxy]) -> Iterator[Callable[..., Proxy]]:
    started: list[Proxy] = []

    def run(*upstream_ports: int) -> Proxy:
        proxy = start(_folder(servers_dir, kind), *upstream_ports)
        started.append(proxy)
        return proxy

    yield run
    _stop_all(started)


def _folder(servers_dir: Path, kind: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=servers_dir))


def _stop_all(started: list[Running] | list[Proxy]) -> None:
    """Stop all, newest first; the first failure is raised after the last one was stopped."""
    failure: Exception | None = None
    for running in reversed(started):
        try:
            running.stop()
        except processes.ServerError as error:
            failure = failure or error
    if failure is not None:
        raise failure

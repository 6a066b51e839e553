"""Sessions that are closed again, and a clock-free way to make requests."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gevent.socket
import greenlet
import pytest

import profiler
from profiler.arrivals import stamping


@pytest.fixture(autouse=True)
def _no_tracer_left() -> Iterator[None]:
    """A tracer that a test installed, or that a session gave back to it, is not the next test's."""
    yield
    greenlet.settrace(None)


@pytest.fixture
def session() -> Iterator[profiler.Session]:
    """A session that writes nothing."""
    opened = profiler.install()
    yield opened
    opened.close()


@pytest.fixture
def install() -> Iterator[Callable[..., profiler.Session]]:
    """`profiler.install`, with what it opened closed at the end."""
    opened: list[profiler.Session] = []

    def install(directory: Path | None = None, **options: Any) -> profiler.Session:
        opened.append(profiler.install(directory, **options))
        return opened[-1]

    yield install
    for one in opened:
        one.close()


@pytest.fixture
def connection() -> Iterator[tuple[gevent.socket.socket, socket.socket]]:
    """A TCP connection of a greenlet, on a machine whose kernel stamps what comes, and the other end."""
    keeper = stamping()
    assert keeper is not None
    with closing(keeper), socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        with theirs, gevent.socket.socket(fileno=accepted.detach()) as ours:
            yield ours, theirs

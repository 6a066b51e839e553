"""Sessions that are closed again, and a clock-free way to make requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import greenlet
import pytest

import profiler


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

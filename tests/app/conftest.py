"""Fixtures for tests of greenlets that wait for each other."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from tests.app.asking import Calls


@pytest.fixture
def in_time() -> Iterator[None]:
    """Who waits for ever fails its test instead of hanging it."""
    with gevent.Timeout(10):
        yield


@pytest.fixture
def silent(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """gevent prints what leaves a greenlet: nothing may."""
    yield
    assert capfd.readouterr().err == ""


@pytest.fixture
def calls() -> Calls:
    return Calls()

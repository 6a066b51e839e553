"""What the profiler is told of requests."""

from __future__ import annotations

from pathlib import Path

import pytest

import profiler
import tafe
from profiler.frames import Application
from profiler.model import THIS_TURN
from tafe import profiling
from tafe.profiling import SpanObserver
from tafe.wsgi import READY_THIS_TURN


def test_a_request_is_named_by_its_method_and_path_the_first_time_and_later() -> None:
    session = profiler.install()
    try:
        observer = SpanObserver(session)
        assert [observer.name("GET", "/users/17") for _ in range(2)] == ["GET /users/{}"] * 2
        assert observer.name("POST", "/users/17") == "POST /users/{}"
    finally:
        session.close()


def test_the_server_and_the_profiler_mean_the_same_by_this_turn() -> None:
    assert READY_THIS_TURN == THIS_TURN


def test_the_server_s_own_lines_are_not_the_application_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[str]] = []
    install = profiler.install
    monkeypatch.setattr(
        profiler, "install", lambda *a, **kw: (told.append(kw["library_prefixes"]), install(*a, **kw))[1]
    )
    try:
        profiling.start(str(tmp_path), 10.0, {})
    finally:
        profiling.stop()
    (prefixes,) = told
    assert not Application(prefixes).owns(str(Path(str(tafe.__file__)).with_name("keeping.py")))
    assert Application(prefixes).owns(str(tmp_path / "keeping.py"))

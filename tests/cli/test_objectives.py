"""Objectives: how they are set, and what is said about those that mean nothing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tafe.errors import UsageError
from tafe.resolve import render, resolve
from tests.cli.test_commands import CLEAN, ROOT
from tests.process.client import get
from tests.whole.report import report_of

BOTH = (("GET /users/{id}", 0.05), ("*", 0.25))


def _file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "tafe.toml"
    path.write_text(text)
    return str(path)


def test_they_come_from_a_repeated_flag_a_variable_or_a_table_of_the_file(tmp_path: Path) -> None:
    assert resolve({"objective": ("GET /users/{id}=50ms", "*=250ms")}, {}).settings.objective_s == BOTH
    assert resolve({}, {"TAFE_OBJECTIVE": "GET /users/{id}=50ms, *=0.25"}).settings.objective_s == BOTH
    table = _file(tmp_path, '[objective]\n"GET /users/{id}" = "50ms"\n"*" = 0.25\n')
    assert resolve({"config": table}, {}).settings.objective_s == BOTH
    assert resolve({"config": table}, {}).settings.objectives_ms == {"GET /users/{id}": 50.0, "*": 250.0}
    assert resolve({"config": table}, {"TAFE_OBJECTIVE": ""}).settings.objective_s == (), "a variable takes them away"


def test_a_comma_in_a_path_parts_nothing() -> None:
    found = resolve({"objective": ("GET /a,b=50ms,GET /c=1s",)}, {}).settings.objective_s
    assert found == (("GET /a,b", 0.05), ("GET /c", 1.0))


def test_what_config_prints_of_them_reads_back(tmp_path: Path) -> None:
    resolved = resolve({"objective": ("GET /users/{id}=50ms", "*=250ms", 'GET /"=1.5s')}, {})
    shown = render(resolved)
    assert tomllib.loads(shown)["objective"]["GET /users/{id}"] == "50ms"
    assert resolve({"config": _file(tmp_path, shown)}, {}).settings.objective_s == resolved.settings.objective_s


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (("/users=50ms",), "holds '/users', which is no route: METHOD /PATH as tafe report shows it, or *"),
        (("get /users=50ms",), "holds 'get /users', which is no route"),
        (("250ms",), "holds '250ms', which is not ROUTE=TIME"),
        (("GET /a=fast",), "gives 'GET /a' 'fast', which is not a duration such as 10ms"),
        (("GET /a=0",), "gives 'GET /a' '0', which is not within 1ms to 1h"),
        (("GET /a=2h",), "gives 'GET /a' '2h', which is not within 1ms to 1h"),
        (("*=1s", "*=2s"), "names '*' twice"),
        (("GET /users/{id:int}=50ms",), "holds 'GET /users/{id:int}', which reports call 'GET /users/{id}'"),
        (5, "5 is neither a table nor text"),
        ({"GET /a": []}, "gives 'GET /a' [], which is not a duration"),
    ],
)
def test_what_is_no_objective_is_explained_with_one_that_is(raw: Any, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve({"objective": raw}, {})
    message = str(caught.value)
    assert complaint in message
    assert "allowed:  METHOD /PATH=TIME as tafe report shows the route" in message
    assert "try:      tafe serve --objective 'GET /users/{id}=50ms,*=250ms' MODULE:APP" in message


def test_a_mistake_in_the_file_is_corrected_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'try: +objective = \{"GET /users/\{id\}" = "50ms", "\*" = "250ms"\}   in '):
        resolve({"config": _file(tmp_path, '[objective]\nall = "50ms"\n')}, {})


def test_without_the_profiler_they_are_refused_at_the_start() -> None:
    command = [sys.executable, "-m", "tafe", "serve", "apps.hello:app", "--no-profile"]
    done = subprocess.run(
        command, cwd=ROOT, env={**CLEAN, "TAFE_OBJECTIVE": "*=1s"}, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 2
    assert done.stderr.startswith("tafe: --objective: the times are the profiler's, and it is off\n")
    assert "set by:   TAFE_OBJECTIVE" in done.stderr


@pytest.mark.real
def test_the_report_shows_the_moments_of_requests_over_their_routes_objective(tafe_serve: Any) -> None:
    running = tafe_serve(
        "tests.process.application:app", "--workers", "1", "--objective", "GET /sleep/0.06=20ms", "--objective", "*=50s"
    )
    for path in ("/sleep/0.05", "/sleep/0.06"):
        assert get(running.port, path).status == 200
    running.stop()
    (moment,) = report_of(running.profile_dir)["moments"]
    assert moment["request"]["route"] == "GET /sleep/0.06"
    assert moment["objective_ms"] == 20
    assert moment["request"]["waiting_ms"] > 40

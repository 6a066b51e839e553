"""The peers' environment: what could not be built is known, with the reason, and left out of the run."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks import contestants, environment, machine, measure
from benchmarks.scenarios import HELLO

if TYPE_CHECKING:
    from pathlib import Path


def test_the_reason_why_a_peer_could_not_be_built_is_the_compiler_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "unbuildable"
    source.mkdir()
    (source / "broken.py").write_text("raise SystemExit('x.c:1:1: fatal error: ev.h: No such file or directory')")
    (source / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'broken'\nbackend-path = ['.']\n"
    )
    built = tmp_path / "peers-built.txt"
    built.write_text(f"# a comment\n{source}  # needs a header\n")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"), "install", "--quiet"]
    monkeypatch.setattr(environment, "_install", lambda directory: [*pip, "--no-index"])
    ((name, reason),) = environment._build(venv, built).items()
    assert name == str(source)
    assert reason == f"{source} cannot be built here: ev.h: No such file or directory"


def test_a_missing_header_is_the_reason_and_not_the_command_that_failed_for_it() -> None:
    said = (
        "  error: subprocess-exited-with-error\n"
        "      error: Command '['gcc', '-I/some/folder']' returned non-zero exit status 1.\n"
        "      <command-line>: fatal error: ev.h: No such file or directory\n"
    )
    assert environment.compiler_error(said) == "ev.h: No such file or directory"


def test_a_contestant_whose_package_was_not_built_is_left_out_with_the_reason(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "not-built.json").write_text(json.dumps({"bjoern": "bjoern cannot be built here: no ev.h"}))
    bjoern = next(each for each in contestants.CONTESTANTS if each.name == "bjoern")
    core = (machine.two_cores() or (0, 0))[0]
    plan = measure.Plan(rounds=1, seconds=1, server_core=core, load_core=core, scenarios=(HELLO,))
    with measure.all_up([bjoern], plan, tmp_path, "", programs) as (up, left_out):
        assert up == []
        assert left_out == {"bjoern": "bjoern cannot be built here: no ev.h"}


def test_a_contestant_whose_program_is_missing_is_left_out(tmp_path: Path) -> None:
    absent = contestants.Contestant("a server", (), "", lambda launch: [], program="no-such-server")
    plan = measure.Plan(rounds=1, seconds=1, server_core=0, load_core=0, scenarios=(HELLO,))
    with measure.all_up([absent], plan, tmp_path, "", tmp_path) as (up, left_out):
        assert (up, left_out) == ([], {"a server": "no-such-server is not installed"})


def test_contestants_are_started_without_our_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TAFE_COMPILED", "TAFE_WORKERS", "PROFILER_COMPILED"):
        monkeypatch.setenv(name, "0")
    clean = environment.clean_environment()
    assert [name for name in clean if name.startswith(("TAFE", "PROFILER"))] == []
    assert clean["PATH"]


def test_each_package_with_modules_to_compile_says_whether_it_runs_with_them() -> None:
    assert set(environment.interpreted()) == {"profiler", "tafe"}

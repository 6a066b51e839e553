"""The tree itself: what lies at its top, what may not stand in a tracked file, what is a command."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.services.requirements import PACKAGES, missing

ROOT = Path(__file__).resolve().parents[2]
TOP_LEVEL = {
    "pyproject.toml",
    "tafe",
    "apps",
    "profiler",
    "conf",
    "scripts",
    "tests",
    "benchmarks",
    "README.md",
}
# Written so that the pattern does not match itself.
MACHINE_PATHS = re.compile(r"/(w[o]rk|f[a]rm|ro[o]t|h[o]me/\w+)/|/tmp/[v]/")
# Unfinished work belongs into a ticket, and a ticket's number says nothing to a reader of the code. Numbers
# of other projects' tickets are fine beside their name.
UNFINISHED = re.compile(r"\b(T[O]DO|F[I]XME|X[X]X)\b|(?<!gunicorn )(?<!gevent )(?<!greenlet )\bissue #?[0-9]+")
MAX_LINES = 400


@cache
def tracked_files() -> list[Path]:
    """The files under version control that exist."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        missing("git, or this tree's history", "git clone it, with git installed")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    files = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in files if path.is_file()]


def text_of(path: Path) -> str:
    """A file's text; undecodable bytes do not matter to a search."""
    return path.read_text(errors="replace")


def test_the_top_level_holds_the_agreed_names_and_dot_files() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in tracked_files()}
    assert {name for name in names if not name.startswith(".")} == TOP_LEVEL


def test_no_tracked_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in tracked_files()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if MACHINE_PATHS.search(line)
    ]
    assert found == []


def test_no_tracked_file_holds_a_note_about_unfinished_work() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in tracked_files()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert found == []


def test_no_source_file_is_over_long() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in tracked_files()
        if path.suffix == ".py" and (lines := len(text_of(path).splitlines())) > MAX_LINES
    }
    assert long == {}


def test_a_module_starts_with_a_docstring() -> None:
    without = [
        str(path.relative_to(ROOT))
        for path in tracked_files()
        if path.suffix == ".py" and text_of(path).strip() and not ast.get_docstring(ast.parse(text_of(path)))
    ]
    assert without == []


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").iterdir()), ids=lambda path: path.name)
def test_a_script_can_be_run_and_a_library_cannot(path: Path) -> None:
    if path.is_dir():
        return
    runnable = text_of(path).startswith("#!")
    assert runnable == os.access(path, os.X_OK)
    library = path.suffix in (".sh", ".py")
    assert runnable != library, "a .sh file here is sourced, a .py file imported, everything else is a command"


def test_the_ci_entry_calls_the_test_script_and_nothing_else() -> None:
    entry = ROOT / ".ci" / "run"
    assert os.access(entry, os.X_OK)
    assert text_of(entry).splitlines() == ["#!/bin/sh", 'exec "$(dirname "$0")/../scripts/test"']


def test_the_scripts_and_the_fixtures_know_the_same_servers() -> None:
    line = re.search(r"^SERVERS=\((.*?)\)$", text_of(ROOT / "scripts" / "lib.sh"), re.MULTILINE | re.DOTALL)
    assert line is not None
    assert dict(pair.split(":") for pair in line[1].split()) == PACKAGES

"""What reading a result costs: counted, judged, shown."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks import counters, environment, mysql_reader, readme
from tests.services.requirements import missing, program

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("ours", "word"), [(50, "met in user mode"), (51, "missed in user mode")])
def test_half_of_pymysql_s_instructions_meets_the_bound_and_more_does_not(ours: int, word: str) -> None:
    verdict = mysql_reader.verdict({"stock": {"100 x 10": 100}, "fast": {"100 x 10": ours}})
    assert verdict == {"shape": "100 x 10", "limit": 0.5, "figure": ours / 100, "verdict": word}


def test_one_row_has_no_bound_and_a_reader_that_was_not_counted_no_verdict() -> None:
    assert mysql_reader.verdict({"stock": {"one row": 100}, "fast": {"one row": 99}}) is None
    assert mysql_reader.verdict({"fast": {"100 x 10": 1}}) is None


def test_the_readme_shows_the_counts_and_the_verdict() -> None:
    readers = {"stock": {"100 x 10": 3_000_000}, "fast": {"100 x 10": 900_000}}
    text = readme.tables({"sections": {"reader": {"readers": readers, "bound": mysql_reader.verdict(readers)}}})
    assert "| PyMySQL's connection | 3,000,000 |" in text
    assert "100 x 10: ours takes 30% of PyMySQL's own; bound: at most 50%; met in user mode." in text


@pytest.mark.real
@pytest.mark.slow
def test_a_quick_run_counts_both_connections_and_judges_them(tmp_path: Path) -> None:
    program("mariadbd")
    if not counters.callgrind_is_here():
        missing("valgrind (Debian package valgrind)", "apt-get install valgrind")
    output = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks", "--sections", "reader", "--quick", "-o", str(output)]
    done = subprocess.run(command, cwd=environment.ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())["sections"]["reader"]
    # A hundred rows of ten columns are a thousand values, each of which takes more than a hundred instructions.
    assert result["readers"]["stock"]["100 x 10"] > result["readers"]["fast"]["100 x 10"] > 100_000
    assert result["bound"]["verdict"] == "met in user mode"

"""Beside a thread that keeps the GIL, no line that had to wait for it is accused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real  # each is a process of its own, and takes seconds

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("hog", ["works", "sleeps", "foreign"])
def test_who_waited_for_the_gil_is_not_accused(hog: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.profiler.hogged", str(tmp_path), hog]
    ran = subprocess.run(command, cwd=ROOT, check=True, timeout=60, capture_output=True, text=True)
    report = [sys.executable, "-m", "profiler", "report", str(tmp_path), "--format", "json"]
    shown = subprocess.run(report, cwd=ROOT, check=True, timeout=60, capture_output=True, text=True)
    sites = json.loads(shown.stdout)["sites"]
    assert int(ran.stdout) > 0, "it did keep them waiting"
    assert [site for site in sites if site["file"] and not site["innocent"]] == []

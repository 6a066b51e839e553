"""`tafe report DIR --format json`, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def report_of(directory: Path) -> dict[str, Any]:
    """The report on a directory of the profiler's files."""
    command = [sys.executable, "-m", "tafe", "report", str(directory), "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["schema"] == "profiler.report/1"
    return report

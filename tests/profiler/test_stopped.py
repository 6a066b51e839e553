"""A worker that is stopped for a while, as by a debugger or a container that is paused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[2]
STOPS, STOPPED_S = 4, 0.3
# Slices that are far below the threshold of 100 ms, with hardly a pause between them.
BUSY = """
import sys, time, gevent, profiler
session = profiler.install(sys.argv[1], slow_slice_ms=100)
print("ready", flush=True)
end_s = time.perf_counter() + 4.0
while time.perf_counter() < end_s:
    until_s = time.perf_counter() + 0.02
    with profiler.span("busy"):
        while time.perf_counter() < until_s:
            pass
    gevent.sleep(0.0001)
session.close()
"""


def test_what_was_long_because_the_process_was_stopped_is_starved(tmp_path: Path) -> None:
    script = tmp_path / "busy.py"
    script.write_text(BUSY)
    command = [sys.executable, str(script), str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    ) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        for _ in range(STOPS):
            time.sleep(0.3)  # it has to run in between
            busy.send_signal(signal.SIGSTOP)
            time.sleep(STOPPED_S)
            busy.send_signal(signal.SIGCONT)
        assert busy.wait(30) == 0
    report = [sys.executable, "-m", "profiler", "report", str(tmp_path), "--format", "json"]
    told = json.loads(subprocess.run(report, cwd=ROOT, check=True, capture_output=True).stdout)
    sites = told["sites"]
    assert sum(site["count"] for site in sites if site["cause"] == "starved") >= STOPS / 2
    assert [site for site in sites if not site["innocent"] and site["file"]] == []
    excuses = [by["excuse"] for request in told["slowest"] for by in request["blamed"]]
    assert excuses.count("starved") >= STOPS / 2, "whoever reads of the slowest requests is told it too"

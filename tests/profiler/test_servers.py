"""The profiler on servers and workers that know nothing of it, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[2]
APP = Path(__file__).with_name("wsgi_app.py")
REQUESTS = {"stall": 3, "stream": 2, "cooperate": 20, "fail": 1, "refuse": 1}


@contextmanager
def running(command: list[str], directory: Path) -> Iterator[subprocess.Popen[str]]:
    environ = {**os.environ, "PROFILE_DIR": str(directory), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(port: int, path: str) -> bytes:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        error.close()
        return b""


def answers(port: int) -> bool:
    try:
        return ask(port, "/cooperate/0") != b""
    except OSError:
        return False


def ask_all(port: int) -> None:
    """The stalls one after another, the rest among them."""
    deadline_s = time.monotonic() + 20
    while not answers(port):
        assert time.monotonic() < deadline_s, "the server did not start"
        time.sleep(0.05)  # another process: there is nothing to wait on
    with ThreadPoolExecutor(4) as others:
        cooperative = [others.submit(ask, port, f"/cooperate/{number}") for number in range(1, REQUESTS["cooperate"])]
        for name in ("stall", "stream", "fail", "refuse"):
            for number in range(REQUESTS[name]):
                ask(port, f"/{name}/{number}")
        assert {done.result(20) for done in cooperative} == {b"cooperated\n"}


def report_of(directory: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "profiler", "report", str(directory), "--format", "json"]
    shown = subprocess.run(command, cwd=ROOT, check=True, timeout=60, capture_output=True, text=True)
    return dict(json.loads(shown.stdout))


def check(report: dict[str, Any]) -> None:
    lines = [number for number, line in enumerate(APP.read_text().splitlines(), 1) if line.endswith("# stalls")]
    guilty = {site["function"]: site for site in report["sites"] if not site["innocent"] and site["file"] == str(APP)}
    assert {name: (site["cause"], site["routes"]) for name, site in guilty.items()} == {
        "stall": ("blocking", ["GET /stall/{}"]),
        "stream": ("blocking", ["GET /stream/{}"]),
    }
    # Without a CPU for the watchdog a stall has no line, or is the machine's: test_ground_truth.py counts exactly.
    assert all(1 <= site["count"] <= REQUESTS[name] for name, site in guilty.items())
    assert sorted(site["line"] for site in guilty.values()) == lines
    # Starting takes long on the hub, too, as imports do. Nothing of it is the application's.
    assert all(site["library"] or not site["file"] for site in report["sites"] if site["function"] not in guilty)
    routes = {route["route"]: (route["requests"], route["errors"]) for route in report["routes"]}
    assert routes == {
        f"GET /{name}/{{}}": (count, count if name in ("fail", "refuse") else 0) for name, count in REQUESTS.items()
    }


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["load", "preload"])
def test_on_gunicorn_the_line_that_stalls_is_named_and_no_other(
    tmp_path: Path, free_port: Callable[[], int], options: list[str]
) -> None:
    port = free_port()
    command = ["-m", "gunicorn", "-k", "gevent", "--no-control-socket", "-b", f"127.0.0.1:{port}", *options]
    with running([*command, "tests.profiler.wsgi_app:app"], tmp_path) as server:
        ask_all(port)
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    check(report_of(tmp_path))


def test_on_pywsgi_the_line_that_stalls_is_named_and_no_other(tmp_path: Path, free_port: Callable[[], int]) -> None:
    port = free_port()
    with running(["-m", "tests.profiler.wsgi_app", "pywsgi", str(port)], tmp_path) as server:
        ask_all(port)
        server.communicate("stop\n", timeout=20)
        assert server.returncode == 0
    check(report_of(tmp_path))


def test_a_worker_without_http_names_the_job_that_stalls(tmp_path: Path) -> None:
    with running(["-m", "tests.profiler.wsgi_app", "jobs"], tmp_path) as worker:
        assert worker.wait(20) == 0
    report = report_of(tmp_path)
    guilty = [site for site in report["sites"] if not site["innocent"]]
    assert [(site["function"], site["routes"]) for site in guilty] == [("stall", ["job stall"])]
    assert {route["route"]: route["requests"] for route in report["routes"]} == {"job stall": 3, "job cooperate": 3}

"""`scripts/serve` as somebody meets it who has just cloned the tree.

The copy holds what is under version control and nothing else, so a file that was never added shows here.
The virtual environment is the one that runs the tests (`VENV`); making one is left to the first run of
scripts/test itself.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.services import ports
from tests.services.processes import Server
from tests.services.requirements import missing
from tests.whole.client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.real, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
FIRST_START_S = 60.0  # fills a database of 100,000 users
SECOND_START_S = 3.0


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files under version control."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        missing("git, or this tree's history", "git clone it, with git installed")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    copy = tmp_path_factory.mktemp("clone") / "a checkout"  # the commands it names must stand a space
    for name in filter(None, names.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    return copy


def environment(port: int) -> dict[str, str]:
    """As in a fresh shell, with the environment and port to use."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TAFE_", "BIDDER_"))}
    return {**clean, "VENV": sys.prefix, "PORT": str(port)}


class Serving:
    """A running `scripts/serve`, started from another directory, with what it has printed."""

    def __init__(self, checkout: Path, *options: str) -> None:
        self.checkout = checkout
        self.port = ports.free_port()
        self.began_s = time.monotonic()
        log = checkout.parent / f"serve-{self.port}.log"
        script = str(checkout / "scripts" / "serve")
        self.server = Server([script, *options], log, env=environment(self.port), cwd=checkout.parent)

    def wait_announced(self, timeout_s: float) -> float:
        """Wait for its last line; return the seconds since the start."""
        self.server.wait_until(lambda: "Ctrl-C ends it" in self.server.log(), "announced as ready", timeout_s)
        return time.monotonic() - self.began_s

    def press_ctrl_c(self) -> int:
        """SIGINT to the whole foreground group, as a terminal sends it; the exit status."""
        os.killpg(self.server.pid, signal.SIGINT)
        return self.server.wait(15.0)


@pytest.fixture(scope="module")
def first_start(checkout: Path) -> Iterator[Serving]:
    """The first start in a fresh copy; the later starts of this module find its database."""
    serving = Serving(checkout)
    serving.wait_announced(FIRST_START_S)
    yield serving
    serving.server.kill()


def announced(output: str, label: str) -> str:
    found = re.search(rf"^ *{label}: +(.*)$", output, re.MULTILINE)
    assert found is not None, output
    return found[1]


def test_the_first_start_fills_the_database_and_says_what_to_type_next(first_start: Serving) -> None:
    output = first_start.server.log()
    assert "100,000" in output, "progress is visible"
    assert announced(output, "ready") == f"http://127.0.0.1:{first_start.port}"
    command, url = shlex.split(announced(output, "try"))
    assert command == "curl"
    path = url.removeprefix(f"http://127.0.0.1:{first_start.port}")
    with Client(first_start.port) as client:
        answers = [client.get(path) for _ in range(3)]
    assert {a.status for a in answers} == {200}
    shown = f"$ curl http://127.0.0.1:8000{path}\n"
    readme = (first_start.checkout / "README.md").read_text()
    assert shown in readme
    promised = readme.partition(shown)[2].partition("\n")[0]
    assert {a.body.decode() for a in answers} == {promised}


def test_the_report_that_it_names_shows_the_requests(first_start: Serving) -> None:
    path = announced(first_start.server.log(), "try").rpartition(str(first_start.port))[2]
    with Client(first_start.port) as client:
        assert client.get(path).status == 200
    time.sleep(2.0)  # the profiler's files are written about once a second
    command = announced(first_start.server.log(), "then")
    where = first_start.server.log_path.parent
    report = subprocess.run(command, shell=True, cwd=where, capture_output=True, text=True, check=False)
    assert report.returncode == 0, report.stderr
    assert path.rpartition("/")[0] in report.stdout, report.stdout


def test_the_live_view_that_it_names_shows_both_workers(first_start: Serving) -> None:
    command = announced(first_start.server.log(), "live") + " --once"
    where = first_start.server.log_path.parent
    shown = subprocess.run(command, shell=True, cwd=where, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count(" ready ") == 2, shown.stdout


def test_ctrl_c_ends_it_cleanly_and_the_second_start_is_quick(checkout: Path, first_start: Serving) -> None:
    assert first_start.press_ctrl_c() in {0, 130}
    assert "Traceback" not in first_start.server.log()
    second = Serving(checkout)
    try:
        took_s = second.wait_announced(30.0)
        assert second.press_ctrl_c() in {0, 130}
        assert took_s < SECOND_START_S
        assert "Traceback" not in second.server.log()
    finally:
        second.server.kill()


def test_a_busy_port_is_one_line_with_its_remedy(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = subprocess.run(
            [checkout / "scripts" / "serve"], env=environment(port), capture_output=True, text=True, check=False
        )
    assert run.returncode != 0
    assert run.stderr == f"scripts/serve: port {port} is in use; try: PORT={port + 1} scripts/serve\n"


@pytest.mark.parametrize(
    ("port", "complaint"),
    [
        ("http", "is not a number"),
        ("0", "is not a port, which is 1 to 65535"),
        ("65536", "is not a port, which is 1 to 65535"),
        ("99999999999999999999", "is not a port, which is 1 to 65535"),
    ],
)
def test_a_port_that_is_none_is_one_line_with_its_remedy(checkout: Path, port: str, complaint: str) -> None:
    wrong = {**environment(0), "PORT": port}
    run = subprocess.run([checkout / "scripts" / "serve"], env=wrong, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert run.stderr == f"scripts/serve: PORT={port} {complaint}; try: PORT=8001 scripts/serve\n"

"""SIGHUP and --reload: the new generation takes over when it is ready, and a broken one changes nothing."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.process.client import Stream, get, get_later, until
from tests.services.processes import Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.services.tafe_server import Running

ROOT = Path(__file__).resolve().parents[2]

VERSION = """
import time
{before}
def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"{version}"]
"""

pytestmark = pytest.mark.real


class Project:
    """A working directory with one application that can be rewritten."""

    def __init__(self, directory: Path, serve: Callable[..., Running]) -> None:
        self.directory = directory
        self.source = directory / "site_app.py"
        self._serve = serve
        self._age = 0

    def write(self, version: str, before: str = "") -> None:
        """Save the application; a later time each time, since Python's cache of it knows only whole seconds."""
        self.save(VERSION.format(version=version, before=before))

    def save(self, text: str) -> None:
        self.source.write_text(text)
        self._age += 1
        later = time.time() + self._age
        os.utime(self.source, (later, later))

    def serve(self, *options: str, **settings: object) -> Running:
        """Start it and wait until every worker is ready; a worker still loading would load what is saved next."""
        running = self._serve("site_app:app", *options, cwd=self.directory, env={"PYTHONPATH": str(ROOT)}, **settings)
        if settings.get("wait_ready", True):
            until(lambda: "ready after" in running.log(), "ready")
        return running


@pytest.fixture
def project(tmp_path: Path, tafe_serve: Callable[..., Running]) -> Project:
    return Project(tmp_path, tafe_serve)


def test_hup_brings_the_new_application_and_loses_no_request(project: Project) -> None:
    project.write("one")
    running = project.serve()
    old_pids = running.worker_pids()
    stream = Stream(running.port)
    keeping = Stream(running.port, keep_alive=True)
    until(lambda: len(stream.answers) > 50, "loaded")
    project.write("two")
    running.signal(signal.SIGHUP)
    until(lambda: "reloaded" in running.log(), "reloaded")
    until(lambda: not set(old_pids) & set(running.worker_pids()), "rid of the old workers")
    stream.stop()
    keeping.stop()
    assert stream.failures == keeping.failures == []
    assert stream.refused == keeping.refused == 0
    assert stream.bodies() | keeping.bodies() == {"one", "two"}
    assert get(running.port).body == "two"
    assert len(running.worker_pids()) == 2


def test_the_old_workers_serve_until_the_new_ones_are_ready(project: Project) -> None:
    project.write("one")
    running = project.serve("--workers", "1")
    project.write("two", before="time.sleep(1)")
    running.signal(signal.SIGHUP)
    until(lambda: len(running.worker_pids()) == 2, "forked")
    time.sleep(0.3)  # in the middle of the second's loading
    assert get(running.port).body == "one"
    assert get(running.port, "/-/ready").status == 200
    until(lambda: get(running.port).body == "two", "reloaded")


def test_a_request_in_flight_is_finished_by_the_old_worker(project: Project) -> None:
    project.write("one")
    running = project.serve()
    slow = get_later(running.port, "/slow")
    time.sleep(0.2)  # it has to be in flight, which the server shows nowhere
    project.write("two")
    running.signal(signal.SIGHUP)
    assert slow.result(5).body == "one"
    until(lambda: get(running.port).body == "two", "reloaded")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("def app(:\n", "SyntaxError"),
        ("import sys\nsys.exit('not today')\n", "SystemExit: not today"),
    ],
    ids=["syntax", "exit"],
)
def test_an_application_that_cannot_be_loaded_leaves_the_old_workers_serving(
    project: Project, broken: str, said: str
) -> None:
    project.write("one")
    running = project.serve()
    pids = running.worker_pids()
    project.save(broken)
    running.signal(signal.SIGHUP)
    until(lambda: "reload failed, the old workers go on" in running.log(), "refused")
    assert said in running.log()
    until(lambda: running.worker_pids() == pids, "as before")
    assert get(running.port).body == "one"
    assert "its replacement starts" not in running.log()
    project.write("three")
    running.signal(signal.SIGHUP)
    until(lambda: get(running.port).body == "three", "repaired")


def test_candidates_that_fail_in_the_same_moment_are_one_failed_reload(project: Project) -> None:
    project.write("one")
    running = project.serve()
    pids = running.worker_pids()
    project.save("import os, time\nwhile not os.path.exists('go'):\n    time.sleep(0.01)\nraise RuntimeError('no')\n")
    running.signal(signal.SIGHUP)
    until(lambda: len(running.worker_pids()) == 4, "reloading")
    running.signal(signal.SIGSTOP)  # so that it finds both ended when it looks
    candidates = set(running.worker_pids()) - set(pids)
    (project.directory / "go").touch()
    until(lambda: all(_is_zombie(pid) for pid in candidates), "ended")
    running.signal(signal.SIGCONT)
    until(lambda: "reload failed, the old workers go on" in running.log(), "refused")
    until(lambda: running.worker_pids() == pids, "as before")
    assert running.log().count("RuntimeError: no") == 1
    assert "its replacement starts" not in running.log()


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_settings_file_with_an_error_leaves_everything_as_it_is(project: Project) -> None:
    project.write("one")
    settings = project.directory / "tafe.toml"
    settings.write_text("workers = 1\n")
    running = project.serve("--config", "tafe.toml")
    pids = running.worker_pids()
    settings.write_text('workers = "many"\n')
    running.signal(signal.SIGHUP)
    until(lambda: "reload refused, the old workers go on" in running.log(), "refused")
    assert "--workers: 'many' is not a whole number" in running.log()
    settings.write_text("workers = = 2\n")
    running.signal(signal.SIGHUP)
    until(lambda: "is not valid TOML" in running.log(), "refused again")
    assert running.worker_pids() == pids
    settings.write_text("workers = 3\nreload = true\n")
    running.signal(signal.SIGHUP)
    until(lambda: len(running.worker_pids()) == 3 and not set(pids) & set(running.worker_pids()), "three")
    assert get(running.port).body == "one"
    assert "reload has changed, which has an effect at the next start only" in running.log()


def test_a_reload_can_move_the_server_to_another_address(project: Project, free_port: Callable[[], int]) -> None:
    project.write("one")
    first, second, taken = free_port(), free_port(), free_port()
    settings = project.directory / "tafe.toml"
    settings.write_text(f'bind = ["127.0.0.1:{first}"]\n')
    other = project.serve(port=taken)
    server = Server(
        [sys.executable, "-m", "tafe", "serve", "site_app:app", "--config", "tafe.toml"],
        project.directory / "moving.log",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=project.directory,
    )
    try:
        until(lambda: "ready after" in server.log(), "ready")
        settings.write_text(f'bind = ["127.0.0.1:{second}", "127.0.0.1:{taken}"]\n')
        server.signal(signal.SIGHUP)
        until(lambda: "another program listens there" in server.log(), "refused")
        assert get(first).body == "one"
        with pytest.raises(ConnectionRefusedError):
            get(second)
        other.stop()
        server.signal(signal.SIGHUP)
        until(lambda: "reloaded" in server.log(), "reloaded")
        assert get(second).body == get(taken).body == "one"
        until(lambda: _refused(first), "gone from the old address")
        assert server.stop() == 0
    finally:
        server.kill()


def _refused(port: int) -> bool:
    try:
        get(port)
    except ConnectionError:
        return True
    return False


def test_a_generation_that_is_not_ready_in_time_is_given_up(project: Project) -> None:
    project.write("one")
    running = project.serve("--start-deadline", "1s")
    project.write("two", before="time.sleep(30)")
    pids = running.worker_pids()
    running.signal(signal.SIGHUP)
    until(lambda: "not ready after 1 s: still loading" in running.log(), "given up")
    until(lambda: running.worker_pids() == pids, "as before")
    assert get(running.port).body == "one"


def test_with_reload_a_saved_file_is_served_and_a_syntax_error_is_shown(project: Project) -> None:
    project.write("one")
    running = project.serve("--reload", "--workers", "1")
    project.write("two")
    until(lambda: get(running.port).body == "two", "reloaded")
    until(lambda: len(running.worker_pids()) == 1, "rid of the old worker")
    project.save("def app(:\n")
    until(lambda: "SyntaxError" in running.log(), "shown")
    assert get(running.port).body == "two"
    project.write("three")
    until(lambda: get(running.port).body == "three", "repaired")


def test_with_reload_a_start_with_a_syntax_error_waits_for_the_next_save(project: Project) -> None:
    project.save("def app(:\n")
    running = project.serve("--reload", wait_ready=False)
    until(lambda: "waiting for a source file to be saved" in running.log(), "waiting")
    project.save("def app(::\n")
    until(lambda: running.log().count("SyntaxError") == 2, "shown again")
    project.write("one")
    running.wait_ready()
    assert get(running.port).body == "one"
    assert len(running.worker_pids()) == 2


def test_a_second_hup_while_reloading_starts_again_with_what_is_there_then(project: Project) -> None:
    project.write("one")
    running = project.serve()
    project.write("two", before="time.sleep(2)")
    running.signal(signal.SIGHUP)
    until(lambda: len(running.worker_pids()) == 4, "reloading")
    project.write("three")
    running.signal(signal.SIGHUP)
    until(lambda: get(running.port).body == "three", "reloaded")
    until(lambda: len(running.worker_pids()) == 2, "settled")
    assert get(running.port).body == "three"

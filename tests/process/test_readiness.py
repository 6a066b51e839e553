"""A worker that lacks something it needs lives on, tries again, and takes no request from those that are ready."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.process.client import Answer, Stream, get, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.services.tafe_server import Running

ROOT = Path(__file__).resolve().parents[2]

# Needs the file `there`; with the file `for_one` only the worker that can remove it becomes ready.
SOURCE = """
import os
import tafe
from tafe import errors, lifecycle

class Needed:
    name = "needed file"
    ready = False

    def open(self):
        if not os.path.exists("there"):
            raise errors.Unavailable("it is not there")
        if os.path.exists("one_only"):
            try:
                os.unlink("for_one")
            except FileNotFoundError:
                raise errors.Unavailable("another has it")
        self.ready = True

    def close(self):
        open(f"closed-{os.getpid()}", "w").close()

needed = Needed()
lifecycle.register(needed)

def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/lose":
        needed.ready = False
    status = "200 OK" if needed.ready else "503 Service Unavailable"
    start_response(status, [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]

class App:
    def __call__(self, environ, start_response):
        return wsgi(environ, start_response)
    def worker_start(self):
        if os.path.exists("hooks_fail"):
            raise errors.Unavailable("not yet")
        if os.path.exists("hooks_break"):
            raise ValueError("never")
        open(f"started-{os.getpid()}", "w").close()
    def worker_stop(self):
        open(f"stopped-{os.getpid()}", "w").close()

app = App()
"""

pytestmark = pytest.mark.real


class Place:
    """A working directory with the application and the files that it looks for."""

    def __init__(self, directory: Path, serve: Callable[..., Running]) -> None:
        self.directory = directory
        self._serve = serve
        (directory / "needy.py").write_text(SOURCE)

    def touch(self, *names: str) -> None:
        for name in names:
            (self.directory / name).touch()

    def has(self, name: str) -> bool:
        return (self.directory / name).exists()

    def serve(self, *options: str, wait_ready: bool = True) -> Running:
        settings = {"cwd": self.directory, "env": {"PYTHONPATH": str(ROOT)}, "wait_ready": wait_ready}
        return self._serve("needy:app", *options, **settings)


@pytest.fixture
def place(tmp_path: Path, tafe_serve: Callable[..., Running]) -> Place:
    return Place(tmp_path, tafe_serve)


def _answer(port: int, path: str = "/") -> Answer | None:
    try:
        return get(port, path)
    except ConnectionRefusedError:
        return None


def test_a_server_whose_resource_is_missing_answers_503_and_recovers_without_new_workers(place: Place) -> None:
    running = place.serve(wait_ready=False)
    until(lambda: _answer(running.port) is not None, "answering")
    began = time.monotonic()
    assert get(running.port).status == 503
    assert time.monotonic() - began < 2
    ready = get(running.port, "/-/ready")
    assert ready.status == 503
    assert json.loads(ready.body) == {"ready": False, "reasons": ["needed file"]}
    assert ready.headers["Cache-Control"] == "no-store"
    assert get(running.port, "/-/live").status == 200
    until(lambda: "is not ready: needed file: it is not there" in running.log(), "logged")
    pids = running.worker_pids()
    place.touch("there")
    until(lambda: get(running.port, "/-/ready").status == 200, "ready")
    until(lambda: "ready after" in running.log(), "announced")
    assert get(running.port).status == 200
    assert running.worker_pids() == pids


def test_a_worker_that_is_not_ready_leaves_the_requests_to_one_that_is(place: Place) -> None:
    place.touch("there", "one_only", "for_one")
    running = place.serve()
    until(lambda: "another has it" in running.log(), "one not ready")
    stream = Stream(running.port, threads=8)
    until(lambda: len(stream.answers) > 300, "loaded")
    stream.stop()
    assert {answer.status for answer in stream.answers} == {200}
    assert len(stream.bodies()) == 1
    assert stream.failures == []
    place.touch("for_one")
    until(lambda: len(_pids_that_answer(running)) == 2, "both")


def _pids_that_answer(running: Running) -> set[str]:
    stream = Stream(running.port, threads=8)
    time.sleep(0.2)  # long enough for hundreds of requests
    stream.stop()
    return stream.bodies()


def test_a_resource_that_is_lost_is_opened_again(place: Place) -> None:
    place.touch("there")
    running = place.serve("--workers", "1")
    (place.directory / "there").unlink()
    get(running.port, "/lose")
    until(lambda: get(running.port, "/-/ready").status == 503, "unready")
    assert get(running.port).status == 503
    place.touch("there")
    until(lambda: get(running.port, "/-/ready").status == 200, "ready")
    until(lambda: "is ready" in running.log(), "logged")


def test_a_worker_replaced_while_the_resource_is_away_comes_up_by_itself(place: Place) -> None:
    place.touch("there")
    running = place.serve("--workers", "1")
    (place.directory / "there").unlink()
    (pid,) = running.worker_pids()
    os.kill(pid, signal.SIGKILL)
    until(lambda: (answer := _answer(running.port, "/-/ready")) and answer.status == 503, "back")
    place.touch("there")
    until(lambda: get(running.port, "/-/ready").status == 200, "ready")
    assert len(running.worker_pids()) == 1


def test_a_reload_while_nothing_is_ready_goes_through_once_the_new_workers_have_tried(place: Place) -> None:
    running = place.serve(wait_ready=False)
    until(lambda: _answer(running.port) is not None, "answering")
    pids = set(running.worker_pids())
    running.signal(signal.SIGHUP)
    until(lambda: "reloaded" in running.log(), "reloaded")
    until(lambda: not pids & set(running.worker_pids()), "replaced")


def test_a_worker_that_lacks_something_leaves_the_queue_to_the_others_when_it_ends(place: Place) -> None:
    place.touch("there")
    running = place.serve("--workers", "1", "--start-deadline", "1s")
    until(lambda: "ready after" in running.log(), "ready")
    (ready,) = running.worker_pids()
    (place.directory / "there").unlink()
    running.signal(signal.SIGHUP)
    os.kill(ready, signal.SIGSTOP)  # so that who comes now waits in the queue of the listener, which all share
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)) as connection:
            connection.request("GET", "/")
            until(lambda: "not ready after 1 s" in running.log(), "given up")
            until(lambda: running.worker_pids() == [ready], "the other has ended")
            os.kill(ready, signal.SIGCONT)
            answer = connection.getresponse()
            assert (answer.status, int(answer.read())) == (200, ready)
    finally:
        os.kill(ready, signal.SIGCONT)


def test_a_reload_does_not_give_up_ready_workers_for_ones_that_lack_something(place: Place) -> None:
    place.touch("there")
    running = place.serve("--start-deadline", "1s")
    until(lambda: "ready after" in running.log(), "ready")
    pids = running.worker_pids()
    (place.directory / "there").unlink()
    running.signal(signal.SIGHUP)
    until(lambda: "not ready after 1 s: needed file: it is not there" in running.log(), "given up")
    assert get(running.port).status == 200
    until(lambda: running.worker_pids() == pids, "as before")


def test_start_hooks_run_before_requests_and_are_tried_again_while_something_is_unavailable(place: Place) -> None:
    place.touch("there", "hooks_fail")
    running = place.serve("--workers", "1", wait_ready=False)
    until(lambda: _answer(running.port) is not None, "answering")
    refused = get(running.port)
    assert refused.status == 503
    assert refused.headers["Retry-After"] == "1"
    assert json.loads(refused.body)["error"]["code"] == "unavailable"
    assert json.loads(get(running.port, "/-/ready").body)["reasons"] == ["start hooks"]
    (place.directory / "hooks_fail").unlink()
    running.wait_ready()
    (pid,) = running.worker_pids()
    assert place.has(f"started-{pid}")
    assert get(running.port).body == str(pid)


def test_start_hooks_that_fail_for_good_end_the_first_start(place: Place) -> None:
    place.touch("there", "hooks_break")
    running = place.serve(wait_ready=False)
    assert running.wait() == 4
    assert "ValueError: never" in running.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_hooks_run_and_resources_are_closed_at_the_end(place: Place, number: signal.Signals) -> None:
    place.touch("there")
    running = place.serve("--workers", "1")
    (pid,) = running.worker_pids()
    running.signal(number)
    assert running.wait() == 0
    assert place.has(f"stopped-{pid}")
    assert place.has(f"closed-{pid}")


def test_the_health_path_can_be_moved_or_switched_off(place: Place) -> None:
    place.touch("there")
    moved = place.serve("--health-path", "/health/", wait_ready=False)
    until(lambda: (answer := _answer(moved.port, "/health/ready")) and answer.status == 200, "ready")
    assert get(moved.port, "/-/ready").body.isdigit()
    off = place.serve("--health-path", "", wait_ready=False)
    until(lambda: _answer(off.port) is not None, "answering")
    assert get(off.port, "/-/ready").body.isdigit()

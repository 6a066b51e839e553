"""One worker's functions, asked for at the admin address: always an answer, and the others know nothing of it."""

from __future__ import annotations

import http.client
import json
import os
import pstats
import re
import signal
import stat
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
import pytest

from profiler import functions
from tafe import function_profile
from tafe.function_profile import Refused
from tafe.inquiry import Question
from tafe.lifecycle import State
from tafe.scoreboard import Scoreboard
from tests.process.client import get, until
from tests.process.scrape import ask_often, workers
from tests.services.ports import free_port
from tests.services.tafe_server import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.services.tafe_server import Running

APP = "tests.process.measured:app"


class Served:
    """A server with two workers, its admin port, and the directory it runs in."""

    def __init__(self, running: Running, admin: int) -> None:
        self.running, self.admin, self.port = running, admin, running.port
        running.wait_all_ready()

    def pids(self) -> list[int]:
        return [worker["pid"] for worker in workers(self.admin)]

    def post(self, query: str) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.admin, timeout=30)) as connection:
            connection.request("POST", f"/profile?{query}")
            answer = connection.getresponse()
            return answer.status, answer.read()

    def post_later(self, query: str) -> Future[tuple[int, bytes]]:
        pool = ThreadPoolExecutor(1)
        answer = pool.submit(self.post, query)
        pool.shutdown(wait=False)
        return answer

    def command(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "tafe", "profile", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=40)


@pytest.fixture(scope="module")
def served(servers_dir: Path) -> Iterator[Served]:
    from tests.services.tafe_server import start_tafe

    folder = servers_dir / "functions"
    folder.mkdir()
    port = free_port()
    running = start_tafe(folder, APP, "--admin", f"127.0.0.1:{port}", "--workers", "2")
    yield Served(running, port)
    running.stop()


def which_loaded(served: Served) -> set[int]:
    """The workers that have loaded yappi, as far as answers tell."""
    found = set()
    for _ in range(40):
        with closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)) as connection:
            connection.request("GET", "/anything")
            pid = int(connection.getresponse().read())
            connection.request("GET", "/loaded/yappi")
            if connection.getresponse().read() == b"True":
                found.add(pid)
    return found


@pytest.mark.real
def test_the_functions_of_the_worker_that_was_asked_are_answered_and_the_other_takes_no_part(
    served: Served, tmp_path: Path
) -> None:
    asked = served.pids()[1]
    answer = served.post_later(f"worker={asked}&seconds=1&clock=wall")
    until(lambda: f"worker {asked} records its functions for 1 s" in served.running.log(), "recording")
    while not answer.done():
        ask_often(served.port, ["/a"] * 20)
    status, body = answer.result()
    assert status == 200, body
    (tmp_path / "pstats").write_bytes(body)
    found: Any = pstats.Stats(str(tmp_path / "pstats"))
    (calls,) = [
        row[1] for (file, _, name), row in found.stats.items() if name == "app" and file.endswith("measured.py")
    ]
    assert calls > 0
    assert which_loaded(served) == {asked}


@pytest.mark.real
def test_a_second_request_for_the_same_worker_is_a_conflict_and_for_the_other_one_is_not(served: Served) -> None:
    one, other = served.pids()
    said = f"worker {one} records its functions for 2.5 s"
    first = served.post_later(f"worker={one}&seconds=2.5")
    until(lambda: said in served.running.log(), "recording")
    status, body = served.post(f"worker={one}&seconds=1")
    assert status == 409
    assert re.fullmatch(rf"worker {one} is recording already: ask again in [1-3] s", json.loads(body)["error"])
    assert served.post(f"worker={other}&seconds=0.1")[0] == 200
    assert first.result()[0] == 200
    assert served.post(f"worker={one}&seconds=0.1")[0] == 200


@pytest.mark.real
@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("seconds=61", 400, "'61' is not a number of seconds from 0.1 to 60"),
        ("seconds=nan", 400, "'nan' is not a number of seconds"),
        ("seconds=", 400, "'' is not a number of seconds"),
        ("clock=sun", 400, "'sun' is not a clock: cpu or wall"),
        ("format=pdf", 400, "'pdf' is not a format: pstats, callgrind, speedscope"),
        ("worker=" + "1" * 5000, 400, "is not the process id of a worker"),
        ("worker=first", 400, "'first' is not the process id of a worker"),
        ("pid=1", 400, "'pid' means nothing here: worker, seconds, clock, format do"),
        ("worker=1", 404, "process 1 is no worker of this server; its workers are: "),
    ],
)
def test_what_cannot_be_asked_for_is_explained(served: Served, query: str, status: int, said: str) -> None:
    got, body = served.post(query)
    assert got == status
    assert said in json.loads(body)["error"]


@pytest.mark.real
def test_asking_with_get_records_nothing(served: Served) -> None:
    answer = get(served.admin, "/profile?seconds=1")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.real
def test_the_command_writes_a_file_for_its_owner_and_says_what_to_type_next(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "worker.json"
    where = str(served.running.run_dir)
    done = served.command(where, "--seconds", "0.2", "--format", "speedscope", "-o", str(path))
    assert done.returncode == 0, done.stderr
    assert done.stderr.decode() == f"wrote {path}; next: open {path} at speedscope.app\n"
    assert json.loads(path.read_bytes())["profiles"][0]["unit"] == "seconds"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    piped = served.command(f"127.0.0.1:{served.admin}", "--seconds", "0.2", "--format", "callgrind")
    assert piped.stdout.startswith(b"# callgrind format\n")


@pytest.mark.real
def test_the_command_explains_what_the_server_says_no_to(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "worker.pstats"
    done = served.command(str(served.running.run_dir), "--worker", "1", "-o", str(path))
    assert done.returncode == 1
    assert done.stderr.decode().startswith("tafe: process 1 is no worker of this server; its workers are: ")
    assert not path.exists()


@pytest.mark.real
def test_a_worker_that_dies_while_it_records_is_told_of_at_once(tafe_serve: Callable[..., Running]) -> None:
    port = free_port()
    served = Served(tafe_serve(APP, "--admin", f"127.0.0.1:{port}", "--workers", "1"), port)
    (pid,) = served.pids()
    answer = served.post_later(f"worker={pid}&seconds=50")
    until(lambda: f"worker {pid} records" in served.running.log(), "recording")
    os.kill(pid, signal.SIGKILL)
    assert answer.result(15) == (502, answer.result()[1])
    assert f"worker {pid} has ended, and its recording with it" in answer.result()[1].decode()
    until(lambda: served.pids() not in ([pid], []), "replaced")
    until(lambda: get(served.port, "/-/ready").status == 200, "ready")
    assert served.post("seconds=0.1")[0] == 200, "the one in its place is asked for the first time"


@pytest.mark.real
def test_a_worker_without_yappi_says_what_to_install(tafe_serve: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "yappi.py").write_text("raise ImportError('hidden from the test')\n")
    port = free_port()
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    running = tafe_serve(APP, "--admin", f"127.0.0.1:{port}", "--workers", "1", env={"PYTHONPATH": path})
    status, body = Served(running, port).post("seconds=1")
    assert status == 503
    assert "needs yappi, which is not installed" in json.loads(body)["error"]
    assert "pip install" in json.loads(body)["error"]


@pytest.mark.real
def test_the_run_directory_tells_the_address_while_the_server_runs(tafe_serve: Callable[..., Running]) -> None:
    port = free_port()
    running = tafe_serve(APP, "--admin", f"127.0.0.1:{port}", "--workers", "1")
    assert (running.run_dir / "admin").read_text() == f"http://127.0.0.1:{port}"
    running.stop()
    assert not (running.run_dir / "admin").exists()


# -- without a server


def stays() -> bool:
    return False


@pytest.fixture
def board() -> Scoreboard:
    """With one ready worker, which is this process."""
    made = Scoreboard(2)
    slot = made.free_slot()
    assert slot is not None
    slot.hand_out(1, 0)
    slot.pid, slot.state = os.getpid(), State.READY
    return made


@pytest.fixture
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_profile, "GRACE_S", 0.1)


@pytest.mark.usefixtures("_hurry")
def test_a_worker_that_does_not_look_is_given_up_and_takes_a_later_question(board: Scoreboard) -> None:
    (slot,) = board.used()
    with pytest.raises(Refused, match=rf"worker {os.getpid()} does not answer: its hub last turned") as caught:
        function_profile.ask(board, "seconds=0.1", stays)
    assert caught.value.status == "504 Gateway Timeout"
    assert slot.inquiry.take() is None, "it was withdrawn"
    number = slot.inquiry.ask(Question(0.2, "wall"))
    assert number is not None
    assert slot.inquiry.take() == Question(0.2, "wall")


@pytest.mark.usefixtures("_hurry")
def test_a_worker_that_gets_stuck_while_it_records_is_given_up(board: Scoreboard) -> None:
    (slot,) = board.used()
    asker = gevent.spawn(function_profile.ask, board, "seconds=0.1", stays)
    gevent.sleep(0)
    assert slot.inquiry.take() == Question(0.1, "cpu")
    with pytest.raises(Refused, match="does not answer") as caught:
        asker.get()
    assert caught.value.status == "504 Gateway Timeout"
    assert slot.inquiry.ask(Question(1.0, "cpu")) is None, "it is busy until it has answered"
    slot.inquiry.answer([b"late"])
    assert slot.inquiry.ask(Question(1.0, "cpu")) is not None


def test_a_question_taken_while_it_is_withdrawn_is_answered_and_the_next_one_is_another(board: Scoreboard) -> None:
    (slot,) = board.used()
    inquiry = slot.inquiry
    first = inquiry.ask(Question(1.0, "cpu"))
    assert first is not None
    assert inquiry.take() == Question(1.0, "cpu")
    inquiry.withdraw(first)  # too late
    assert inquiry.ask(Question(2.0, "cpu")) is None
    inquiry.answer([b"one ", b"answer"])
    assert inquiry.answer_of(first, os.getpid()) == b"one answer"
    second = inquiry.ask(Question(2.0, "cpu"))
    assert second is not None
    assert second > first
    assert inquiry.answer_of(second, os.getpid()) is None
    assert inquiry.take() == Question(2.0, "cpu")
    inquiry.answer([b"another"])
    assert inquiry.answer_of(second, os.getpid()) == b"another"
    assert inquiry.answer_of(first, os.getpid()) is None, "which was somebody else's"


def test_without_a_ready_worker_nobody_is_asked(board: Scoreboard) -> None:
    (slot,) = board.used()
    slot.state = State.WAITING
    with pytest.raises(Refused, match="no worker is ready") as caught:
        function_profile.ask(board, "", stays)
    assert caught.value.status == "404 Not Found"


def test_the_bounds_are_the_profilers() -> None:
    assert (function_profile.DEFAULT_S, function_profile.LONGEST_S) == (functions.DEFAULT_S, functions.LONGEST_S)

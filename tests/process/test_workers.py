"""Workers that die, hang, crash at their start or have served enough are replaced, and the others go on."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.process.client import Stream, get, get_later, until
from tests.services.processes import ServerError, session_members

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.services.tafe_server import Running

ROOT = Path(__file__).resolve().parents[2]
APP = "tests.process.application:app"

pytestmark = pytest.mark.real


def _ready(running: Running) -> Running:
    until(lambda: "ready after" in running.log(), "ready")
    return running


def _serve_source(tafe_serve: Callable[..., Running], folder: Path, source: str, *options: str) -> Running:
    (folder / "made_app.py").write_text(source)
    return tafe_serve("made_app:app", *options, cwd=folder, env={"PYTHONPATH": str(ROOT)}, wait_ready=False)


def test_the_application_is_imported_after_patching(tafe_serve: Callable[..., Running]) -> None:
    assert get(tafe_serve(APP).port, "/patched").body == "True"


def test_an_application_that_configures_logging_does_not_silence_the_server(
    tafe_serve: Callable[..., Running], tmp_path: Path
) -> None:
    source = """
import logging.config
import tafe
app = tafe.App()
@app.get("/boom")
def boom() -> None:
    raise RuntimeError("the cause")
logging.config.dictConfig({"version": 1})
"""
    running = _ready(_serve_source(tafe_serve, tmp_path, source))
    assert get(running.port, "/boom").status == 500
    until(lambda: "RuntimeError: the cause" in running.log(), "logged")


def test_all_workers_accept(tafe_serve: Callable[..., Running]) -> None:
    running = _ready(tafe_serve(APP, "--workers", "3"))
    pids = {str(pid) for pid in running.worker_pids()}
    assert len(pids) == 3
    stream = Stream(running.port, threads=8)
    until(lambda: stream.bodies() == pids, "answered by all three")
    stream.stop()
    assert stream.failures == []


def test_a_killed_worker_is_replaced_at_once_while_the_other_serves(tafe_serve: Callable[..., Running]) -> None:
    running = _ready(tafe_serve(APP))
    victim, other = running.worker_pids()
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(running.worker_pids()) == 2 and victim not in running.worker_pids(), "replaced", 5)
    assert get(running.port).status == 200
    until(lambda: f"worker {victim} was killed by SIGKILL" in running.log(), "logged")
    assert "its replacement starts now" in running.log()
    assert other in running.worker_pids()


def test_killing_workers_loses_only_what_they_had_in_hand(tafe_serve: Callable[..., Running]) -> None:
    running = _ready(tafe_serve(APP))
    stream = Stream(running.port, threads=4)
    for _ in range(3):
        os.kill(running.worker_pids()[0], signal.SIGKILL)
        until(lambda: len(running.worker_pids()) == 2, "replaced")
        seen = len(stream.answers)
        until(lambda before=seen: len(stream.answers) > before + 50, "serving")
    stream.stop()
    assert len(stream.failures) <= 3 * 4  # a connection a thread and kill
    assert stream.refused == 0


def test_a_worker_that_crashes_again_and_again_is_replaced_more_and_more_slowly(
    tafe_serve: Callable[..., Running], tmp_path: Path
) -> None:
    source = (
        "import os\nif os.path.exists('crash'):\n    os._exit(7)\ndef app(e, s):\n    s('200 OK', [])\n    return []\n"
    )
    running = _serve_source(tafe_serve, tmp_path, source)
    _ready(running)
    (tmp_path / "crash").touch()
    survivor = running.worker_pids()[1]
    os.kill(running.worker_pids()[0], signal.SIGKILL)
    until(lambda: "its replacement starts in 0.8 s" in running.log(), "backing off")
    delays = re.findall(r"exited with status 7; its replacement starts (?:in )?(\S+)", running.log())
    assert delays == ["0.1", "0.2", "0.4", "0.8"]
    assert get(running.port).status == 200
    assert running.worker_pids() == [survivor]
    (tmp_path / "crash").unlink()
    until(lambda: len(running.worker_pids()) == 2, "repaired")


@pytest.mark.parametrize(
    ("source", "status", "said"),
    [
        ("def helper():\n    return 1 / 0\n\nhelper()\n", 4, "ZeroDivisionError: division by zero"),
        ("def app(:\n", 4, "SyntaxError"),
        ("import os\nos._exit(1)\n", 3, "exited with status 1 while loading it"),
        ("apps = 1\n", 4, "has no 'app'"),
    ],
    ids=["exception", "syntax", "exit", "name"],
)
def test_a_server_whose_first_workers_cannot_load_the_application_ends_and_says_why_once(
    tafe_serve: Callable[..., Running], tmp_path: Path, source: str, status: int, said: str
) -> None:
    running = _serve_source(tafe_serve, tmp_path, source)
    assert running.wait() == status
    log = running.log()
    assert "tafe: made_app:app cannot be served\n" in log
    assert log.count(said) == 1
    assert "importlib" not in log
    assert "site-packages" not in log
    assert session_members(running.pid) == []


def test_ttin_and_ttou_change_the_number_of_workers(tafe_serve: Callable[..., Running]) -> None:
    running = _ready(tafe_serve(APP))
    oldest = min(running.worker_pids())
    running.signal(signal.SIGTTIN)
    until(lambda: len(running.worker_pids()) == 3, "three")
    stream = Stream(running.port, threads=8)
    until(lambda: len(stream.bodies()) == 3, "answered by all three")
    running.signal(signal.SIGTTOU)
    until(lambda: len(running.worker_pids()) == 2, "two")
    assert oldest not in running.worker_pids()
    running.signal(signal.SIGTTOU)
    until(lambda: len(running.worker_pids()) == 1, "one")
    running.signal(signal.SIGTTOU)
    until(lambda: running.log().count("1 workers from now on") == 2, "refused")
    stream.stop()
    assert stream.failures == []
    assert stream.refused == 0
    assert get(running.port).status == 200


def test_other_signals_harm_neither_arbiter_nor_workers(tafe_serve: Callable[..., Running]) -> None:
    running = _ready(tafe_serve(APP))
    pids = running.worker_pids()
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
        for pid in [running.pid, *pids]:
            os.kill(pid, number)
    for pid in pids:
        os.kill(pid, signal.SIGHUP)  # as when a terminal is closed
    until(lambda: "SIGUSR2 is ignored" in running.log(), "refused")
    time.sleep(0.2)  # nothing happens, which cannot be waited for
    assert running.worker_pids() == pids
    assert get(running.port).status == 200


@pytest.mark.parametrize("clients", [0, 3])
def test_an_idle_server_uses_nearly_no_processor_time(tafe_serve: Callable[..., Running], clients: int) -> None:
    running = _ready(tafe_serve(APP, "--workers", "1"))
    with contextlib.ExitStack() as stack:
        for _ in range(clients):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=5))
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
        pids = [running.pid, *running.worker_pids()]
        before = [_processor_s(pid) for pid in pids]
        time.sleep(2)  # it is measured that nothing happens
        used = [_processor_s(pid) - start for pid, start in zip(pids, before, strict=True)]
    assert max(used) < 0.1  # 5 %; ten heartbeats a second take well under 1 %


def _processor_s(pid: int) -> float:
    """What the process has used, from proc_pid_stat(5): fields 14 and 15, utime and stime."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_stuck_worker_is_replaced_and_the_log_says_where_it_was_stuck(tafe_serve: Callable[..., Running]) -> None:
    running = _ready(tafe_serve(APP, "--timeout", "2s"))
    pids = running.worker_pids()
    stuck = get_later(running.port, "/spin/20")
    until(lambda: "is stuck: its hub has not turned for" in running.log(), "noticed")
    until(lambda: len(now := running.worker_pids()) == 2 and now != pids, "replaced")
    said = running.log().partition("is stuck")[2]
    assert "was killed by SIGABRT; its replacement starts now; its last stack:\n" in said
    innermost = said.partition("last stack:\n")[2].splitlines()[0]
    assert re.search(r'tests/process/application\.py", line \d+ in app$', innermost)
    assert get(running.port).status == 200
    assert isinstance(stuck.exception(5), OSError)


def test_a_stopped_worker_that_cannot_even_abort_is_killed(tafe_serve: Callable[..., Running]) -> None:
    running = _ready(tafe_serve(APP, "--timeout", "2s"))
    victim = running.worker_pids()[0]
    os.kill(victim, signal.SIGSTOP)
    until(lambda: victim not in running.worker_pids(), "killed")
    assert f"worker {victim} is stuck" in running.log()


def test_workers_end_when_their_arbiter_is_gone(tafe_serve: Callable[..., Running]) -> None:
    running = _ready(tafe_serve(APP))
    answer = get_later(running.port, "/sleep/0.6")
    time.sleep(0.15)  # it has to be in flight
    running.signal(signal.SIGKILL)
    assert answer.result(5).status == 200
    until(lambda: session_members(running.pid) == [], "gone")
    assert "the arbiter is gone" in running.log()


def test_a_worker_that_has_served_its_requests_is_replaced_before_it_goes(tafe_serve: Callable[..., Running]) -> None:
    running = _ready(tafe_serve(APP, "--max-requests", "40", "--max-requests-jitter", "10"))
    pids = set(running.worker_pids())
    seen = []
    stream = Stream(running.port, threads=4)
    until(lambda: seen.append(len(running.worker_pids())) or not pids & set(running.worker_pids()), "replaced")
    stream.stop()
    assert stream.failures == []
    assert stream.refused == 0
    assert len(stream.bodies()) > 2
    assert min(seen) >= 2
    for pid in pids:
        (count,) = re.findall(rf"worker {pid} has served (\d+) requests and is replaced", running.log())
        assert int(count) >= 40


def test_a_long_import_is_not_taken_for_a_stuck_worker(tafe_serve: Callable[..., Running], tmp_path: Path) -> None:
    source = "import time\ntime.sleep(1.5)\ndef app(e, s):\n    s('200 OK', [])\n    return []\n"
    running = _serve_source(tafe_serve, tmp_path, source, "--timeout", "1s")
    _ready(running)
    assert "stuck" not in running.log()


def test_an_import_that_never_ends_is_ended_after_the_start_deadline(
    tafe_serve: Callable[..., Running], tmp_path: Path
) -> None:
    source = "def forever():\n    while True:\n        pass\n\nforever()\n"
    running = _serve_source(tafe_serve, tmp_path, source, "--timeout", "1s", "--start-deadline", "1s")
    assert running.wait() == 3
    assert re.search(
        r'while loading it; its last stack:\n  File "\S+made_app.py", line [23] in forever\n', running.log()
    )
    with pytest.raises(ServerError):
        running.wait_ready(1)


def test_a_pid_file_names_the_arbiter_and_is_removed_at_the_end(
    tafe_serve: Callable[..., Running], tmp_path: Path
) -> None:
    path = tmp_path / "tafe.pid"
    running = _ready(tafe_serve(APP, "--pid-file", str(path)))
    assert int(path.read_text()) == running.pid
    second = tafe_serve(APP, "--pid-file", str(path), wait_ready=False)
    assert second.wait() == 2
    assert "tafe: --pid-file: Already running" in second.log()
    assert int(path.read_text()) == running.pid
    running.stop()
    assert not path.exists()

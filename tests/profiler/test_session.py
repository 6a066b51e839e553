"""A session from its start to its end, and what it leaves on the disk."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import greenlet
import pytest

import profiler
from profiler.hook import BATCH
from profiler.report.build import build
from profiler.report.reader import read
from profiler.session import FIRST_HAND_OVER_S

ROOT = Path(__file__).resolve().parents[2]
STALLS_NOW_AND_THEN = """
import sys, time, gevent, profiler
session = profiler.install(sys.argv[1])
def serve():
    number = 0
    while True:
        span = session.begin("GET /", f"request-{number}")
        time.sleep(0.03)
        session.end(span)
        number += 1
        print(number, flush=True)
        gevent.sleep(0.1)
gevent.spawn(serve).join()
"""
STALLS_FOR_EVER = """
import sys, time, gevent, profiler
session = profiler.install(sys.argv[1])
def stuck():
    session.begin("GET /stuck", "request")
    time.sleep(60)  # stalls
print("ready", flush=True)
gevent.spawn(stuck).join()
"""


def lines_of(directory: Path) -> list[dict[str, Any]]:
    (path,) = directory.glob("worker-*.jsonl")
    *whole, _cut = path.read_text().split("\n")
    return [json.loads(line) for line in whole]


def serve(session: profiler.Session, count: int = 1) -> None:
    def request() -> None:
        for number in range(count):
            session.end(session.begin("GET /", f"r{number}"))

    gevent.spawn(request).join()


def run(program: str, directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, str(directory)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_file_says_who_wrote_it_and_only_its_owner_can_read_it(
    tmp_path: Path, install: Callable[..., profiler.Session]
) -> None:
    session = install(tmp_path / "new" / "profile", slow_slice_ms=20, worker="third")
    assert session.path is not None
    path = Path(session.path)
    host = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())
    assert re.fullmatch(rf"worker-{re.escape(host)}-{os.getpid()}-\d{{13}}\.jsonl", path.name)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    header = json.loads(path.read_text().splitlines()[0])
    assert (header["type"], header["schema"], header["worker"]) == ("worker", "profiler.data/2", "third")
    assert (header["pid"], header["threshold_s"]) == (os.getpid(), 0.02)


def test_close_writes_what_is_left(tmp_path: Path, install: Callable[..., profiler.Session]) -> None:
    session = install(tmp_path)
    serve(session, 3)
    session.close()
    session.close()
    assert [line["requests"] for line in lines_of(tmp_path) if line["type"] == "route"] == [3]


@pytest.mark.real
def test_requests_are_written_within_about_a_second_while_the_worker_lives(
    tmp_path: Path, install: Callable[..., profiler.Session]
) -> None:
    session = install(tmp_path)
    serve(session, 3)
    with gevent.Timeout(5):
        while not any(line["type"] == "route" for line in lines_of(tmp_path)):
            gevent.sleep(0.05)


def test_many_requests_are_few_lines(tmp_path: Path, install: Callable[..., profiler.Session]) -> None:
    session = install(tmp_path)
    serve(session, 5000)
    session.close()
    assert session.path is not None
    assert sum(line.get("requests", 0) for line in lines_of(tmp_path) if line["type"] == "route") == 5000
    assert Path(session.path).stat().st_size < 20_000


@pytest.mark.real
def test_an_idle_worker_has_no_timer_running_and_wakes_at_traffic(
    install: Callable[..., profiler.Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = install()
    pulses: list[float] = []

    class Watched:  # a compiled recorder's methods cannot be replaced
        recorder = session._recorder

        def __getattr__(self, name: str) -> Any:
            return getattr(self.recorder, name)

        def delayed(self, delay_s: float) -> None:
            pulses.append(time.perf_counter())
            self.recorder.delayed(delay_s)

    monkeypatch.setattr(session, "_recorder", Watched())
    gevent.sleep(0.8)  # nothing turns the loop but the pulse itself
    assert len(pulses) == 1
    before = len(pulses)
    gevent.sleep(0.15)
    assert len(pulses) > before, "after what has just turned it"


def test_a_pulse_follows_a_heartbeat_once_and_traffic_until_it_is_handed_over(session: profiler.Session) -> None:
    def pulses(switches: int) -> bool:
        for _ in range(switches):
            greenlet.greenlet(lambda: None).switch()
        session._pulse()
        return bool(session._timer.active)

    session._pulse()
    assert not pulses(2), "a heartbeat"
    assert pulses(100)
    assert not pulses(0), "of no request"
    session.end(session.begin("GET /", "r"))
    assert pulses(0)
    session._handed_over_s -= FIRST_HAND_OVER_S
    assert not pulses(0)


@pytest.mark.real
def test_a_killed_worker_loses_at_most_about_a_second_of_slow_slices(tmp_path: Path) -> None:
    with run(STALLS_NOW_AND_THEN, tmp_path) as worker:
        assert worker.stdout is not None
        started = time.monotonic()
        stalled: list[float] = []
        for _ in worker.stdout:
            stalled.append(time.monotonic())
            if stalled[-1] - started > 4.5:  # the hub's figures are handed over at 1, 3 and 7 s
                break
        worker.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        worker.communicate()
    lines = lines_of(tmp_path)
    stored = sum(line["count"] for line in lines if line["type"] == "site")
    # A second, the time in which a slice gathers its victims, and what a busy machine adds to the writer's wake-up.
    assert stored >= sum(moment < killed - 1.75 for moment in stalled) > 0
    assert len([line for line in lines if line["type"] == "hub"]) == 2
    (shown,) = build(read([str(tmp_path)]))["workers"]
    assert shown["slices_over"] >= stored


def test_hand_overs_are_soon_at_first_then_ten_seconds_apart_and_soon_again_after_a_pause(
    install: Callable[..., profiler.Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = install()
    now_s = session._handed_over_s
    monkeypatch.setattr("profiler.session.time", SimpleNamespace(perf_counter=lambda: now_s))
    handed_over = [now_s]
    for tenth in range(1, 600):
        now_s = handed_over[0] + tenth / 10
        session._pulse()
        if session._handed_over_s != handed_over[-1]:
            handed_over.append(session._handed_over_s)
    apart = [round(after - before) for before, after in pairwise(handed_over)]
    assert apart == [1, 2, 4, 8, 10, 10, 10, 10]
    now_s += 20
    session._woken()
    session._pulse()
    assert session._handed_over_s == now_s
    now_s += 3
    session._pulse()
    assert session._handed_over_s == now_s


@pytest.mark.real
def test_a_worker_killed_in_a_stall_leaves_word_of_it(tmp_path: Path) -> None:
    with run(STALLS_FOR_EVER, tmp_path) as worker:
        deadline = time.monotonic() + 10
        while not (list(tmp_path.glob("*")) and any(line["type"] == "open" for line in lines_of(tmp_path))):
            assert time.monotonic() < deadline, "the stall was never written"
            time.sleep(0.05)
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    (site,) = [site for site in build(read([str(tmp_path)]))["sites"] if site["function"] == "stuck"]
    assert (site["count"], site["cause"]) == (1, "blocking")
    assert site["routes"] == ["GET /stuck"]
    assert site["busy_ms"]["total"] > 900


def test_a_second_session_in_a_process_is_refused(session: profiler.Session) -> None:
    with pytest.raises(profiler.ProfilerError, match="installed already"):
        profiler.install()


def test_a_session_can_follow_another(install: Callable[..., profiler.Session]) -> None:
    for _ in range(3):
        session = install()
        serve(session)
        assert session._recorder.batch
        session.close()


@pytest.mark.parametrize("slow_slice_ms", [0, -1, 0.5, 60_001, float("nan")])
def test_a_threshold_that_cannot_be_measured_is_refused(slow_slice_ms: float) -> None:
    with pytest.raises(profiler.ProfilerError, match="from 1 to 60000 ms"):
        profiler.install(slow_slice_ms=slow_slice_ms)


def test_a_directory_that_cannot_be_made_is_a_clear_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(profiler.ProfilerError, match=r"cannot write profiles in .*file.*: .*; name a directory"):
        profiler.install(tmp_path / "file" / "profile")
    assert greenlet.gettrace() is None
    profiler.install().close()


def test_the_other_loop_of_gevent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = type("loop", (), {"__module__": "gevent.libuv.loop"})()
    monkeypatch.setattr("profiler.session.get_hub", lambda: SimpleNamespace(loop=loop))
    with pytest.raises(profiler.ProfilerError, match=r"gevent.libuv.loop; start with GEVENT_LOOP=libev-cext"):
        profiler.install()


INSTALLS_IN_A_CALLBACK = """
import sys, time, gevent, greenlet, profiler
hub = gevent.get_hub()
opened = []
def woken():
    opened.append(profiler.install(sys.argv[1]))
    hub.loop.run_callback(time.sleep, 0.05)
runs = greenlet.greenlet(woken, hub)
hub.loop.run_callback(runs.switch)
hub.loop.run_callback(time.sleep, 0.05)
gevent.sleep(0.02)
began = time.perf_counter()
gevent.sleep(0.02)
idle_s = opened[0]._hook.counts().idle_s
# The first sleep may have idled for a moment too; what the callbacks did takes 0.05 s each.
assert 0.015 < idle_s < time.perf_counter() - began + 0.01, idle_s
opened[0].close()
"""


def test_what_callbacks_do_after_an_install_in_the_same_turn_is_seen(tmp_path: Path) -> None:
    with run(INSTALLS_IN_A_CALLBACK, tmp_path) as program:
        _, errors = program.communicate(timeout=20)
    assert (program.returncode, errors) == (0, "")
    (site,) = [line for line in lines_of(tmp_path) if line["type"] == "site" and line["busy_s"] > 0.09]
    assert 0.1 <= site["busy_s"] < 0.2
    assert site["routes"] == ["(hub)"]


DESTROYS = """
import sys, gevent, profiler
session = profiler.install(sys.argv[1])
def request():
    span = session.begin("GET /", "r")
    gevent.sleep(0.001)
    session.end(span)
gevent.joinall([gevent.spawn(request) for _ in range(5)])
gevent.get_hub().destroy(destroy_loop=True)
session.close()
profiler.install().close()
"""


def test_a_session_whose_loop_was_destroyed_writes_what_it_has_and_another_can_follow(tmp_path: Path) -> None:
    with run(DESTROYS, tmp_path) as program:
        _, errors = program.communicate(timeout=20)
    assert (program.returncode, errors) == (0, "")
    assert [line["requests"] for line in lines_of(tmp_path) if line["type"] == "route"] == [5]


def test_a_part_that_cannot_be_stopped_keeps_no_other_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = profiler.install(tmp_path)
    serve(session, 3)
    watchdog = session._watchdog

    def fail() -> None:
        type(watchdog).stop(watchdog)
        raise RuntimeError("wanted")

    monkeypatch.setattr(watchdog, "stop", fail)
    with pytest.raises(RuntimeError, match="wanted"):
        session.close()
    assert [line["requests"] for line in lines_of(tmp_path) if line["type"] == "route"] == [3]
    assert profiler.session.current() is None


def test_what_is_begun_after_the_close_is_kept_nowhere(install: Callable[..., profiler.Session]) -> None:
    session = install()
    open_ = session.begin("GET /open", "r")
    session.close()
    session.end(open_, True)
    for _ in range(3):
        span = session.begin("GET /", "r")
        assert (span.route, span.total_s, span.waiting_s, span.blamed) == ("GET /", 0.0, 0.0, None)
        session.end(span, True)
    assert (session._recorder.batch, session._recorder.unusual) == ([], [])


def test_what_a_server_that_has_kept_begin_and_end_tells_after_the_close_takes_no_memory(
    install: Callable[..., profiler.Session],
) -> None:
    session = install()
    begin, end = session.begin, session.end
    session.close()
    for _ in range(4 * BATCH):  # of which the first are in spans of before
        open_ = begin("GET /open", "r")  # and never ended
        end(begin("GET /", "r"), True, 500)
        end(open_)
    assert len(session._recorder.batch) <= BATCH
    assert len(session._recorder.unusual) <= BATCH


FORKS = """
import os, sys, warnings, gevent, greenlet, profiler
warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on, of a fork beside threads: the watchdog is one
session = profiler.install(sys.argv[1])
session.end(session.begin("GET /parent", "r"))
if not os.fork():
    assert greenlet.gettrace() is None, "the child is traced"
    gevent.sleep(0.01)
    session.close()  # does nothing here
    own = profiler.install(sys.argv[1])
    own.end(own.begin("GET /child", "r"))
    gevent.sleep(0.01)
    own.close()
    sys.exit()
assert os.wait()[1] == 0
assert greenlet.gettrace() is not None, "the parent is traced no more"
gevent.sleep(0.01)
"""


def test_a_forked_child_is_not_traced_and_may_have_a_session_of_its_own(tmp_path: Path) -> None:
    with run(FORKS, tmp_path) as program:
        _, errors = program.communicate(timeout=20)
    assert (program.returncode, errors) == (0, "")
    routes = [
        json.loads(line)["route"]
        for path in sorted(tmp_path.glob("*.jsonl"))
        for line in path.read_text().splitlines()
        if '"type":"route"' in line
    ]
    # The parent's file was written when it ended, without a close().
    assert sorted(routes) == ["GET /child", "GET /parent"]

"""Functions recorded on demand: exact counts, callers, nothing left behind, and files that their readers read."""

from __future__ import annotations

import json
import os
import pstats
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.threadpool import ThreadPool
from greenlet import getcurrent, gettrace

import profiler
from profiler import functions
from profiler.functions import Call, Function, Recording
from tests.services.requirements import INSTALL_ALL, missing


def leaf(value: int) -> bool:
    return value < 0


def branch(count: int) -> bool:
    return any(leaf(value) for value in range(count))


def trunk() -> None:
    branch(10)
    gevent.sleep(0)
    branch(20)


def record_while(work: Callable[[], object], **given: Any) -> Recording:
    """`work` runs in a greenlet that was there before."""
    go, done = Event(), Event()

    def body() -> None:
        go.wait()
        work()
        done.set()

    worker = gevent.spawn(body)
    gevent.sleep(0)
    recorder = gevent.spawn(functions.record, 0.2, **given)
    gevent.sleep(0.02)
    go.set()
    recording: Recording = recorder.get()
    assert done.is_set()
    worker.get()
    return recording


def named(recording: Recording, name: str) -> Function:
    (found,) = [one for one in recording.functions if one.name == name and one.file in (__file__, "~")]
    return found


@pytest.mark.parametrize("clock", functions.CLOCKS)
def test_every_call_is_counted_by_its_caller_in_greenlets_old_and_new(clock: str) -> None:
    recording = record_while(lambda: gevent.joinall([gevent.spawn(trunk) for _ in range(3)]), clock=clock)
    assert named(recording, "trunk").calls == 3
    assert named(recording, "branch").calls == 6
    assert named(recording, "leaf").calls == 90
    calls = {recording.functions[call.callee].name: call.calls for call in named(recording, "trunk").callees}
    assert (calls["branch"], calls["sleep"]) == (6, 3)
    assert [recording.functions[call.callee].name for call in named(recording, "branch").callees] == [
        "<built-in method builtins.any>"
    ], "what C code calls has its caller"
    assert (recording.clock, recording.pid) == (clock, os.getpid())
    assert recording.length_s >= 0.2


def test_time_on_the_cpu_excludes_waiting_and_time_on_the_clock_does_not() -> None:
    def waits() -> None:
        gevent.sleep(0.05)

    assert named(record_while(waits, clock="wall"), "waits").total_s >= 0.049
    assert named(record_while(waits, clock="cpu"), "waits").total_s < 0.03


def test_a_recursive_function_has_calls_and_primitive_calls() -> None:
    def down(depth: int) -> None:
        if depth:
            down(depth - 1)

    recording = record_while(lambda: down(9))
    assert (named(recording, "down").calls, named(recording, "down").primitive) == (10, 1)


def test_it_lives_with_our_tracer_and_leaves_nothing_behind(install: Callable[..., profiler.Session]) -> None:
    session = install()
    ours = gettrace()
    before = session.figures().switches
    seen: list[tuple[Any, Any]] = []

    def look() -> None:
        seen.append((sys.getprofile(), gettrace()))

    recording = record_while(lambda: [gevent.sleep(0) for _ in range(50)])
    gevent.spawn(look).join()
    gevent.get_hub().loop.run_callback(look)
    gevent.sleep(0.01)
    assert seen == [(None, ours), (None, ours)]
    pool = ThreadPool(1)
    assert pool.apply(sys.getprofile) is None
    pool.kill()
    assert threading.getprofile() is None
    assert getcurrent().__dict__ == {}, "a greenlet with an attribute would not be used again by the server"
    figures = session.figures()
    assert (figures.displaced, figures.failures) == (0, 0)
    assert figures.switches - before >= 100, "slices went on being taken"
    assert not [one for one in recording.functions if one.file.startswith(str(Path(functions.__file__).parent) + "/")]
    import yappi

    assert not yappi.is_running()
    assert list(yappi.get_func_stats()) == []


def test_its_own_thread_ends_with_it() -> None:
    before = len(os.listdir("/proc/self/task"))
    functions.record(0.01)
    with gevent.Timeout(10):
        while len(os.listdir("/proc/self/task")) > before:  # the kernel's side of a thread ends a moment later
            gevent.sleep(0.001)


def test_what_runs_afterwards_is_not_traced_by_anything() -> None:
    events: list[str] = []
    gevent.spawn(functions.record, 0.05).get()
    sys.setprofile(lambda _frame, event, _arg: events.append(event))  # ours replaces nothing
    leaf(1)
    sys.setprofile(None)
    assert events.count("call") == 1
    import yappi

    assert yappi.get_func_stats().empty()


def test_no_hook_is_left_by_a_thread_that_gevent_starts_meanwhile() -> None:
    def begins() -> None:
        sys.setprofile(threading.getprofile())  # as a patched thread does, in the hub's own
        during.append(sys.getprofile() or threading.getprofile())
        gevent.sleep(0.1)

    during: list[Any] = []
    first = gevent.spawn(functions.record, 0.05)
    gevent.sleep(0.01)
    thread = gevent.spawn(begins)
    first.get()
    assert during[0] is not None
    assert (sys.getprofile(), threading.getprofile()) == (None, None)
    thread.join()
    assert sys.getprofile() is None
    assert functions.record(0.01).length_s >= 0.01


def test_a_second_recording_is_refused_while_one_goes_on_and_possible_afterwards() -> None:
    first = gevent.spawn(functions.record, 0.1)
    gevent.sleep(0.01)
    with pytest.raises(profiler.ProfilerError, match="being recorded already"):
        functions.record(0.01)
    first.get()
    assert functions.record(0.01).length_s >= 0.01


def test_a_recording_that_is_ended_early_takes_its_hook_with_it() -> None:
    first = gevent.spawn(functions.record, 50)
    gevent.sleep(0.01)
    first.kill()
    import yappi

    assert not yappi.is_running()
    assert functions.record(0.01).length_s < 10


def test_another_profiler_is_left_alone() -> None:
    def theirs(*_event: Any) -> None:
        """Somebody's hook."""

    sys.setprofile(theirs)
    try:
        with pytest.raises(profiler.ProfilerError, match="another profiler is at work"):
            functions.record(0.01)
        assert sys.getprofile() is theirs
    finally:
        sys.setprofile(None)


def test_without_yappi_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yappi", None)
    with pytest.raises(profiler.ProfilerError, match=r"yappi, which is not installed; pip install 'yappi>=1\.7'"):
        functions.record(0.01)


@pytest.mark.parametrize("given", [{"seconds": 0}, {"seconds": 61}, {"seconds": 1, "clock": "sun"}])
def test_what_cannot_be_recorded_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(profiler.ProfilerError, match=r"at most 60|use cpu or wall"):
        functions.record(**given)


def test_a_forked_child_is_not_recorded() -> None:
    recorder = gevent.spawn(functions.record, 0.2)
    gevent.sleep(0.01)
    pid = os.fork()
    if not pid:
        import yappi

        os._exit(yappi.is_running())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    recorder.get()


# -- files


@pytest.fixture(scope="module")
def recording() -> Recording:
    return record_while(lambda: gevent.joinall([gevent.spawn(trunk) for _ in range(3)]))


def test_what_is_dumped_is_loaded_again(recording: Recording) -> None:
    assert Recording.load(b"".join(recording.dump())) == recording


def test_a_file_is_for_its_owner_alone_even_if_it_was_there(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a longer text than that" * 10_000)
    path.chmod(0o644)
    recording.save(path, "speedscope")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == recording.render("speedscope")
    with pytest.raises(profiler.ProfilerError, match="cannot write"):
        recording.save(tmp_path / "none" / "file", "pstats")
    with pytest.raises(profiler.ProfilerError, match="'pdf' is not a format; use pstats, callgrind, speedscope"):
        recording.save(path, "pdf")


def test_pstats_reads_it_with_callers(recording: Recording, tmp_path: Path) -> None:
    recording.save(tmp_path / "pstats", "pstats")
    stats: Any = pstats.Stats(str(tmp_path / "pstats"))
    line = branch.__code__.co_firstlineno
    primitive, calls, own_s, total_s, callers = stats.stats[__file__, line, "branch"]
    assert (primitive, calls) == (6, 6)
    assert 0 < own_s < total_s
    assert callers[__file__, trunk.__code__.co_firstlineno, "trunk"][:2] == (6, 6)
    assert stats.total_calls == sum(one.calls for one in recording.functions)


def test_callgrind_annotate_reads_it(recording: Recording, tmp_path: Path) -> None:
    if shutil.which("callgrind_annotate") is None:
        missing("callgrind_annotate", INSTALL_ALL)
    path = tmp_path / "callgrind.out"
    recording.save(path, "callgrind")
    command = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", "--auto=no", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr == ""
    (row,) = [line for line in done.stdout.splitlines() if line.endswith(f":branch:{branch.__code__.co_firstlineno}")]
    assert int(row.split()[0].replace(",", "")) == round(named(recording, "branch").total_s * 1e9)
    assert "cpu_ns" in done.stdout


def test_speedscope_has_its_fields_and_each_functions_own_time(recording: Recording) -> None:
    document = json.loads(recording.render("speedscope"))
    assert document["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    (profile,) = document["profiles"]
    assert set(profile) == {"type", "name", "unit", "startValue", "endValue", "samples", "weights"}
    assert (profile["type"], profile["unit"]) == ("sampled", "seconds")
    assert "ESTIMATED" in profile["name"]
    assert len(profile["samples"]) == len(profile["weights"])
    frames = document["shared"]["frames"]
    own_s = [0.0] * len(frames)
    for stack, weight in zip(profile["samples"], profile["weights"], strict=True):
        assert all(0 <= frame < len(frames) for frame in stack)
        assert weight >= 0
        own_s[stack[-1]] += weight
    assert own_s[:-1] == pytest.approx([one.own_s for one in recording.functions], abs=1e-8)
    assert profile["endValue"] == pytest.approx(sum(own_s))
    assert set(frames[0]) == {"name", "file", "line"}


def test_stacks_are_estimated_by_the_share_of_each_caller() -> None:
    made = [
        Function("a.py", 1, "first", 1, 1, 1.0, 4.0, [Call(2, 3, 3, 1.0, 3.0)]),
        Function("a.py", 2, "second", 1, 1, 0.0, 1.0, [Call(2, 1, 1, 1.0, 1.0)]),
        Function("a.py", 3, "shared", 4, 4, 2.0, 4.0, [Call(3, 1, 1, 2.0, 2.0)]),
        Function("a.py", 4, "end", 1, 1, 2.0, 2.0, []),
    ]
    profile = json.loads(Recording("cpu", 0.0, 5.0, 1, made).render("speedscope"))["profiles"][0]
    found = {tuple(stack): weight for stack, weight in zip(profile["samples"], profile["weights"], strict=True)}
    assert found == {(0,): 1.0, (0, 2): 1.5, (0, 2, 3): 1.5, (1,): 0.0, (1, 2): 0.5, (1, 2, 3): 0.5}


@pytest.mark.parametrize("own_s", [0.0, 0.01])
def test_functions_that_call_one_another_in_every_order_end_in_a_file_that_can_be_read(own_s: float) -> None:
    names = range(40)
    made = [
        Function("a.py", n, f"f{n}", 10, 10, own_s, 1.0, [Call(m, 10, 10, 0.01, 1.0) for m in names if m != n])
        for n in names
    ]
    # Each of a row calls both of the next one: as many stacks as there are numbers of so many digits.
    rows = []
    for n in range(60):
        first = n // 2 * 2 + 2
        calls = [Call(m, 1, 1, 0.0, 0.5) for m in (first, first + 1) if m < 60]
        rows.append(Function("b.py", n, f"g{n}", 1, 1, own_s, 1.0, calls))
    for functions_ in (made, rows):
        profile = json.loads(Recording("cpu", 0.0, 5.0, 1, functions_).render("speedscope"))["profiles"][0]
        assert len(profile["samples"]) <= 100_000 + len(functions_)
        assert profile["endValue"] == pytest.approx(len(functions_) * own_s)


@pytest.mark.parametrize("format_", ["pstats", "callgrind", "speedscope"])
def test_a_file_whose_name_is_no_text_is_shown_as_far_as_it_is(format_: str) -> None:
    made = [Function("/a/\udcff b\n.py", 1, "f\udcfe", 1, 1, 1.0, 1.0, [])]
    shown = Recording.load(b"".join(Recording("cpu", 0.0, 5.0, 1, made).dump())).render(format_)
    assert shown
    if format_ != "pstats":
        assert "/a/? b" in shown.decode()


def test_recursion_and_callers_that_never_returned_lose_no_time() -> None:
    made = [
        Function("a.py", 1, "for_ever", 1, 1, 0.0, 0.0, [Call(1, 1, 1, 1.0, 3.0)]),
        Function("a.py", 2, "ping", 5, 1, 1.0, 3.0, [Call(2, 5, 5, 2.0, 2.5)]),
        Function("a.py", 3, "pong", 5, 1, 2.0, 2.5, [Call(1, 4, 0, 0.8, 2.0)]),
    ]
    profile = json.loads(Recording("wall", 0.0, 5.0, 1, made).render("speedscope"))["profiles"][0]
    assert profile["endValue"] == pytest.approx(3.0)
    assert max(map(len, profile["samples"])) == 3

"""Native threads behind the hub: order, turns, one result at a time, forks, and the end of the process."""

from __future__ import annotations

import _thread
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import gevent
import pytest

from tafe.db import native
from tafe.db.native import Thread, Threads

if TYPE_CHECKING:
    from collections.abc import Iterator


class Gate:
    """A function that says that it has begun and waits, natively, until it is let go."""

    def __init__(self, log: list[str], name: str) -> None:
        self.begun = False
        self._log = log
        self._name = name
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def __call__(self) -> str:
        self.begun = True
        self._log.append(f"{self._name} begins")
        self._lock.acquire()
        self._log.append(f"{self._name} ends")
        return self._name

    def open(self) -> None:
        self._lock.release()


@pytest.fixture
def threads() -> Threads:
    return Threads()


@pytest.fixture
def three(threads: Threads) -> Iterator[list[Thread]]:
    made = [Thread(threads) for _ in range(3)]
    yield made
    for each in made:
        each.end()


def begun(gate: Gate) -> None:
    with gevent.Timeout(5):
        while not gate.begun:
            gevent.sleep(0.001)


def test_a_thread_runs_its_calls_in_order_and_hands_back_values_and_errors(
    threads: Threads, three: list[Thread]
) -> None:
    calls = [three[0].submit(divmod, 7, 2), three[0].submit(divmod, 7, 0), three[0].submit(_thread.get_ident)]
    assert threads.wait(calls[2], 5)
    assert all(call.done for call in calls)
    assert calls[0].value == (3, 1)
    assert isinstance(calls[1].error, ZeroDivisionError)
    assert calls[2].value != _thread.get_ident()


def test_calls_in_turn_run_one_at_a_time_in_order_of_arrival_and_others_do_not_wait(
    threads: Threads, three: list[Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_TURN_S", 60.0)
    log: list[str] = []
    gates = [Gate(log, name) for name in "abc"]
    calls = [thread.submit(gate, in_turn=True) for thread, gate in zip(three, gates, strict=True)]
    begun(gates[0])
    other = Thread(threads)
    assert threads.wait(other.submit(log.append, "another"), 5)
    other.end()
    for gate in gates:
        gate.open()
    assert threads.wait(calls[2], 5)
    assert log == ["a begins", "another", "a ends", "b begins", "b ends", "c begins", "c ends"]


def test_a_turn_is_over_when_it_has_taken_too_long_and_the_call_goes_on(threads: Threads, three: list[Thread]) -> None:
    gates = [Gate([], name) for name in "ab"]
    calls = [thread.submit(gate, in_turn=True) for thread, gate in zip(three, gates, strict=False)]
    begun(gates[0])
    begun(gates[1])  # although the first goes on
    assert not calls[0].done
    gates[0].open()
    assert threads.wait(calls[0], 5)
    third = three[2].submit(int, in_turn=True)  # the second has the turn: what ended without one did not pass it on
    assert threads._turn is calls[1]
    gates[1].open()
    assert threads.wait(third, 5)
    assert threads._turn is None


def test_a_call_that_is_withdrawn_never_runs_and_one_that_has_begun_cannot_be(
    threads: Threads, three: list[Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_TURN_S", 60.0)
    log: list[str] = []
    gate = Gate(log, "a")
    first, second = three[0].submit(gate, in_turn=True), three[1].submit(log.append, "b", in_turn=True)
    begun(gate)
    assert not threads.wait(second, 0.001)
    assert threads.withdraw(second)
    assert not threads.withdraw(first)
    gate.open()
    assert threads.wait(first, 5)
    assert threads.wait(three[1].submit(int), 5)  # behind the one that was withdrawn
    assert log == ["a begins", "a ends"]


def test_other_work_of_the_hub_comes_between_two_results(threads: Threads, three: list[Thread]) -> None:
    order: list[str] = []
    gates = [Gate([], name) for name in "ab"]
    calls = [thread.submit(gate) for thread, gate in zip(three, gates, strict=False)]

    def wait(number: int) -> None:
        threads.wait(calls[number], 5)
        order.append("result")
        gevent.get_hub().loop.run_callback(order.append, "other work")

    waiting = [gevent.spawn(wait, number) for number in (0, 1)]
    for gate in gates:
        begun(gate)
    for gate in gates:
        gate.open()
    while len(threads._returned) < 2:
        time.sleep(0.001)  # natively: the hub stands still meanwhile, so both results wait for it
    gevent.joinall(waiting, raise_error=True)
    assert order[:3] == ["result", "other work", "result"]


def test_a_time_out_begins_with_the_wait_even_if_the_hub_stood_still_before(
    threads: Threads, three: list[Thread]
) -> None:
    gate = Gate([], "a")
    call = three[0].submit(gate)
    gevent.sleep(0.001)  # called back by a timer, as a request is by a socket
    time.sleep(0.1)  # natively: the loop's time is that much behind
    began_s = time.monotonic()
    assert not threads.wait(call, 0.05)
    assert time.monotonic() - began_s > 0.049
    gate.open()
    assert threads.wait(call, 5)


def test_who_stopped_waiting_can_wait_for_the_same_call_again(threads: Threads, three: list[Thread]) -> None:
    gate = Gate([], "a")
    call = three[0].submit(gate)
    killed = gevent.spawn(threads.wait, call, 5)
    gevent.idle()
    killed.kill()
    assert not threads.wait(call, 0.001)
    gate.open()
    assert threads.wait(call, 5)
    assert call.value == "a"


def test_a_stray_switch_is_no_result(threads: Threads, three: list[Thread]) -> None:
    gate = Gate([], "a")
    call = three[0].submit(gate)
    waiting = gevent.spawn(threads.wait, call, 5)
    gevent.idle()
    gevent.get_hub().loop.run_callback(waiting.switch, "stray")
    with pytest.raises(gevent.exceptions.InvalidSwitchError, match="'stray'"):
        waiting.get()
    gate.open()
    assert threads.wait(call, 5)


def run(program: str, timeout_s: float = 20) -> Any:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=timeout_s, check=False
    )


HUNG = """
import _thread, gevent
from tafe.db.native import Thread, Threads
threads = Threads()
lock = _thread.allocate_lock()
lock.acquire()
hangs, idle = Thread(threads), Thread(threads)
call = hangs.submit(lock.acquire)
assert not threads.wait(call, 0.01)
assert threads.wait(idle.submit(int), 5)
"""


def test_a_process_ends_although_a_thread_hangs() -> None:
    done = run(HUNG + "print('done')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_idle_threads_do_not_keep_the_loop_waiting() -> None:
    done = run(
        HUNG + "lock.release(); assert threads.wait(call, 5); print(gevent.wait(timeout=15), threads._under_way)"
    )
    assert (done.stdout, done.stderr) == ("True 0\n", "")


def test_a_thread_that_returns_when_the_loop_is_gone_says_nothing() -> None:
    done = run(
        HUNG
        + "import time; gevent.get_hub().destroy(destroy_loop=True); lock.release()\n"
        + "while not threads._returned: time.sleep(0.001)\n"
        + "time.sleep(0.05); print('done')"  # for what it might say
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_forked_child_knows_that_the_threads_are_not_there() -> None:
    done = run(
        "import os; from gevent import monkey; monkey.patch_all()\n"
        "from tafe.db.native import Threads\n"
        "waitpid = monkey.get_original('os', 'waitpid')\n"  # gevent's may wait for ever: it has missed the signal
        "threads = Threads(); assert threads.here\n"
        "child = os.fork()\n"
        "if not child: os._exit(int(threads.here) + 2 * Threads().here)\n"
        "print(os.waitstatus_to_exitcode(waitpid(child, 0)[1]), threads.here)"
    )
    assert (done.stdout, done.stderr) == ("2 True\n", "")


def test_a_thread_ends_when_it_is_told_to(threads: Threads) -> None:
    before = threading.get_native_id()
    thread = Thread(threads)
    call = thread.submit(_thread.get_native_id)
    assert threads.wait(call, 5)
    assert call.value != before
    thread.end()
    with gevent.Timeout(5):
        while call.value in native_threads():
            gevent.sleep(0.001)


def native_threads() -> set[int]:
    return {int(each) for each in os.listdir("/proc/self/task")}

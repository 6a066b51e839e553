"""The shared page a worker: what one process writes, the other reads."""

from __future__ import annotations

import os

from tafe.lifecycle import State
from tafe.scoreboard import Scoreboard


def test_what_a_forked_process_writes_is_seen_by_its_parent() -> None:
    board = Scoreboard(2)
    slot = board.free_slot()
    assert slot is not None
    slot.hand_out(generation=3, now_ns=5)
    pid = os.fork()
    if pid == 0:
        slot.pid = os.getpid()
        slot.state = State.READY
        slot.beat(now_ns=77, in_flight=4, requests=1 << 40)
        slot.retiring = True
        slot.text = "mysql://h/db: it is gone"
        os._exit(0)
    os.waitpid(pid, 0)
    assert slot.pid == pid
    assert (slot.generation, slot.state, slot.retiring) == (3, State.READY, True)
    assert (slot.beat_ns, slot.in_flight, slot.requests) == (77, 4, 1 << 40)
    assert slot.text == "mysql://h/db: it is gone"


def test_a_slot_that_is_handed_out_again_holds_nothing_of_the_worker_before() -> None:
    board = Scoreboard(1)
    slot = board.free_slot()
    assert slot is not None
    slot.pid = 9
    slot.state, slot.retiring, slot.text = State.STOPPED, True, "why"
    slot.beat(1, 2, 3)
    assert board.free_slot() is None
    slot.pid = 0
    again = board.free_slot()
    assert again is slot
    again.hand_out(generation=2, now_ns=8)
    assert (again.generation, again.state, again.retiring, again.text) == (2, State.STARTING, False, "")
    assert (again.beat_ns, again.in_flight, again.requests) == (8, 0, 0)


def test_another_worker_is_ready_only_if_it_is_alive_and_not_oneself() -> None:
    board = Scoreboard(8)
    first = board.free_slot()
    assert first is not None
    first.pid, first.state = 1, State.READY
    second = board.free_slot()
    assert second is not None
    assert second is not first
    second.pid, second.state = 2, State.WAITING
    assert board.another_is_ready(second)
    assert not board.another_is_ready(first)
    first.pid = 0
    assert not board.another_is_ready(second)
    assert list(board.used()) == [second]


def test_a_text_that_is_too_long_keeps_its_end() -> None:
    slot = Scoreboard(1).free_slot()
    assert slot is not None
    slot.text = "x" * 5000 + "ValueError: the reason"
    assert slot.text.startswith("...x")
    assert slot.text.endswith("ValueError: the reason")
    assert len(slot.text) < 4000
    slot.text = "ü"
    assert slot.text == "ü"


def test_the_server_s_stopping_is_seen_by_all() -> None:
    board = Scoreboard(1)
    assert (board.stopping, board.closes_for_good) == (False, False)
    board.stopping = board.closes_for_good = True
    assert (board.stopping, board.closes_for_good) == (True, True)

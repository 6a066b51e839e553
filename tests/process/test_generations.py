"""The arbiter's decisions, on tables of workers."""

from __future__ import annotations

import pytest

from tafe.generations import FIRST_DELAY_S, LONGEST_DELAY_S, STEADY_S, Backoff, Member, Plan, decide
from tafe.lifecycle import SUCCESSORS, State


def _member(pid: int, state: State = State.READY, generation: int = 1, **marks: bool) -> Member:
    return Member(pid, generation, state, marks.get("retiring", False), marks.get("told", False))


def _plan(*members: Member, target: int = 2, candidate: int | None = None) -> Plan:
    return decide(members, serving=1, candidate=candidate, target=target)


def test_at_the_start_all_workers_are_started() -> None:
    assert _plan(target=3) == Plan(spawn=(1, 1, 1))


def test_enough_workers_are_left_alone_whatever_their_state() -> None:
    assert _plan(_member(10, State.STARTING), _member(11, State.WAITING)) == Plan()


def test_a_missing_worker_is_replaced_and_one_that_was_told_to_stop_does_not_count() -> None:
    assert _plan(_member(10)) == Plan(spawn=(1,))
    assert _plan(_member(10), _member(11, told=True)) == Plan(spawn=(1,))


def test_of_too_many_the_ones_that_are_not_ready_go_first_and_then_the_oldest() -> None:
    assert _plan(_member(10), _member(11), _member(12, State.STARTING)) == Plan(drain=(12,))
    assert _plan(_member(10), _member(11), _member(12)) == Plan(drain=(10,))


def test_a_retiring_worker_goes_when_its_replacement_is_ready() -> None:
    old, other = _member(10, retiring=True), _member(11)
    assert _plan(old, other) == Plan(spawn=(1,))
    assert _plan(old, other, _member(12, State.STARTING)) == Plan()
    assert _plan(old, other, _member(12)) == Plan(drain=(10,))


def test_workers_that_retire_together_are_replaced_one_at_a_time() -> None:
    first, second = _member(10, retiring=True), _member(11, retiring=True)
    assert _plan(first, second) == Plan(spawn=(1,))
    assert _plan(first, second, _member(12)) == Plan(drain=(10,))
    assert _plan(second, _member(12)) == Plan(spawn=(1,))


def test_with_fewer_workers_wanted_a_retiring_one_goes_first() -> None:
    members = [_member(10), _member(11, retiring=True), _member(12), _member(13)]
    assert _plan(*members, target=2) == Plan(drain=(11,))


def test_a_candidate_generation_is_started_beside_the_serving_one() -> None:
    assert _plan(_member(10), _member(11), candidate=2) == Plan(spawn=(2, 2))


def test_a_candidate_takes_over_only_when_all_of_it_is_ready() -> None:
    old = [_member(10), _member(11)]
    half = [_member(20, generation=2), _member(21, State.WAITING, generation=2)]
    assert _plan(*old, *half, candidate=2) == Plan()
    ready = [_member(20, generation=2), _member(21, generation=2)]
    assert _plan(*old, *ready, candidate=2) == Plan(promote=True)


def test_a_candidate_that_waits_takes_over_from_workers_that_wait_too() -> None:
    old = [_member(10, State.WAITING), _member(11, State.WAITING)]
    waiting = [_member(20, State.WAITING, generation=2), _member(21, State.WAITING, generation=2)]
    assert _plan(*old, *waiting, candidate=2) == Plan(promote=True)
    loading = [_member(20, State.WAITING, generation=2), _member(21, State.STARTING, generation=2)]
    assert _plan(*old, *loading, candidate=2) == Plan()


def test_a_serving_worker_that_dies_during_a_reload_is_replaced() -> None:
    new = [_member(20, State.STARTING, generation=2), _member(21, State.STARTING, generation=2)]
    assert _plan(_member(10), *new, candidate=2) == Plan(spawn=(1,))


def test_workers_of_any_other_generation_are_drained() -> None:
    assert _plan(_member(10), _member(11), _member(5, generation=0)) == Plan(drain=(5,))
    stray = _member(30, generation=3)
    assert _plan(_member(10), _member(11), stray, candidate=2) == Plan(spawn=(2, 2), drain=(30,))


def test_the_first_failure_is_made_good_at_once_and_further_ones_with_growing_delay() -> None:
    backoff = Backoff()
    delays = []
    for _ in range(9):
        backoff.failed(now_s=100.0, lived_s=0.1, was_ready=False)
        delays.append(round(backoff.not_before_s - 100.0, 3))
    assert delays == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_DELAY_S, LONGEST_DELAY_S]
    assert not backoff.allows(104.9)
    assert backoff.allows(105.0)


@pytest.mark.parametrize(("lived_s", "was_ready", "failures"), [(STEADY_S, True, 0), (1.0, True, 3), (60.0, False, 3)])
def test_only_a_worker_that_was_up_for_a_while_ends_a_row_of_failures(
    lived_s: float, was_ready: bool, failures: int
) -> None:
    backoff = Backoff()
    backoff.failed(1.0, 0.1, was_ready=False)
    backoff.failed(1.1, 0.1, was_ready=False)
    assert backoff.not_before_s == 1.1 + FIRST_DELAY_S
    backoff.failed(2.0, lived_s, was_ready)
    assert backoff.failures == failures


def test_a_steady_worker_makes_the_next_replacement_immediate() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.failed(1.0, 0.1, was_ready=False)
    backoff.steady()
    assert backoff.allows(1.0)


def test_every_state_names_its_successors_and_the_end_has_none() -> None:
    assert set(SUCCESSORS) == set(State)
    assert SUCCESSORS[State.STOPPED] == frozenset()
    assert all(State.STOPPED in successors for state, successors in SUCCESSORS.items() if state is not State.STOPPED)

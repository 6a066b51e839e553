"""Which short slices are a convoy: streams of (turn, begin, length) in ms, as the hook would tell them."""

from __future__ import annotations

from profiler.convoy import FEWEST, MEMBER, Convoys, Part
from profiler.model import Span

THRESHOLD_S = 0.010


def told(convoys: Convoys, turn: int, lengths_ms: list[float], span: Span | None = None) -> list[Part | None]:
    """What is said of slices that follow each other in a turn, which begins at `turn` seconds."""
    parts = []
    now_s = float(turn)
    for length_ms in lengths_ms:
        parts.append(convoys.add(turn, float(turn), now_s, now_s + length_ms / 1000, span))
        now_s += length_ms / 1000
    return parts


def test_many_short_slices_of_one_turn_are_a_convoy_from_its_begin() -> None:
    parts = told(Convoys(THRESHOLD_S), 7, [1.0] * 12)
    assert parts[:9] == [None] * 9
    assert parts[9] == Part(7.0, 10, shared=True), "ten of a millisecond each reach the threshold"
    assert parts[11] == Part(7.0, 12, shared=True)


def test_the_same_slices_in_turns_of_their_own_are_none() -> None:
    convoys = Convoys(THRESHOLD_S)
    assert not any(told(convoys, turn, [1.0])[0] for turn in range(100))


def test_a_few_that_are_nearly_slow_are_none() -> None:
    assert not any(told(Convoys(THRESHOLD_S), 1, [9.0] * (FEWEST - 1)))


def test_what_follows_a_stall_is_its_backlog() -> None:
    convoys = Convoys(THRESHOLD_S)
    convoys.stalled(5, 5.03)
    assert not any(told(convoys, 5, [1.0] * 30))
    assert not any(told(convoys, 6, [1.0] * 30)), "those who came while the hub was in the stall"
    assert not any(told(convoys, 7, [1.0] * 30)), "and while it was in the backlog"
    assert not any(told(convoys, 8, [1.0] * 2))
    assert any(told(convoys, 9, [1.0] * 30)), "the backlog was over"


def test_a_convoy_that_goes_on_in_the_next_turn_is_one_there_too() -> None:
    convoys, span = Convoys(THRESHOLD_S), Span()
    assert told(convoys, 1, [1.0] * 50, span)[-1] == Part(1.0, 50, shared=False)
    assert told(convoys, 2, [1.0] * 50, span)[-1] == Part(2.0, 50, shared=False)
    assert not any(told(convoys, 3, [1.0] * 50, Span())), "another request's is its backlog"


def test_a_convoy_after_a_slow_slice_does_not_include_it() -> None:
    convoys, span = Convoys(THRESHOLD_S), Span()
    told(convoys, 1, [1.0] * 20, span)
    convoys.stalled(1, 1.05)
    assert convoys.add(1, 1.0, 1.05, 1.051, span) is None
    for number in range(1, 12):
        part = convoys.add(1, 1.0, 1.05 + number / 1000, 1.051 + number / 1000, span)
    assert part == Part(1.05, 12, shared=False)


def test_a_convoy_is_shared_as_soon_as_it_works_for_another() -> None:
    convoys, one, other = Convoys(THRESHOLD_S), Span(), Span()
    assert told(convoys, 1, [1.0] * 11, one)[-1] == Part(1.0, 11, shared=False)
    assert convoys.add(1, 1.0, 1.011, 1.012, other) == Part(1.0, 12, shared=True)
    assert convoys.add(1, 1.0, 1.012, 1.013, one) == Part(1.0, 13, shared=True)


def test_a_request_to_a_database_is_no_member_by_far() -> None:
    assert MEMBER * THRESHOLD_S > 4 * 0.0001

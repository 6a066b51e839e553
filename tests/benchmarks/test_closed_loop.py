"""The client that counts by connection: it prefers nobody, and it takes nothing but right answers."""

from __future__ import annotations

import pytest

from benchmarks import closed_loop
from benchmarks.client import LoadError
from tests.benchmarks.peer import ANSWER, BODY, HELLO


def test_a_server_that_serves_in_turn_is_seen_as_fair(peer) -> None:
    load = closed_loop.run(peer(lambda *_: [ANSWER]).port, HELLO, 0.5, connections=16, warm_up_s=0.1)
    assert len(load.answers) == 16
    assert min(load.answers) > 10
    assert load.fairness > 0.9
    assert 0 < load.p50_ms <= load.p99_ms <= load.max_ms


def test_a_connection_that_is_served_less_is_counted_by_itself(peer) -> None:
    """Connection 3 gets an answer to its first three requests only."""
    neglectful = peer(lambda number, request: [] if number == 3 and request > 2 else [ANSWER])
    load = closed_loop.run(neglectful.port, HELLO, 0.3, connections=8, warm_up_s=0.1)
    assert load.answers[3] == 0
    assert min(load.answers[:3] + load.answers[4:]) > 10
    assert load.fairness == 0


def test_answers_that_come_in_pieces_count_once(peer) -> None:
    load = closed_loop.run(peer(lambda *_: [ANSWER[:20], ANSWER[20:]]).port, HELLO, 0.2, connections=4, warm_up_s=0)
    assert min(load.answers) > 5


@pytest.mark.parametrize("wrong", [ANSWER.replace(BODY, b"HELLO"), ANSWER.replace(b"200", b"503")])
def test_a_wrong_answer_ends_the_load(peer, wrong: bytes) -> None:
    failing = peer(lambda number, request: [wrong if request > 4 else ANSWER])
    with pytest.raises(LoadError, match="a wrong answer"):
        closed_loop.run(failing.port, HELLO, 5, connections=2, warm_up_s=0)


def test_a_connection_closed_in_the_midst_ends_the_load(peer) -> None:
    def hang_up(number: int, request: int) -> list[bytes]:
        if request > 4:
            raise OSError
        return [ANSWER]

    with pytest.raises(LoadError, match="closed"):
        closed_loop.run(peer(hang_up).port, HELLO, 5, connections=2, warm_up_s=0)

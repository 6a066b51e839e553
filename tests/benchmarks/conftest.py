"""What tests of the load's clients share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.benchmarks.peer import Peer


@pytest.fixture
def peer() -> Iterator[Callable[[Callable[[int, int], list[bytes]]], Peer]]:
    made: list[Peer] = []

    def make(answer: Callable[[int, int], list[bytes]]) -> Peer:
        made.append(Peer(answer))
        return made[-1]

    yield make
    for each in made:
        each.close()

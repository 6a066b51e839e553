"""How the admin process asks a worker to record its functions, and how it gets the answer.

Words in the worker's page of the scoreboard, each written by one side. The admin process writes the question, then its
number; the worker, which looks ten times a second, writes the number that it takes, and later the one that it has
answered. The answer is an open file without a name in the worker, which the other side opens by way of /proc: whoever
dies leaves nothing behind, and no other user can read it. A number that is not taken says that the hub does not turn.
Limits: one question at a time; a second one waits until the first is answered or withdrawn.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Final, NamedTuple

CLOCKS: Final = ("cpu", "wall")

# Of the admin process: the number of the latest question, what it asks for, the latest number that was withdrawn.
# Of the worker: the latest number taken, the latest answered, the descriptor of that answer. And of the admin process
# when, by the machine's clock, the answer is due.
_ASKED, _LENGTH_MS, _CLOCK, _WITHDRAWN, _TAKEN, _ANSWERED, _FD, _DUE_MS = range(8)


class Question(NamedTuple):
    """Record the functions for so long."""

    length_s: float
    clock: str


class Inquiry:
    """One worker's words, as seen by both sides."""

    WORDS: Final = 8

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._answer_fd = -1  # of this process, if it is the worker

    def forget(self) -> None:
        """The arbiter, before it forks the worker: nothing was ever asked."""
        for word in range(self.WORDS):
            self._words[word] = 0

    # -- the admin process

    def ask(self, question: Question) -> int | None:
        """The number under which it is asked; None while there is another question."""
        words = self._words
        number: int = words[_ASKED]
        if words[_ANSWERED] < max(words[_TAKEN], number if number != words[_WITHDRAWN] else 0):
            return None
        words[_LENGTH_MS], words[_CLOCK] = round(question.length_s * 1000), CLOCKS.index(question.clock)
        words[_DUE_MS] = round(time.monotonic() * 1000) + words[_LENGTH_MS]
        words[_ASKED] = number + 1
        return number + 1

    def left_s(self) -> float:
        """How long the present question will take yet; 0 if it is overdue."""
        return max(self._words[_DUE_MS] / 1000 - time.monotonic(), 0.0)

    def withdraw(self, number: int) -> None:
        """Ask no more. A worker that has taken the question, at this moment too, is to answer it early."""
        self._words[_WITHDRAWN] = number

    def is_taken(self, number: int) -> bool:
        """The worker works on it, or has answered."""
        return self._words[_TAKEN] >= number

    def answer_of(self, number: int, pid: int) -> bytes | None:
        """What process `pid` has answered; None: nothing yet. OSError if it has ended meanwhile."""
        if self._words[_ANSWERED] != number:
            return None
        with open(f"/proc/{pid}/fd/{self._words[_FD]}", "rb") as file:
            return file.read()

    # -- the worker

    def take(self) -> Question | None:
        """What is asked, if that is new; it has to be answered."""
        words = self._words
        number = words[_ASKED]
        if number <= words[_TAKEN] or number == words[_WITHDRAWN]:
            return None
        words[_TAKEN] = number
        return Question(words[_LENGTH_MS] / 1000, CLOCKS[words[_CLOCK]])

    def is_withdrawn(self) -> bool:
        """Nobody waits for an answer to the question that was taken."""
        return bool(self._words[_WITHDRAWN] == self._words[_TAKEN])

    def answer(self, pieces: Iterable[bytes]) -> None:
        """Show the answer to the question that was taken, until the next one is answered."""
        fd = os.memfd_create("tafe-answer", os.MFD_CLOEXEC)
        with open(fd, "wb", closefd=False) as file:
            file.writelines(pieces)
        if self._answer_fd >= 0:
            os.close(self._answer_fd)
        self._answer_fd = fd
        self._words[_FD] = fd
        self._words[_ANSWERED] = self._words[_TAKEN]

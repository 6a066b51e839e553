"""What the arbiter says of the workers that it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tafe.children import Child, Children

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str, *arguments: object) -> None:
        self.lines.append(text % arguments)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends when it is killed."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as started:
        yield started
        started.kill()


@pytest.mark.parametrize(("number", "said"), [(signal.SIGKILL, False), (signal.SIGCONT, True)], ids=["kill", "other"])
def test_only_a_worker_that_had_the_choice_did_not_stop_in_time(
    process: subprocess.Popen[bytes], number: signal.Signals, said: bool
) -> None:
    log = _Log()
    children = Children(log)
    slot = children.board.free_slot()
    assert slot is not None
    slot.hand_out(1, time.monotonic_ns())
    child = Child(process.pid, None, slot, 1, time.monotonic())
    children._living[process.pid] = child
    children.tell(child, number, 0)
    children.end_the_stuck(30)
    assert log.lines == [f"worker {process.pid} did not stop in time and is killed"] * said

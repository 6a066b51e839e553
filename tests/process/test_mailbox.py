"""Messages between processes: whole or not at all, whoever is killed when."""

from __future__ import annotations

import os
import signal
import struct
import time

import pytest

from tafe.mailbox import Mailbox, mailboxes


def test_the_latest_message_of_a_forked_process_is_read() -> None:
    first, second = mailboxes(2, 1000)
    assert (first.read(), second.read()) == (b"", b"")
    pid = os.fork()
    if pid == 0:
        for message in (b"one", b"the second", b"3"):
            first.write(message)
        second.write(b"x" * 1000)
        os._exit(0)
    os.waitpid(pid, 0)
    assert first.read() == b"3"
    assert second.read() == b"x" * 1000


def test_a_message_that_is_too_long_leaves_the_one_before() -> None:
    (box,) = mailboxes(1, 100)
    assert box.write(b"before")
    assert not box.write(b"x" * 101)
    assert box.read() == b"before"
    assert box.write(b"")
    assert box.read() == b""


@pytest.mark.parametrize("shown", [1, 2, 3])
def test_a_writer_killed_in_the_middle_of_a_message_leaves_the_one_before(shown: int) -> None:
    memory = memoryview(bytearray(64 + 200))
    box = Mailbox(memory)
    for number in range(shown):
        box.write(b"message %d" % number)

    class Killed(Exception):
        pass

    class Stops:
        """The words of the mailbox, whose writer gets no further than to the store that would show its message."""

        def __init__(self, words: memoryview) -> None:
            self._words = words

        def __getitem__(self, index: int) -> int:
            return self._words[index]

        def __setitem__(self, index: int, value: int) -> None:
            if index == 0:
                raise Killed
            self._words[index] = value

    writer = Mailbox(memory)
    writer._words = Stops(writer._words)  # type: ignore[assignment]
    with pytest.raises(Killed):
        writer.write(b"not to be seen")
    assert box.read() == b"message %d" % (shown - 1)


def test_a_reader_never_sees_parts_of_two_messages() -> None:
    (box,) = mailboxes(1, 65536)
    box.write(struct.pack("q", 0) * 8000)
    pid = os.fork()
    if pid == 0:
        number = 0
        while True:
            number += 1
            box.write(struct.pack("q", number) * 8000)
    seen = set()
    try:
        end_s = time.monotonic() + 0.5
        while time.monotonic() < end_s:
            message = box.read()
            if message:  # the writer may be too quick for it, at thousands of messages a second
                numbers = set(struct.unpack("8000q", message))
                assert len(numbers) == 1
                seen |= numbers
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert len(seen) > 1


def test_what_is_damaged_is_not_shown() -> None:
    memory = memoryview(bytearray(64 + 200))
    box = Mailbox(memory)
    box.write(b"message")
    memory[64 + 100] ^= 1  # the second half, which is shown first
    assert box.read() == b""
    memory[64 + 100] ^= 1
    memory[8 + 16 : 8 + 24] = struct.pack("q", -5)  # its length
    assert box.read() == b""

"""A message that one process leaves in shared memory for others, who see the latest one, whole, or none.

Two halves and a number: the writer fills the half that is not shown, then shows it by storing the next number. A reader
that finds the number unchanged after it has copied has copied nothing that was written to meanwhile, since that half
comes next only after another number was stored. So nobody waits for anybody, and a writer that is killed in the middle
of a message leaves the one before. The checksum is for processors that make stores visible in another order.
Limits: one writer; the mapping takes memory for what was written only.
"""

from __future__ import annotations

import mmap
import os
import zlib
from typing import Final

# Words: the number (odd: the second half is shown), then length and checksum of each half.
_NUMBER, _SIZES = 0, 1
_HEAD_BYTES: Final = 64
_TRIES: Final = 3  # messages are a second apart, copying takes microseconds


class Mailbox:
    """One writer's; `memory` is shared, and zero at first."""

    def __init__(self, memory: memoryview) -> None:
        self._words = memory[:_HEAD_BYTES].cast("q")
        self.capacity_bytes = (len(memory) - _HEAD_BYTES) // 2
        first = memory[_HEAD_BYTES : _HEAD_BYTES + self.capacity_bytes]
        self._halves = (first, memory[_HEAD_BYTES + self.capacity_bytes :])

    def write(self, message: bytes) -> bool:
        """Show `message` from now on; False, and nothing changed, if it is too long."""
        if len(message) > self.capacity_bytes:
            return False
        words = self._words
        number = words[_NUMBER] + 1
        half = number & 1
        self._halves[half][: len(message)] = message
        words[_SIZES + 2 * half] = len(message)
        words[_SIZES + 2 * half + 1] = zlib.crc32(message)
        words[_NUMBER] = number
        return True

    def read(self) -> bytes:
        """The latest message; empty if there is none."""
        words = self._words
        for _ in range(_TRIES):
            number = words[_NUMBER]
            half = number & 1
            message = bytes(self._halves[half][: max(words[_SIZES + 2 * half], 0)])
            checksum = words[_SIZES + 2 * half + 1]
            if words[_NUMBER] == number and zlib.crc32(message) == checksum:
                return message
        return b""


def mailboxes(count: int, capacity_bytes: int) -> list[Mailbox]:
    """As many, for processes that are forked from this one.

    In a file without a name: where the system promises no more memory than there is, an anonymous mapping would count
    with all its pages.
    """
    page = mmap.PAGESIZE
    stride = -(-(_HEAD_BYTES + 2 * capacity_bytes) // page) * page
    fd = os.memfd_create("tafe-metrics", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, count * stride)
        memory = memoryview(mmap.mmap(fd, count * stride))
    finally:
        os.close(fd)
    return [Mailbox(memory[i * stride : i * stride + _HEAD_BYTES + 2 * capacity_bytes]) for i in range(count)]

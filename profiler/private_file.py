"""A file that only its owner may read, for what tells of a program's inside.

A regular file is made so, whether or not it was there. Anything else that has a name (a device, a pipe with a reader)
is written to and left as it is.
"""

from __future__ import annotations

import os
import stat


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """In place of what was there. OSError if that is not possible; a pipe that nobody reads is not waited for."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_NOCTTY, 0o600)
    with open(fd, "wb", buffering=0) as file:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.fchmod(fd, 0o600)
        os.set_blocking(fd, True)
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]

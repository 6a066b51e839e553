"""`wsgi.file_wrapper`: a file as an answer, sent by the kernel where that gives the same bytes.

An application returns `environ["wsgi.file_wrapper"](file)` (PEP 3333, "Optional Platform-Specific File Handling").
`plain_file` decides whether the kernel may send it: only a regular file behind an ordinary binary file object, since
a `fileno` alone proves nothing (gzip's is the compressed file's). Anything else is read and sent piece by piece.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from tempfile import _TemporaryFileWrapper
from typing import Any, Final

BLOCK_BYTES: Final = 64 * 1024  # of a file that has to be read; an application may name another size
SENDFILE_BYTES: Final = 256 * 1024  # of one call: a disk that has to be waited for holds up all connections


class FileWrapper:
    """An iterable over a file's blocks, closing it. `block_bytes` counts only where the file is read."""

    __slots__ = ("_file", "block_bytes")

    def __init__(self, file: Any, block_bytes: int = BLOCK_BYTES) -> None:
        self._file = file
        self.block_bytes = block_bytes

    def __iter__(self) -> Iterator[bytes]:
        """Read on from where the file stands."""
        return iter(lambda: self._file.read(self.block_bytes), b"")

    def close(self) -> None:
        """Close the file, if it can be closed."""
        close = getattr(self._file, "close", None)
        if close is not None:
            close()

    def plain_file(self) -> tuple[int, int, int] | None:
        """(descriptor, offset, bytes from there to the end), or None if the kernel must not send it."""
        file = self._file
        if isinstance(file, _TemporaryFileWrapper):
            file = file.file
        raw = file.raw if type(file) in (io.BufferedReader, io.BufferedRandom) else file
        if type(raw) is not io.FileIO or file.closed or not file.readable():
            return None
        if file is not raw and file.writable():
            file.flush()
        status = os.fstat(raw.fileno())
        if not stat.S_ISREG(status.st_mode):
            return None
        offset = file.tell()
        return raw.fileno(), offset, max(0, status.st_size - offset)

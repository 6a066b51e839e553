"""Asking the admin process of a server that runs: for the commands that look into one.

A server is named by its run directory, where the file `admin` holds the address, or by that address itself. Knows HTTP
enough to ask a question and to take the answer; whatever keeps it from that is a `UsageError` that says how to go on.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import stat
import time
from typing import Any, Final
from urllib.parse import urlsplit

from tafe.errors import UsageError
from tafe.values import Address, parse_address

NOTE: Final = "admin"  # the file in a run directory
_TIMEOUT_S = 5.0  # it answers within milliseconds
_LONGEST_NOTE_BYTES = 4096  # of the file: a path is not longer
_LARGEST_BYTES = 1 << 28  # of an answer: the functions of the largest worker take a tenth of it
START: Final = "tafe serve --admin 127.0.0.1:9102 MODULE:APP"


class Admin:
    """`where`: a run directory, or the address (HOST:PORT, http://HOST:PORT, unix:PATH)."""

    def __init__(self, where: str) -> None:
        self.address = _address_of(where)
        self._where = where

    def get(self, path: str) -> bytes:
        """The body of a 200. `UsageError` for anything else."""
        status, body = self.ask("GET", path)
        if status != 200:
            raise UsageError(f"{self.address}{path} answers {status}", try_=START)
        return body

    def ask(self, method: str, path: str, timeout_s: float = _TIMEOUT_S) -> tuple[int, bytes]:
        """Status and body. `UsageError` if nobody answers, or not all within `timeout_s`."""
        end_s = time.monotonic() + timeout_s
        connection = _Connection(self.address, timeout_s)
        try:
            connection.request(method, path)
            answering: Any = _InTime(connection.sock, end_s)  # in place of a socket, of which no more is asked
            answer = http.client.HTTPResponse(answering, method=method)
            answer.begin()
            return answer.status, _body(answer)
        except TimeoutError:
            raise UsageError(f"{self.address} has not answered for {timeout_s:g} s") from None
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no host or path can be so
            reason = getattr(error, "strerror", None) or str(error) or "it is no HTTP server"
            raise UsageError(
                f"nobody answers at {self.address}: {reason}", set_by=self._set_by, try_=f"start it: {START}"
            ) from None
        finally:
            connection.close()

    @property
    def _set_by(self) -> str:
        note = os.path.join(self._where, NOTE)
        return f"{note}, which a server has left that was killed" if os.path.isfile(note) else ""


class _Connection(http.client.HTTPConnection):
    def __init__(self, address: Address, timeout_s: float) -> None:
        super().__init__(address.host or "localhost", address.port or 80, timeout=timeout_s)
        self._path = address.path

    def connect(self) -> None:
        """On a unix socket, where that is the address."""
        if not self._path:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _InTime(io.RawIOBase):
    """What comes from a socket until then, whether it comes in a piece or byte by byte."""

    def __init__(self, sock: socket.socket, end_s: float) -> None:
        self._sock = sock
        self._end_s = end_s

    def makefile(self, _mode: str) -> io.BufferedReader:
        """As a socket has it."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, into: Any) -> int:
        """TimeoutError when it is too late."""
        left_s = self._end_s - time.monotonic()
        if left_s <= 0.0:  # 0 would mean not to wait
            raise TimeoutError
        self._sock.settimeout(left_s)
        return self._sock.recv_into(into)


def _body(answer: http.client.HTTPResponse) -> bytes:
    """In pieces, as something that is no admin process may send without end."""
    pieces = []
    left = _LARGEST_BYTES
    while piece := answer.read1(1 << 16):
        pieces.append(piece)
        left -= len(piece)
        if left < 0:
            raise http.client.HTTPException(f"its answer is longer than {_LARGEST_BYTES >> 20} MiB")
    if answer.length:  # which `read1` does not complain about
        raise http.client.IncompleteRead(b"", answer.length)
    return b"".join(pieces)


def noted(path: str) -> str:
    """The text of the file in a run directory. OSError if it is none, ValueError if it holds something else."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would be waited for
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("is no regular file")
        return file.read(_LONGEST_NOTE_BYTES).decode()


def _address_of(where: str) -> Address:
    if os.path.isdir(where):
        note = os.path.join(where, NOTE)
        try:
            where = noted(note)
        except ValueError:
            raise UsageError(f"{note} holds no address", try_=START) from None
        except OSError:
            raise UsageError(
                f"no server that can be asked runs with the run directory {where}",
                allowed="the run directory of a server with --admin, or its admin address",
                try_=START,
            ) from None
    try:
        text = urlsplit(where).netloc if where.startswith("http://") else where
        address = parse_address(text)
    except ValueError as error:
        raise UsageError(
            f"{where!r} is no directory, and as an address it {error}",
            allowed="the run directory of a server with --admin, or its admin address",
            try_=START,
        ) from None
    if address.fd >= 0:
        raise UsageError(f"{where!r} is a descriptor of the server's, which nobody can ask", try_=START)
    return address

"""A client that sends a case's bytes, cut as asked, and notes all that comes back.

It waits for nothing but bytes: whether the connection was kept is learnt by asking once more on it (`PROBE`). Its
reading of answers is strict and its own, so that an answer which is framed wrongly cannot pass as a right one.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import gevent
from gevent import socket

from tests.corpus.case import Case, Step

PROBE: Final = b"GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n"
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
BETWEEN_HALVES_S: Final = 0.002  # enough for the server to see them apart; nothing depends on it
_BYTEWISE: Final = 1024  # of a long request the beginning and the end go byte by byte, the middle in pieces
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2}) [\t -~]*")
_FIELD: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ?([\t -~\x80-\xff]*)")

Cut = Callable[[bytes], list[bytes]]


@dataclass
class Answer:
    """One answer as it came."""

    status: int
    headers: list[tuple[str, str]]  # names in lower case
    body: bytes
    complete: bool  # it ended as its head said

    def header(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for key, value in self.headers if key == name.lower()]

    @property
    def saw(self) -> dict[str, Any] | None:
        """The application's report of what it saw."""
        if not self.header("x-saw") or not self.body.startswith(b"{"):
            return None
        try:
            saw: dict[str, Any] = json.loads(self.body)
        except ValueError:
            return None
        return saw

    @property
    def announces_close(self) -> bool:
        """It says that the connection is closed after it."""
        return "close" in [word.strip() for value in self.header("connection") for word in value.lower().split(",")]

    def same(self) -> tuple[object, ...]:
        """What must be the same in every answer to the same bytes: not the time, nor the words of a refusal."""
        if self.status >= 400 and not self.header("x-saw"):
            return self.status, self.announces_close, self.complete
        return self.status, tuple(pair for pair in self.headers if pair[0] != "date"), self.body, self.complete


@dataclass
class Outcome:
    """All that came back on one connection."""

    answers: list[Answer]
    end: str  # kept, closed, reset, or silent: neither an answer nor an end came in time
    garbage: bytes = b""  # what is no answer

    def same(self) -> tuple[object, ...]:
        """Comparable with the outcome of the same bytes sent otherwise."""
        return [answer.same() for answer in self.answers], self.end, self.garbage

    def __str__(self) -> str:
        statuses = " ".join(f"{answer.status}{'' if answer.complete else ' (broken)'}" for answer in self.answers)
        return f"{statuses or 'no answer'}, {self.end}{f', garbage {self.garbage[:60]!r}' if self.garbage else ''}"


def whole(data: bytes) -> list[bytes]:
    """All at once."""
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    """Each byte by itself; of a long request the first and the last ones."""
    middle = data[_BYTEWISE:-_BYTEWISE] if len(data) > 4 * _BYTEWISE else b""
    if not middle:
        return [data[i : i + 1] for i in range(len(data))]
    return [*byte_by_byte(data[:_BYTEWISE]), middle, *byte_by_byte(data[-_BYTEWISE:])]


def in_two(position: int) -> Cut:
    """In two at a position."""
    return lambda data: [piece for piece in (data[:position], data[position:]) if piece]


def split_positions(data: bytes) -> list[int]:
    """Where a parser may go wrong: inside and between the line ends of the first line and of the head's end."""
    line = data.find(b"\r\n")
    head = data.find(b"\r\n\r\n")
    wanted = {1, line + 1, line + 2, head + 1, head + 2, head + 3, head + 4, len(data) // 2, len(data) - 1}
    return sorted(position for position in wanted if 0 < position < len(data))


def send(address: tuple[str, int], case: Case, cut: Cut = whole, timeout_s: float = 5.0) -> Outcome:
    """Send the case on a new connection, or several one after the other, and say what came of it."""
    steps = list(case.steps)
    outcome = Outcome([], "")
    while steps:
        came = _send_on_one(address, case, steps, len(outcome.answers), cut, timeout_s)
        outcome = Outcome(outcome.answers + came.answers, came.end, outcome.garbage + came.garbage)
        if came.end == "silent":
            break
    return outcome


def _send_on_one(
    address: tuple[str, int], case: Case, steps: list[Step], answered: int, cut: Cut, timeout_s: float
) -> Outcome:
    """What came on one connection; takes the steps that belong to it, when `answered` answers have come on others."""
    wanted = case.answers[answered:]
    with socket.create_connection(address, timeout=timeout_s) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = _Reader(sock, [answer.bodiless for answer in wanted])
        try:
            with gevent.Timeout(timeout_s):
                _send_steps(sock, reader, steps, cut)
                if steps and steps.pop(0).act == "reset":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                elif steps or case.connection != "kept" or case.half_closes:
                    reader.wait(lambda: False)
                else:
                    reader.wait(lambda: len(reader.answers()) >= len(wanted))
                    if not reader.end:
                        _send_all(sock, reader, [PROBE])
                        reader.wait(reader.probe_answered)
        except gevent.Timeout:
            reader.silent = True
        finally:
            reader.stop()
        return reader.outcome()


def _send_steps(sock: Any, reader: _Reader, steps: list[Step], cut: Cut) -> None:
    """Take steps until one that ends the connection, which is left, or the last."""
    while steps and steps[0].act not in ("again", "reset"):
        step = steps.pop(0)
        if step.act == "send":
            _send_all(sock, reader, cut(step.data))
        elif step.act == "half-close":
            try:
                sock.shutdown(socket.SHUT_WR)
            except OSError:
                return
        else:
            reader.wait(partial(reader.has_answered, step.status))


def _send_all(sock: Any, reader: _Reader, pieces: list[bytes]) -> None:
    for number, piece in enumerate(pieces):
        if number:
            gevent.sleep(BETWEEN_HALVES_S if len(pieces) == 2 else 0)
        try:
            sock.sendall(piece)
        except ConnectionResetError:
            reader.reset = True
            return
        except OSError:
            return  # the server has closed; what it said is read


class _Reader:
    """Reads in a greenlet of its own, as a client does that sends and reads at the same time."""

    def __init__(self, sock: Any, bodiless: list[bool]) -> None:
        self.data = b""
        self.end = ""
        self.reset = False  # the kernel tells it once, and told it to the sender
        self.silent = False
        self._bodiless = bodiless
        self._sock = sock
        self._more = gevent.event.Event()
        self._greenlet = gevent.spawn(self._read)

    def _read(self) -> None:
        while not self.end:
            try:
                data = self._sock.recv(65536)
            except TimeoutError:
                return
            except OSError:
                self.end = "reset"
            else:
                self.data += data
                if not data:
                    self.end = "reset" if self.reset else "closed"
            self._more.set()

    def wait(self, enough: Callable[[], bool]) -> None:
        """Until `enough()` or the connection's end."""
        while not self.end and not enough():
            self._more.clear()
            self._more.wait()

    def stop(self) -> None:
        self._greenlet.kill()

    def answers(self) -> list[Answer]:
        """The complete answers so far."""
        return [answer for answer in self._parse()[0] if answer.complete]

    def has_answered(self, status: int) -> bool:
        return status in [answer.status for answer in self.answers()]

    def probe_answered(self) -> bool:
        answers = self.answers()
        return bool(answers) and (answers[-1].saw or {}).get("path") == "/probe"

    def outcome(self) -> Outcome:
        answers, garbage = self._parse()
        if self.probe_answered():
            return Outcome(answers[:-1], "kept", garbage)
        return Outcome(answers, "silent" if self.silent and not self.end else self.end, garbage)

    def _parse(self) -> tuple[list[Answer], bytes]:
        answers: list[Answer] = []
        rest = self.data
        while rest:
            bodiless = len(answers) < len(self._bodiless) and self._bodiless[len(answers)]
            parsed = _parse_answer(rest, bodiless=bodiless, ended=self.end == "closed")
            if parsed is None:
                break
            answers.append(parsed[0])
            rest = parsed[1]
        return answers, rest


def _parse_answer(data: bytes, *, bodiless: bool, ended: bool) -> tuple[Answer, bytes] | None:
    """The first answer in `data` and what follows; None if it is no answer, or its head is not there yet."""
    head, end_of_head, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    fields = [_FIELD.fullmatch(line) for line in lines]
    if not end_of_head or status_line is None or None in fields:
        return None
    headers = [(f[1].decode("ascii").lower(), f[2].decode("latin-1").strip()) for f in fields if f is not None]
    answer = Answer(int(status_line[1]), headers, b"", complete=True)
    lengths = answer.header("content-length")
    if bodiless or answer.status < 200 or answer.status in (204, 304):
        return answer, rest
    if answer.header("transfer-encoding") == ["chunked"] and not lengths:
        answer.body, rest, answer.complete = _parse_chunks(rest)
    elif len(lengths) == 1 and lengths[0].isdecimal():
        length = int(lengths[0])
        answer.body, rest = rest[:length], rest[length:]
        answer.complete = len(answer.body) == length
    else:
        answer.body, rest, answer.complete = rest, b"", ended
    return answer, rest


def _parse_chunks(data: bytes) -> tuple[bytes, bytes, bool]:
    """(body, what follows, whether the last chunk was there)."""
    body = b""
    for size, rest in _chunks(data):
        if not size:
            return body, rest[2:], rest[:2] == b"\r\n"
        body += rest[:size]
    return body, b"", False


def _chunks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each chunk's size and what follows its size line."""
    while match := re.match(rb"([0-9A-Fa-f]+)\r\n", data):
        size = int(match[1], 16)
        yield size, data[match.end() :]
        data = data[match.end() + size :]
        if not data.startswith(b"\r\n"):
            return
        data = data[2:]

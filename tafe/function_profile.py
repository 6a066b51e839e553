"""A worker's functions, recorded while it serves, for whoever asks the admin process (inquiry.py is the way between).

The worker records (profiler/functions.py, which needs yappi); the admin process waits, renders, and answers. Only the
worker that is asked gets slower, for the time asked for, or until the asker has gone. Whatever the worker does
meanwhile the asker has an answer: it is busy with another recording (409), has no yappi (503), ends (502), or its hub
does not turn (504).
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import gevent
from gevent.event import Event

from tafe.errors import UsageError
from tafe.inquiry import CLOCKS, Question
from tafe.lifecycle import State

if TYPE_CHECKING:
    from tafe.scoreboard import Scoreboard, Slot

DEFAULT_S = 5.0  # thousands of requests of a busy worker
SHORTEST_S, LONGEST_S = 0.1, 60.0  # a tick of the worker; requests take a multiple of their time meanwhile
# A worker looks ten times a second, and ten thousand functions are written down in a second; on a busy machine, later.
GRACE_S = 10.0
LONGEST_ANSWER_S = LONGEST_S + 2 * GRACE_S
_POLL_S = 0.05
_ENDING_S = 1.0  # for a worker that stops: to collect what ten thousand functions have done, several times over

_log = logging.getLogger("tafe.worker")


class Refused(Exception):
    """No recording, and why."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = f"{status.value} {status.phrase}"


# -- the worker


def answer(slot: Slot) -> None:
    """Begin to record if that is asked for, end it if nobody waits; called on the hub, some times a second."""
    global _recorder  # noqa: PLW0603 - a worker records one at a time
    question = slot.inquiry.take()
    if question is not None:
        _over.clear()
        _recorder = gevent.spawn(_record, slot, question)
    elif slot.inquiry.is_withdrawn():
        _over.set()


def end() -> None:
    """The worker stops: end what is being recorded, in order."""
    _over.set()
    if _recorder is not None:
        _recorder.join(_ENDING_S)


_over = Event()  # the recording is to end now
_recorder: gevent.Greenlet[[Slot, Question], None] | None = None


def _record(slot: Slot, question: Question) -> None:
    pieces: Iterator[bytes]
    try:
        from tafe import profiling

        _log.info("worker %d records its functions for %g s", os.getpid(), question.length_s)
        pieces = profiling.record_functions(question.length_s, question.clock, _over)
    except UsageError as error:
        pieces = iter([_failure(HTTPStatus.SERVICE_UNAVAILABLE, str(error))])
    except Exception as error:  # noqa: BLE001 - whoever waits is to be told
        _log.exception("functions cannot be recorded")
        pieces = iter([_failure(HTTPStatus.INTERNAL_SERVER_ERROR, repr(error))])
    gevent.get_hub().threadpool.apply(slot.inquiry.answer, (pieces,))  # ten thousand functions take 0.1 s


def _failure(status: HTTPStatus, reason: str) -> bytes:
    return json.dumps({"status": status.value, "error": reason}).encode()


# -- the admin process


def ask(board: Scoreboard, query: str, gone: Callable[[], bool]) -> bytes:
    """The answer to `worker=PID&seconds=5&clock=cpu&format=pstats`; `Refused` if there is none. Takes its time.

    `gone()`: whether the asker has left; then the recording ends.
    """
    question, pid, format_ = _parsed(query)
    slot = _worker(board, pid)
    pid = slot.pid
    number = slot.inquiry.ask(question)
    if number is None:
        again = f"ask again in {slot.inquiry.left_s() + 1:.0f} s"
        raise Refused(HTTPStatus.CONFLICT, f"worker {pid} is recording already: {again}")
    try:
        _wait_until_taken(slot, pid, number, gone)
        data = _wait_until_answered(slot, pid, number, gone, question.length_s)
    except BaseException:  # this request may be ended, too
        if slot.pid == pid:  # else it is another worker's
            slot.inquiry.withdraw(number)
        raise
    if data.startswith(b"{"):
        told = json.loads(data)
        raise Refused(HTTPStatus(told["status"]), told["error"])
    from tafe import profiling

    return profiling.shown_functions(data, format_)


_PID = re.compile("[0-9]{1,10}")


def _parsed(query: str) -> tuple[Question, int, str]:
    from tafe.profiling import FUNCTION_FORMATS

    given = {"worker": "0", "seconds": str(DEFAULT_S), "clock": CLOCKS[0], "format": "pstats"}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in given:
            raise Refused(HTTPStatus.BAD_REQUEST, f"{name!r} means nothing here: {', '.join(given)} do")
        given[name] = value
    if given["clock"] not in CLOCKS:
        raise Refused(HTTPStatus.BAD_REQUEST, f"{given['clock']!r} is not a clock: {' or '.join(CLOCKS)}")
    if given["format"] not in FUNCTION_FORMATS:
        raise Refused(HTTPStatus.BAD_REQUEST, f"{given['format']!r} is not a format: {', '.join(FUNCTION_FORMATS)}")
    if not _PID.fullmatch(given["worker"]):
        raise Refused(HTTPStatus.BAD_REQUEST, f"{given['worker']!r} is not the process id of a worker")
    try:
        length_s = float(given["seconds"])
    except ValueError:
        length_s = 0.0
    if not SHORTEST_S <= length_s <= LONGEST_S:
        allowed = f"{SHORTEST_S:g} to {LONGEST_S:g}"
        raise Refused(HTTPStatus.BAD_REQUEST, f"{given['seconds']!r} is not a number of seconds from {allowed}")
    return Question(length_s, given["clock"]), int(given["worker"]), given["format"]


def _worker(board: Scoreboard, pid: int) -> Slot:
    """Which is asked; `pid` 0: the first that is ready."""
    living = list(board.used())
    for slot in living:
        if slot.pid == pid or (not pid and slot.state is State.READY):
            return slot
    there = ", ".join(str(slot.pid) for slot in living) or "none"
    what = f"process {pid} is no worker of this server" if pid else "no worker is ready"
    raise Refused(HTTPStatus.NOT_FOUND, f"{what}; its workers are: {there}")


def _wait_until_taken(slot: Slot, pid: int, number: int, gone: Callable[[], bool]) -> None:
    end_s = time.monotonic() + GRACE_S
    while not slot.inquiry.is_taken(number):
        _answer(slot, pid, number)
        _wait(slot, pid, end_s, gone)


def _wait_until_answered(slot: Slot, pid: int, number: int, gone: Callable[[], bool], length_s: float) -> bytes:
    end_s = time.monotonic() + length_s + GRACE_S
    while (data := _answer(slot, pid, number)) is None:
        _wait(slot, pid, end_s, gone)
    return data


def _wait(slot: Slot, pid: int, end_s: float, gone: Callable[[], bool]) -> None:
    if time.monotonic() > end_s:
        raise Refused(HTTPStatus.GATEWAY_TIMEOUT, _stuck(slot, pid))
    if gone():
        raise Refused(HTTPStatus.BAD_REQUEST, "the asker has gone")  # which nobody reads
    gevent.sleep(_POLL_S)


def _answer(slot: Slot, pid: int, number: int) -> bytes | None:
    gone = Refused(HTTPStatus.BAD_GATEWAY, f"worker {pid} has ended, and its recording with it")
    if slot.pid != pid:
        raise gone
    try:
        return slot.inquiry.answer_of(number, pid)
    except OSError:
        raise gone from None


def _stuck(slot: Slot, pid: int) -> str:
    silent_s = (time.monotonic_ns() - slot.beat_ns) / 1e9
    return f"worker {pid} does not answer: its hub last turned {silent_s:.1f} s ago (/workers tells where it is stuck)"

"""The process that loads the application, as seen from the command: started, waited for, and surely ended.

It leads a session of its own: what the application has forked ends with it, and a Ctrl-C is the command's alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from tafe.errors import UsageError
from tafe.load import LoadFailed
from tafe.profiling import plain

_LIMIT_S = 60.0  # as a worker has to load it (--start-deadline)
_STOPPING = (signal.SIGTERM, signal.SIGHUP)  # those that would end the command, and leave the process


class _Ended(UsageError):
    """The process ended, or had to be ended, while it loaded the application."""

    exit_status = 3  # as for a worker


def ask(app: str) -> list[dict[str, Any]]:
    """What was found. `LoadFailed` with what the application raised; another `UsageError` if there is no answer."""
    with tempfile.NamedTemporaryFile() as file:
        status = _run([sys.executable, "-m", "tafe.doctor", app, file.name], app)
        text = file.read()
    try:
        told = json.loads(text)
    except ValueError:
        raise _Ended(f"{app}: the process that loads it ended with status {status}") from None
    if "error" in told:
        shown = "\n".join(map(plain, told["error"].splitlines()))
        raise LoadFailed(f"{app} cannot be loaded\n{shown}")
    findings: list[dict[str, Any]] = told["findings"]
    return findings


def _run(command: list[str], app: str) -> int:
    """Its exit status."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with _stopped_by_exception():
        # What the application prints while it is loaded is not the answer, and nobody is there to be asked.
        process = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
        )
        try:
            return process.wait(_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise _Ended(f"{app} is not loaded after {_LIMIT_S:g} s") from None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # nothing was forked
            process.wait()


@contextmanager
def _stopped_by_exception() -> Iterator[None]:
    """Have the signals that end the command unwind it first."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)  # as a shell reports it

    before = {number: signal.signal(number, stop) for number in _STOPPING if signal.getsignal(number) == signal.SIG_DFL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

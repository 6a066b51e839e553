"""The commands that look into a server that runs; `cli.py` has those that start one."""

from __future__ import annotations

import json
import os
import sys
from urllib.parse import urlencode

import click

from tafe.asking import Admin
from tafe.errors import UsageError
from tafe.function_profile import GRACE_S, LONGEST_S, SHORTEST_S
from tafe.inquiry import CLOCKS
from tafe.profiling import FUNCTION_FORMATS, plain, write_private

_NEXT = {  # what to do with a file of each format
    "pstats": "python -m pstats {}",
    "callgrind": "callgrind_annotate --inclusive=yes {}   (or kcachegrind)",
    "speedscope": "open {} at speedscope.app",
}


class NotRecorded(UsageError):
    """The server said no, or the file cannot be written, which is nobody's mistake in typing."""

    exit_status = 1


def profile(where: str, worker: int | None, seconds: float, clock: str, format_: str, output: str | None) -> int:
    """Have a worker record its functions, and write what it says to a file of our own, or to standard output."""
    _check(seconds, clock, format_)
    if output is None and sys.stdout.isatty():
        raise UsageError("the answer is for programs, not for a terminal", try_="tafe profile -o FILE")
    if output is not None:
        _check_writable(output)
    asked = {"seconds": seconds, "clock": clock, "format": format_, **({} if worker is None else {"worker": worker})}
    status, body = Admin(where).ask("POST", f"/profile?{urlencode(asked)}", seconds + 2 * GRACE_S + 5.0)
    if status != 200:
        raise NotRecorded(_reason(status, body))
    if output is None:
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()
        return 0
    try:
        write_private(output, body)
    except OSError as error:
        raise NotRecorded(f"cannot write {output!r}: {error.strerror}", try_="name another file with -o") from None
    click.echo(f"wrote {output}; next: {_NEXT[format_].format(output)}", err=True)
    return 0


def _check(seconds: float, clock: str, format_: str) -> None:
    """Say at once what the server would not take."""
    if not SHORTEST_S <= seconds <= LONGEST_S:
        allowed = f"{SHORTEST_S:g} to {LONGEST_S:g}"
        raise UsageError(f"--seconds: {seconds:g} is out of bounds", allowed=allowed, try_="tafe profile --seconds 5")
    for flag, given, words in (("--clock", clock, CLOCKS), ("--format", format_, tuple(FUNCTION_FORMATS))):
        if given not in words:
            allowed = ", ".join(words)
            raise UsageError(f"{flag}: {given!r} is not known", allowed=allowed, try_=f"tafe profile {flag} {words[0]}")


def _check_writable(path: str) -> None:
    """Say now, not after the recording, that it cannot be written."""
    folder = os.path.dirname(path) or "."
    if not path or os.path.isdir(path) or not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise UsageError(f"-o: cannot write {path!r}", allowed="a file in a directory that may be written to")


def _reason(status: int, body: bytes) -> str:
    """What the admin process says, or the server in its own shape, as when it has too much to do."""
    try:
        error = json.loads(body)["error"]
        said = str(error["message"]) if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"the server answers {status}"
    return "\n".join(map(plain, said.splitlines()))

"""The commands that look into a server that runs; `cli.py` has those that start one."""

from __future__ import annotations

import json
import os
import sys
from urllib.parse import urlencode

import click

from tafe.asking import Admin
from tafe.errors import UsageError
from tafe.function_profile import GRACE_S

_NEXT = {  # what to do with a file of each format
    "pstats": "python -m pstats {}",
    "callgrind": "callgrind_annotate --inclusive=yes {}   (or kcachegrind)",
    "speedscope": "open {} at speedscope.app",
}


class NotRecorded(UsageError):
    """The server said no, which is nobody's mistake in typing."""

    exit_status = 1


def profile(where: str, worker: int | None, seconds: float, clock: str, format_: str, output: str | None) -> int:
    """Have a worker record its functions, and write what it says to a file of our own, or to standard output."""
    if output is None and sys.stdout.isatty():
        raise UsageError("the answer is for programs, not for a terminal", try_="tafe profile -o FILE")
    if output is not None:
        _check_writable(output)
    asked = {"seconds": seconds, "clock": clock, "format": format_, **({"worker": worker} if worker else {})}
    status, body = Admin(where).ask("POST", f"/profile?{urlencode(asked)}", seconds + 2 * GRACE_S + 5.0)
    if status != 200:
        raise NotRecorded(_reason(status, body))
    if output is None:
        sys.stdout.buffer.write(body)
        return 0
    with open(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        os.fchmod(file.fileno(), 0o600)  # it may have been there
        file.write(body)
    click.echo(f"wrote {output}; next: {_NEXT[format_].format(output)}", err=True)
    return 0


def _check_writable(path: str) -> None:
    """Say now, not after the recording, that it cannot be written."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise UsageError(f"-o: cannot write {path!r}", allowed="a file in a directory that may be written to")


def _reason(status: int, body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"the server answers {status}"

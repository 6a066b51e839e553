"""`tafe top`: what the workers of a running server do, a screen a second.

history.py works out rates and times from two answers of the admin process (/figures); screen.py makes lines of them;
terminal.py has the terminal. Without one, or on a dumb one, a screen is printed below the other.
Limits. Percentiles are read off the buckets that monitoring has, so they are as coarse as those; what a worker has
counted is a second old at most.
"""

from __future__ import annotations

import json
import time

import click

from tafe.asking import START, Admin
from tafe.errors import UsageError
from tafe.top.history import History, Now
from tafe.top.screen import draw
from tafe.top.terminal import UNBOUNDED, Terminal, styles

_EVERY_S = 1.0  # as often as a worker publishes
_ONCE_S = 3.0  # until each worker has published twice, or never will
_POLL_S = 0.25
# What an answer that somebody else gives leads to.
_OF_ANOTHER_SHAPE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def run(where: str, *, once: bool) -> int:
    """Until somebody types q, or once. `UsageError` if there is no server to ask."""
    admin = Admin(where)
    history = History()
    now = _look(admin, history)
    if once:
        until_s = time.monotonic() + _ONCE_S
        while not now.is_complete and time.monotonic() < until_s:
            time.sleep(_POLL_S)
            now = _look(admin, history)
        click.echo("\n".join(_drawn(admin, now, *UNBOUNDED)))
        return 0
    with Terminal() as terminal:
        while True:
            terminal.show(_drawn(admin, now, *terminal.size()))
            if terminal.wants_to_end(_EVERY_S):
                return 0
            now = _look(admin, history)


def _drawn(admin: Admin, now: Now, columns: int, rows: int) -> list[str]:
    return draw(str(admin.address), now, time.strftime("%H:%M:%S"), columns, rows, styles())


def _look(admin: Admin, history: History) -> Now:
    told = admin.get("/figures")
    try:
        return history.add(json.loads(told), time.monotonic())
    except _OF_ANOTHER_SHAPE:
        raise UsageError(f"{admin.address} is not the admin address of a tafe server", try_=START) from None

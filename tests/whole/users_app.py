"""A small service for outage tests: one row from the database, something slow, and who answered.

USERS_URL names the database; its table `users` has the columns id and name.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import tafe

if TYPE_CHECKING:
    from collections.abc import Iterator

app = tafe.App()
db = tafe.Database.from_url(os.environ["USERS_URL"], min_size=2, max_size=8)
running = 0


@app.get("/users/{id:int}")
def user(id: int) -> Any:  # noqa: A002  # the parameter is named by the path
    row = db.fetch_one("SELECT id, name FROM users WHERE id = %s", (id,))
    if row is None:
        raise tafe.NotFound("no such user")
    return row


@app.get("/pid")
def pid() -> Any:
    return {"pid": os.getpid()}


@app.get("/running")
def how_many_run() -> Any:
    return {"running": running}


@app.get("/slow")
def slow(seconds: float) -> Any:
    global running
    running += 1
    time.sleep(seconds)  # patched: the hub goes on
    return {"slept": seconds}


@app.get("/slow-stream")
def slow_stream(seconds: float) -> Iterator[str]:
    global running
    running += 1
    for number in range(4):
        yield f"piece {number}\n"
        time.sleep(seconds / 4)

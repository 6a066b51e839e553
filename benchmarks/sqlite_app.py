"""What sqlite_delay.py serves: orders out of a SQLite file, and a timer that notes how late it was called.

The timer is due every `TICK_S` of a fixed grid. When the hub comes late, each moment that passed meanwhile is noted
with its own lateness, so that a long stall is as many samples as it was due moments. libev's epoll waits whole
milliseconds; that is part of the lateness.
"""

from __future__ import annotations

import os
import time
from typing import Any

import gevent

import tafe
from benchmarks import sqlite_orders
from benchmarks.peers import contract

TICK_S = 0.005

# A request may wait for a connection as long as it takes: what is measured is the hub.
db = tafe.Database.from_url(
    os.environ[contract.DATABASE_URL_VARIABLE], max_size=int(os.environ["BENCH_POOL_SIZE"]), acquire_timeout_s=10.0
)
app = tafe.App()
_late_us: list[int] = []


@app.get("/orders/{kind}")
def orders(kind: str, start: int, limit: int) -> list[dict[str, Any]]:
    """Orders, as dicts."""
    return db.fetch_all(sqlite_orders.QUERIES[kind], (start, limit))


@app.get("/late")
def late() -> list[int]:
    """Microseconds that the timer was late, each time since this was last asked for."""
    noted = _late_us.copy()
    _late_us.clear()
    return noted


@app.on_start
def start() -> None:
    """Begin to tick."""
    gevent.spawn(_tick)


def _tick() -> None:
    due_s = time.perf_counter()
    while True:
        due_s += TICK_S
        wait_s = due_s - time.perf_counter()
        if wait_s > 0:
            gevent.sleep(wait_s)
        _late_us.append(int((time.perf_counter() - due_s) * 1e6))

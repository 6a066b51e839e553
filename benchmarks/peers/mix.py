"""The two requests of threads.py, and what they answer: one row, and three queries with some Python.

`GET /mix/{id}` asks for one row, waits for a query that takes 5 ms on the server, asks for another row, and runs
`work`. Runs in the peers' environment and in ours, so it imports the standard library only.
"""

from __future__ import annotations

import os
import statistics
import time

from benchmarks.peers import contract

POOL_SIZE = 64  # as many as a server has threads: nobody waits for a connection, and all have the same number
SLOW_QUERY = "SELECT SLEEP(0.005)"
LOOPS_VARIABLE = "BENCH_WORK_LOOPS"
CONNECTION_VARIABLE = "BENCH_CONNECTION"  # MODULE:CLASS of the connections
STOCK_CONNECTION = "pymysql.connections:Connection"


def loops() -> int:
    """How much `work` a request of the mix has: calibrated by the harness, the same for all."""
    return int(os.environ.get(LOOPS_VARIABLE, "0"))


def work(count: int) -> int:
    """Bytecode that neither waits nor allocates much: what an application's own code costs."""
    value = 1
    for number in range(count):
        value = (value * 31 + number) & 0xFFFFFF
    return value


def work_us(count: int) -> float:
    """What `work` takes here and now: the median of 200 times."""
    times = []
    for _ in range(200):
        started = time.perf_counter_ns()
        work(count)
        times.append(time.perf_counter_ns() - started)
    return round(statistics.median(times) / 1000, 1)


def other_id(user_id: int) -> int:
    """Whom the third query asks for."""
    return user_id % contract.USERS + 1


def mix_bytes(user_id: int, checked: int) -> bytes:
    """The answer to `GET /mix/{user_id}`; `checked` is what `work` returned."""
    other = other_id(user_id)
    return b'{"id":%d,"name":"user %d","other":"user %d","work":%d}' % (user_id, user_id, other, checked)

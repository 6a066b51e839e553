"""The ground truth: stalls of known line, function, count and route, among cooperative twins.

    python -m tests.profiler.workload DIRECTORY

Requests are raw greenlets started from hub callbacks, as a server would. Each stall marks its line with `# stalls`; a
loop's line is whichever of the loop's. Prints for how long it had no CPU.
"""

from __future__ import annotations

from gevent import monkey

real_sleep = monkey.get_original("time", "sleep")
monkey.patch_all()

import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402

import gevent  # noqa: E402
from greenlet import greenlet  # noqa: E402

import profiler  # noqa: E402
from tests.profiler.truth.disturbed import without_a_cpu_s  # noqa: E402

STALL_S = 0.03
SLEEPS, LOOPS, CHILDREN, TWINS = 7, 9, 3, 50
TWIN_ROUNDS = 40  # of 0.1 ms or so each: 4 ms of work a twin, none of it in one piece


def unpatched_sleep() -> None:
    real_sleep(STALL_S)  # stalls


def cpu_loop() -> None:
    until = time.thread_time() + STALL_S  # CPU time: as much work on a busy machine
    total = 0
    while time.thread_time() < until:  # stalls
        for number in range(100):
            total += number * number
        total %= 7


def stalling_child() -> None:
    gevent.spawn(sleep_in_child).join()


def sleep_in_child() -> None:
    real_sleep(STALL_S)  # stalls


def patched_sleep() -> None:
    time.sleep(STALL_S)


def yielding_loop() -> None:
    total = 0
    for _ in range(TWIN_ROUNDS):
        for number in range(1000):
            total += number * number
        gevent.sleep(0)


PLAN: list[tuple[Callable[[], None], int]] = [
    (unpatched_sleep, SLEEPS),
    (cpu_loop, LOOPS),
    (stalling_child, CHILDREN),
    (patched_sleep, TWINS),
    (yielding_loop, TWINS),
]


def main(directory: str) -> None:
    """Run the plan, the kinds interleaved, a new request every 2 ms."""
    session = profiler.install(directory)
    hub = gevent.get_hub()
    unfinished: set[str] = set()

    def serve(handler: Callable[[], None], request_id: str) -> None:
        span = session.begin(f"GET /{handler.__name__}", request_id, session.turn.ready_ns)
        handler()
        session.end(span)
        unfinished.remove(request_id)

    requests = [(number, handler) for handler, count in PLAN for number in range(count)]
    for number, handler in sorted(requests, key=lambda request: request[0]):
        request_id = f"{handler.__name__}-{number}"
        unfinished.add(request_id)
        hub.loop.run_callback(greenlet(serve, hub).switch, handler, request_id)
        gevent.sleep(0.002)
    while unfinished:
        gevent.sleep(0.01)
    session.close()
    print(without_a_cpu_s())


if __name__ == "__main__":
    main(sys.argv[1])

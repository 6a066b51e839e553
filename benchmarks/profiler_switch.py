"""What the profiler's hook costs: a switch, a request, a request that waits, a turn of the loop.

    python -m benchmarks.profiler_switch                  ns, the least of several rounds, and the least bare
    round beside it python -m benchmarks.profiler_switch --instructions   instructions, from valgrind: (2 N
    rounds - N rounds) / N

A round switches to another greenlet and back, two switches, as a hello request does. `request` adds begin,
end and the folding of finished requests, with one turn of the loop for 64 of them; `waiting` adds two more
switches inside the request, as one query does. `turn` is the three callbacks that frame a turn of the loop,
which serve all requests of that turn; libev's own work to call them is not in it.
Instructions repeat within a percent and do not depend on what else the machine does; ns do.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable

from gevent import get_hub
from greenlet import getcurrent, greenlet

from profiler import hook as hooks
from profiler.recorder import Recorder
from profiler.usage import Meter

MODES = ("bare", "switch", "request", "waiting", "turn")
ROUNDS = 30_000  # of the timed runs; some 50 ms each
REPEATS = 15  # of which the fastest counts: the others were disturbed
COUNTED = 2_560  # rounds under valgrind: 20 batches, and the interpreter has specialised its bytecode long before
REQUESTS_A_TURN = 64  # a busy worker's: its turn stamps when they became ready, and folds them
NEVER_S = 3600.0  # a threshold that nothing reaches


def make_step(mode: str) -> tuple[Callable[[], object], hooks.Hook]:
    """One round as a callable, and its hook; the tracer is installed as the mode needs."""
    recorder = Recorder()
    links = hooks.Links(
        hub=get_hub(),
        meter=Meter(),
        turn=hooks.Turn(),
        batch=recorder.batch,
        errors=recorder.errors,
        finished=deque(),
        fold=recorder.fold,
        woken=lambda: None,
    )
    hook = hooks.Hook(links, NEVER_S)
    parent = getcurrent()
    begin, end, turn_of = hook.begin, hook.end, links.turn

    def switch() -> None:
        while True:
            parent.switch()

    def request() -> None:
        while True:
            for _ in range(REQUESTS_A_TURN):
                end(begin("GET /hello", "a-request-id", turn_of.ready_ns))
                parent.switch()
            hook.after_poll()

    def waiting() -> None:
        while True:
            for _ in range(REQUESTS_A_TURN):
                span = begin("GET /hello", "a-request-id", turn_of.ready_ns)
                parent.switch()
                end(span)
                parent.switch()
            hook.after_poll()

    def turn() -> None:
        hook.before_callbacks()
        hook.before_poll()
        hook.after_poll()

    if mode != "bare":
        hook.install()
    if mode == "turn":
        return turn, hook
    other = greenlet({"request": request, "waiting": waiting}.get(mode, switch))
    if mode != "waiting":
        return other.switch, hook

    def twice() -> None:
        other.switch()
        other.switch()

    return twice, hook


def run(step: Callable[[], object], rounds: int) -> None:
    """Nothing but the rounds."""
    for _ in range(rounds):
        step()


def nanoseconds(mode: str) -> float:
    """The least of the repeats, a round."""
    step, hook = make_step(mode)
    best_s = float("inf")
    for _ in range(REPEATS):
        started_s = time.perf_counter()
        run(step, ROUNDS)
        best_s = min(best_s, time.perf_counter() - started_s)
    if mode != "bare":
        hook.remove()
    return best_s / ROUNDS * 1e9


def instructions(mode: str) -> float:
    """What a round executes in user space, by valgrind."""
    counted = []
    for rounds in (COUNTED, 2 * COUNTED):
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable]
        printed = subprocess.run(
            [*command, "-m", "benchmarks.profiler_switch", "--count", mode, "--rounds", str(rounds)],
            check=True,
            capture_output=True,
            text=True,
        )
        found = re.search(r"Collected : (\d+)", printed.stderr)
        if found is None:
            raise SystemExit(f"valgrind said something unexpected:\n{printed.stderr}")
        counted.append(int(found[1]))
    return (counted[1] - counted[0]) / COUNTED


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--count", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=COUNTED, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.count:
        run(make_step(given.count)[0], given.rounds)
        os._exit(0)  # the end of the interpreter is not to be counted
    measure, unit = (instructions, "instructions") if given.instructions else (nanoseconds, "ns")
    bare = 0.0
    print(f"{'':<8} {unit + ' a round':>22} {'more than bare':>16}")
    for mode in MODES:
        value = measure(mode)
        if mode == "bare":
            bare = value
        # Four bare switches have no profiler in a waiting request, none in a turn.
        without = {"waiting": 2 * bare, "turn": 0.0}.get(mode, bare)
        print(f"{mode:<8} {value:>22,.0f} {value - without:>16,.0f}")


if __name__ == "__main__":
    main()

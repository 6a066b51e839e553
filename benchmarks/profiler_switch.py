"""What the profiler's hook costs, compiled and interpreted: a switch, a request, one that waits, a turn of the loop.

    python -m benchmarks.profiler_switch                    ns: the least of several rounds
    python -m benchmarks.profiler_switch --instructions     in user space, by valgrind: (3 N rounds - N rounds) / 2 N

A round switches to another greenlet and back, two switches, as a hello request does; `tracer` has the cheapest tracer
there can be, so that is what greenlet itself takes to call any. `request` adds begin, end and the folding of finished
requests, with one turn of the loop for 64 of them; `waiting` adds two more switches inside the request, as one query
does. `turn` is the three callbacks that frame a turn of the loop, which serve all requests of that turn; libev's own
work to call them is not in it. The caller is interpreted, and its loop, some 800 instructions, is in `request`.
Instructions repeat within a few percent (greenlet copies stacks with malloc, whose work depends on the addresses) and
do not depend on what else the machine does; ns do.
"""

from __future__ import annotations

import argparse
import operator
import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable

from greenlet import getcurrent, greenlet, settrace

import profiler
from profiler import hook as hooks
from profiler.model import THIS_TURN, Turn
from profiler.recorder import Recorder
from profiler.stalls import Links
from profiler.usage import Meter

MODES = ("bare", "tracer", "switch", "request", "waiting", "turn")
ROUNDS = 30_000  # of the timed runs; some 50 ms each
REPEATS = 15  # of which the fastest counts: the others were disturbed
COUNTED = 2_560  # rounds under valgrind: 20 batches, and the interpreter has specialised its bytecode long before
REQUESTS_A_TURN = 64  # a busy worker's: its turn stamps when they became ready, and folds them
NEVER_S = 3600.0  # a threshold that nothing reaches


def make_step(mode: str) -> tuple[Callable[[], object], hooks.Hook]:
    """One round as a callable, and its hook; the tracer is installed as the mode needs."""
    recorder = Recorder()
    links = Links(
        hub=getcurrent(),  # which plays its part: to switch to any other is a request's handing on of its work
        meter=Meter(),
        turn=Turn(),
        batch=recorder.batch,
        waited=recorder.waited,
        unusual=recorder.unusual,
        unsplit=recorder.unsplit,
        spare=recorder.spare,
        finished=deque(),
        fold=recorder.fold,
        woken=lambda: None,
    )
    hook = hooks.Hook(links, NEVER_S)
    parent = getcurrent()
    begin, end = hook.begin, hook.end

    def switch() -> None:
        while True:
            parent.switch()

    def request() -> None:
        while True:
            for _ in range(REQUESTS_A_TURN):
                end(begin("GET /hello", "a-request-id", THIS_TURN))
                parent.switch()
            hook.after_poll()

    def waiting() -> None:
        while True:
            for _ in range(REQUESTS_A_TURN):
                span = begin("GET /hello", "a-request-id", THIS_TURN)
                parent.switch()
                end(span)
                parent.switch()
            hook.after_poll()

    def turn() -> None:
        hook.before_callbacks()
        hook.before_poll()
        hook.after_poll()

    if mode == "tracer":
        settrace(operator.is_)  # of two arguments, in C, and makes nothing
    elif mode != "bare":
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
    step, _ = make_step(mode)
    best_s = float("inf")
    for _ in range(REPEATS):
        started_s = time.perf_counter()
        run(step, ROUNDS)
        best_s = min(best_s, time.perf_counter() - started_s)
    return best_s / ROUNDS * 1e9


def in_process(compiled: bool, *arguments: str, under: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """This module in a process of its own, which loads the modules of one kind."""
    return subprocess.run(
        [*under, sys.executable, "-m", "benchmarks.profiler_switch", *arguments],
        env={**os.environ, "PROFILER_COMPILED": str(int(compiled))},
        check=True,
        capture_output=True,
        text=True,
    )


def instructions(mode: str, compiled: bool) -> float:
    """What a round executes in user space, by valgrind."""
    counted = []
    for rounds in (COUNTED, 3 * COUNTED):
        under = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
        said = in_process(compiled, "--count", mode, "--rounds", str(rounds), under=under).stderr
        found = re.search(r"Collected : (\d+)", said)
        if found is None:
            raise SystemExit(f"valgrind said something unexpected:\n{said}")
        counted.append(int(found[1]))
    return (counted[1] - counted[0]) / (2 * COUNTED)


def table(measured: dict[str, dict[str, float]], unit: str) -> list[str]:
    """Lines: what each mode takes more than bare, and from that what a switch and a request do."""
    lines = [f"{unit + ' a round':<38}" + "".join(f"{kind:>14}" for kind in measured)]
    rows = {"bare: two switches without a profiler": {kind: of["bare"] for kind, of in measured.items()}}
    # Four bare switches have no profiler in a waiting request, none in a turn.
    for mode, bare in (("tracer", 1), ("switch", 1), ("request", 1), ("waiting", 2), ("turn", 0)):
        rows[f"{mode}, more than bare"] = {kind: of[mode] - bare * of["bare"] for kind, of in measured.items()}
    rows["a switch"] = {kind: (of["switch"] - of["bare"]) / 2 for kind, of in measured.items()}
    rows["a request besides its switches"] = {kind: of["request"] - of["switch"] for kind, of in measured.items()}
    return lines + [f"{name:<38}" + "".join(f"{value:>14,.0f}" for value in row.values()) for name, row in rows.items()]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--count", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=COUNTED, help=argparse.SUPPRESS)
    parser.add_argument("--time", choices=MODES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.count:
        run(make_step(given.count)[0], given.rounds)
        os._exit(0)  # the end of the interpreter is not to be counted
    if given.time:
        print(nanoseconds(given.time))
        return
    kinds = {"interpreted": False} if profiler.why_interpreted else {"compiled": True, "interpreted": False}
    measured: dict[str, dict[str, float]] = {kind: {} for kind in kinds}
    for mode in MODES:  # one kind beside the other: the machine may be slower later
        for kind, compiled in kinds.items():
            measured[kind][mode] = (
                instructions(mode, compiled)
                if given.instructions
                else float(in_process(compiled, "--time", mode).stdout)
            )
    print("\n".join(table(measured, "instructions" if given.instructions else "ns")))
    if profiler.why_interpreted:
        print(f"compiled: not measured, {profiler.why_interpreted}")


if __name__ == "__main__":
    main()

"""What a kept greenlet does between its jobs. Never compiled, unlike `greenlets.py`.

A suspended greenlet is asked for its context before it is taken again, and greenlet can answer only for one that
stopped in a frame of the interpreter: to it, a greenlet without a frame runs in another thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import greenlet


def keep(
    run: Callable[[Any], None], idle: list[greenlet.greenlet], hub: greenlet.greenlet, max_idle: int
) -> Callable[[Any], None]:
    """Return what a greenlet runs: `run(job)`, and again for each job it is taken for, until it is one too many."""
    wait = greenlet.greenlet.switch
    getcurrent = greenlet.getcurrent
    keep_idle = idle.append

    def loop(job: Any) -> None:
        while True:
            run(job)
            del job
            if len(idle) >= max_idle:
                return
            keep_idle(getcurrent())
            try:
                job = wait(hub)
            except BaseException:  # noqa: BLE001 - aimed at a request that is over: a late kill or timeout
                current = getcurrent()
                if current in idle:
                    idle.remove(current)
                return

    return loop

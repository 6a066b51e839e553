"""Whether the options of a session can be meant: asked where they are given, before anything is installed. Pure.

`profiler.install` checks with it, and `wsgi.Middleware`, whose session begins with a request, which is late to be told.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from profiler.errors import ProfilerError

SHORTEST_SLOW_SLICE_MS = 1.0  # the watchdog cannot sample less
LONGEST_SLOW_SLICE_MS = 60_000.0  # gunicorn kills a worker that is silent for 30 s
ANY_ROUTE = "*"  # of an objective: each that has none of its own

_BY_ROUTE = f"give each route a length in ms, more than 0; {ANY_ROUTE!r} is any other route"


def check(directory: Any, slow_slice_ms: Any, objectives: Any) -> None:
    """Raise ProfilerError for a value of another type than `profiler.install` names, or out of range."""
    if not isinstance(directory, str | os.PathLike | None) or directory == "":
        raise ProfilerError(f"directory is {directory!r}", "name a directory, or give None to write nothing")
    if not _is_number(slow_slice_ms) or not SHORTEST_SLOW_SLICE_MS <= slow_slice_ms <= LONGEST_SLOW_SLICE_MS:
        raise ProfilerError(
            f"slow_slice_ms is {slow_slice_ms!r}",
            f"give a length from {SHORTEST_SLOW_SLICE_MS:g} to {LONGEST_SLOW_SLICE_MS:g} ms",
        )
    if not isinstance(objectives, Mapping | None):
        raise ProfilerError(f"objectives is {objectives!r}, and no dict", _BY_ROUTE)
    for route, objective_ms in (objectives or {}).items():
        if not isinstance(route, str):
            raise ProfilerError(f"{route!r} is no route of an objective", _BY_ROUTE)
        if not _is_number(objective_ms) or not 0 < objective_ms < math.inf:
            raise ProfilerError(f"the objective of {route!r} is {objective_ms!r}", _BY_ROUTE)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""What the doctor has found at one place."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One."""

    file: str  # empty: it has no place in a file
    line: int
    function: str  # empty: at the top of a module
    source: str  # the line
    what: str
    why: str
    instead: str
    cause: str = "blocking"  # as the profiler would call it

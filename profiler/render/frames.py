"""A site as the frames of a stack, outermost first: for the formats that draw stacks.

The cause is the innermost frame, so that a picture shows not only where but why. What the machine did has a frame
of its own around it: it is not to be read as the code's. A site without a stack, as the row for all further ones, is
one frame. One stack a site is kept: that of the first slice that was seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

INNOCENT = "(the machine had no CPU free: not to blame)"
_FRAME = re.compile(r"(.*):(\d+) (\S+)")


class Frame(NamedTuple):
    """One of a stack; without a file it only groups or labels."""

    function: str
    file: str = ""
    line: int = 0


def frames_of(site: Mapping[str, Any]) -> list[Frame]:
    """The frames of a report's site; those that group and label included."""
    stack = [_frame(described) for described in site["stack"]]
    if not stack:
        stack = [Frame(site["function"] or "(a line that was not seen)", site["file"], site["line"])]
    return [*([Frame(INNOCENT)] if site["innocent"] else []), *stack, Frame(f"[{site['cause']}]")]


def _frame(described: str) -> Frame:
    parts = _FRAME.fullmatch(described)
    return Frame(described) if parts is None else Frame(parts[3], parts[1], int(parts[2]))

"""How figures, places and texts from strangers are written, for the formats that people read.

Widths are columns of a terminal: an ideograph takes two, an accent that combines none. What does not print is shown as
`?`: a route may hold what would move the cursor, or turn the line around. Pure but for where the reader stands.
"""

from __future__ import annotations

import os
import re
from typing import Any
from unicodedata import combining, east_asian_width

_GAP = "..."
_LIBRARIES = re.compile(r".*/(?:site-packages|dist-packages|lib/python3\.\d+)/(?=.)")
NOT_SEEN = "a line that was not seen"


def plain(text: str) -> str:
    """On one line, and nothing but what is to be read."""
    return text if text.isascii() and text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def columns(text: str) -> int:
    """How many it takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    return 2 if east_asian_width(character) in "WF" else 0 if combining(character) else 1


def cut(text: str, width: int) -> str:
    """Its beginning, if it takes more columns than that."""
    return text if columns(text) <= width else _first(text, width - len(_GAP)) + _GAP[:width]


def cut_path(path: str, width: int) -> str:
    """Its last folders and its file, as far as there is room; the whole name of the file in any case."""
    shorter = path
    while columns(shorter) > width and "/" in path:
        path = path.partition("/")[2]
        shorter = f"{_GAP}/{path}"
    return shorter


def _first(text: str, width: int) -> str:
    for number, character in enumerate(text):
        width -= _columns(character)
        if width < 0:
            return text[:number]
    return text


def wrap(text: str, first: str, rest: str, width: int) -> list[str]:
    """Its words in lines that begin with `first`, and then with `rest`."""
    lines = [first]
    for word in text.split():
        if columns(lines[-1]) + columns(word) + 1 > width and lines[-1] not in (first, rest):
            lines.append(rest)
        lines[-1] += word if not lines[-1] or lines[-1].endswith(" ") else f" {word}"
    return lines


def short_path(path: str) -> str:
    """Relative in the folder where the reader is, which is the project's; of a library from its package on."""
    library = _LIBRARIES.match(path)
    if library is not None:
        return path[library.end() :]
    here = os.path.join(os.getcwd(), "")
    return path.removeprefix(here)


def place_of(one: dict[str, Any]) -> str:
    """`file:line`."""
    return f"{short_path(one['file'])}:{one['line']}" if one["file"] else NOT_SEEN


def excused(one: dict[str, Any]) -> str:
    """Behind a place: that it is not to blame for the time; "" where it is."""
    return {"starved": ", which had no CPU", "gil": ", a thread with the GIL"}.get(one["excuse"], "")


def milliseconds(ms: float) -> str:
    """With its unit, in three figures or so."""
    return f"{ms / 1000:.2f} s" if ms >= 10_000 else f"{number(ms)} ms"


def number(ms: float) -> str:
    """Without a unit."""
    return f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:,.0f}"


def duration(seconds: float) -> str:
    """Of a window."""
    for unit_s, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.1f} {unit}"
    return f"{seconds:.1f} s"


def many(count: int, noun: str) -> str:
    """`1 line`, `2 lines`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def split_of(site: dict[str, Any]) -> list[str]:
    """How a site's time divides by cause, in whole percent; none if it was not divided."""
    total_ms = sum(site["split_ms"].values())
    return [f"{cause} {ms / total_ms:.0%}" for cause, ms in site["split_ms"].items() if ms >= total_ms / 100 > 0]


def stuck(site: dict[str, Any]) -> str:
    """Of a site in which a worker was when it was last heard of."""
    return f"not over after {milliseconds(site['stuck_ms'])}"


def accepted(allowed: dict[str, Any]) -> str:
    """What an allow list says of a site (profiler/allow.py), in a sentence."""
    if allowed["expired"]:
        return f"it was allowed until {allowed['until']}, which is over: {allowed['reason']}"
    return f"it is allowed until {allowed['until']}: {allowed['reason']}"


def warnings(report: dict[str, Any]) -> list[str]:
    """In what the report falls short, a sentence each."""
    dropped, displaced = (sum(worker[name] for worker in report["workers"]) for name in ("dropped", "displaced"))
    left_out = report["left_out"]
    lines = []
    dropped -= min(dropped, left_out["unreadable_lines"])  # which are among them
    if dropped:
        lines.append(f"{many(dropped, 'record')} dropped: counts are too low by up to that many")
    if left_out["unreadable_lines"]:
        lines.append(f"{many(left_out['unreadable_lines'], 'line')} could not be read, as a killed worker leaves one")
    if left_out["files_of_another_schema"]:
        lines.append(f"{many(left_out['files_of_another_schema'], 'file')} of another schema skipped")
    if displaced:
        lines.append(f"the tracer was displaced {many(displaced, 'time')}: something else calls greenlet.settrace")
    return lines

"""Collapsed stacks, as flamegraph.pl and its like read them: a line a site, `frame;frame;frame weight`.

The weight is harm in whole microseconds. A site that harmed nobody has 0: it is listed, and takes no room in a picture.
"""

from __future__ import annotations

from typing import Any

from profiler.render.frames import Frame, frames_of


def render(report: dict[str, Any]) -> str:
    """One line a site, in the report's order; "" without sites."""
    return "".join(f"{_stack(site)} {round(site['harm_ms'] * 1000)}\n" for site in report["sites"])


def _stack(site: dict[str, Any]) -> str:
    return ";".join(_plain(frame) for frame in frames_of(site))


def _plain(frame: Frame) -> str:
    """What separates frames, and ends a line, may not stand in one."""
    name = f"{frame.function} ({frame.file}:{frame.line})" if frame.file else frame.function
    return "".join(c if c.isprintable() else "?" for c in name).replace(";", ":")

"""A screen's lines, for any width and height. Pure.

Routes and lines come from strangers: nothing that would move the cursor gets through, and widths are columns.
"""

from __future__ import annotations

from collections.abc import Mapping

from tafe.profiling import cut, plain
from tafe.top.history import Now, Worker

PLAIN: Mapping[str, str] = {}
_HEADINGS = ("worker", "pid", "state", "req/s", "p50 ms", "p99 ms", "delay ms", "busy", "in flight", "conns")
_WIDTHS = (6, 8, 9, 9, 8, 8, 9, 5, 10, 7)
_BUSY = 0.8  # a hub with less than a fifth of its time left queues its requests


def draw(address: str, now: Now, clock: str, columns: int, rows: int, style: Mapping[str, str] = PLAIN) -> list[str]:
    """At most `rows` lines of at most `columns` columns, what `style` adds not counted: bold, alarm, end."""
    living = f"{len(now.workers)} worker{'' if len(now.workers) == 1 else 's'}"
    lines = [("bold", f"tafe top   {address}   {living}   {clock}"), ("", "")]
    lines.append(("bold", _row(_HEADINGS)))
    room = max(rows - len(lines) - 1, 0)  # for workers, below which is their sum
    shown = _that_fit(now.workers, room)
    for worker in shown:
        alarm = bool(worker.stuck) or (worker.busy or 0) > _BUSY
        lines.append(("alarm" if alarm else "", _row(_cells(worker))))
        if worker.stuck:
            lines.append(("alarm", f"       {worker.stuck}"))
    if len(shown) < len(now.workers):
        lines.append(("", f"       and {len(now.workers) - len(shown)} more"))
    lines.append(("bold", _row(_cells(now.total))))
    lines += [("", ""), *_sites(now)]
    return [_styled(kind, cut(plain(text), columns), style) for kind, text in lines[:rows]]


def _sites(now: Now) -> list[tuple[str, str]]:
    lately = f"in the last {max(now.window_s, 1.0):.0f} s"
    if not now.sites:
        return [("", f"no line has kept a hub {lately}")]
    heading = f"{'harm ms':>9}{'stalls':>8}{'delays':>9}   lines that kept a hub {lately}"
    lines = [("bold", heading)]
    for one in now.sites:
        lines.append(("", f"{one.harm_s * 1000:9.1f}{one.stalls:8.0f}{one.victims:9.0f}   {one.site}   [{one.cause}]"))
    return lines


def _that_fit(workers: list[Worker], room: int) -> list[Worker]:
    """All, or the worst of them, with a line left to count the rest."""
    if sum(map(_height, workers)) <= room:
        return workers
    fitting = []
    room -= 1
    for worker in _worst_first(workers):
        room -= _height(worker)
        if room < 0:
            break
        fitting.append(worker)
    return fitting


def _height(worker: Worker) -> int:
    return 2 if worker.stuck else 1


def _worst_first(workers: list[Worker]) -> list[Worker]:
    return sorted(workers, key=lambda one: (not one.stuck, -(one.busy or 0.0)))


def _cells(one: Worker) -> tuple[str, ...]:
    return (
        one.name,
        str(one.pid or ""),
        one.state,
        _number(one.requests_per_s, 1, 0),
        _number(one.p50_s, 1000, 1),
        _number(one.p99_s, 1000, 1),
        _number(one.delay_s, 1000, 1),
        "-" if one.busy is None else f"{one.busy:.0%}",
        str(one.in_flight),
        "-" if one.connections is None else str(one.connections),
    )


def _number(value: float | None, scale: float, digits: int) -> str:
    return "-" if value is None else f"{value * scale:.{digits}f}"


def _row(cells: tuple[str, ...]) -> str:
    named = [cell.ljust(width) for cell, width in zip(cells[:1], _WIDTHS[:1], strict=True)]
    return "".join([*named, *(cell.rjust(width) for cell, width in zip(cells[1:], _WIDTHS[1:], strict=True))]).rstrip()


def _styled(kind: str, text: str, style: Mapping[str, str]) -> str:
    return f"{style[kind]}{text}{style['end']}" if style.get(kind) else text

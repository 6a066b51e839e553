"""Latency against offered rate as a picture: SVG, readable on light and on dark pages.

    python -m benchmarks.threads_picture    draws the newest result that has the section into results/threads.svg

A column for each request, a row for each percentile, a line for each server; latency on a logarithmic axis that all
panels share. A point with errors is a ring; one that falls among lost requests sits on the upper edge. Pure but for
`main`: a result comes in, text goes out. Only shapes and text: it runs where scripts and style sheets are taken out,
in light colours then.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.threads_servers import NAMES

_ROWS = (("p50_ms", "p50"), ("p99_ms", "p99"), ("p999_ms", "p99.9"))
_TITLES = {"query": "one-row query", "mix": "mix: three queries, one of 5 ms; 0.3 ms of Python"}
_PANEL_WIDTH, _PANEL_HEIGHT = 370, 170
_LEFT, _TOP, _GAP_X, _GAP_Y = 62, 80, 58, 22
_LEGEND_COLUMNS, _LEGEND_WIDTH = 4, 190
_ERRORS = "with errors"
# By server, light and dark page: told apart by lightness too, ours the darkest.
_COLOURS = (
    ("#0550ae", "#79c0ff"),
    ("#0a7d4b", "#56d364"),
    ("#cf222e", "#ff7b72"),
    ("#bc4c00", "#ffa657"),
    ("#8250df", "#d2a8ff"),
    ("#6e7781", "#b1bac4"),
)
_RESULTS = Path(__file__).with_name("results")


def svg(result: Mapping[str, Any]) -> str:
    """The picture of one result."""
    figures: Sequence[Mapping[str, Any]] = result["figures"]
    scenarios = list(dict.fromkeys(figure["scenario"] for figure in figures))
    low, high = _decades([figure[name] for figure in figures for name, _ in _ROWS if figure[name] is not None])
    width = _LEFT + len(scenarios) * (_PANEL_WIDTH + _GAP_X)
    height = _TOP + len(_ROWS) * (_PANEL_HEIGHT + _GAP_Y) + 24
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" font-family="system-ui, sans-serif" font-size="12" role="img">'
        ),
        "<title>Latency against offered rate, by server</title>",
        _style(),
        *_legend([name for name in NAMES if any(figure["contestant"] == name for figure in figures)]),
    ]
    for column, scenario in enumerate(scenarios):
        mine = [figure for figure in figures if figure["scenario"] == scenario]
        most = max(figure["rate"] for figure in mine)
        left = _LEFT + column * (_PANEL_WIDTH + _GAP_X)
        lines.append(_text(left, _TOP - 12, _TITLES[scenario], weight="600"))
        for row, (name, title) in enumerate(_ROWS):
            panel = _Panel(left, _TOP + row * (_PANEL_HEIGHT + _GAP_Y), most, low, high)
            lines += panel.axes(f"{title}, ms", is_last=row == len(_ROWS) - 1)
            for number, server in enumerate(NAMES):
                lines += panel.line(number, name, [figure for figure in mine if figure["contestant"] == server])
    return "\n".join([*lines, "</svg>"]) + "\n"


class _Panel:
    """One set of axes: rate from 0 to `most`, latency in milliseconds from `low` to `high` powers of ten."""

    def __init__(self, left: int, top: int, most: float, low: int, high: int) -> None:
        self._left, self._top, self._most, self._low, self._high = left, top, most, low, high

    def axes(self, title: str, *, is_last: bool) -> Iterator[str]:
        right, bottom = self._left + _PANEL_WIDTH, self._top + _PANEL_HEIGHT
        for power in range(self._low, self._high + 1):
            y = self._y(10.0**power)
            yield f'<path class="grid" d="M{self._left} {y}H{right}"/>'
            yield _text(self._left - 6, y + 4, f"{10.0**power:g}", anchor="end")
        for rate in _ticks(self._most):
            x = self._x(rate)
            yield f'<path class="grid" d="M{x} {self._top}V{bottom}"/>'
            if is_last:
                yield _text(x, bottom + 16, f"{rate:,}", anchor="middle")
        if is_last:
            yield _text(right, bottom + 32, "offered, requests a second", anchor="end")
        yield _text(self._left + 6, self._top + 14, title, weight="600")

    def line(self, number: int, name: str, figures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """One server's percentile, by rate."""
        points = [
            (self._x(figure["rate"]), self._y(figure[name]), bool(figure["errors"]))
            for figure in sorted(figures, key=lambda figure: figure["rate"])
        ]
        if points:
            yield f'<polyline class="s{number}" points="{" ".join(f"{x},{y}" for x, y, _ in points)}"/>'
        for x, y, has_errors in points:
            shape = f'class="s{number} ring" r="4"' if has_errors else f'class="s{number} dot" r="2.2"'
            yield f'<circle {shape} cx="{x}" cy="{y}"/>'

    def _x(self, rate: float) -> float:
        return round(self._left + _PANEL_WIDTH * rate / self._most, 1)

    def _y(self, latency_ms: float | None) -> float:
        """None: lost, the upper edge."""
        if latency_ms is None:
            return self._top
        share = (math.log10(latency_ms) - self._low) / (self._high - self._low)
        return round(self._top + _PANEL_HEIGHT * (1 - share), 1)


def _style() -> str:
    """Colours by class, so that one rule changes them on a dark page."""

    def rules(dark: int) -> str:
        text, grid = ("#1f2328", "#d1d9e0") if not dark else ("#e6edf3", "#3d444d")
        servers = "".join(
            f".s{number}{{stroke:{pair[dark]}}}.s{number}.dot,.k{number}{{fill:{pair[dark]}}}"
            for number, pair in enumerate(_COLOURS)
        )
        return f"text{{fill:{text}}}.grid{{stroke:{grid}}}{servers}"

    fixed = "polyline{fill:none;stroke-width:1.8;stroke-linejoin:round}.ring{fill:none;stroke-width:1.5}"
    return f"<style>{fixed}{rules(0)}@media (prefers-color-scheme:dark){{{rules(1)}}}</style>"


def _legend(names: Sequence[str]) -> Iterator[str]:
    for number, name in enumerate([*names, _ERRORS]):
        row, column = divmod(number, _LEGEND_COLUMNS)
        x, y = _LEFT + column * _LEGEND_WIDTH, 15 + 18 * row
        if name == _ERRORS:
            yield f'<circle class="s{len(NAMES) - 1} ring" r="4" cx="{x + 7}" cy="{y}"/>'
        else:
            yield f'<rect class="k{NAMES.index(name)}" x="{x}" y="{y - 3}" width="14" height="6" rx="2"/>'
        yield _text(x + 20, y + 4, name)


def _text(x: float, y: float, words: str, *, anchor: str = "start", weight: str = "400") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>'


def _decades(latencies_ms: Sequence[float]) -> tuple[int, int]:
    """The powers of ten around them."""
    if not latencies_ms:
        return 0, 1
    low, high = math.floor(math.log10(min(latencies_ms))), math.ceil(math.log10(max(latencies_ms)))
    return low, max(high, low + 1)


def _ticks(most: float) -> list[int]:
    """Round numbers from 0 to `most`, at most six."""
    power = 10 ** max(0, math.floor(math.log10(most)) - 1)
    step = next(power * factor for factor in (1, 2, 5, 10, 20, 50, 100) if most / (power * factor) <= 5)
    return list(range(0, int(most) + 1, step))


def main() -> None:
    """Draw the newest result."""
    for path in sorted(_RESULTS.glob("*.json"), reverse=True):
        section = json.loads(path.read_text())["sections"].get("threads")
        if section is not None:
            picture = _RESULTS / "threads.svg"
            picture.write_text(svg(section))
            print(f"{os.path.relpath(picture)} now shows {os.path.relpath(path)}")
            return
    raise SystemExit(
        "no result with the section threads in benchmarks/results/; try: benchmarks/run --sections threads"
    )


if __name__ == "__main__":
    main()

"""Progress of a long command: one line that renews itself on a terminal, a few plain lines anywhere else.

A log or a pipe gets a line at every tenth, which is enough to see that it lives and few enough to read.
"""

from __future__ import annotations

import time
from typing import TextIO

_REDRAW_S = 0.1  # ten times a second looks continuous and costs nothing
_PLAIN_STEPS = 10


class Progress:
    """Counts `done` of `total` things called `what`."""

    def __init__(self, what: str, total: int, out: TextIO) -> None:
        self._what, self._total, self._out = what, total, out
        self._terminal = out.isatty()
        self._shown_at_s = float("-inf")
        self._shown_step = 0

    def update(self, done: int) -> None:
        """Show that `done` things are ready, unless that was shown a moment ago."""
        if self._terminal:
            now_s = time.monotonic()
            if now_s - self._shown_at_s >= _REDRAW_S or done == self._total:
                self._shown_at_s = now_s
                self._out.write(f"\r\x1b[K{self._line(done)}" + ("\n" if done == self._total else ""))
        else:
            step = done * _PLAIN_STEPS // self._total
            if step > self._shown_step:
                self._shown_step = step
                self._out.write(f"{self._line(done)}\n")
        self._out.flush()

    def _line(self, done: int) -> str:
        return f"{self._what}: {done:,} of {self._total:,} ({done * 100 // self._total} %)"

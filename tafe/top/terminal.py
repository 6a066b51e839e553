"""The terminal: its size, its keys, a screen that is drawn over, and all as it was before at the end.

A signal that ends or suspends the program leaves the terminal as it was, too; it comes back to a screen.
Plain ANSI sequences, which every terminal but a dumb one knows. Where standard output is no terminal, or a dumb one,
screens are printed one below the other, and where standard input is none there are no keys: Ctrl-C ends it everywhere.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any, Self

_OTHER_SCREEN, _OWN_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # without and with a cursor
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_STYLES = {"bold": "\x1b[1m", "alarm": "\x1b[31m", "end": "\x1b[0m"}
_ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
UNBOUNDED = (200, 1000)  # columns and rows where nobody looks at a screen


def draws() -> bool:
    """Whether standard output can be drawn over."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def styles() -> Mapping[str, str]:
    """None for whoever wants none (no-color.org)."""
    return _STYLES if draws() and not os.environ.get("NO_COLOR") else {}


def _handle(number: int, handler: Callable[[int, FrameType | None], None]) -> None:
    """Unless it is ignored, as by nohup."""
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, handler)


class Terminal:
    """To be entered and left."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None  # the keyboard's modes
        self._woken, self._waker = os.pipe()  # by a signal, as when the window has changed its size

    def __enter__(self) -> Self:
        os.set_blocking(self._waker, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGWINCH, lambda *_: None)
        for number in _ENDS:
            _handle(number, lambda number, _frame: sys.exit(128 + number))  # as a shell reports it
        _handle(signal.SIGTSTP, self._suspend)
        if sys.stdin is not None and sys.stdin.isatty():
            self._before = termios.tcgetattr(sys.stdin)
        try:
            self._take()
        except BaseException:  # a signal, at this moment
            self._give_back()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._give_back()
        signal.set_wakeup_fd(-1)
        os.close(self._woken)
        os.close(self._waker)

    def _take(self) -> None:
        if self._before is not None:
            tty.setcbreak(sys.stdin)
        if draws():
            sys.stdout.write(_OTHER_SCREEN)

    def _give_back(self) -> None:
        with suppress(OSError, termios.error):  # it has been closed
            if self._before is not None:
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)
            if draws():
                sys.stdout.write(_OWN_SCREEN)
                sys.stdout.flush()

    def _suspend(self, number: int, _frame: object) -> None:
        """Ctrl-Z: the shell gets its terminal, and this program another one when it goes on."""
        self._give_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # returns when it goes on
        signal.signal(number, self._suspend)
        self._take()

    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        if not sys.stdout.isatty():
            return UNBOUNDED
        size = shutil.get_terminal_size()
        return size.columns, size.lines if draws() else UNBOUNDED[1]

    def show(self, lines: list[str]) -> None:
        """In place of the screen before."""
        if draws():
            sys.stdout.write(_HOME + f"{_END_OF_LINE}\n".join(lines) + _END_OF_LINE + _END_OF_SCREEN)
        else:
            sys.stdout.write("\n".join(lines) + "\n\n")
        sys.stdout.flush()

    def wants_to_end(self, within_s: float) -> bool:
        """Somebody has typed q within that time; returns earlier when the screen is to be drawn anew."""
        keyboard = [sys.stdin] if self._before is not None else []
        ready, _, _ = select.select([self._woken, *keyboard], [], [], within_s)
        if self._woken in ready:
            with suppress(BlockingIOError):
                os.read(self._woken, 1000)
        return sys.stdin in ready and os.read(sys.stdin.fileno(), 1) in (b"q", b"Q", b"\x04", b"")

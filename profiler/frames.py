"""Stacks of code, and which part of one is the application.

The line a user can change is in their own code: the innermost frame that is neither the standard library, nor
an installed package or its command, nor the profiler, nor under a prefix the caller named (a server passes its own
directory).
A stack is copied out at once as (code, line) pairs: to keep a frame would keep its locals alive, and might
run their destructors in the wrong thread.
Threads that run are looked at without collections (native.py).
"""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from profiler.bytecode import callees
from profiler.native import undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType, FrameType

_OWN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
_COLLECTOR = os.path.join(_OWN, "collector.py")
_DOORS = frozenset({os.path.join(_OWN, "wsgi.py")})  # of the profiler, what calls the application
MAX_DEPTH = 100  # frames kept, innermost first: deeper ones are recursion or frameworks
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")

Stack = tuple[tuple["CodeType", int], ...]  # (code, line), innermost first


class Place(NamedTuple):
    """One function, at one line."""

    file: str
    line: int
    function: str
    first_line: int  # of the function: with `file` and `function` its identity


NOWHERE = Place("", 0, "", 0)  # when not even a yielding point is known


def of_threads() -> dict[int, FrameType]:
    """The innermost frame of each thread that has run Python code, by the thread's identifier."""
    with undisturbed:
        return sys._current_frames()  # noqa: SLF001 - the documented way


def capture(frame: FrameType | None) -> Stack:
    """Copy a stack out."""
    stack: list[tuple[CodeType, int]] = []
    with undisturbed:
        while frame is not None and len(stack) < MAX_DEPTH:
            code = frame.f_code
            line = frame.f_lineno or 0  # None for what the compiler made up
            stack.append((code, _first_statement(code) if line == code.co_firstlineno else line))
            frame = frame.f_back
    return tuple(stack)


class Look(NamedTuple):
    """What a running thread was seen doing."""

    stack: Stack  # () when it is in the profiler, as at the end of a slice
    offset: int  # of the instruction that the innermost frame is at
    caller_offset: int  # and that the one around it is at
    collecting: bool  # in our callback of the collector, which is left out: the instruction is then the very one that
    # was running, and not one where the GIL is handed over
    callees: tuple[CodeType, ...]  # functions the innermost frame has at hand


NOTHING = Look((), -1, -1, collecting=False, callees=())


def capture_running(frame: FrameType | None, *, held: bool = False) -> Look:
    """Look at a thread while it runs; `held`: it is likely to have held the GIL until now."""
    collecting = frame is not None and frame.f_code.co_name == "on_gc" and frame.f_code.co_filename == _COLLECTOR
    with undisturbed:
        if collecting and frame is not None:
            frame = frame.f_back
        if frame is None or _is_ours(frame):
            return NOTHING
        caller = frame.f_back
    return Look(
        capture(frame),
        frame.f_lasti,
        -1 if caller is None else caller.f_lasti,
        collecting,
        callees(frame) if held and not collecting else (),
    )


def _is_ours(frame: FrameType) -> bool:
    named: FrameType | None = frame
    while named is not None and named.f_code.co_filename.startswith("<"):  # made by a named tuple of ours, perhaps
        named = named.f_back
    file = named.f_code.co_filename if named is not None else ""
    return file.startswith(_OWN) and file not in _DOORS


def place_at(stack: Stack, index: int) -> Place:
    """The place of one entry. A comprehension belongs to the function around it, as it does from CPython 3.12 on."""
    code, line = stack[index]
    function = code
    for around, _ in stack[index + 1 :]:
        if f"{around.co_qualname}.<locals>.{function.co_name}" != function.co_qualname or not _is_inner(function):
            break
        function = around
    return Place(code.co_filename, line, function.co_name, function.co_firstlineno)


def _is_inner(code: CodeType) -> bool:
    return code.co_name in ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


@lru_cache(maxsize=1024)
def _first_statement(code: CodeType) -> int:
    """A function that is just being entered is at its `def`, or a decorator; what a reader looks for is below."""
    if code.co_name.startswith("<"):
        return code.co_firstlineno
    below = [line for _, _, line in code.co_lines() if line is not None and line > code.co_firstlineno]
    return min(below, default=code.co_firstlineno)


def describe(stack: Stack) -> list[str]:
    """`file:line function`, outermost first as in a traceback."""
    return [f"{code.co_filename}:{line} {code.co_name}" for code, line in reversed(stack)]


class Application:
    """Tells the application's code from everybody else's, by file name; remembers each answer."""

    def __init__(self, library_prefixes: Iterable[str] = ()) -> None:
        paths = sysconfig.get_paths()
        self._server = _forms(library_prefixes)
        # In `scripts` are the commands that packages install: a line of `bin/gunicorn` is nobody's to change.
        self._prefixes = (*_forms([paths["stdlib"], paths["platstdlib"], paths["scripts"], _OWN]), *self._server)
        self._known: dict[str, bool] = {}

    def owns(self, file: str) -> bool:
        """Whether `file` is the application's; generated code (`<string>`, `<frozen ...>`) is not."""
        known = self._known.get(file)
        if known is None:
            known = not (
                file.startswith("<")
                or os.path.abspath(file).startswith(self._prefixes)
                or any(part in file for part in _INSTALLED)
            )
            if len(self._known) < 10_000:  # far more files than an application has; templates may make more
                self._known[file] = known
        return known

    def is_on(self, frame: FrameType | None) -> bool:
        """Whether a thread at this frame is in the application's code."""
        depth = 0
        with undisturbed:
            while frame is not None and depth < MAX_DEPTH:
                if self.owns(frame.f_code.co_filename):
                    return True
                frame = frame.f_back
                depth += 1
        return False

    def innermost(self, stack: Stack) -> Place | None:
        """The place to name for a stack, or None when the application is not on it."""
        for index, (code, _) in enumerate(stack):
            if self.owns(code.co_filename):
                return place_at(stack, index)
        return None

    def in_library(self, stack: Stack) -> Place:
        """The place to name for a stack without the application: what the server did, not how a library did it.

        The server's innermost line; without a server the outermost that is not gevent's, which runs every greenlet.
        """
        for index, (code, _) in enumerate(stack):
            if os.path.abspath(code.co_filename).startswith(self._server):
                return place_at(stack, index)
        outermost = (index for index in reversed(range(len(stack))) if not _runs_greenlets(stack[index][0]))
        return place_at(stack, next(outermost, 0))


def _forms(folders: Iterable[str]) -> tuple[str, ...]:
    return tuple({os.path.join(form, "") for path in folders for form in (path, os.path.realpath(path))})


def _runs_greenlets(code: CodeType) -> bool:
    # Or is ours, or nobody wrote it.
    return f"{os.sep}gevent{os.sep}" in code.co_filename or code.co_filename.startswith(("<", _OWN))

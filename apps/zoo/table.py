"""The table of the zoo, and the two decorators that fill it.

A stall marks the statement that blocks with the comment `# stalls`; the statement's lines go into the table,
so that the table stays right when the code moves. Causes are those of the profiler's report.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from tafe import App, BadRequest, Request

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_MS = 30  # three times the profiler's default threshold: clearly a stall, and short enough to repeat
MOST_MS = 10_000
_MARK = "# stalls"


@dataclass(slots=True)
class Exhibit:
    """One way of not yielding.

    `lines` are those of the statement that blocks, in `file`; `function` is what a stack calls the code around it.
    `cause` and `innocent` are what a report should say. `stall` and `twin` are the handlers.
    """

    name: str
    cause: str
    innocent: bool
    file: str
    function: str
    lines: range
    stall: Callable[..., Any]
    twin: Callable[..., Any]


app = App()
ZOO: dict[str, Exhibit] = {}


@app.before
def check_duration(request: Request) -> None:
    """A stall of an hour would be somebody's mistake."""
    for text in request.query.get("ms", ()):
        if text.lstrip("-").isdecimal() and not 1 <= int(text) <= MOST_MS:
            raise BadRequest(f"ms must be 1 to {MOST_MS}", field="ms")


@app.get("/")
def listing() -> list[dict[str, Any]]:
    """What there is to see."""
    return [
        {
            "name": one.name,
            "cause": one.cause,
            "file": one.file,
            "line": one.lines.start,
            "function": one.function,
            "paths": [f"/stall/{one.name}", f"/yield/{one.name}"],
        }
        for one in ZOO.values()
    ]


def stall(
    name: str, cause: str, *, at: Callable[..., Any] | ModuleType | None = None, innocent: bool = False
) -> Callable[[F], F]:
    """Register a handler that does not yield. The marked statement is in `at`, or else in the handler itself."""

    def register(handler: F) -> F:
        place = at or handler
        function = "<module>" if isinstance(place, ModuleType) else place.__name__
        file = inspect.getsourcefile(place) or ""
        ZOO[name] = Exhibit(name, cause, innocent, file, function, _marked_lines(place), handler, _no_twin)
        return app.get(f"/stall/{name}")(handler)

    return register


def twin(name: str) -> Callable[[F], F]:
    """Register the handler that does the same as the stall of that name, and yields."""

    def register(handler: F) -> F:
        ZOO[name].twin = handler
        return app.get(f"/yield/{name}")(handler)

    return register


def _no_twin() -> None:
    raise AssertionError("every stall has a twin")


def _marked_lines(place: Callable[..., Any] | ModuleType) -> range:
    """The lines of the statement that begins on the marked line."""
    source, first = inspect.getsourcelines(place)
    offset = max(first, 1) - 1  # a module's source begins at line 0 for inspect
    marked = next(number for number, text in enumerate(source, 1) if text.rstrip().endswith(_MARK))
    for node in ast.walk(ast.parse(textwrap.dedent("".join(source)))):
        if isinstance(node, ast.stmt) and node.lineno == marked:
            return range(offset + marked, offset + (node.end_lineno or marked) + 1)
    raise AssertionError(f"the mark in {place} is not on the first line of a statement")

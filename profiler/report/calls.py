"""The calls in a line of source, so that advice can say what to type in its place. Pure.

The one line that is stored may be a whole statement, the head of a block, or the beginning of a statement of several
lines: of the last only the names of the calls are known. It comes from files that may be damaged, so nothing in it
may raise, and it is parsed, never run.
"""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

_LONGEST = 300  # of a line that is parsed: no advice quotes from a longer one
_BEGUN = re.compile(r"([A-Za-z_][\w.]*)\(")
_UNKNOWN = "..."


class Call(NamedTuple):
    """As in the source."""

    name: str
    arguments: str

    def without_arguments(self) -> Call:
        """The same, shorter."""
        return Call(self.name, _UNKNOWN)

    def handed_over(self) -> str:
        """As the arguments of a function that is to make the call: `zlib.compress, data`."""
        return f"{self.name}, {self.arguments}" if self.arguments else self.name


SOME_CALL = Call("f", _UNKNOWN)


def call_in(source: str, words: Sequence[str]) -> Call | None:
    """The outermost call whose name holds one of the words; without words, the outermost that is no builtin's.

    Its arguments are told if there is no doubt that they belong to what takes long.
    """
    found = _calls(source)
    if words:
        return next((call for call in found if any(word in f"{call.name}(".lower() for word in words)), None)
    others = [call for call in found if not hasattr(builtins, call.name)]
    if len(others) > 1:
        return others[0].without_arguments()
    return others[0] if others else None


def searched_in(source: str) -> str:
    """What the first `in` of a line looks through; "" if that is not known."""
    for node in _nodes(source):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            return ast.unparse(node.comparators[0])
    return ""


def _calls(source: str) -> list[Call]:
    nodes = _nodes(source)
    if not nodes:
        return [Call(name, _UNKNOWN) for name in _BEGUN.findall(source[:_LONGEST])]
    return [
        _call(node) for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)
    ]


def _call(node: ast.Call) -> Call:
    name = ast.unparse(node.func)
    return Call(name, ast.unparse(node)[len(name) + 1 : -1])


def _nodes(source: str) -> list[ast.AST]:
    """Outermost first; none if it is no statement."""
    if len(source) > _LONGEST:
        return []
    # A block's head needs a block, and `elif` an `if`.
    for text in (source, f"{source}\n pass", f"{source.removeprefix('el')}\n pass"):
        try:
            with warnings.catch_warnings(action="ignore"):  # of the user's strings
                tree = ast.parse(text)
                ast.unparse(tree)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return list(ast.walk(tree))
    return []

"""The calls in a line of source, so that advice can say what to type in its place. Pure.

The one line that is stored may be a whole statement, the head of a block, or the beginning of a statement of several
lines: of the last only the names of the calls are known. It comes from files that may be damaged, so nothing in it
may raise, and it is parsed, never run.
"""

from __future__ import annotations

import ast
import builtins
import copy
import keyword
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

_LONGEST = 300  # of a line that is parsed: no advice quotes from a longer one
_BEGUN = re.compile(r"(?<!\w)(\.?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\(")
_OURS = re.compile(r"\bgevent(?:\.\w+)+\(")
_UNKNOWN = "..."
# A lambda of an expression with one of these would be a generator, a syntax error, or set a name of its own.
_NOT_IN_A_LAMBDA = (ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)


class Call(NamedTuple):
    """As in the source."""

    name: str
    arguments: str
    whole: str = ""  # the expression, if name and arguments do not tell it: a part of it is a call that may take long
    brief: str = ""  # the same without arguments

    def without_arguments(self) -> Call:
        """The same, shorter."""
        return Call(self.name, _UNKNOWN, self.brief, self.brief)

    def handed_over(self) -> str:
        """As the arguments of a function that is to make the call: `zlib.compress, data`."""
        if self.whole:
            return f"lambda: {self.whole}"
        return f"{self.name}, {self.arguments}" if self.arguments else self.name


SOME_CALL = Call("the_call", _UNKNOWN)
"""For one that is not known: a placeholder that says so."""


class _Found(NamedTuple):
    call: Call
    chain: str  # the names of the function, without the arguments of what is called on the way: `open .read(`
    node: ast.Call | None = None


def call_in(source: str, words: Sequence[str]) -> Call | None:
    """The outermost call whose names hold one of the words; without words, the one that is no builtin's.

    A word that ends in `(` is the name of the function itself. Where several calls may be meant, and none of them has
    all others in it, that is `SOME_CALL`. Of gevent's own calls none is told.
    """
    found = _calls(source)
    if words:
        return next((one.call for one in found if any(word in one.chain.lower() for word in words)), None)
    others = [one for one in found if not hasattr(builtins, one.chain[:-1])]
    if len(others) > 1:
        return _around(others)
    return others[0].call if others else None


def without_ours(source: str) -> str:
    """The line without the names of gevent's functions that it calls."""
    return _OURS.sub("(", source)


def searched_in(source: str) -> str:
    """What the first `in` of a line looks through; "" if that is not known."""
    for node in _nodes(source):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            return ast.unparse(node.comparators[0])
    return ""


def _calls(source: str) -> list[_Found]:
    nodes = _nodes(source)
    if nodes:
        found = [_call(node) for node in nodes if isinstance(node, ast.Call)]
    else:
        names = [name for name in _BEGUN.findall(source[:_LONGEST]) if not any(map(keyword.iskeyword, name.split(".")))]
        # Of what is called on the result of another call the name alone says nothing.
        found = [_Found(SOME_CALL if name[0] == "." else Call(name, _UNKNOWN), f"{name}(") for name in names]
    return [one for one in found if not one.chain.startswith("gevent.")]


def _call(node: ast.Call) -> _Found:
    name, chain = ast.unparse(node.func), f"{_chain(node.func)}("
    call = Call(name, ast.unparse(node)[len(name) + 1 : -1])
    # super() is of the frame it is called in, and takes no time.
    takes_long = any(isinstance(part, ast.Call) and ast.unparse(part) != "super()" for part in ast.walk(node.func))
    return _Found(_whole(call, node) if takes_long else call, chain, node)


def _around(found: Sequence[_Found]) -> Call:
    """The call that has all others in it: whichever of them takes long, it is made elsewhere with that one."""
    outermost = found[0].node
    if outermost is None or not {id(one.node) for one in found} <= {id(node) for node in ast.walk(outermost)}:
        return SOME_CALL
    return _whole(found[0].call, outermost)


def _whole(call: Call, node: ast.Call) -> Call:
    """The same as an expression; `SOME_CALL` if it would mean something else where a lambda has it."""
    for part in ast.walk(node):
        if isinstance(part, _NOT_IN_A_LAMBDA) or (isinstance(part, ast.Name) and part.id in ("gevent", "super")):
            return SOME_CALL
    brief = part = copy.deepcopy(node)
    while isinstance(part, ast.Call | ast.Attribute | ast.Subscript):
        if isinstance(part, ast.Call):
            part.args, part.keywords = [ast.Constant(...)] if part.args or part.keywords else [], []
        part = part.func if isinstance(part, ast.Call) else part.value
    return Call(call.name, call.arguments, ast.unparse(node), ast.unparse(brief))


def _chain(node: ast.expr) -> str:
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return f"{_chain(node.value)}.{node.attr}"
        case ast.Call():
            return f"{_chain(node.func)} "
        case ast.Subscript():
            return _chain(node.value)
        case _:  # a literal, an operation
            return ""


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

"""What a name means at a place in a module that was loaded.

Through modules and classes to the very object; a name that a function binds itself is followed where the function
imports it. Of one that it binds once to an expression, the number is known if that is made of constants, and the class
if that calls one. Everything else is `NOTHING`: not known.
"""

from __future__ import annotations

import ast
import builtins
import ctypes
import functools
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

NOTHING = object()
_DEEPEST = 10  # wrappers around a function, names for a number: people write three at most
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_INNER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


class Key(NamedTuple):
    """Which function of an application is meant. What is called on an object is known by its name alone."""

    module: str  # empty: of a class
    name: str


class Foreign(NamedTuple):
    """A function of a library that ctypes has loaded."""

    name: str


class _Bound(NamedTuple):
    """The one expression that a function binds a name to."""

    expression: ast.expr


class Names:
    """Of one module, and of the functions that are entered."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.module = str(namespace.get("__name__", ""))
        self._namespace = namespace
        self._scopes: list[dict[str, Any]] = []

    def enter(self, function: Function) -> None:
        """Look from within `function`, which stands where was looked from."""
        self._scopes.append(_bound_in(function))

    def leave(self) -> None:
        """Look from outside of it again."""
        self._scopes.pop()

    def meaning(self, node: ast.expr) -> Any:
        """The object that an expression of names is."""
        if isinstance(node, ast.Name):
            found = self._named(node.id)
            return NOTHING if type(found) is _Bound else found
        if not isinstance(node, ast.Attribute):
            return NOTHING
        holder = self.meaning(node.value)
        if issubclass(type(holder), ctypes.CDLL):
            return Foreign(node.attr)
        if issubclass(type(holder), ModuleType | type):
            return vars(holder).get(node.attr, NOTHING)
        return NOTHING

    def key(self, node: ast.Name | ast.Attribute) -> Key:
        """Which function is meant, by whatever name it came here."""
        found = _function(self.meaning(node))
        if isinstance(found, type):
            return Key(found.__module__, found.__name__)
        if isinstance(found, FunctionType):
            outer = found.__qualname__.rpartition(".")[0]
            return Key("" if outer and not outer.endswith("<locals>") else found.__module__, found.__name__)
        return Key(self.module, node.id) if isinstance(node, ast.Name) else Key("", node.attr)

    def class_of(self, node: ast.expr) -> Any:
        """What kind of object an expression is."""
        if isinstance(node, ast.Name):
            found = self._named(node.id)
            if type(found) is not _Bound:
                return NOTHING if found is NOTHING else type(found)
            node = found.expression
        called = self.meaning(node.func) if isinstance(node, ast.Call) else NOTHING
        return called if isinstance(called, type) else NOTHING

    def made_by(self, node: ast.expr) -> Any:
        """What was called for the object that a function calls so."""
        bound = self._named(node.id) if isinstance(node, ast.Name) else NOTHING
        made = bound.expression if type(bound) is _Bound else None
        return self.meaning(made.func) if isinstance(made, ast.Call) else NOTHING

    def number(self, node: ast.expr, depth: int = _DEEPEST) -> int | None:
        """The whole number that an expression is; None: not known."""
        found: Any = None
        if depth == 0:  # x = x | 1
            return None
        if isinstance(node, ast.Constant):
            found = node.value
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            left, right = self.number(node.left, depth - 1), self.number(node.right, depth - 1)
            found = None if left is None or right is None else left | right
        elif isinstance(node, ast.Name) and type(bound := self._named(node.id)) is _Bound:
            found = self.number(bound.expression, depth - 1)
        else:
            found = self.meaning(node)
        return found if issubclass(type(found), int) else None

    def _named(self, name: str) -> Any:
        for bound in reversed(self._scopes):
            if name in bound:
                return bound[name]
        return self._namespace.get(name, getattr(builtins, name, NOTHING))


def _function(found: Any) -> Any:
    """What a decorator of the usual kind has wrapped."""
    for _ in range(_DEEPEST):
        if issubclass(type(found), staticmethod | classmethod):
            found = found.__func__
        elif issubclass(type(found), FunctionType | functools._lru_cache_wrapper) and "__wrapped__" in vars(found):  # noqa: SLF001
            found = vars(found)["__wrapped__"]
        else:
            break
    return found if issubclass(type(found), FunctionType | type) else NOTHING


def _bound_in(function: Function) -> dict[str, Any]:
    """The names that a function binds itself."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    bound: dict[str, Any] = {one.arg: NOTHING for one in every if one is not None}
    if isinstance(function, ast.Lambda):
        return bound
    own = list(_own_nodes(function))
    once = {id(target): _Bound(expression) for node in own for target, expression in _bindings(node)}
    for node in own:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound[node.id] = NOTHING if node.id in bound else once.get(id(node), NOTHING)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler):
            bound[node.name or ""] = NOTHING
        elif isinstance(node, ast.Import):
            for alias in node.names:
                module = alias.name if alias.asname else alias.name.partition(".")[0]
                bound[alias.asname or module] = sys.modules.get(module, NOTHING)
        elif isinstance(node, ast.ImportFrom):
            source = sys.modules.get(node.module or "") if not node.level else None
            for alias in node.names:
                bound[alias.asname or alias.name] = getattr(source, alias.name, NOTHING)
    for node in own:
        if isinstance(node, ast.Global):
            for name in node.names:
                bound.pop(name, None)
    return bound


def _bindings(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Targets, with the expression that each is bound to."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        yield node.targets[0], node.value
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        yield node.target, node.value
    elif isinstance(node, ast.withitem) and node.optional_vars is not None:
        yield node.optional_vars, node.context_expr


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """Those of its body, without what is in the functions and classes in it."""
    for child in ast.iter_child_nodes(function):
        yield child
        if not isinstance(child, _INNER):
            yield from _own_nodes(child)

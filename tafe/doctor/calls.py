"""Calls, in functions of the application, of what is known to block.

A name is looked up in the module as it is after loading, through modules and classes; names that a function binds
itself are followed only where it imports them. So a call is reported for the very function that it would call. Calls at
the top of a module are made while nothing is served, and functions that are only handed to native threads may block.
"""

from __future__ import annotations

import ast
import builtins
import ctypes
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from gevent import monkey

from tafe.doctor.finding import Finding
from tafe.doctor.known import FOREIGN, FUNCTIONS, ORIGINALS, Known
from tafe.doctor.sources import line_of, parsed, shown
from tafe.profiling import advice

_THREADS = frozenset(
    {"offload", "apply", "apply_async", "submit", "start_new_thread"}
)  # whose argument runs in a thread
_START = ("_thread", "start_new_thread")
_NOTHING = object()
_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def originals() -> dict[int, tuple[str, Any]]:
    """By identity, what gevent has replaced, with its name."""
    found = {}
    for name in ORIGINALS:
        module, _, attribute = name.rpartition(".")
        original = monkey.saved.get(module, {}).get(attribute, _NOTHING)
        if original is not _NOTHING:
            found[id(original)] = (name, original)
    return found


class Calls:
    """Looks through modules, one after the other."""

    def __init__(self) -> None:
        self._originals = originals()
        self._known: dict[int, tuple[str, Known]] = {}
        for name, known in FUNCTIONS.items():
            module, _, attribute = name.rpartition(".")
            if module in sys.stdlib_module_names:
                import_module(module)  # functions may import it themselves
            function = getattr(sys.modules.get(module), attribute, _NOTHING)
            if function is not _NOTHING:
                self._known[id(function)] = (name, known)

    def look(self, module: ModuleType) -> Iterator[Finding]:
        """What the module's functions call."""
        path = str(module.__file__)
        tree = parsed(path)
        starts = {name for name, value in vars(module).items() if value is monkey.get_original(*_START)}
        visitor = _Visitor(vars(module), _only_in_threads(tree, _THREADS | starts))
        visitor.visit(tree)
        for node, function, found in visitor.calls:
            told = self._about(node, found)
            if told is not None:
                source = line_of(path, node.lineno)
                yield Finding(shown(path), node.lineno, function, source, *told)

    def _about(self, node: ast.Call, found: Any) -> tuple[str, str, str] | None:
        """What is called, why it blocks, what to do instead; None: nothing is known against it."""
        if isinstance(found, _Foreign):
            why = FOREIGN.get(found.name, "")
            return (
                (f"{found.name}() of C", why, advice("blocking", _spelled(ast.unparse(node.func), node)))
                if why
                else None
            )
        if id(found) in self._originals:
            name = self._originals[id(found)][0]
            return f"{name} from before patching", ORIGINALS[name], advice("blocking", _spelled(name, node))
        if id(found) in self._known:
            name, known = self._known[id(found)]
            if known.unless and any(word in ast.unparse(node) for word in known.unless.split("|")):
                return None
            return name, known.why, known.instead or advice(known.cause, _spelled(name, node))
        return None


def _spelled(name: str, node: ast.Call) -> str:
    """The call, whatever the module calls the function."""
    arguments = [*map(ast.unparse, node.args), *map(ast.unparse, node.keywords)]
    return f"{name}({', '.join(arguments)})"


class _Foreign:
    """A function of a library that ctypes has loaded."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Visitor(ast.NodeVisitor):
    """Collects calls in functions, with what they call as far as that is known."""

    def __init__(self, namespace: dict[str, Any], in_threads: set[str]) -> None:
        self._namespace = namespace
        self._in_threads = in_threads
        self._scopes: list[tuple[str, dict[str, Any]]] = []  # of the functions around: their names
        self.calls: list[tuple[ast.Call, str, Any]] = []

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for part in (*node.decorator_list, node.args):
            self.visit(part)
        if node.name in self._in_threads:
            return
        self._scopes.append((node.name, _bound_in(node)))
        for statement in node.body:
            self.visit(statement)
        self._scopes.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - the visitor's names

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._scopes.append(("<lambda>", _bound_in(node)))
        self.visit(node.body)
        self._scopes.pop()

    def visit_Call(self, node: ast.Call) -> None:
        if self._scopes:
            found = self._resolve(node.func)
            if found is not _NOTHING:
                name = next((name for name, _ in reversed(self._scopes) if name != "<lambda>"), "<lambda>")
                self.calls.append((node, name, found))
        if _called(node) in _THREADS:
            self.visit(node.func)
            for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                if not isinstance(argument, ast.Lambda):
                    self.visit(argument)
            return
        self.generic_visit(node)

    def _resolve(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            for _, bound in reversed(self._scopes):
                if node.id in bound:
                    return bound[node.id]
            return self._namespace.get(node.id, getattr(builtins, node.id, _NOTHING))
        if not isinstance(node, ast.Attribute):
            return _NOTHING
        holder = self._resolve(node.value)
        if isinstance(holder, ctypes.CDLL):
            return _Foreign(node.attr)
        if isinstance(holder, ModuleType | type):
            return vars(holder).get(node.attr, _NOTHING)
        return _NOTHING


def _bound_in(function: _Function) -> dict[str, Any]:
    """The names that a function binds itself: what it imports, and otherwise that they are unknown."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    bound: dict[str, Any] = {one.arg: _NOTHING for one in every if one is not None}
    if isinstance(function, ast.Lambda):
        return bound
    for node in _own_nodes(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound[node.id] = _NOTHING
        elif isinstance(node, ast.Import):
            for alias in node.names:
                module = alias.name if alias.asname else alias.name.partition(".")[0]
                bound[alias.asname or module] = sys.modules.get(module, _NOTHING)
        elif isinstance(node, ast.ImportFrom):
            source = sys.modules.get(node.module or "") if not node.level else None
            for alias in node.names:
                bound[alias.asname or alias.name] = getattr(source, alias.name, _NOTHING)
    for node in _own_nodes(function):
        if isinstance(node, ast.Global):
            for name in node.names:
                bound.pop(name, None)
    return bound


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """Those of its body, without the functions and classes in it."""
    for child in ast.iter_child_nodes(function):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield from _own_nodes(child)


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _only_in_threads(tree: ast.Module, starts: frozenset[str]) -> set[str]:
    """Functions that are handed to a thread, and named nowhere else."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _called(node) in starts]
    handed = [argument for node in calls for argument in node.args if isinstance(argument, ast.Name)]
    others = {id(node) for node in handed}
    elsewhere = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in others}
    return {node.id for node in handed} - elsewhere

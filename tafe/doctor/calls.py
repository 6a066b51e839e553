"""Calls, in functions of the application, of what is known to block.

A name is looked up in the module as it is after loading (names.py), so a call is reported for the very function that it
would call. Left out are calls that are made while nothing is served or in a native thread, as far as the modules show
it (occasions.py), and calls whose arguments make them harmless (known.py).
"""

from __future__ import annotations

import ast
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from gevent import monkey

from tafe.doctor.finding import Finding
from tafe.doctor.known import FOREIGN, FUNCTIONS, ORIGINALS, Known
from tafe.doctor.names import NOTHING, Foreign, Function, Key, Names
from tafe.doctor.occasions import IN_THREAD, LAMBDA, LOADING, How, Occasions, arguments, by_decorator, given, hands_over
from tafe.doctor.sources import file_of, line_of, parsed, shown
from tafe.profiling import advice

_CONSTRUCTORS = frozenset({"__init__", "__new__", "__post_init__"})  # called where the class is


def originals() -> dict[int, tuple[str, Any]]:
    """By identity, what gevent has replaced, with its name."""
    found = {}
    for name in ORIGINALS:
        module, _, attribute = name.rpartition(".")
        original = monkey.saved.get(module, {}).get(attribute, NOTHING)
        if original is not NOTHING:
            found[id(original)] = (name, original)
    return found


def look(modules: Iterable[ModuleType], factory: object = None) -> Iterator[Finding]:
    """What the functions of the application's `modules` call. `factory`: what was called for the application."""
    reasons, occasions, seen = _Reasons(), Occasions(), []
    if isinstance(factory, FunctionType):
        occasions.add(Key(factory.__module__, factory.__name__), How.CALLS, LOADING)
    for module in modules:
        path = file_of(module)
        visitor = _Visitor(Names(vars(module)), occasions, reasons)
        visitor.visit(parsed(path))
        seen.append((path, visitor.calls))
    never = occasions.never_serving()
    for path, calls in seen:
        for call in calls:
            if call.within not in never:
                yield Finding(shown(path), call.line, call.function, line_of(path, call.line), *call.reason)


class _Reason(NamedTuple):
    what: str
    why: str
    instead: str
    cause: str = "blocking"


class _Call(NamedTuple):
    line: int
    function: str
    within: Key
    reason: _Reason


class _Reasons:
    """Why a call blocks."""

    def __init__(self) -> None:
        self._originals = originals()
        self._known: dict[int, tuple[str, Known]] = {}
        for name, known in FUNCTIONS.items():
            module, _, attribute = name.rpartition(".")
            if module in sys.stdlib_module_names:
                import_module(module)  # functions may import it themselves
            function = getattr(sys.modules.get(module), attribute, NOTHING)
            if function is not NOTHING:
                self._known[id(function)] = (name, known)

    def of(self, node: ast.Call, names: Names) -> _Reason | None:
        """None: nothing is known against it."""
        found = names.meaning(node.func)
        if isinstance(found, Foreign):
            why = FOREIGN.get(found.name, "")
            called = _spelled(ast.unparse(node.func), node)
            return _Reason(f"{found.name}() of C", why, advice("blocking", called)) if why else None
        if id(found) in self._originals:
            name = self._originals[id(found)][0]
            return _Reason(f"{name} from before patching", ORIGINALS[name], advice("blocking", _spelled(name, node)))
        if id(found) in self._known:
            name, known = self._known[id(found)]
            if _is_harmless(node, known, names):
                return None
            return _Reason(name, known.why, known.instead or advice(known.cause, _spelled(name, node)), known.cause)
        return None


def _is_harmless(node: ast.Call, known: Known, names: Names) -> bool:
    """By its arguments, or perhaps: where the one that decides is not known, nothing is said."""
    if known.on_file and node.args and getattr(names.made_by(node.args[0]), "__module__", "") == tempfile.__name__:
        return True  # nobody else has a file that was made here
    if known.harmless is None:
        return False
    if any(isinstance(one, ast.Starred) for one in node.args) or any(one.arg is None for one in node.keywords):
        return True
    position, keyword, harmless = known.harmless
    deciding = [*node.args[position : position + 1], *(one.value for one in node.keywords if one.arg == keyword)]
    if not deciding:
        return False
    number = names.number(deciding[0])
    return number is None or harmless(number)


def _spelled(name: str, node: ast.Call) -> str:
    """The call, whatever the module calls the function."""
    return f"{name}({', '.join([*map(ast.unparse, node.args), *map(ast.unparse, node.keywords)])})"


class _Visitor(ast.NodeVisitor):
    """Collects calls that block, in functions, and what the module does with functions."""

    def __init__(self, names: Names, occasions: Occasions, reasons: _Reasons) -> None:
        self._names = names
        self._occasions = occasions
        self._reasons = reasons
        self._class = ""  # whose body this is, outside of its functions
        self._functions: list[tuple[str, Key]] = []  # those around
        self.calls: list[_Call] = []

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(part)
        outer, self._class = self._class, node.name
        for statement in node.body:
            self.visit(statement)
        self._class = outer

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        key = Key("" if self._class else self._names.module, node.name)
        if self._class and node.name in _CONSTRUCTORS:
            key = Key(self._names.module, self._class)
        for decorator in node.decorator_list:
            how = by_decorator(decorator)
            if how is not None:
                self._occasions.add(key, how, self._within())
        for part in (*node.decorator_list, node.args):
            self.visit(part)
        self._enter(node, node.name, key)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - the visitor's names

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit(node.args)
        self._enter(node, "<lambda>", LAMBDA)

    def _enter(self, node: Function, name: str, key: Key) -> None:
        outer, self._class = self._class, ""
        self._functions.append((name, key))
        self._names.enter(node)
        for part in [node.body] if isinstance(node, ast.Lambda) else node.body:
            self.visit(part)
        self._names.leave()
        self._functions.pop()
        self._class = outer

    def visit_arg(self, node: ast.arg) -> None:
        """An annotation calls nothing."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        self._use(node, How.MENTIONS)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._use(node, How.MENTIONS)

    def visit_Call(self, node: ast.Call) -> None:
        reason = self._reasons.of(node, self._names) if self._functions else None
        if reason is not None:
            function = next((name for name, _ in reversed(self._functions) if name != "<lambda>"), "<lambda>")
            self.calls.append(_Call(node.lineno, function, self._within(), reason))
        self._use(node.func, How.CALLS)
        handed = hands_over(node, self._names)
        for argument in arguments(node):
            for one in given(argument) if handed else [argument]:
                self._use(one, How.HANDS_OVER if handed else How.MENTIONS)

    def _use(self, node: ast.expr, how: How) -> None:
        """Visit what may be a function."""
        if how is How.HANDS_OVER and isinstance(node, ast.Lambda):
            self._enter(node, "<lambda>", IN_THREAD)
        elif isinstance(node, ast.Name | ast.Attribute):
            if isinstance(node.ctx, ast.Load):
                self._occasions.add(self._names.key(node), how, self._within())
            if isinstance(node, ast.Attribute):
                self.visit(node.value)
        else:
            self.visit(node)

    def _within(self) -> Key:
        return self._functions[-1][1] if self._functions else LOADING

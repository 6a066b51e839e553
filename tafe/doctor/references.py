"""Names in modules that were loaded before patching, and so mean what gevent has replaced since.

Whoever wrote `from time import sleep` has the function, not the place where it is looked up: patching comes too late.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from tafe.doctor.calls import originals
from tafe.doctor.finding import Finding
from tafe.doctor.known import ORIGINALS
from tafe.doctor.sources import file_of, is_machinery, is_standard, line_of, parsed, shown


def look(loaded_before: set[str]) -> Iterator[Finding]:
    """`loaded_before`: names of modules. The standard library's are patched themselves."""
    known = originals()
    for name in sorted(loaded_before):
        module = sys.modules.get(name)
        if (
            module is not None
            and issubclass(type(module), ModuleType)
            and not is_machinery(name)
            and not is_standard(module)
        ):
            yield from _held_by(name, module, known)


def _held_by(module_name: str, module: ModuleType, known: dict[int, tuple[str, Any]]) -> Iterator[Finding]:
    path = file_of(module)
    for name, value in sorted(vars(module).items()):
        if id(value) not in known:
            continue
        original, _ = known[id(value)]
        line = _bound_at(path, name)
        yield Finding(
            shown(path),
            line,
            "",
            line_of(path, line),
            f"{original} from before patching, called {name!r} in {module_name}",
            f"{module_name} was loaded before the worker patched, so {ORIGINALS[original]}",
            f"find out who loads {module_name} so early (sitecustomize, a .pth file, PYTHONSTARTUP), and stop that",
        )


def _bound_at(path: str, name: str) -> int:
    """The line at the top of a module that gives `name` its value; 1 if that is not seen."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            if any((alias.asname or alias.name) == name for alias in node.names):
                return node.lineno
        elif isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return node.lineno
    return 1

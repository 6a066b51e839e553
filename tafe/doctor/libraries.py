"""Libraries that wait in C, the resolver, and threads that were started while loading."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import gevent

from tafe.doctor.finding import Finding
from tafe.doctor.known import LIBRARIES
from tafe.doctor.sources import file_of, line_of, parsed, shown


def look(application: Iterable[ModuleType]) -> Iterator[Finding]:
    """`application`: its modules, which may say that a library was told of gevent, and where it is imported."""
    trees = [(path, parsed(path)) for path in map(file_of, application)]
    for module, library in LIBRARIES.items():
        if module in sys.modules and not _knows_gevent(module, [tree for _, tree in trees]):
            package = "mysql" if module == "_mysql_connector" else module.partition(".")[0].lstrip("_")
            file, line = _imported_at(package, trees)
            yield Finding(
                shown(file), line, "", line_of(file, line), f"{library.name} is loaded", library.why, library.instead
            )
    yield from _resolver()
    yield from _threads()


def _knows_gevent(module: str, trees: list[ast.Module]) -> bool:
    """It was told to wait as gevent does."""
    if module == "psycopg2._psycopg":
        extensions: Any = sys.modules.get("psycopg2.extensions")
        return extensions is not None and extensions.get_wait_callback() is not None
    told = {"grpc._cython.cygrpc": "init_gevent", "pymssql._pymssql": "set_wait_callback"}.get(module)
    if told is None:
        return False
    return any(
        told in (getattr(node.func, "attr", ""), getattr(node.func, "id", ""))
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    )


def _imported_at(package: str, trees: list[tuple[str, ast.Module]]) -> tuple[str, int]:
    """Where the application imports it; no place if another library does."""
    for file, tree in trees:
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            if any(name.partition(".")[0] == package for name in names):
                return file, getattr(node, "lineno", 1)
    return "", 0


def _resolver() -> Iterator[Finding]:
    resolver = type(gevent.get_hub().resolver)
    if resolver.__module__ == "gevent.resolver.blocking":
        yield Finding(
            "",
            0,
            "",
            "",
            "gevent's blocking resolver is chosen (GEVENT_RESOLVER=block)",
            "the whole worker waits for the name server",
            "leave GEVENT_RESOLVER alone: by default names are looked up in native threads",
        )


def _threads() -> Iterator[Finding]:
    """Native ones that run now, but for ours."""
    count = len(os.listdir("/proc/self/task")) - 1
    pool = gevent.get_hub()._threadpool  # noqa: SLF001 - the property makes one
    count -= pool.size if pool is not None else 0
    if count > 0:
        yield Finding(
            "",
            0,
            "",
            "",
            f"{count} native {'thread' if count == 1 else 'threads'} run after loading, started by a library in C",
            "each competes with the hub for the interpreter or the processor, and none survives a fork",
            "start them in a start hook (@app.on_start), and as few as the library allows (OMP_NUM_THREADS=1, ...)",
        )

"""Which modules are the application's own, and their source."""

from __future__ import annotations

import ast
import os
import site
import sysconfig
import tokenize
from functools import cache
from types import ModuleType

import tafe

_MACHINERY = ("tafe", "profiler", "gevent", "greenlet", "gunicorn", "click", "zope", "_distutils_hack")
_FOLDERS = [
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    *site.getsitepackages(),
    site.getusersitepackages(),
    os.path.dirname(str(tafe.__file__)),
]
_INSTALLED = tuple(os.path.realpath(path) + os.sep for path in _FOLDERS)
_STDLIB = tuple(os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib"))
_PACKAGES = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)


def is_machinery(name: str) -> bool:
    """What surrounds every application in a worker."""
    return name.partition(".")[0] in _MACHINERY


def file_of(module: ModuleType) -> str:
    """Where it is; empty if it has no file."""
    try:
        file = getattr(module, "__file__", None)
    except Exception:  # noqa: BLE001 - it may be a library's own kind of module, that loads when it is asked
        return ""
    return file if isinstance(file, str) else ""


def is_standard(module: ModuleType) -> bool:
    """Of the standard library, or without a file."""
    file = file_of(module)
    if not file:
        return True
    path = os.path.realpath(file)
    return path.startswith(_STDLIB) and not any(part in path for part in _PACKAGES)


def is_application(name: str, module: ModuleType, package: str) -> bool:
    """Of the application's top package, or at least not installed. `name`: what it was loaded as."""
    file = file_of(module)
    if not file.endswith(".py") or is_machinery(name):
        return False
    if name.partition(".")[0] == package:
        return True
    path = os.path.realpath(file)
    return not path.startswith(_INSTALLED) and not any(part in path for part in _PACKAGES)


@cache
def lines_of(path: str) -> list[str]:
    """The lines of a file; empty if it cannot be read."""
    try:
        with tokenize.open(path) as file:
            return file.read().splitlines()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return []


def line_of(path: str, number: int) -> str:
    """One line, without its indentation."""
    lines = lines_of(path)
    return lines[number - 1].strip() if 0 < number <= len(lines) else ""


def parsed(path: str) -> ast.Module:
    """The syntax tree; an empty one if there is none."""
    try:
        return ast.parse("\n".join(lines_of(path)))
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def shown(path: str) -> str:
    """From where the command was typed."""
    return path.removeprefix(os.getcwd() + os.sep)

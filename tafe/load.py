"""From "MODULE:APP" to a WSGI callable.

`find` answers before any process is forked whether the module exists, and imports nothing of the application (not
even a parent package), since a worker must patch before application code runs. `load` imports it, in the worker.
`failure` makes one screen of what went wrong: the application's own frames, without the machinery around them.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import click
import gunicorn

from tafe.errors import UsageError

WSGIApplication = Callable[..., Any]

_DEFAULT_NAMES = ("app", "application")  # uvicorn's and gunicorn's habit
_SPEC = re.compile(r"(?P<module>[\w.]+)(?::(?P<name>[\w.]+)(?P<call>\(\))?)?")
_SCREEN_FRAMES = 12  # the innermost frames that are shown of a failure
_MACHINERY = tuple(
    os.path.dirname(str(module.__file__)) + os.sep for module in (importlib, gunicorn, click, sys.modules[__package__])
)
_ALLOWED = "MODULE:NAME, or MODULE:NAME() for a factory without arguments"


@dataclass(frozen=True)
class Target:
    """What "MODULE:NAME()" means."""

    module: str
    name: str  # dotted; empty: one of the default names
    is_factory: bool
    text: str
    command: str = "serve"  # what to type instead begins with it


class LoadFailed(UsageError):
    """What was raised when the application was loaded."""

    exit_status = 4  # gunicorn's


def parse(text: str, command: str = "serve") -> Target:
    """Take MODULE:APP apart; `UsageError` if it is something else. `command`: the one that was typed."""
    match = _SPEC.fullmatch(text)
    if match is None or "" in match["module"].split("."):
        module, colon, name = text.partition(":")
        guess = module.removesuffix(".py").strip("./").replace("/", ".") + colon + name
        near = guess if guess != text and _SPEC.fullmatch(guess) else "apps.hello:app"
        raise UsageError(f"{text!r} does not name an application", allowed=_ALLOWED, try_=f"tafe {command} {near}")
    return Target(match["module"], match["name"] or "", bool(match["call"]), text, command)


def search_working_directory() -> None:
    """Let modules of the working directory be imported, as `python -m` does."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)


def find(target: Target) -> ModuleSpec:
    """The module's spec, found without importing anything; `UsageError` if there is none."""
    path: Any = None
    name = ""
    spec: ModuleSpec | None = None
    for part in target.module.split("."):
        name = f"{name}.{part}" if name else part
        spec = _spec(name, path)
        if spec is None:
            folders = sys.path[:1] if path is None else list(path)
            parent = name.rpartition(".")[0]
            raise UsageError(
                f"{target.text!r}: there is no module {name!r} in {', '.join(folders)}"
                if folders
                else f"{target.text!r}: {parent!r} is a file, not a package, so there is no module {name!r}",
                allowed=_ALLOWED,
                try_=_retry(target, name, folders),
            )
        path = spec.submodule_search_locations or []
    assert spec is not None  # a module's name has at least one part
    return spec


def load(target: Target) -> WSGIApplication:
    """Import the module and return the application. `UsageError` for a wrong name; else whatever the import raises."""
    module = importlib.import_module(target.module)
    found = _attribute(module, target)
    if target.is_factory:
        found = found()
    if not callable(found):
        kind = type(found).__name__
        raise UsageError(f"{target.text!r} is of type {kind} and cannot be called", allowed="a WSGI application")
    result: WSGIApplication = found
    return result


def failure(error: BaseException) -> str:
    """What to show of an error raised while loading: the application's frames and the message."""
    if isinstance(error, UsageError):
        return str(error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not is_machinery(frame.filename)]
    lines = traceback.format_list(frames[-_SCREEN_FRAMES:])
    if len(frames) > _SCREEN_FRAMES:
        lines.insert(0, f"  ... {len(frames) - _SCREEN_FRAMES} outer frames left out\n")
    lines += traceback.format_exception_only(error)
    return "".join(lines).rstrip()


def _spec(name: str, path: Any) -> ModuleSpec | None:
    if path is None and name in sys.modules and sys.modules[name].__spec__ is not None:
        return sys.modules[name].__spec__
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        try:
            spec: ModuleSpec | None = find_spec(name, path) if find_spec is not None else None
        except KeyError:  # a folder without __init__.py, whose parent package importlib expects to be imported
            spec = _namespace_package(name, path)
        if spec is not None:
            return spec
    return None


def _namespace_package(name: str, path: Any) -> ModuleSpec | None:
    """The spec of a folder without __init__.py in one of the folders of `path`."""
    folders = [os.path.join(parent, name.rpartition(".")[2]) for parent in path or sys.path]
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [folder for folder in folders if os.path.isdir(folder)]
    return spec if spec.submodule_search_locations else None


def _retry(target: Target, missing: str, folders: list[str]) -> str:
    """The module of a file that was named; one that exists beside the missing one and is spelled like it; else how to
    say where it is."""
    if missing == target.module and missing.endswith(".py"):
        return f"tafe {target.command} {missing.removesuffix('.py')}{target.text[len(target.module) :]}"
    wanted = missing.rpartition(".")[2]
    names = set()
    for folder in folders:
        try:
            entries = os.listdir(folder)
        except OSError:
            continue
        names |= {entry.removesuffix(".py") for entry in entries if entry.endswith(".py") or "." not in entry}
    for near in difflib.get_close_matches(wanted, sorted(names), n=1, cutoff=0.6):
        module = missing[: len(missing) - len(wanted)] + near + target.module[len(missing) :]
        return f"tafe {target.command} {module}{target.text[len(target.module) :]}"
    return "start tafe in the directory that holds the module, or set PYTHONPATH"


def _attribute(module: ModuleType, target: Target) -> Any:
    if not target.name:
        for name in _DEFAULT_NAMES:
            if hasattr(module, name):
                return getattr(module, name)
        raise UsageError(
            f"{target.text!r}: the module has neither app nor application",
            allowed=_ALLOWED,
            try_=f"tafe {target.command} {target.module}:NAME",
        )
    found: Any = module
    for part in target.name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            near = difflib.get_close_matches(part, dir(found), n=1, cutoff=0.5)
            raise UsageError(
                f"{target.text!r}: {target.module} has no {target.name!r}",
                allowed=_ALLOWED,
                try_=f"tafe {target.command} {target.module}:{near[0]}" if near else "",
            ) from None
    return found


def is_machinery(filename: str) -> bool:
    """Code that is around every application and is never the reason: import system, gunicorn, click, this package."""
    return filename.startswith(("<frozen ", *_MACHINERY))

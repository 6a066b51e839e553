"""Whether the compiled modules in this folder may be used, and how `import` finds them.

scripts/compiled.py copies this file beside what it has built, as `PACKAGE/_compiled/__init__.py`, and adds at its end
what it built from which sources; PACKAGE asks `choose` before it imports any module of its own. All or nothing a
package: modules compiled together know the layout of each other's classes.
PACKAGE_COMPILED=0 in the environment switches them off; 1, or nothing, leaves them on.
Imports the standard library only, and nothing heavy: every start pays for it, some 1 ms with the hashes of the sources.
"""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

FAILED = ""  # why nothing could be compiled
MODULES: tuple[str, ...] = ()  # their full names
SOURCES: dict[str, str] = {}  # what they were compiled from: path from the package's folder -> SHA-256
TOOLS = ""  # and with

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_PACKAGE = os.path.dirname(_FOLDER)
_NAME = os.path.basename(_PACKAGE)


class Finder:
    """Finds compiled modules by their full names, ahead of the sources of the same names."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As `importlib.abc.MetaPathFinder` says."""
        del path, target
        if name not in self.files:
            return None
        file = self.files[name]
        return spec_from_file_location(name, file, loader=ExtensionFileLoader(name, file))


def choose() -> str:
    """Let the compiled modules be imported from now on; or say why the sources are: "" is compiled."""
    files = {name: os.path.join(_FOLDER, *name.split(".")[1:]) + EXTENSION_SUFFIXES[0] for name in MODULES}
    reason = _switched_off() or FAILED or _unfit(files)
    if not reason:
        sys.meta_path.insert(0, Finder(files))
    return reason


def _switched_off() -> str:
    variable = f"{_NAME.upper()}_COMPILED"
    value = os.environ.get(variable, "")
    if value not in ("", "0", "1"):
        warnings.warn(f"{variable} is {value!r}, and ignored: it may be 0 (use the sources) or 1", stacklevel=2)
    return f"switched off by {variable}=0" if value == "0" else ""


def _unfit(files: dict[str, str]) -> str:
    changed = [source for source, digest in SOURCES.items() if digest_of(os.path.join(_PACKAGE, source)) != digest]
    if changed:
        which = f"{_NAME}/{changed[0]}" + (f" and {len(changed) - 1} more" if len(changed) > 1 else "")
        return f"sources changed since they were compiled: {which}; python -m scripts.compiled compiles them again"
    if not all(os.path.exists(file) for file in files.values()):
        return f"compiled for another Python than {EXTENSION_SUFFIXES[0]}"
    return ""


def digest_of(path: str) -> str:
    """Of a source; "" if there is none."""
    try:
        with open(path, "rb") as source:
            return hashlib.sha256(source.read()).hexdigest()
    except OSError:
        return ""

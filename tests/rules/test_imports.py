"""Who may import whom, read from the source with `ast`, so that nothing has to be imported to find out.

`profiler/` stands alone; within `tafe/` imports go one way, from the command line down to the parsers;
applications use the public interface. A module that is not in the table fails the test: it is to be placed
on purpose.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]

# The server, from the top down: a module imports from the rows below its own, or within its own package. What an
# application uses (APPLICATION) is in no row, so nothing here may import it.
LAYERS = (
    {"__main__"},
    {"cli"},
    {"commands", "doctor", "top"},
    {"master"},
    {"children", "reload", "modules"},
    {"admin"},
    {"exposition"},
    {"worker"},
    {"function_profile"},
    {"stock", "readiness", "health", "profiling", "server_timing"},
    {"arrivals"},
    {"server"},
    {"dropin", "tls", "accepting"},
    {"connection"},
    {"overdue"},
    {"wsgi", "transport"},
    {"body"},
    {"http1"},
    {"metrics", "balance"},
    {"access_log", "load", "resolve", "listeners", "scoreboard", "generations", "greenlets", "deadlines", "shared"},
    {"mailbox", "inquiry", "asking"},
    {"states", "turns", "files", "tracebacks", "outcomes", "log_writer", "keeping"},
    {"settings"},
    {"values", "limits", "lifecycle", "access_format"},
    {"errors"},
)
# What an application imports, and what each part of that may import besides itself.
APPLICATION = {
    "app": {"errors"},
    "db": {"errors", "lifecycle"},
    "concurrency": {"app", "errors"},
    "offloading": {"app", "errors", "lifecycle"},
}
# What applications in apps/ may use: the public names, and the errors to raise and to catch.
PUBLIC = {"tafe", "tafe.errors"}


@dataclass(frozen=True)
class Import:
    """One imported module; `late` means inside a function, `typing_only` under `if TYPE_CHECKING`."""

    path: Path
    line: int
    module: str
    late: bool
    typing_only: bool

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} imports {self.module}"


def imports_of(path: Path, root: Path = ROOT) -> list[Import]:
    """All imports of a file, with relative ones made absolute."""
    return list(_walk(ast.parse(path.read_text()), path, _package_of(path, root), late=False, typing_only=False))


def _walk(node: ast.AST, path: Path, package: str, *, late: bool, typing_only: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(path, child.lineno, alias.name, late, typing_only)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                parents = package.split(".")[: len(package.split(".")) - child.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            for alias in child.names:
                # `from tafe import db` imports a submodule; `from tafe.db import Database` a name: take the
                # longer one if it is a module of this tree.
                longer = f"{base}.{alias.name}"
                yield Import(path, child.lineno, longer if _is_module(longer) else base, late, typing_only)
        else:
            inner_late = late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            inner_typing = typing_only or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test))
            yield from _walk(child, path, package, late=inner_late, typing_only=inner_typing)


def _is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def _package_of(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).parent.parts)


def _module_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _files(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py") if path.parent.name != "_compiled")


def _top(module: str) -> str:
    return module.partition(".")[0]


def _part(module: str) -> str:
    """`tafe.http1.head` -> `http1`; empty for `tafe` itself."""
    return module.partition(".")[2].partition(".")[0]


def _may_import(importer: str, imported: str) -> bool:
    """Both are parts of tafe."""
    if importer == imported:
        return True
    if importer in APPLICATION:
        return imported in APPLICATION[importer]
    row = {name: number for number, names in enumerate(LAYERS) for name in names}
    return imported in row and row[importer] < row[imported]


def test_each_module_of_tafe_has_a_place_in_the_table() -> None:
    parts = {_part(_module_of(path)) for path in _files("tafe")} - {""}
    assert parts == set().union(*LAYERS) | set(APPLICATION)


def test_imports_within_tafe_go_one_way() -> None:
    wrong = [
        str(found)
        for path in _files("tafe")
        if (importer := _part(_module_of(path)))
        for found in imports_of(path)
        if not found.typing_only and found.module.startswith("tafe.") and not _may_import(importer, _part(found.module))
    ]
    assert wrong == []


def test_importing_tafe_imports_nothing_else_of_it() -> None:
    at_import = [found for found in imports_of(ROOT / "tafe" / "__init__.py") if not (found.late or found.typing_only)]
    assert [str(found) for found in at_import if _top(found.module) not in sys.stdlib_module_names] == []


def test_applications_use_the_public_interface() -> None:
    wrong = [
        str(found)
        for path in _files("apps")
        for found in imports_of(path)
        if _top(found.module) == "tafe" and found.module not in PUBLIC
    ]
    assert wrong == []


def test_the_rules_see_every_kind_of_import(tmp_path: Path) -> None:
    source = tmp_path / "package" / "module.py"
    source.parent.mkdir()
    source.write_text(
        "import os.path, json\n"
        "from . import sibling\n"
        "from ..other import name\n"
        "if TYPE_CHECKING:\n    import typed\n"
        "try:\n    from tafe import db\nexcept ImportError:\n    pass\n"
        "def late():\n    from tafe.db import Database\n"
    )
    found = {(one.module, one.late, one.typing_only) for one in imports_of(source, tmp_path)}
    assert found == {
        ("os.path", False, False),
        ("json", False, False),
        ("package", False, False),
        ("other", False, False),
        ("typed", False, True),
        ("tafe.db", False, False),
        ("tafe.db", True, False),
    }


def test_the_profiler_imports_the_standard_library_greenlet_and_gevent_alone() -> None:
    allowed = sys.stdlib_module_names | {"profiler", "greenlet", "gevent"}
    wrong = [
        str(found)
        for path in _files("profiler")
        for found in imports_of(path)
        if _top(found.module) not in allowed
        and not _is_late_renderer_import(found)
        and not _is_pytests(found)
        and not _is_yappi(found)
    ]
    assert wrong == []


def _is_pytests(found: Import) -> bool:
    """The plugin is loaded by pytest."""
    return found.module == "pytest" and found.path == ROOT / "profiler" / "pytest_plugin.py"


def _is_yappi(found: Import) -> bool:
    """Loaded when functions are to be recorded, if it is installed."""
    return found.late and found.module == "yappi" and found.path == ROOT / "profiler" / "functions.py"


def _is_late_renderer_import(found: Import) -> bool:
    """A renderer may load a library when it is asked to render, but nothing of the server."""
    return found.late and found.path.is_relative_to(ROOT / "profiler" / "render") and _top(found.module) != "tafe"


def test_only_tafe_profiling_imports_the_profiler() -> None:
    wrong = [
        str(found)
        for folder in ("tafe", "apps")
        for path in _files(folder)
        for found in imports_of(path)
        if _top(found.module) == "profiler" and _module_of(path) != "tafe.profiling"
    ]
    assert wrong == []

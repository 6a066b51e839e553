"""Compile the hot modules: `build_ext` for the packaging, and a command that does it in place.

    python -m scripts.compiled              needs Cython, setuptools and a C compiler in the environment; no network
    python -m scripts.compiled profiler     only this package's

The modules are listed in pyproject.toml, `[tool.setuptools] ext-modules`, as `PACKAGE._compiled.MODULE`. Their source
is typed Python, which the interpreter runs as it is; a .pxd file beside it gives Cython the C types. A compiled module
has the name of the source it replaces, and lies in PACKAGE/_compiled (or a folder in it, for a subpackage's), where
nothing finds it by chance: sidecar.py, copied there too, decides that at each start.
Without Cython, compiler or Python's headers, or when anything else fails, the build says so in a line and goes on; the
sidecar keeps the reason. C files stay in the build's temporary folder.
"""

from __future__ import annotations

import hashlib
import os
import runpy
import shutil
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext

FOLDER = "_compiled"
SIDECAR = "scripts/sidecar.py"
# Annotations are for readers and mypy. Taken as C types they would change what a function accepts (a `str` parameter
# would refuse subclasses of str), so C types are given in .pxd files only.
# Without binding, functions and methods are as C's own: quicker to call, and not to be inspected.
DIRECTIVES = {"language_level": 3, "annotation_typing": False, "binding": False, "auto_pickle": False}
COMPILER_OPTIONS = ["-O2", "-g0"]  # symbols are most of the size, and of no use without the C files
NEEDS = "a C compiler and Python's headers are needed (Debian: build-essential, python3-dev)"


class BuildExt(build_ext):
    """Builds all of the extensions or none, and a sidecar for each package. Runs in the project's root."""

    def run(self) -> None:
        """Build into the build's folder; when it is to be in place, copy from there."""
        packages: dict[str, list[str]] = {}
        for ext in self.extensions:
            packages.setdefault(ext.name.partition(".")[0], []).append(_replaced(ext.name))
        if self.inplace and all(_is_fresh(package, modules) for package, modules in packages.items()):
            return
        bases = [Path(self.build_lib), *([Path()] if self.inplace else [])]
        for base in bases:
            for package in packages:
                shutil.rmtree(base / package / FOLDER, ignore_errors=True)
            for ext in self.extensions:
                (base / _path(ext.name)).parent.mkdir(parents=True, exist_ok=True)
        failed = ""
        try:
            super().run()
        except Exception as error:  # noqa: BLE001 - whatever it was, the sources work
            problem = textwrap.shorten(f"{type(error).__name__}: {error}", 160, placeholder=" ...")
            failed = f"not compiled: {problem}; {NEEDS}"
            print(f"warning: {failed}", file=sys.stderr)
        for base in bases:
            for package, modules in packages.items():
                _write_sidecar(base / package / FOLDER, contents(package, modules, failed))

    def build_extensions(self) -> None:
        """Translate to C, then compile."""
        from Cython.Build import cythonize

        translated = cythonize(
            [Extension(_replaced(ext.name), ext.sources) for ext in self.extensions],
            build_dir=self.build_temp,
            compiler_directives=DIRECTIVES,
            force=True,  # else it goes by the files' times
            quiet=not self.verbose,
        )
        for ext, c in zip(self.extensions, translated, strict=True):
            ext.sources = c.sources
            ext.extra_compile_args = COMPILER_OPTIONS
        self.force = True
        self.parallel: int | bool | None = self.parallel or os.cpu_count()
        super().build_extensions()

    def get_source_files(self) -> list[str]:
        """What belongs into a source distribution."""
        types = [str(_path(_replaced(ext.name)).with_suffix(".pxd")) for ext in self.extensions]
        return [*super().get_source_files(), "scripts/compiled.py", SIDECAR, *filter(os.path.exists, types)]


def _replaced(name: str) -> str:
    """`tafe._compiled.http1.head` replaces `tafe.http1.head`."""
    return name.replace(f".{FOLDER}", "", 1)


def _path(name: str) -> Path:
    return Path(*name.split("."))


def contents(package: str, modules: list[str], failed: str = "") -> dict[str, Any]:
    """The variables of a package's sidecar, from what lies in the working directory."""
    # All .pxd files, since any module of the package may use any of them.
    only_compiled = [path for path in Path(package).rglob("*.p*") if path.suffix in (".pxd", ".pyx")]
    sources = sorted([*(_path(name).with_suffix(".py") for name in modules), *only_compiled])
    try:
        from Cython import __version__ as cython
    except ImportError:
        cython = "none"
    return {
        "FAILED": failed,
        "MODULES": tuple(sorted(modules)),
        "SOURCES": {str(path.relative_to(package)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sources},
        "TOOLS": f"Cython {cython}, Python {sys.version}, {COMPILER_OPTIONS}, {DIRECTIVES}",
    }


def _write_sidecar(folder: Path, variables: dict[str, Any]) -> None:
    if variables["FAILED"]:
        shutil.rmtree(folder)
        folder.mkdir()
    lines = [f"{name} = {value!r}" for name, value in variables.items()]
    (folder / "__init__.py").write_text("\n".join([Path(SIDECAR).read_text(), *lines, ""]))


def _is_fresh(package: str, modules: list[str]) -> bool:
    try:
        found = runpy.run_path(str(Path(package, FOLDER, "__init__.py")))
    except OSError:
        return False
    wanted = contents(package, modules)
    return {name: found.get(name) for name in wanted} == wanted


def main() -> int:
    """Compile in place the packages that are not up to date; the exit status."""
    os.chdir(Path(__file__).parent.parent)
    listed: list[dict[str, Any]] = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["setuptools"][
        "ext-modules"
    ]
    packages = {one["name"].partition(".")[0] for one in listed}
    for package in sorted(packages & set(sys.argv[1:]) or packages):
        own = [one for one in listed if one["name"].startswith(f"{package}.")]
        modules = [_replaced(one["name"]) for one in own]
        if _is_fresh(package, modules):
            print(f"{package}: up to date")
            continue
        print(f"{package}: compiling {', '.join(modules)}", flush=True)
        command = BuildExt(Distribution({"ext_modules": [Extension(**one) for one in own]}))
        command.inplace = True
        command.verbose = False
        command.ensure_finalized()
        command.run()
        if not _is_fresh(package, modules):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A small project that is packaged as this one is: two modules to compile, one of them in a subpackage."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.services.requirements import INSTALL_ALL, missing, program

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = """\
[build-system]
requires = ["setuptools", "Cython"]
build-backend = "setuptools.build_meta"

[project]
name = "sample"
version = "1"

[tool.setuptools]
packages = ["sample", "sample.inner"]
ext-modules = [
    {name = "sample._compiled.sums", sources = ["sample/sums.py"]},
    {name = "sample._compiled.inner.deep", sources = ["sample/inner/deep.py"]},
]

[tool.setuptools.cmdclass]
build_ext = "scripts.compiled.BuildExt"

[tool.setuptools.package-data]
"*" = ["*.pxd"]
"""
FILES = {
    "pyproject.toml": PYPROJECT,
    "sample/sums.py": '"""Sums."""\n\n\ndef add(a, b):\n    return a + b\n\n\ndef twice(a):\n    return add(a, a)\n',
    "sample/sums.pxd": "cpdef long add(long a, long b)\n",
    "sample/inner/__init__.py": '"""A subpackage."""\n',
    "sample/inner/deep.py": '"""Deeper."""\n\nANSWER = 42\n',
}
LOOK = """
import sample, sample.sums, sample.inner.deep
print(sample.why_interpreted)
print(*(module.__file__.rpartition(".")[2] for module in (sample.sums, sample.inner.deep)))
print(sample.sums.twice(21), sample.inner.deep.ANSWER)
"""


class Project:
    """One copy of it, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Python in the project's folder."""
        clean = {name: value for name, value in os.environ.items() if not name.endswith("_COMPILED")}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**clean, "PYTHONDONTWRITEBYTECODE": "1", **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def compile(self, **environ: str) -> subprocess.CompletedProcess[str]:
        """The command that compiles in place."""
        return self.run("-m", "scripts.compiled", **environ)

    def package(self, kind: str, target: Path, **environ: str) -> tuple[Path, str]:
        """Make a `wheel` or an `sdist` as pip does, in this environment; the file, and what was said."""
        target.mkdir(exist_ok=True)
        done = self.run(
            "-c", f"from setuptools.build_meta import *; print(build_{kind}({str(target)!r}))", "", **environ
        )
        assert done.returncode == 0, done.stderr
        return target / done.stdout.split()[-1], done.stderr

    def look(self, **environ: str) -> tuple[str, list[str]]:
        """Why it is interpreted, and the suffixes of its modules' files."""
        done = self.run("-c", LOOK, **environ)
        assert done.returncode == 0, done.stderr
        why, suffixes, answers = done.stdout.splitlines()
        assert answers == "42 42"
        return why, suffixes.split()

    def copy(self, folder: Path) -> Project:
        """The same in another place."""
        shutil.copytree(self.folder, folder)
        return Project(folder)


def compilers_are_here() -> None:
    """Skip, or fail with CI=true, where nothing can be compiled."""
    program("gcc")
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        missing("Python's headers (Debian package python3-dev)", INSTALL_ALL)
    if importlib.util.find_spec("Cython") is None:
        missing("Cython", "python -m pip install -e '.[test]'")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Not compiled."""
    folder = tmp_path_factory.mktemp("source")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    chooser = (ROOT / "profiler" / "__init__.py").read_text().partition("try:")[2].partition("\n\n")[0]
    (folder / "sample" / "__init__.py").write_text(
        f'"""A package."""\n\nfrom importlib import import_module\n\ntry:{chooser}\n'.replace("profiler", "sample")
    )
    (folder / "scripts").mkdir()
    for name in ("compiled.py", "sidecar.py"):
        shutil.copy(ROOT / "scripts" / name, folder / "scripts")
    return Project(folder)


@pytest.fixture(scope="session")
def compiled(source: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Compiled in place; not to be changed."""
    compilers_are_here()
    project = source.copy(tmp_path_factory.mktemp("compiled") / "project")
    done = project.compile()
    assert done.returncode == 0, done.stderr
    return project

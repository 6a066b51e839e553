"""The peers' virtual environment: made once, remade when its lists change, apart from every other one.

The peers run on the same interpreter as we do, but never share its packages: a test must not pass because a
peer brought a dependency along. peers.txt must install; what peers-built.txt names needs a compiler and
headers, and a machine without them measures without it: why is kept for the report.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_DIRECTORY = ROOT / ".run" / "bench-venv"
_REQUIREMENTS = Path(__file__).with_name("peers.txt")
_BUILT = Path(__file__).with_name("peers-built.txt")
_NOT_BUILT = "not-built.json"
# Debian keeps servers where an ordinary user's PATH does not reach.
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def found(program: str) -> str | None:
    """The path of a program, wherever Debian keeps it; None if it is not installed."""
    return shutil.which(program, path=_SEARCH_PATH)


def ensure(directory: Path = _DIRECTORY, requirements: Path = _REQUIREMENTS, built: Path | None = _BUILT) -> Path:
    """Make the environment if it is not there as the lists want it; return its folder of programs."""
    stamp = directory / "made-from"
    lists = requirements.read_bytes() + (built.read_bytes() if built else b"")
    wanted = hashlib.sha256(lists + sys.version.encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == wanted):
        names = ", ".join(each.name for each in (requirements, built) if each)
        print(f"installing the peers ({names}) ...", file=sys.stderr, flush=True)
        shutil.rmtree(directory, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True)
        subprocess.run([*_install(directory), "-r", str(requirements)], check=True)
        (directory / _NOT_BUILT).write_text(json.dumps(_build(directory, built) if built else {}))
        stamp.write_text(wanted)
    return directory / "bin"


def _install(directory: Path) -> list[str]:
    return [*pip("--python", str(directory / "bin" / "python")), "install", "--quiet"]


def pip(*options: str) -> list[str]:
    """The command that runs pip: this environment's or, if it has none, that of the Python it was made from."""
    base = str(getattr(sys, "_base_executable", sys.executable))
    python = base if importlib.util.find_spec("pip") is None else sys.executable
    return [python, "-m", "pip", "--disable-pip-version-check", *options]


def _build(directory: Path, built: Path) -> dict[str, str]:
    """Install each of this list; why the others could not be, by name."""
    lines = (line.partition("#")[0].strip() for line in built.read_text().splitlines())
    failed = {}
    for requirement in filter(None, lines):
        done = subprocess.run([*_install(directory), requirement], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            failed[requirement.partition("==")[0]] = (
                f"{requirement} cannot be built here: {compiler_error(done.stderr)}"
            )
    return failed


def compiler_error(stderr: str) -> str:
    """What stopped a build: the compiler's fatal error or, without one, the first that is not pip's own summary."""
    for word in ("fatal error: ", "error: "):
        for line in stderr.splitlines():
            error = line.partition(word)[2].strip()
            if error and error != "subprocess-exited-with-error":
                return error[:200]
    return "pip does not say why"


def not_built(programs: Path) -> dict[str, str]:
    """Why packages are missing from the environment whose folder of programs this is, by their names."""
    failed: dict[str, str] = json.loads((programs.parent / _NOT_BUILT).read_text())
    return failed


@functools.cache
def interpreted() -> dict[str, str]:
    """Why each of our packages that has modules to compile is measured without them; empty: it runs with them."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]
    packages = sorted({module["name"].partition(".")[0] for module in listed})
    program = (
        "import importlib, json, sys;"
        "print(json.dumps({name: importlib.import_module(name).why_interpreted for name in sys.argv[1:]}))"
    )
    argv = [sys.executable, "-c", program, *packages]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT, env=clean_environment())
    reasons: dict[str, str] = json.loads(done.stdout)
    return reasons


def clean_environment() -> dict[str, str]:
    """The variables of this process without our own settings: what is measured is what `contestants.py` says."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("TAFE_", "PROFILER_"))}


@functools.cache
def versions(python: Path) -> dict[str, str]:
    """Names (in lower case) and versions of the packages that `python` sees."""
    program = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.metadata['Name'].lower(): d.version for d in m.distributions()}))"
    )
    done = subprocess.run([str(python), "-c", program], capture_output=True, text=True, check=True)
    installed: dict[str, str] = json.loads(done.stdout)
    return installed


def program_version(program: str) -> str:
    """What a program that is no Python package says to -v, as nginx does: `nginx version: nginx/1.22.1`."""
    done = subprocess.run([found(program) or program, "-v"], capture_output=True, text=True, check=True)
    return (done.stdout + done.stderr).strip().rpartition("/")[2]

"""The peers' virtual environment: made once, remade when peers.txt changes, apart from every other one.

The peers run on the same interpreter as we do, but never share its packages: a test must not pass because a
peer brought a dependency along.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_DIRECTORY = ROOT / ".run" / "bench-venv"
_REQUIREMENTS = Path(__file__).with_name("peers.txt")


def ensure(directory: Path = _DIRECTORY) -> Path:
    """Make the environment if it is not there as peers.txt wants it; return its folder of programs."""
    stamp = directory / "made-from"
    wanted = hashlib.sha256(_REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"installing the peers ({_REQUIREMENTS.name}) ...", file=sys.stderr, flush=True)
        shutil.rmtree(directory, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(_REQUIREMENTS)]
        subprocess.run([str(directory / "bin" / "python"), *install], check=True)
        stamp.write_text(wanted)
    return directory / "bin"


@functools.cache
def versions(python: Path) -> dict[str, str]:
    """Names (in lower case) and versions of the packages that `python` sees."""
    program = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.metadata['Name'].lower(): d.version for d in m.distributions()}))"
    )
    done = subprocess.run([str(python), "-c", program], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found

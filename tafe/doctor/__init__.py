"""`tafe doctor`: what in an application will keep a hub from everybody else, found before it is deployed.

probe.py loads the application as a worker does, in a process of its own, and looks at what is there then: which names
are functions from before patching (references.py), which libraries wait in C (libraries.py), which functions of the
application call one that is known to block (calls.py, known.py). render.py shows what was found.

Limits. It sees what is named: not what is called by way of an attribute of an object, nor how long anything takes, nor
loops. Libraries are known by name, their code is not read. What only shows when it runs is for the profiler, and for
the pytest plugin.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from tafe import load
from tafe.doctor.finding import Finding
from tafe.doctor.render import as_json, as_text
from tafe.errors import UsageError

FORMATS = {"text": as_text, "json": as_json}
_LIMIT_S = 60.0  # as a worker has to load it (--start-deadline)


def examine(app: str, format_: str) -> tuple[int, str]:
    """The exit status (0: nothing found, 1: something) and what to print. `UsageError` for what cannot be loaded."""
    if format_ not in FORMATS:
        raise UsageError(f"{format_!r} is not a format", allowed=" or ".join(FORMATS), try_=f"tafe doctor {app}")
    load.search_working_directory()
    load.find(load.parse(app))
    findings = _probed(app)
    return (1 if findings else 0), FORMATS[format_](app, findings)


def _probed(app: str) -> list[Finding]:
    with tempfile.TemporaryFile() as answer:
        command = [sys.executable, "-m", "tafe.doctor", app, str(answer.fileno())]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        try:
            # What the application prints while it is loaded is not the answer.
            done = subprocess.run(
                command, env=environ, stdout=sys.stderr, timeout=_LIMIT_S, check=False, pass_fds=[answer.fileno()]
            )
        except subprocess.TimeoutExpired:
            raise UsageError(f"{app} is not loaded after {_LIMIT_S:g} s") from None
        answer.seek(0)
        text = answer.read()
    if not text:
        raise UsageError(f"{app}: the process that loads it ended with status {done.returncode}")
    told = json.loads(text)
    if "error" in told:
        raise UsageError(f"{app} cannot be loaded\n{told['error']}")
    return [Finding(**one) for one in told["findings"]]

"""`tafe doctor`: what in an application will keep a hub from everybody else, found before it is deployed.

probe.py loads the application as a worker does, in a process of its own (process.py), and looks at what is there then:
which names are functions from before patching (references.py), which libraries wait in C (libraries.py), which
functions of the application call one that is known to block (calls.py, known.py). render.py shows what was found.

Limits. It sees what is named: not what is called by way of an attribute of an object, nor how long anything takes, nor
loops. Libraries are known by name, their code is not read. What only shows when it runs is for the profiler, and for
the pytest plugin.
"""

from __future__ import annotations

import os
import sys

from tafe import load
from tafe.doctor.finding import Finding
from tafe.doctor.process import ask
from tafe.doctor.render import as_json, as_text
from tafe.errors import UsageError
from tafe.profiling import allowed

FORMATS = {"text": as_text, "json": as_json}


def examine(app: str, format_: str, allow: str | None = None) -> int:
    """Print what is found; the exit status, 0: nothing, 1: something. `UsageError` for what cannot be loaded, or shown.

    `allow`: a file of what is accepted for a time, and left out.
    """
    if format_ not in FORMATS:
        raise UsageError(f"{format_!r} is not a format", allowed=" or ".join(FORMATS), try_=f"tafe doctor {app}")
    accepts = None if allow is None else allowed(allow)
    load.search_working_directory()
    load.find(load.parse(app, "doctor"))
    findings = [Finding(**one) for one in ask(app)]
    if accepts is not None:
        findings = [one for one in findings if not accepts(one.file, one.function, one.cause)]
    _print(FORMATS[format_](app, findings))
    return 1 if findings else 0


def _print(text: str) -> None:
    if sys.stdout is None:
        raise UsageError("cannot write what was found: standard output is closed")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        with open(os.devnull, "w") as nowhere:  # where the interpreter's own flush, at its end, is not noticed
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # whoever reads it has seen enough, as `| head -1` has
            raise UsageError(f"cannot write what was found: {error.strerror}") from error

"""The process that loads the application as a worker does, and looks at it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from types import ModuleType

from gevent import monkey

import tafe.worker  # noqa: F401 - what a worker has loaded before it patches
from tafe import load
from tafe.doctor.finding import Finding


def main(app: str, answer: str) -> None:
    """Write what was found, or why nothing can be, into the file `answer`."""
    process = os.getpid()
    before = set(sys.modules)
    monkey.patch_all()
    target = load.parse(app, "doctor")
    try:
        load.load(target)
    except BaseException as error:  # noqa: BLE001 - whatever the application raised is shown, gevent.Timeout too
        told: dict[str, object] = {"error": load.failure(error)}
    else:
        told = {"findings": [one._asdict() for one in _found(before, target)]}
    if os.getpid() == process:  # the application may have forked, and both have come here
        with open(answer, "w", encoding="utf-8") as file:
            json.dump(told, file)
    sys.stderr.flush()
    os._exit(0)  # the application's threads are not waited for


def _found(before: set[str], target: load.Target) -> list[Finding]:
    """In order of their places, each once."""
    from tafe.doctor import calls, libraries, references
    from tafe.doctor.sources import is_application

    package = target.module.partition(".")[0]

    def every() -> Iterator[Finding]:
        yield from references.look(before)
        loaded = list(sys.modules.items())
        modules = [(name, one) for name, one in loaded if issubclass(type(one), ModuleType)]  # anything may be there
        application = [one for name, one in modules if is_application(name, one, package)]
        factory = getattr(sys.modules[target.module], target.name, None) if target.is_factory else None
        yield from calls.look(application, factory)
        yield from libraries.look(application)

    return sorted(set(every()), key=lambda one: (not one.file, one.file, one.line, one.what))

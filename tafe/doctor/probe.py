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


def main(app: str, fd: int) -> None:
    """Write what was found, or why nothing can be, into `fd`."""
    before = set(sys.modules)
    monkey.patch_all()
    target = load.parse(app)
    try:
        load.load(target)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the application raised is shown
        told: dict[str, object] = {"error": load.failure(error)}
    else:
        told = {"findings": [one._asdict() for one in _found(before, target.module.partition(".")[0])]}
    with open(fd, "w", encoding="utf-8") as answer:
        json.dump(told, answer)
    sys.stderr.flush()
    os._exit(0)  # the application's threads are not waited for


def _found(before: set[str], package: str) -> list[Finding]:
    """In order of their places, each once."""
    from tafe.doctor import calls, libraries, references
    from tafe.doctor.sources import is_application

    def every() -> Iterator[Finding]:
        yield from references.look(before)
        loaded: list[object] = list(sys.modules.values())  # anything may be there
        modules = [one for one in loaded if isinstance(one, ModuleType)]
        application = [one for one in modules if is_application(one, package)]
        found = calls.Calls()
        for module in application:
            yield from found.look(module)
        yield from libraries.look(application)

    return sorted(set(every()), key=lambda one: (not one.file, one.file, one.line, one.what))

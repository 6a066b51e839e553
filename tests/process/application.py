"""The application that the process tests serve: it tells which worker answered, and can sleep, spin and fail."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from gevent import monkey

PATCHED_BEFORE_IMPORT = monkey.is_module_patched("socket") and monkey.is_module_patched("threading")


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/`: the worker's process id; `/sleep/S`; `/spin/S`: without yielding; `/patched`; `/scheme`; `/exit`."""
    name, _, argument = environ["PATH_INFO"].strip("/").partition("/")
    body = str(os.getpid())
    if name == "sleep":
        time.sleep(float(argument))
    elif name == "spin":
        end = time.monotonic() + float(argument)
        while time.monotonic() < end:
            pass
    elif name == "patched":
        body = str(PATCHED_BEFORE_IMPORT)
    elif name == "scheme":
        body = environ["wsgi.url_scheme"]
    elif name == "exit":
        os._exit(9)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body.encode()]

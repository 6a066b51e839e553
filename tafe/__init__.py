"""TAFE: a gevent front-end server for latency-bound Python services.

The names below are the public interface; each is loaded at first use, because a worker must monkey-patch before
anything that imports sockets or threads, and importing `tafe` must not decide that for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

try:  # before any module that may be compiled
    why_interpreted: str = import_module("tafe._compiled").choose()
except (ModuleNotFoundError, AttributeError):  # the second: a folder without its sidecar, as while it is built
    why_interpreted = "not compiled"

if TYPE_CHECKING:
    from tafe.app import App as App
    from tafe.app import Request as Request
    from tafe.app import Response as Response
    from tafe.concurrency import SingleFlight as SingleFlight
    from tafe.concurrency import gather as gather
    from tafe.db import Database as Database
    from tafe.db import use_fast_pymysql as use_fast_pymysql
    from tafe.errors import BadRequest as BadRequest
    from tafe.errors import HTTPError as HTTPError
    from tafe.errors import NotFound as NotFound
    from tafe.errors import Unavailable as Unavailable
    from tafe.offloading import offload as offload
    from tafe.server import WSGIServer as WSGIServer

__version__ = "0.1.0"

_HOMES = {
    "App": "tafe.app",
    "Request": "tafe.app",
    "Response": "tafe.app",
    "SingleFlight": "tafe.concurrency",
    "gather": "tafe.concurrency",
    "Database": "tafe.db",
    "BadRequest": "tafe.errors",
    "HTTPError": "tafe.errors",
    "NotFound": "tafe.errors",
    "Unavailable": "tafe.errors",
    "offload": "tafe.offloading",
    "WSGIServer": "tafe.server",
    "use_fast_pymysql": "tafe.db",
}

__all__ = [
    "App",
    "BadRequest",
    "Database",
    "HTTPError",
    "NotFound",
    "Request",
    "Response",
    "SingleFlight",
    "Unavailable",
    "WSGIServer",
    "__version__",
    "gather",
    "offload",
    "use_fast_pymysql",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module at first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tafe' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value

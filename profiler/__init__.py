"""A request profiler for gevent: which line does not yield, and whom it delays.

    session = profiler.install("profile/")          # once a process, after fork, in the hub's thread
    span = session.begin("GET /users/{id}", "request-7")
    ...                                             # the request runs in this greenlet, and may wait
    session.end(span)

and later, anywhere: `python -m profiler report profile/`.
`with profiler.span("job resize"):` does the same for a block; wsgi.py wraps a WSGI application of any server on gevent;
pytest_plugin.py fails tests that do not yield.
Knows greenlets, requests and time; but for wsgi.py it knows no HTTP. DESIGN.md says how it works and what it costs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profiler.errors import ProfilerError as ProfilerError
    from profiler.model import Span as Span
    from profiler.session import Session as Session
    from profiler.session import install as install
    from profiler.spans import span as span

try:  # before any module that may be compiled
    why_interpreted: str = import_module("profiler._compiled").choose()
except (ModuleNotFoundError, AttributeError):  # the second: a folder without its sidecar, as while it is built
    why_interpreted = "not compiled"

_HOMES = {
    "install": "profiler.session",
    "span": "profiler.spans",
    "Session": "profiler.session",
    "Span": "profiler.model",
    "ProfilerError": "profiler.errors",
}

__all__ = ["install", "span", "Session", "Span", "ProfilerError", "why_interpreted"]


def __getattr__(name: str) -> Any:
    """Load a public name from its module at first use: a report needs no gevent."""
    if name not in _HOMES:
        raise AttributeError(f"module 'profiler' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value

"""A request profiler for gevent: which line does not yield, and whom it delays.

    session = profiler.install("profile/")          # once a process, after fork, in the hub's thread
    span = session.begin("GET /users/{id}", "request-7")
    ...                                             # the request runs in this greenlet, and may wait
    session.end(span)

and later, anywhere: `python -m profiler report profile/`.
Knows greenlets, requests and time; knows no HTTP. DESIGN.md says how it works and what it costs.
"""

from __future__ import annotations

from profiler.errors import ProfilerError
from profiler.model import Span
from profiler.session import Session, install

__all__ = ["install", "Session", "Span", "ProfilerError"]

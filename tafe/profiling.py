"""The only door between the server and the profiler: requests become spans, settings become sessions.

The profiler knows no HTTP, so what a request is called is decided here: a `tafe.App` names its own template; for any
other application the path stands for the route, with the parts that look like identifiers replaced, so that a million
users are one route.
`start`, `stop` and `report` are for the worker and the command line; the observer is for the server.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import profiler
from profiler import why_interpreted
from profiler.report import FORMATS as REPORT_FORMATS
from profiler.report import run as run_report
from tafe.errors import UsageError

# Labels of paths seen; a table that is full is emptied. 4,096 paths of some 100 bytes are half a MiB.
_MAX_REMEMBERED: Final = 4096
_MAX_LABEL: Final = 200
# A part of a path that names one thing among many: a number, a UUID, a long token that holds a digit.
_IDENTIFIER: Final = re.compile(r"[0-9]+|[0-9a-fA-F-]{16,}|(?=[^/]*[0-9])[A-Za-z0-9_=-]{20,}")

_session: profiler.Session | None = None


class SpanObserver:
    """`wsgi.Observer` on a profiler session. Its functions are attributes: no bound method is made on the hot path."""

    def __init__(self, session: profiler.Session) -> None:
        begin_span, turn = session.begin, session.turn
        # By method and path, both of which are remembered strings: putting them together costs more than two look-ups.
        known: dict[str, dict[str, str]] = {}
        remembered = 0

        def begin(environ: dict[str, Any]) -> profiler.Span:
            try:
                route = known[environ["REQUEST_METHOD"]][environ["PATH_INFO"]]
            except KeyError:
                route = remember(environ["REQUEST_METHOD"], environ["PATH_INFO"])
            environ["tafe.span"] = span = begin_span(route, environ["tafe.request_id"], turn.ready_ns)
            return span

        def remember(method: str, path: str) -> str:
            nonlocal remembered
            if remembered >= _MAX_REMEMBERED:
                known.clear()
                remembered = 0
            remembered += 1
            route = known.setdefault(method, {})[path] = route_of(f"{method} {path}")
            return route

        self.begin: Callable[[dict[str, Any]], profiler.Span] = begin
        self.end = session.end


def route_of(name: str) -> str:
    """`GET /users/17/edit` -> `GET /users/{}/edit`: the route of an application that does not name its own."""
    method, _, path = name.partition(" ")
    parts = ["{}" if _IDENTIFIER.fullmatch(part) else part for part in path.split("/")]
    label = f"{method} {'/'.join(parts)}".encode("ascii", "backslashreplace").decode("ascii")
    return label if len(label) <= _MAX_LABEL else label[: _MAX_LABEL - 3] + "..."


def start(directory: str, slow_slice_ms: float) -> SpanObserver:
    """Profile this worker into `directory`. Raises `UsageError` if it cannot be written."""
    global _session  # noqa: PLW0603 - the profiler is one a process
    try:
        _session = profiler.install(
            directory, slow_slice_ms=slow_slice_ms, library_prefixes=[str(Path(__file__).parent)]
        )
    except profiler.ProfilerError as error:
        raise _usage(error) from error
    return SpanObserver(_session)


def stop() -> None:
    """Write what is left; nothing if it was not started."""
    global _session  # noqa: PLW0603
    if _session is not None:
        _session.close()
        _session = None


def report(directories: list[str], format_: str, output: str | None, since: str | None = None) -> int:
    """Print the report of these directories; the exit status. Raises `UsageError` for what cannot be shown."""
    try:
        return run_report(directories, format_, output, since)
    except profiler.ProfilerError as error:
        raise _usage(error) from error


def _usage(error: profiler.ProfilerError) -> UsageError:
    return UsageError(error.problem, try_=error.remedy)


__all__ = ["REPORT_FORMATS", "SpanObserver", "report", "route_of", "start", "stop", "why_interpreted"]

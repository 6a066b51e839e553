"""The only door between the server and the profiler: requests become spans, settings become sessions.

What a request is called: a `tafe.App` names its own template; for any other application the path stands for the route,
with the parts that look like identifiers replaced (profiler/routes.py).
While it runs it also knows which request a greenlet works for (`lifecycle.origin`), spawned ones included.
`start`, `stop` and `report` are for the worker and the command line; the observer is for the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import profiler
import tafe
from profiler import why_interpreted
from profiler.private_file import write as write_private
from profiler.render.calls import FORMATS as FUNCTION_FORMATS
from profiler.render.words import cut, plain
from profiler.report import FORMATS as REPORT_FORMATS
from profiler.report import run as run_report
from profiler.report.advice import Case, advise
from profiler.routes import Routes
from tafe import lifecycle
from tafe.arrivals import Arrivals
from tafe.errors import UsageError

if TYPE_CHECKING:
    from gevent.event import Event

    from profiler.metrics import Figures as Figures  # noqa: PLC0414 - for whoever says what `figures` gives
    from profiler.metrics import Times as Times  # noqa: PLC0414 - the same
    from profiler.sites import Finding
    from tafe.server import WSGIServer

# What advice in a report names here where it would name gevent's own.
REMEDIES = {"thread": "tafe.offload({})", "sqlite": "tafe.Database, whose threads wait for you"}

_session: profiler.Session | None = None


class SpanObserver:
    """`wsgi.Observer` on a profiler session, whose own functions are called for each request."""

    def __init__(self, session: profiler.Session) -> None:
        self.begin = session.begin
        self.end = session.end
        self._routes = Routes()

    def name(self, method: str, path: str) -> str:
        """The path's route, for an application that does not name its own."""
        try:
            return self._routes.known[method][path]
        except KeyError:
            return self._routes.remember(method, path)


def start(directory: str, slow_slice_ms: float, objectives_ms: Mapping[str, float]) -> SpanObserver:
    """Profile this worker into `directory`. Raises `UsageError` if it cannot be written.

    `objectives_ms`: by route, the longest that a request should take; `*` is any other route.
    """
    global _session  # noqa: PLW0603 - the profiler is one a process
    try:
        _session = profiler.install(
            directory,
            slow_slice_ms=slow_slice_ms,
            library_prefixes=[str(Path(tafe.__file__).parent)],  # this module itself may be a compiled one, elsewhere
            objectives=objectives_ms,
            remedies=REMEDIES,
        )
    except profiler.ProfilerError as error:
        raise _usage(error) from error
    lifecycle.add_teller(_origin)
    return SpanObserver(_session)


def follow(server: WSGIServer) -> None:
    """Have requests of this server that a stall kept in the kernel's queue count as queued from when they came."""
    assert _session is not None
    _session.late.append(Arrivals(server, _session.turn, _session.came_s).late)


def _origin() -> lifecycle.Origin | None:
    span = _session.working_for() if _session is not None else None
    return None if span is None else lifecycle.Origin(span.route, span.request_id)


def tell_open(tell: Callable[[float, str, tuple[str, str, int], str], None]) -> None:
    """Have `tell(since_s, route, (file, function, line), cause)` called while a slice of over a second goes on.

    In a native thread that must not touch gevent; `since_s` by `time.perf_counter`.
    """
    assert _session is not None

    def open_(finding: Finding) -> None:
        place, record = finding.place, finding.record
        route = record.span.route if record.span else ""
        tell(record.start_s, route, (place.file, place.function, place.line), finding.verdict.cause)

    _session.tell_open(open_)


def so_far(span: profiler.Span) -> tuple[float, float, float]:
    """Running, waiting and queued seconds of the present request."""
    assert _session is not None
    return _session.so_far(span)


def bounds_s() -> tuple[float, ...]:
    """Upper bounds of the histograms in `figures`, which have one more count for what is longer."""
    from profiler.metrics import BOUNDS_S  # loads gevent, which tafe config does without

    return BOUNDS_S


def figures(*, all_at_once: bool = False) -> Figures:
    """What the profiler has counted in this worker since `start`. Quick, unless it is to be complete at once."""
    assert _session is not None
    return _session.figures(float("inf")) if all_at_once else _session.figures()


def advice(cause: str, call: str) -> str:
    """What a report would say of this call, were it seen to keep the hub: nothing if nothing is known."""
    return advise(Case(cause, call, remedies=REMEDIES))


def allowed(path: str) -> Callable[[str, str, str], bool]:
    """Whether an allow list accepts, today, what (file, function, cause) does, however long that is.

    Raises `UsageError` for a file that is no such list.
    """
    from profiler import allow  # the command that reads one needs it

    try:
        entries = allow.load(path)
    except profiler.ProfilerError as error:
        raise _usage(error) from error
    today = datetime.now(UTC).astimezone().date()

    def accepts(file: str, function: str, cause: str) -> bool:
        site = {"file": file, "function": function, "cause": cause, "busy_ms": {"max": 0.0}}
        entry = entries.covering(site)
        return entry is not None and not entry.expired(today)

    return accepts


def record_functions(length_s: float, clock: str, over: Event) -> Iterator[bytes]:
    """Record which functions this worker's time goes into, while it serves; the pieces are for `shown_functions`.

    `over`: set, it ends earlier.
    Raises `UsageError` if that is not possible: without yappi, or beside another profiler.
    """
    from profiler import functions  # with gevent's thread pool; nobody else needs it

    try:
        return functions.record(length_s, clock=clock, over=over).dump()
    except profiler.ProfilerError as error:
        raise _usage(error) from error


def shown_functions(data: bytes, format_: str) -> bytes:
    """What `record_functions` gave, as a file of one of `FUNCTION_FORMATS`."""
    from profiler import functions

    return functions.Recording.load(data).render(format_)


def stop() -> None:
    """Write what is left; nothing if it was not started."""
    global _session  # noqa: PLW0603
    lifecycle.remove_teller(_origin)
    if _session is not None:
        _session.close()
        _session = None


def report(
    directories: list[str],
    format_: str,
    output: str | None,
    since: str | None = None,
    allow: str | None = None,
    *,
    everything: bool = False,
) -> int:
    """Print the report of these directories; the exit status. Raises `UsageError` for what cannot be shown."""
    try:
        return run_report(directories, format_, output, since, allow, everything=everything)
    except profiler.ProfilerError as error:
        raise _usage(error) from error


def _usage(error: profiler.ProfilerError) -> UsageError:
    return UsageError(error.problem, try_=error.remedy)


__all__ = [
    "FUNCTION_FORMATS",
    "REPORT_FORMATS",
    "SpanObserver",
    "advice",
    "allowed",
    "bounds_s",
    "cut",
    "figures",
    "follow",
    "plain",
    "record_functions",
    "report",
    "shown_functions",
    "so_far",
    "tell_open",
    "start",
    "stop",
    "why_interpreted",
    "write_private",
]

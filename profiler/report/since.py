"""From which moment on a report is wanted: a duration back from now, or a moment. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from profiler.errors import ProfilerError

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(s|m|min|h|d)")
_UNITS_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}


def moment_of(since: str, now_s: float) -> float:
    """The Unix time that `since` means: `90s`, `15m`, `2h`, `7d` before `now_s`, or an ISO 8601 moment.

    A moment without an offset is in UTC, as the report shows them. Raises ProfilerError for anything else, and for
    a moment that is yet to come.
    """
    duration = _DURATION.fullmatch(since.strip())
    if duration is not None:
        return max(0.0, now_s - float(duration[1]) * _UNITS_S[duration[2]])
    try:
        given = datetime.fromisoformat(since.strip())
        moment_s = (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ProfilerError(
            f"{since!r} is neither a duration nor a moment", "use 90s, 15m, 2h, 7d, or 2026-01-31T18:00Z"
        ) from None
    if moment_s > now_s:
        raise ProfilerError(f"{since!r} is yet to come", "name a moment of the past; without an offset it is in UTC")
    return max(0.0, moment_s)

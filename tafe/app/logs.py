"""The log of the application layer: `tafe.app`.

A line names the route by its template, the handler and the request's id: never a query string, a header or a body.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tafe.app.request import Request

log = logging.getLogger("tafe.app")


def report(level: int, exc: BaseException, request: Request, what: str) -> None:
    """Log an exception with its traceback, route, handler and request id."""
    route = request.route
    handler = f"{route.handler} ({route.where})" if route.handler else "a hook"
    log.log(level, "%s: %s %s (request %s)", route.label, what, handler, request.request_id, exc_info=exc)

"""Every exception TAFE raises on purpose: what was wrong, where it was set, what is allowed, what to do instead.

A leaf: imports nothing of the package, so that every layer may raise and catch these.
Three families: `UsageError` ends a command with exit status 2 and no traceback; `HTTPError` is an answer that a
handler chose to give; `Unavailable` says that something the request needs is not there right now (503, retry).
Foreign exceptions (PyMySQL, sqlite3, gunicorn) are translated to these where the library was called.
"""

from __future__ import annotations

from collections.abc import Mapping


class TafeError(Exception):
    """Base of everything in this module."""


class UsageError(TafeError):
    """A setting, an argument or an application name that cannot be used; printed without a traceback, exit status 2."""

    exit_status = 2

    def __init__(self, problem: str, *, set_by: str = "", allowed: str = "", try_: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.set_by = set_by
        self.allowed = allowed
        self.try_ = try_

    def __str__(self) -> str:
        lines = [self.problem]
        for label, text in (("set by:", self.set_by), ("allowed:", self.allowed), ("try:", self.try_)):
            if text:
                lines.append(f"  {label:<9} {text}")
        return "\n".join(lines)


class HTTPError(TafeError):
    """An answer with an error status. `message` and `field` are shown to the client, so they must hold no internals."""

    status = 500
    code = "internal_error"

    def __init__(
        self,
        status: int | None = None,
        message: str = "",
        *,
        code: str | None = None,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        if status is not None:
            self.status = status
            self.code = code_of(status)
        if code is not None:
            self.code = code
        self.message = message
        self.field = field
        self.headers: dict[str, str] = dict(headers or {})


# What programs compare must not depend on the interpreter, whose names of statuses change (3.13 renamed four), so the
# names of RFC 9110, 15 and of the registry it refers to stand here.
_CODES = {
    400: "bad_request",
    401: "unauthorized",
    402: "payment_required",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    407: "proxy_authentication_required",
    408: "request_timeout",
    409: "conflict",
    410: "gone",
    411: "length_required",
    412: "precondition_failed",
    413: "content_too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
    417: "expectation_failed",
    418: "im_a_teapot",
    421: "misdirected_request",
    422: "unprocessable_content",
    423: "locked",
    424: "failed_dependency",
    425: "too_early",
    426: "upgrade_required",
    428: "precondition_required",
    429: "too_many_requests",
    431: "request_header_fields_too_large",
    451: "unavailable_for_legal_reasons",
    500: "internal_error",  # shorter than the phrase, which says "server" to those who know that they asked one
    501: "not_implemented",
    502: "bad_gateway",
    503: "service_unavailable",
    504: "gateway_timeout",
    505: "http_version_not_supported",
    506: "variant_also_negotiates",
    507: "insufficient_storage",
    508: "loop_detected",
    510: "not_extended",
    511: "network_authentication_required",
}


def code_of(status: int) -> str:
    """The word that programs compare, for a status of 400 and above: 409 is `conflict`; unknown ones are `error`."""
    return _CODES.get(status, "error")


class BadRequest(HTTPError):
    """400: the request is wrong; `field` names where, as in `imp[0].banner.w`."""

    status = 400
    code = "bad_request"

    def __init__(self, message: str, *, field: str | None = None, code: str | None = None) -> None:
        super().__init__(message=message, field=field, code=code)


class NotFound(HTTPError):
    """404: there is no such thing."""

    status = 404
    code = "not_found"

    def __init__(self, message: str = "not found", *, code: str | None = None) -> None:
        super().__init__(message=message, code=code)


class MethodNotAllowed(HTTPError):
    """405: the path exists, the method does not; `allow` becomes the Allow header (RFC 9110, 15.5.6)."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, allow: list[str]) -> None:
        allowed = ", ".join(sorted(allow))
        super().__init__(message=f"allowed: {allowed}", headers={"Allow": allowed})


class Unavailable(TafeError):
    """Something that the request needs is not there now; answered as 503 with Retry-After.

    `message` is shown to the client, so it must hold no internals; `detail`, in `str()` behind it, is for the operator.
    """

    code = "unavailable"

    def __init__(self, message: str, *, retry_after_s: int = 1, detail: str = "") -> None:
        super().__init__(f"{message}: {detail}" if detail else message)
        self.message = message
        self.retry_after_s = retry_after_s


class OffloadTimeout(TafeError, TimeoutError):
    """A call in a native thread took longer than the `timeout_s` it was given; answered as 504."""


class GatherTimeout(TafeError, TimeoutError):
    """Calls of one `tafe.gather` took longer than the `timeout_s` it was given; answered as 504."""


class DatabaseUnavailable(Unavailable):
    """No connection to the database could be made, or it was lost; neither message nor detail holds credentials."""

    code = "database_unavailable"


class QueryTimeout(DatabaseUnavailable):
    """A statement took longer than it was given, and was ended."""

    code = "database_timeout"


class PoolTimeout(Unavailable):
    """All connections of the pool stayed in use for `acquire_timeout_s`."""

    code = "database_busy"


class QueryError(TafeError):
    """The database refused a statement (syntax, type, lock, deadlock ...); `number` is its own error number, if any."""

    def __init__(self, message: str, *, number: int | None = None) -> None:
        super().__init__(message)
        self.number = number


class IntegrityError(QueryError):
    """A unique, foreign key, check or NOT NULL constraint refused the statement."""


class RequestTimeout(BaseException):
    """A request outlived its deadline; answered as 504 if nothing has been sent, else the stream is broken off."""

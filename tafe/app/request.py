"""One request, as a handler sees it: a thin view of the WSGI environ that computes only what is asked for.

Lives for one request and one greenlet. The body is read at most once and never beyond the bound; the query string is
split at first use. Percent escapes are decoded as UTF-8 and refused if they are not; a malformed escape (`%zz`) stays
as it is, as browsers do. The path arrives decoded by the server, so `%2F` cannot be told from `/`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from tafe.app import jsontext
from tafe.errors import BadRequest, HTTPError

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from tafe.app.deadline import Deadline
    from tafe.app.routing import Route


class Request:
    """The request being answered.

    `environ`: the WSGI environ. `route`: what the path led to (`route.label` is `GET /users/{id}`).
    `path_params`: the converted values of the template. `max_body_bytes`: see `App`.
    """

    __slots__ = (
        "_body",
        "_json",
        "_path",
        "_query",
        "_request_id",
        "_state",
        "deadline",
        "deferred",
        "environ",
        "input_error",
        "max_body_bytes",
        "path_params",
        "route",
    )

    def __init__(
        self, environ: WSGIEnvironment, route: Route, path_params: Mapping[str, Any], max_body_bytes: int
    ) -> None:
        self.environ = environ
        self.route = route
        self.path_params = path_params
        self.max_body_bytes = max_body_bytes
        self.input_error: OSError | None = None  # raised by wsgi.input: the connection's, not the handler's
        self.deadline: Deadline | None = None
        self.deferred: list[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]] | None = None

    def __repr__(self) -> str:
        return f"<Request {self.route.label}>"

    def __getattr__(self, name: str) -> Any:
        # Reached only while a lazy slot is empty: seven assignments less for the request that asks for nothing.
        make = _LAZY.get(name)
        if make is None:
            raise AttributeError(f"a request has no attribute {name!r}")
        value = make(self)
        setattr(self, name, value)
        return value

    @property
    def method(self) -> str:
        """The method, as sent."""
        return str(self.environ["REQUEST_METHOD"])

    @property
    def path(self) -> str:
        """The path below the application's root, decoded; what is not UTF-8 is replaced."""
        path: str = self._path
        return path

    @property
    def query(self) -> dict[str, list[str]]:
        """Each query name with its values in order; `BadRequest` if an escape is not UTF-8."""
        query: dict[str, list[str]] = self._query
        return query

    @property
    def state(self) -> SimpleNamespace:
        """A place for hooks and handlers to leave things for each other, for this request only."""
        state: SimpleNamespace = self._state
        return state

    @property
    def request_id(self) -> str:
        """The server's id of this request, or one made here when the server gives none."""
        request_id: str = self._request_id
        return request_id

    @property
    def client_addr(self) -> str:
        """The address of the peer, which may be a proxy; empty on a unix socket."""
        return str(self.environ.get("REMOTE_ADDR", ""))

    def header(self, name: str, default: str | None = None) -> str | None:
        """The value of a request header, whatever its case; repeated ones as the server joined them."""
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        value: str | None = self.environ.get(key)
        return default if value is None or (value == "" and not key.startswith("HTTP_")) else value

    def body(self) -> bytes:
        """The whole body; `HTTPError` 413 beyond `max_body_bytes`, 400 if it ended early."""
        body: bytes = self._body
        return body

    def json(self) -> Any:
        """The body's JSON value; `HTTPError` 415 for another Content-Type, 400 with field `body` if it is not JSON."""
        return self._json

    def defer(self, fn: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Call `fn` after the answer was sent, whatever its status; what it raises is logged."""
        if self.deferred is None:
            self.deferred = []
        self.deferred.append((fn, args, kwargs))


def _read_path(request: Request) -> str:
    raw: str = request.environ.get("PATH_INFO", "")
    return raw if raw.isascii() else raw.encode("latin-1").decode(errors="replace")


def _read_query(request: Request) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for pair in request.environ.get("QUERY_STRING", "").split("&"):
        if pair:
            name, _, value = pair.partition("=")
            name = _unquote(name, "query")
            values.setdefault(name, []).append(_unquote(value, name))
    return values


def _unquote(text: str, field: str) -> str:
    if "+" in text:
        text = text.replace("+", " ")
    if "%" not in text and text.isascii():
        return text
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise BadRequest("is not UTF-8 after percent-decoding", field=field) from None


def _read_body(request: Request) -> bytes:
    environ, limit = request.environ, request.max_body_bytes
    declared = environ.get("CONTENT_LENGTH") or ""
    if declared:
        if not (declared.isascii() and declared.isdigit()):
            raise BadRequest("Content-Length is not a number", field="body")
        wanted = int(declared) if len(declared) < 19 else limit + 1
    elif environ.get("wsgi.input_terminated"):  # chunked: the end is known only when it comes
        wanted = limit + 1
    else:
        return b""
    if declared and wanted > limit:
        raise _too_large(limit)
    try:
        body = _read_fully(environ["wsgi.input"], wanted)
    except OSError as exc:
        request.input_error = exc
        raise
    if declared and len(body) < wanted:
        raise BadRequest("the body ended before its declared length", field="body")
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> HTTPError:
    return HTTPError(413, f"the body may have {limit} bytes", code="body_too_large", field="body")


def _read_fully(stream: Any, wanted: int) -> bytes:
    """Up to `wanted` bytes; a server's stream may give fewer at a time."""
    first: bytes = stream.read(wanted)
    if len(first) == wanted or not first:
        return first
    parts, missing = [first], wanted - len(first)
    while missing and (part := stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _read_json(request: Request) -> Any:
    content_type = request.environ.get("CONTENT_TYPE") or ""
    media = content_type.partition(";")[0].strip().lower()
    if media and media != "application/json" and not media.endswith("+json"):
        raise HTTPError(415, "the body must be application/json", code="unsupported_media_type", field="body")
    raw = request.body()
    if not raw:
        raise BadRequest("a JSON body is required", field="body")
    try:
        return jsontext.decode(raw)
    except ValueError as exc:
        raise BadRequest(f"not valid JSON: {exc}", field="body") from None


_LAZY: dict[str, Callable[[Request], Any]] = {
    "_body": _read_body,
    "_json": _read_json,
    "_path": _read_path,
    "_query": _read_query,
    "_state": lambda _request: SimpleNamespace(),
    "_request_id": lambda request: request.environ.get("tafe.request_id") or uuid.uuid4().hex,
}

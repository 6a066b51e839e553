"""A client that calls an application in the process of a test: no server, no socket, no monkey-patching.

It holds the application to the parts of PEP 3333 that break real servers: `start_response` before the first chunk,
strings as headers, bytes as chunks, a body as long as declared and absent where it must be, `close()` called. What is
deferred has run when a call returns. A stream that breaks off raises in the test.
"""

from __future__ import annotations

import io
import json as stdlib_json
import re
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote_to_bytes

from tafe.app.response import NO_BODY

if TYPE_CHECKING:
    from tafe.app.application import App


class TestResponse:
    """An answer as a client would see it: `status`, `headers` in order, `body` in bytes."""

    __test__ = False  # not a test for pytest to collect

    def __init__(self, status_line: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = int(status_line[:3])
        self.status_line = status_line
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"<TestResponse {self.status_line}: {self.body[:200]!r}>"

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON, read by another parser than the one that wrote it, and a strict one."""
        return stdlib_json.loads(self.body, parse_constant=_refuse_constant)

    def header(self, name: str) -> str | None:
        """The first value of a header, whatever its case."""
        return next((value for known, value in self.headers if known.lower() == name.lower()), None)


class TestClient:
    """Calls `app`. As a context manager it runs the start and stop hooks around the block."""

    __test__ = False

    def __init__(self, app: App) -> None:
        self._app = app

    def __enter__(self) -> Self:
        self._app.worker_start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._app.worker_stop()

    def get(self, url: str, **parts: Any) -> TestResponse:
        """`request("GET", url, ...)`."""
        return self.request("GET", url, **parts)

    def head(self, url: str, **parts: Any) -> TestResponse:
        """`request("HEAD", url, ...)`."""
        return self.request("HEAD", url, **parts)

    def options(self, url: str, **parts: Any) -> TestResponse:
        """`request("OPTIONS", url, ...)`."""
        return self.request("OPTIONS", url, **parts)

    def post(self, url: str, **parts: Any) -> TestResponse:
        """`request("POST", url, ...)`."""
        return self.request("POST", url, **parts)

    def put(self, url: str, **parts: Any) -> TestResponse:
        """`request("PUT", url, ...)`."""
        return self.request("PUT", url, **parts)

    def patch(self, url: str, **parts: Any) -> TestResponse:
        """`request("PATCH", url, ...)`."""
        return self.request("PATCH", url, **parts)

    def delete(self, url: str, **parts: Any) -> TestResponse:
        """`request("DELETE", url, ...)`."""
        return self.request("DELETE", url, **parts)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        body: bytes | str | None = None,
        environ: Mapping[str, Any] | None = None,
    ) -> TestResponse:
        """Send one request. `url`: path and query, escaped as on the wire; `json` or `body`; `environ` wins."""
        if json is not None:
            if body is not None:
                raise TypeError("a request has json or body, not both")
            body = stdlib_json.dumps(json)
            headers = {"Content-Type": "application/json", **(headers or {})}
        raw = body.encode() if isinstance(body, str) else body
        full = {**_environ(method, url, headers or {}, raw), **(environ or {})}
        return _call(self._app, full)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _environ(method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> dict[str, Any]:
    path, _, query = url.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.encode().decode("latin-1"),
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "testserver",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body or b""),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if body is not None:
        environ["CONTENT_LENGTH"] = str(len(body))
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    return environ


def _call(app: App, environ: dict[str, Any]) -> TestResponse:
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> Any:
        assert not started, "start_response was called twice"
        started.append((status, headers))
        return None

    result: Iterable[bytes] = app(environ, start_response)
    chunks: list[bytes] = []
    try:
        for chunk in result:
            assert started, "a chunk came before start_response"
            chunks.append(chunk)
    finally:
        close = getattr(result, "close", None)
        if close is not None:
            close()
    assert started, "start_response was not called"
    [(status, headers)] = started
    _check(environ["REQUEST_METHOD"], status, headers, chunks)
    return TestResponse(status, headers, b"".join(chunks))


def _check(method: str, status: str, headers: list[tuple[str, str]], chunks: list[bytes]) -> None:
    assert type(status) is str, f"status {status!r}"
    assert re.fullmatch("[2-5][0-9][0-9] [ -~]+", status), f"status {status!r}"
    assert type(headers) is list, "headers are not a list"
    for name, value in headers:
        assert type(name) is str, f"header {name!r}"
        assert type(value) is str, f"header {name}: {value!r}"
    assert all(type(chunk) is bytes for chunk in chunks), "a chunk is not bytes"
    size = sum(map(len, chunks))
    if method == "HEAD" or int(status[:3]) in NO_BODY:
        assert size == 0, f"{method} {status} has a body of {size} bytes"
        return
    declared = [value for name, value in headers if name.lower() == "content-length"]
    assert len(declared) <= 1, "Content-Length is given twice"
    assert not declared or int(declared[0]) == size, f"Content-Length is {declared[0]}, the body has {size} bytes"

"""An observer of a server: what it is told, and that requests go on without it when it fails."""

from __future__ import annotations

from typing import Any

import pytest

from tafe.wsgi import READY_THIS_TURN
from tests.server.conftest import Serve, hello, read_answer


def test_an_observer_is_told_of_every_request_and_dropped_when_it_fails(serve: Serve, caplog: Any) -> None:
    class Watcher:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def name(self, method: str, path: str) -> str:
            return f"{method} {path}"

        def begin(self, name: str, request_id: str, ready_ns: int) -> Any:
            if name == "GET /bad":
                raise RuntimeError("observer")
            return name, request_id, ready_ns

        def end(self, span: Any, failed: bool = False, unusual: int = 0) -> None:
            self.seen.append((*span, failed, unusual))

    watcher = Watcher()
    live = serve(hello, observer=watcher)
    with live.connect() as client:
        for path in (b"/1", b"/2", b"/bad", b"/3"):
            client.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\nX-Request-Id: id%b\r\n\r\n" % (path, path))
            assert read_answer(client)[0].startswith(b"HTTP/1.1 200")
    assert watcher.seen == [(f"GET /{n}", f"id/{n}", READY_THIS_TURN, False, 0) for n in (1, 2)]
    assert "observer" in caplog.text


def test_the_span_of_an_observer_is_in_the_environ_and_a_path_is_named_once(serve: Serve) -> None:
    named: list[str] = []

    class Watcher:
        def name(self, method: str, path: str) -> str:
            named.append(path)
            return path

        def begin(self, name: str, request_id: str, ready_ns: int) -> Any:
            return f"span of {name}"

        def end(self, span: Any, failed: bool = False, unusual: int = 0) -> None:
            pass

    live = serve(
        lambda environ, start_response: [*hello(environ, start_response), environ["tafe.span"].encode()],
        observer=Watcher(),
    )
    with live.connect() as client:
        for path in (b"/a", b"/b", b"/a"):
            client.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            assert read_answer(client)[1].endswith(b"span of %b" % path)
    assert named == ["/a", "/b"]


def test_an_observer_that_cannot_name_a_path_is_dropped(serve: Serve, caplog: Any) -> None:
    class Watcher:
        def name(self, method: str, path: str) -> str:
            raise RuntimeError("nameless")

        def begin(self, name: str, request_id: str, ready_ns: int) -> Any:
            raise AssertionError("it was dropped")

        def end(self, span: Any, failed: bool = False, unusual: int = 0) -> None:
            raise AssertionError("it was dropped")

    live = serve(hello, observer=Watcher())
    with live.connect() as client:
        for path in (b"/a", b"/b"):
            client.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            assert read_answer(client)[0].startswith(b"HTTP/1.1 200")
    assert caplog.text.count("the observer failed and is switched off") == 1


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("204 No Content", (False, 0)),
        ("302 Found", (False, 302)),
        ("404 Not Found", (False, 404)),
        ("503 No", (True, 503)),
    ],
)
def test_an_observer_is_told_the_status_where_it_is_not_the_usual_one(serve: Serve, status: str, told: Any) -> None:
    seen: list[Any] = []

    class Watcher:
        def name(self, method: str, path: str) -> str:
            return path

        def begin(self, name: str, request_id: str, ready_ns: int) -> Any:
            return name

        def end(self, span: Any, failed: bool = False, unusual: int = 0) -> None:
            seen.append((failed, unusual))

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response(status, [])
        return []

    serve(app, observer=Watcher()).ask(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert seen == [told]

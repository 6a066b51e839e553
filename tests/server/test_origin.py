"""Which request a greenlet works for, as those who know no server are told (`lifecycle.origin`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gevent
import pytest

import profiler
import tafe
from tafe import lifecycle, profiling

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.server.conftest import Serve

HEAD = b"GET /users/17 HTTP/1.1\r\nHost: a\r\nX-Request-Id: first\r\nConnection: close\r\n\r\n"


@pytest.fixture
def profiled(tmp_path: Path) -> Iterator[profiling.SpanObserver]:
    yield profiling.start(str(tmp_path), 10.0, {})
    profiling.stop()


def asking(found: list[Any]) -> Any:
    """An application that notes whose request it is told to work for."""

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        gevent.sleep(0.001)  # others run meanwhile
        found.append(lifecycle.origin())
        gevent.spawn(lambda: found.append(lifecycle.origin())).join()
        start_response("200 OK", [])
        return [b""]

    return application


def test_a_wsgi_application_s_request_is_known_by_its_method_and_path(serve: Serve) -> None:
    found: list[Any] = []
    live = serve(asking(found))
    others = [gevent.spawn(live.ask, HEAD.replace(b"first", b"other")) for _ in range(3)]
    live.ask(HEAD)
    gevent.joinall(others, raise_error=True)
    own = [origin for origin in found if origin is not None]
    assert sorted(origin.request_id for origin in own) == ["first", "other", "other", "other"]
    assert {origin.route for origin in own} == {"GET /users/17"}


def test_an_app_s_request_is_known_by_its_template(serve: Serve) -> None:
    app, found = tafe.App(), []

    @app.get("/users/{key:int}")
    def user(key: int) -> dict[str, int]:
        found.append(lifecycle.origin())
        return {"key": key}

    serve(app).ask(HEAD)
    assert found == [("GET /users/{key}", "first")]


def test_with_the_profiler_spawned_greenlets_are_known_too(serve: Serve, profiled: profiling.SpanObserver) -> None:
    found: list[Any] = []
    serve(asking(found), observer=profiled).ask(HEAD)
    assert found == [("GET /users/{}", "first")] * 2


def test_outside_of_requests_there_is_none(serve: Serve, profiled: profiling.SpanObserver) -> None:
    live = serve(asking([]), observer=profiled)
    live.ask(HEAD)
    assert lifecycle.origin() is None
    assert profiler.session.current() is not None
    live.server.stop()
    profiling.stop()
    assert lifecycle.origin() is None
    assert lifecycle._tellers == []

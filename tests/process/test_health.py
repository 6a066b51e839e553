"""Liveness and readiness in front of an application."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tafe.health import unavailable, with_health


def _application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"application " + environ["PATH_INFO"].encode()]


def _ask(application: Any, path: str, method: str = "GET") -> tuple[str, dict[str, str], bytes]:
    seen: list[Any] = []
    body = b"".join(
        application(
            {"PATH_INFO": path, "REQUEST_METHOD": method, "tafe.request_id": "r-1"},
            lambda status, headers: seen.extend([status, dict(headers)]),
        )
    )
    return seen[0], seen[1], body


def test_readiness_names_what_is_lacking_and_is_never_cached() -> None:
    lacking = ["mysql://h/db"]
    front = with_health(_application, "/-/", lambda: lacking)
    status, headers, body = _ask(front, "/-/ready")
    assert status.startswith("503")
    assert json.loads(body) == {"ready": False, "reasons": ["mysql://h/db"]}
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Length"] == str(len(body))
    lacking.clear()
    assert _ask(front, "/-/ready")[::2] == ("200 OK", b'{"ready": true}')


def test_liveness_does_not_depend_on_readiness() -> None:
    front = with_health(_application, "/-/", lambda: ["everything"])
    assert _ask(front, "/-/live")[::2] == ("200 OK", b'{"live": true}')


@pytest.mark.parametrize("path", ["/", "/ready", "/-", "/-/other", "/-/ready/", "/x/-/ready", "/-/livery"])
def test_every_other_path_is_the_application_s(path: str) -> None:
    front = with_health(_application, "/-/", list)
    assert _ask(front, path)[2] == b"application " + path.encode()


def test_an_empty_prefix_leaves_the_application_as_it_is() -> None:
    assert with_health(_application, "", list) is _application


@pytest.mark.parametrize("path", ["/-/live", "/-/ready"])
def test_only_get_and_head_are_answered(path: str) -> None:
    front = with_health(_application, "/-/", list)
    assert _ask(front, path, "HEAD")[0] == "200 OK"
    status, headers, _ = _ask(front, path, "POST")
    assert status == "405 Method Not Allowed"
    assert headers["Allow"] == "GET, HEAD"


def test_before_the_start_hooks_have_run_everything_is_503_in_the_shape_of_our_errors() -> None:
    status, headers, body = _ask(unavailable, "/users/1")
    assert status.startswith("503")
    assert headers["Retry-After"] == "1"
    assert json.loads(body)["error"]["request_id"] == "r-1"


def test_health_routes_are_one_route_to_the_profiler() -> None:
    class Span:
        route = "GET /-/ready"

    front = with_health(_application, "/-/", list)
    span = Span()
    front({"PATH_INFO": "/-/ready", "REQUEST_METHOD": "GET", "tafe.span": span}, lambda *_: None)
    assert span.route == "(health)"

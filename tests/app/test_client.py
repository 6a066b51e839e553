"""The test client holds an application to PEP 3333."""

from __future__ import annotations

from typing import Any

import pytest

import tafe
from tafe.app.testing import TestClient

OK = [("Content-Length", "1")]


def broken(status: Any = "200 OK", headers: Any = OK, chunks: Any = (b"x",), start: int = 1) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        for _ in range(start):
            start_response(status, headers)
        return chunks

    return app


@pytest.mark.parametrize(
    "app",
    [
        broken(start=0),
        broken(start=2),
        broken(status=200),
        broken(status="200"),
        broken(status="99 X"),
        broken(headers=tuple(OK)),
        broken(headers=[("Content-Length", 1)]),
        broken(headers=[(b"A", "b")]),
        broken(headers=[("Content-Length", "2")]),
        broken(headers=[*OK, *OK]),
        broken(chunks=["x"]),
        broken(chunks=[b"xy"]),
        broken(status="204 No Content"),
    ],
)
def test_an_application_that_breaks_the_rules_fails_the_test(app: Any) -> None:
    with pytest.raises(AssertionError):
        TestClient(app).get("/")


def test_a_sound_application_passes() -> None:
    assert TestClient(broken()).get("/").text == "x"


def test_the_client_sends_what_it_is_told() -> None:
    app = tafe.App()

    @app.route("/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    def handler(request: tafe.Request) -> Any:
        return {"method": request.method, "x": request.header("X-A"), "body": request.body().decode()}

    client = app.test_client()
    sent = {"headers": {"X-A": "b"}, "body": "text"}
    for name in ("get", "post", "put", "patch", "delete", "options"):
        answer = getattr(client, name)("/x", **sent)
        assert answer.json() == {"method": name.upper(), "x": "b", "body": "text"}
    assert client.head("/x").status == 200
    with pytest.raises(TypeError):
        client.post("/x", json=1, body="x")


def test_close_is_called_even_when_the_stream_breaks_off() -> None:
    class Stream:
        closed = False

        def __iter__(self) -> Any:
            raise ValueError("broken")

        def close(self) -> None:
            self.closed = True

    stream = Stream()
    with pytest.raises(ValueError, match="broken"):
        TestClient(broken(chunks=stream)).get("/")
    assert stream.closed


def test_an_answer_shows_itself() -> None:
    assert repr(TestClient(broken()).get("/")) == "<TestResponse 200 OK: b'x'>"

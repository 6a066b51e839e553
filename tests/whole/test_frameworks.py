"""Flask, Django and Falcon applications run unchanged behind `tafe serve`."""

from __future__ import annotations

import http.client
import importlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.whole.client import Answer, Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.services.tafe_server import Running

FRAMEWORKS = ("flask", "django", "falcon")


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    importlib.import_module(request.param)  # a missing framework is an error: it is in the `test` extra
    return str(request.param)


@pytest.fixture
def server(framework: str, tafe_serve: Callable[..., Running]) -> Running:
    return tafe_serve(f"tests.whole.frameworks.{framework}_app:app", "--workers", "1")


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with Client(server.port) as client:
        yield client


def test_a_wsgi_framework_runs_unchanged(framework: str, server: Running, client: Client) -> None:
    # One server start for all of these: each claim has its own message.
    hello = client.get("/?name=J%C3%BCrgen")
    assert (hello.status, hello.body.decode()) == (200, f"hello from {framework}, Jürgen")
    assert hello.headers["content-type"].startswith("text/")

    small = client.post("/echo", b'{"a": 1}', **{"Content-Type": "application/json"})
    assert small.json() == {"length": 8, "type": "application/json", "first": '{"a": 1}'}, "a small body"
    large = client.post("/echo", b"x" * 1_000_000, **{"Content-Type": "text/plain"})
    assert large.json() == {"length": 1_000_000, "type": "text/plain", "first": "x" * 8}, "a body over 64 KiB"

    stream = client.get("/stream")
    assert stream.body == b"piece 0\npiece 1\npiece 2\npiece 3\n"
    assert "content-length" not in stream.headers

    missing = client.get("/no/such/page")
    assert missing.status == 404, "the framework's own 404"

    boom = client.get("/boom")
    assert boom.status == 500
    assert b"as planned" not in boom.body, "no internals to the client"
    assert "as planned" in server.log(), "but in the log"
    assert client.get("/").status == 200, "the connection goes on after an error"


def test_cookies_pass_both_ways(framework: str, server: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/cookies", headers={"Cookie": "seen=yes"})
    response = connection.getresponse()
    assert b'"seen"' in response.read()
    set_cookies = [value.partition(";")[0] for name, value in response.getheaders() if name.lower() == "set-cookie"]
    connection.close()
    assert sorted(set_cookies) == ["one=1", "two=2"], "two headers of one name stay two"


def test_many_requests_at_once_do_not_mix(framework: str, server: Running) -> None:
    def ask(number: int) -> tuple[int, Answer]:
        with Client(server.port) as client:
            return number, client.get(f"/?name=n{number}")

    with ThreadPoolExecutor(16) as pool:
        for number, answer in pool.map(ask, range(200)):
            assert answer.body.decode() == f"hello from {framework}, n{number}"

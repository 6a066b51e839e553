"""What is sent: the same bytes by wrk and by the counting client, as the scenario says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks import loads, scenarios
from benchmarks.client import Exchange
from tests.benchmarks.test_client import Peer
from tests.services.ports import free_port
from tests.services.requirements import program

if TYPE_CHECKING:
    from pathlib import Path


def _heads(scenario: scenarios.Scenario) -> list[bytes]:
    return [exchange.request(8000).partition(b"\r\n\r\n")[0] for exchange in scenario.exchanges]


def test_a_hello_has_no_header_but_host() -> None:
    assert _heads(scenarios.HELLO) == [b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1:8000"]


def test_a_request_of_ten_headers_has_ten_beside_host() -> None:
    for head in _heads(scenarios.TEN_HEADERS):
        assert head.count(b"\r\n") == 11


def test_no_request_id_comes_twice_and_the_cookie_belongs_to_the_address() -> None:
    sent = [dict(exchange.headers) for exchange in scenarios.TEN_HEADERS.exchanges]
    assert len({headers["X-Request-Id"] for headers in sent}) == len(sent) == 4096
    pairs = {(headers["Cookie"], headers["X-Forwarded-For"], headers["User-Agent"]) for headers in sent}
    assert len(pairs) == len({headers["X-Forwarded-For"] for headers in sent}) == 1024


def test_the_header_values_are_the_same_in_every_run() -> None:
    assert dict(scenarios.browser_headers(0))["X-Request-Id"] == "2bc3083e41094d2077f9a4c5165fe959"


def test_every_echo_is_another_json_object_of_one_kibibyte_and_is_to_come_back_as_it_is() -> None:
    bodies = [exchange.sent for exchange in scenarios.ECHO.exchanges]
    assert {len(body) for body in bodies} == {1024}
    assert len({json.loads(body)["order"] for body in bodies}) == len(bodies)
    assert [exchange.body for exchange in scenarios.ECHO.exchanges] == bodies
    assert all(b"\r\nContent-Length: 1024" in head for head in _heads(scenarios.ECHO))


@pytest.mark.real
def test_wrk_sends_the_requests_of_a_scenario_in_turn_byte_for_byte(tmp_path: Path) -> None:
    program("wrk")
    exchanges = [
        Exchange("/1", b"", headers=(("Cookie", 'a="b c"; d=%25'),)),
        Exchange("/2", b"", "POST", (("Content-Type", "text/plain"),), b"line\r\n\r\n2 bytes: \x00\xff"),
    ]
    peer = Peer(lambda head: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    try:
        argv = loads.wrk_argv(peer.port, exchanges, 1, tmp_path / "requests")
        argv[argv.index("-c64")] = "-c1"
        assert loads.parse_wrk(loads.run(argv, 1)).errors == 0
    finally:
        peer.close()
    first, second = [exchange.request(peer.port) for exchange in exchanges]
    assert peer.heads[:4] == [second, first] * 2  # wrk asks its script for one request before it connects


def test_a_single_plain_request_needs_no_file(tmp_path: Path) -> None:
    argv = loads.wrk_argv(free_port(), scenarios.HELLO.exchanges, 1, tmp_path / "requests")
    assert argv[-1].endswith("/hello")
    assert not (tmp_path / "requests").exists()

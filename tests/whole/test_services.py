"""The servers that the other tests stand on: they start quickly, fail visibly and leave nothing behind."""

from __future__ import annotations

import http.server
import os
import threading
import time
from typing import TYPE_CHECKING

import pymysql
import pytest

from tests.services import processes, requirements
from tests.services.proxies import _replace
from tests.whole.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.services.mariadb import MariaDB


class _Echo(http.server.BaseHTTPRequestHandler):
    """Answers every request with the head it received."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"{self.requestline}\n{self.headers}from port {self.client_address[1]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A small HTTP server that shows what a balancer sent."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def _get(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    with Client(port) as client:
        answer = client.get(path, **(headers or {}))
    return answer.status, answer.body.decode()


def test_mariadb_takes_a_login_with_a_password_and_keeps_databases_apart(mariadb: MariaDB) -> None:
    mariadb.create_database("services_one")
    mariadb.query("CREATE TABLE t (a INT)", database="services_one")
    mariadb.query("INSERT INTO t VALUES (7)", database="services_one")
    assert mariadb.query("SELECT a FROM t", database="services_one") == [{"a": 7}]
    assert mariadb.create_database("services_one").endswith(f"@127.0.0.1:{mariadb.port}/services_one")
    assert mariadb.query("SHOW TABLES", database="services_one") == []
    with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
        pymysql.connect(host=mariadb.host, port=mariadb.port, user=mariadb.user, password="wrong")


def test_a_killed_mariadb_comes_back_on_the_same_port_with_its_data(mariadb_private: MariaDB) -> None:
    mariadb_private.create_database("kept")
    mariadb_private.query("CREATE TABLE t (a INT PRIMARY KEY)", database="kept")
    mariadb_private.query("INSERT INTO t VALUES (7)", database="kept")
    mariadb_private.query("FLUSH TABLES t", database="kept")
    port = mariadb_private.port
    mariadb_private.kill()
    with pytest.raises(pymysql.err.OperationalError):
        mariadb_private.query("SELECT 1")
    mariadb_private.start()
    assert mariadb_private.port == port
    assert mariadb_private.query("SELECT a FROM t", database="kept") == [{"a": 7}]


@pytest.mark.real
@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_a_balancer_sends_its_own_forwarding_headers_and_hides_health_routes(
    kind: str, request: pytest.FixtureRequest, echo_port: int
) -> None:
    proxy = request.getfixturevalue(kind)(echo_port)
    claimed = {"X-Forwarded-For": "6.6.6.6", "X-Request-Id": "good-1", "Forwarded": "for=6.6.6.6"}
    status, head = _get(proxy.port, "/a?b=c", claimed)
    assert status == 200
    assert head.startswith("GET /a?b=c HTTP/1.1\n")
    lower = head.lower()  # HAProxy writes header names in lower case
    assert "x-forwarded-for: 127.0.0.1\n" in lower
    assert "x-request-id: good-1\n" in lower
    assert "6.6.6.6" not in head
    assert "connection:" not in lower
    assert "bad id" not in _get(proxy.port, "/", {"X-Request-Id": "bad id"})[1]
    assert _get(proxy.port, "/-/ready")[0] == 404


@pytest.mark.real
@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_a_balancer_uses_one_connection_for_many_requests(
    kind: str, request: pytest.FixtureRequest, echo_port: int
) -> None:
    proxy = request.getfixturevalue(kind)(echo_port)
    with Client(proxy.port) as client:
        heads = [client.get("/").body.decode() for _ in range(10)]
    assert len({head.rpartition("from port ")[2] for head in heads}) == 1


@pytest.mark.real
@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_a_balancer_without_a_machine_behind_it_answers_json(
    kind: str, request: pytest.FixtureRequest, free_port: Callable[[], int]
) -> None:
    proxy = request.getfixturevalue(kind)(free_port())
    status, body = _get(proxy.port, "/")
    assert status in {502, 503}
    assert f'{{"error":{{"status":{status},' in body


def test_a_directive_that_is_not_in_the_file_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 matches"):
        _replace("listen 80 ", "listen 81 ", "listen 8080;")


def test_a_server_that_dies_before_it_is_ready_shows_the_end_of_its_log(tmp_path: Path) -> None:
    server = processes.Server(["sh", "-c", "echo no such file; exit 3"], tmp_path / "log")
    with pytest.raises(processes.ServerError, match=r"ended with 3 before ready\n.*\nno such file"):
        server.wait_until(lambda: False, "ready", 10.0)
    server.kill()


@pytest.mark.real
def test_a_process_left_behind_by_its_parent_is_found_and_ended(tmp_path: Path) -> None:
    server = processes.Server(["sh", "-c", "sleep 60 & echo $! >left; wait"], tmp_path / "log", cwd=tmp_path)
    server.wait_until((tmp_path / "left").exists, "started", 5.0)
    with pytest.raises(processes.ServerError, match=r"left .* running"):
        server.stop()
    assert processes.session_members(server.pid) == []


def test_a_missing_program_fails_in_ci_and_is_skipped_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(requirements.PACKAGES, "no-such-server", "no-such-package")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-package"):
        requirements.program("no-such-server")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="apt-get install"):
        requirements.program("no-such-server")


def test_ports_are_handed_out_once(free_port: Callable[[], int]) -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    assert all(20_000 <= port < 32_000 for port in ports)


def test_mariadb_is_up_within_five_seconds(mariadb_private: MariaDB) -> None:
    mariadb_private.stop()
    began = time.monotonic()
    mariadb_private.start()
    assert time.monotonic() - began < 5.0
    assert os.path.exists(f"/proc/{mariadb_private.pid}")

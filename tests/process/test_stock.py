"""The worker under gunicorn's own arbiter: it serves, obeys gunicorn's settings and refuses what it cannot do."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gunicorn.config import KNOWN_SETTINGS, Config

from tafe import stock
from tests.process.client import UnixConnection, get, get_later, until
from tests.services.processes import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
APP = "tests.process.application:app"


def test_every_setting_of_gunicorn_is_in_exactly_one_class() -> None:
    classes = [set(stock.MAPPED), stock.ARBITER, set(stock.REFUSED), stock.IRRELEVANT]
    classed = [name for names in classes for name in names]
    assert sorted(classed) == sorted(setting.name for setting in KNOWN_SETTINGS)
    assert len(classed) == len(set(classed))


class _Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str, *arguments: object) -> None:
        self.lines.append(text % arguments)


# A value other than the default for each refused and irrelevant setting that text or its type cannot give.
_OTHER_VALUES: dict[str, object] = {
    "pre_request": lambda worker, request: None,
    "post_request": lambda worker, request, environ, response: None,
    "worker_abort": lambda worker: None,
    "ssl_context": lambda config, factory: None,
    "header_map": "refuse",
    "secure_scheme_headers": {"X-SCHEME": "https"},
    "forwarder_headers": "X_OTHER",
    "proxy_protocol": "v1",
    "protocol": "uwsgi",
    "dirty_apps": ["a:b"],
    "reload_extra_files": ["a"],
    "statsd_host": "localhost:8125",
    "ca_certs": "a.pem",
}


def _other_value(setting: type) -> object:
    if setting.name in _OTHER_VALUES:
        return _OTHER_VALUES[setting.name]
    return True if setting.default is False else (setting.default + 1 if isinstance(setting.default, int) else "other")


@pytest.mark.parametrize("name", sorted(stock.REFUSED))
def test_a_refused_setting_stops_the_start_with_its_reason(name: str) -> None:
    config = Config()
    stock.check_settings(config, _Log())
    setting = next(setting for setting in KNOWN_SETTINGS if setting.name == name)
    config.settings[name].value = _other_value(setting)
    with pytest.raises(RuntimeError, match=r"not with tafe\.worker\.TafeWorker: ") as refusal:
        stock.check_settings(config, _Log())
    assert stock.REFUSED[name] in str(refusal.value)


def test_proxies_are_trusted_by_single_addresses_and_unix_sockets_always() -> None:
    config = Config()
    assert stock.settings_of(config).trusted_peers == {"127.0.0.1", "::1", ""}
    config.set("forwarded_allow_ips", "10.0.0.1")
    stock.check_settings(config, _Log())
    assert stock.settings_of(config).trusted_peers == {"10.0.0.1", ""}
    for other in ("*", "10.0.0.0/8"):
        config.set("forwarded_allow_ips", other)
        with pytest.raises(RuntimeError, match=r"--forwarded-allow-ips: .*, which is not an IP address"):
            stock.check_settings(config, _Log())


def test_an_irrelevant_setting_is_mentioned() -> None:
    config = Config()
    config.set("threads", 4)
    log = _Log()
    stock.check_settings(config, log)
    assert log.lines == ["--threads has no effect with tafe.worker.TafeWorker"]


def test_a_misspelled_variable_stops_the_start_and_a_foreign_one_is_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    log = _Log()
    monkeypatch.setenv("TAFE_XYZZY", "1")
    stock.check_settings(Config(), log)
    assert log.lines == ["TAFE_XYZZY is not a setting and is ignored"]
    monkeypatch.setenv("TAFE_PROFLE", "no")
    with pytest.raises(RuntimeError, match=r"^TAFE_PROFLE is not a setting"):
        stock.check_settings(Config(), log)


def test_settings_that_were_given_reach_the_worker_and_gunicorns_defaults_do_not() -> None:
    config = Config()
    settings = stock.settings_of(config)
    assert settings.idle_timeout_s == 75
    assert settings.graceful_timeout_s == 25
    config.set("keepalive", 5)
    config.set("graceful_timeout", 9)
    config.set("limit_request_line", 0)
    config.set("limit_request_fields", 7)
    settings = stock.settings_of(config)
    assert settings.idle_timeout_s == 5
    assert settings.graceful_timeout_s == 9
    assert settings.limits.request_line_bytes == 1 << 20
    assert settings.limits.header_count == 7


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*options: str, application: str = APP) -> Server:
        command = [sys.executable, "-m", "gunicorn", "-k", "tafe.worker.TafeWorker", "--no-control-socket"]
        environ = {**os.environ, "TAFE_PROFILE_DIR": str(tmp_path / "profile")}
        log = tmp_path / f"{len(started)}.log"
        started.append(Server([*command, *options, application], log, cwd=ROOT, env=environ))
        return started[-1]

    yield start
    for server in started:
        server.kill()


def _serving(server: Server, port: int) -> None:
    def answers() -> bool:
        try:
            return get(port, "/-/ready").status == 200
        except ConnectionRefusedError:
            return False

    server.wait_until(answers, "answering", 10)


@pytest.mark.real
def test_it_serves_and_finishes_requests_in_flight_on_sigterm(
    gunicorn: Callable[..., Server], free_port: Callable[[], int]
) -> None:
    port = free_port()
    server = gunicorn("--bind", f"127.0.0.1:{port}", "--workers", "2")
    _serving(server, port)
    assert get(port, "/patched").body == "True"
    answer = get_later(port, "/sleep/0.8")
    time.sleep(0.2)  # it has to be in flight
    server.signal(signal.SIGTERM)
    assert answer.result(5).status == 200
    assert server.wait(5) == 0
    assert "Traceback" not in server.log()


@pytest.mark.real
def test_it_listens_on_unix_sockets_and_keeps_connections_as_told(
    gunicorn: Callable[..., Server], free_port: Callable[[], int], servers_dir: Path
) -> None:
    port, path = free_port(), servers_dir / "stock.sock"
    server = gunicorn("--bind", f"127.0.0.1:{port}", "--bind", f"unix:{path}", "--keep-alive", "1")
    _serving(server, port)
    with closing(UnixConnection(str(path), timeout=5)) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        assert client.recv(1) == b""
        assert 0.8 < time.monotonic() - began < 2.5


@pytest.mark.real
def test_max_requests_and_the_heartbeat_timeout_are_gunicorns(
    gunicorn: Callable[..., Server], free_port: Callable[[], int]
) -> None:
    port = free_port()
    server = gunicorn("--bind", f"127.0.0.1:{port}", "--max-requests", "5", "--timeout", "2")
    _serving(server, port)
    first = get(port).body
    until(lambda: get(port).body != first, "another worker")
    assert server.log().count(f"worker {first} has served 5 requests and ends") == 1
    stuck = get_later(port, "/spin/20")
    until(lambda: "WORKER TIMEOUT" in server.log(), "noticed")
    assert stuck.exception(10) is not None
    until(lambda: 'application.py", line' in server.log(), "shown where")
    _serving(server, port)


@pytest.mark.real
def test_a_refused_setting_and_a_broken_application_end_the_start(
    gunicorn: Callable[..., Server], free_port: Callable[[], int]
) -> None:
    address = f"127.0.0.1:{free_port()}"
    refused = gunicorn("--bind", address, "--preload")
    assert refused.wait(10) == 1
    assert "Error: --preload: not with tafe.worker.TafeWorker" in refused.log()
    assert "Traceback" not in refused.log()
    broken = gunicorn("--bind", address, application="tests.process.application:nothing")
    assert broken.wait(10) == 4
    assert "Failed to find attribute 'nothing'" in broken.log()


@pytest.mark.real
def test_workers_are_replaced_on_hup(gunicorn: Callable[..., Server], free_port: Callable[[], int]) -> None:
    port = free_port()
    server = gunicorn("--bind", f"127.0.0.1:{port}")
    _serving(server, port)
    first = get(port).body
    server.signal(signal.SIGHUP)
    until(lambda: get(port).body != first, "another worker")
    assert server.stop() == 0


@pytest.mark.real
def test_hooks_and_log_rotation_reach_the_worker(
    gunicorn: Callable[..., Server], free_port: Callable[[], int], tmp_path: Path
) -> None:
    port, log, hooks = free_port(), tmp_path / "error.log", tmp_path / "hooks.py"
    hooks.write_text("def worker_int(worker):\n    worker.log.info('interrupted hook')\n")
    server = gunicorn("--bind", f"127.0.0.1:{port}", "--log-file", str(log), "--config", str(hooks))
    _serving(server, port)
    log.rename(tmp_path / "rotated.log")
    server.signal(signal.SIGUSR1)
    until(log.exists, "reopened")
    time.sleep(0.2)  # the worker is told by the arbiter, which says nothing
    assert get(port, "/sleep/not-a-number").status == 500
    until(lambda: "ValueError" in log.read_text(), "logged in the new file")
    server.signal(signal.SIGINT)
    assert server.wait(5) == 0
    assert "interrupted hook" in log.read_text()

"""The admin address and pages of strangers in a browser; a run directory that two servers have; an asker who leaves."""

from __future__ import annotations

import http.client
import json
import os
import signal
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.process.client import get, until
from tests.services.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.services.tafe_server import Running

APP = "tests.process.measured:app"

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def served(servers_dir: Path) -> Iterator[tuple[Running, int]]:
    from tests.services.tafe_server import start_tafe

    folder = servers_dir / "strangers"
    folder.mkdir()
    port = free_port()
    running = start_tafe(folder, APP, "--admin", f"127.0.0.1:{port}", "--workers", "1")
    running.wait_all_ready()
    yield running, port
    running.stop()


def ask(port: int, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("latin-1")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("10.1.2.3:9102", 200),
        ("[::1]:9102", 200),
        ("localhost:80", 200),
        ("LOCALHOST.", 200),
        ("app:9102", 200),
        ("web1.shop.internal", 200),
        ("evil.example.com", 421),
        ("evil.example.com:9102", 421),
        ("127.0.0.1.evil.com", 421),
        ("localhost.evil.com", 421),
        ("internal.evil.com.", 421),
    ],
)
def test_only_a_request_for_a_name_that_cannot_be_somebody_elses_is_answered(
    served: tuple[Running, int], host: str, status: int
) -> None:
    found, body = ask(served[1], "GET", "/workers", {"Host": host})
    assert found == status
    assert status == 200 or json.loads(body)["error"].startswith(f"{host!r} is not a name of this server")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_no_page_in_a_browser_has_functions_recorded(
    served: tuple[Running, int], headers: dict[str, str], status: int
) -> None:
    assert ask(served[1], "POST", "/profile?seconds=0.1", headers)[0] == status


def test_a_recording_ends_when_the_asker_has_gone(served: tuple[Running, int]) -> None:
    running, port = served
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("POST", "/profile?seconds=60")
        until(lambda: "records its functions for 60 s" in running.log(), "recording")
        status, body = ask(port, "POST", "/profile?seconds=0.1", {})
        assert status == 409
        left_s = int(json.loads(body)["error"].removesuffix(" s").rpartition(" ")[2])
        assert 1 <= left_s <= 61
    until(lambda: ask(port, "POST", "/profile?seconds=0.1", {})[0] == 200, "free for another")


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_worker_that_ends_while_it_records_ends_in_order(
    tafe_serve: Callable[..., Running], signal_name: str
) -> None:
    port = free_port()
    running = tafe_serve(APP, "--admin", f"127.0.0.1:{port}", "--workers", "1")
    running.wait_all_ready()
    (before,) = json.loads(get(port, "/workers").body)["workers"]
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("POST", "/profile?seconds=60")
        until(lambda: "records its functions for 60 s" in running.log(), "recording")
        running.signal(getattr(signal, signal_name))
        until(lambda: not os.path.exists(f"/proc/{before['pid']}"), "ended")
    if signal_name != "SIGHUP":
        assert running.wait() == 0
    assert "Traceback" not in running.log()
    assert "Error" not in running.log()


def test_two_servers_with_one_run_directory_are_told_of_and_the_second_keeps_its_address(
    tafe_serve: Callable[..., Running],
) -> None:
    ports = [free_port(), free_port()]
    first = tafe_serve(APP, "--admin", f"127.0.0.1:{ports[0]}", "--workers", "1")
    first.wait_all_ready()
    again = ["--run-dir", str(first.run_dir), "--no-profile"]
    second = tafe_serve(APP, "--admin", f"127.0.0.1:{ports[1]}", "--workers", "1", *again)
    warning = f"another server, whose admin address is http://127.0.0.1:{ports[0]}, has the same run directory"
    assert warning in second.log()
    first.stop()
    assert (first.run_dir / "admin").read_text() == f"http://127.0.0.1:{ports[1]}"
    second.stop()
    assert sorted(path.name for path in first.run_dir.glob("admin*")) == []


def test_where_the_address_is_to_be_noted_a_link_is_replaced_and_not_followed(
    tafe_serve: Callable[..., Running], tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    (tmp_path / "admin").symlink_to(victim)
    port = free_port()
    running = tafe_serve(APP, "--admin", f"127.0.0.1:{port}", "--workers", "1", "--run-dir", str(tmp_path))
    assert (tmp_path / "admin").read_text() == f"http://127.0.0.1:{port}"
    assert victim.read_text() == "as it was"
    assert "another server" not in running.log()
    running.stop()
    assert not (tmp_path / "admin").exists()

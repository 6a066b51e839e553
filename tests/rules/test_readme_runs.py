"""What the README shows is true: its code runs, its messages are the ones a user gets, its beginning fits a screen."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from profiler.report.advice import Case, advise
from tests.server.conftest import hello

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def run_block(beginning: str, **given: Any) -> dict[str, Any]:
    """Execute the one python block that holds `beginning`."""
    (block,) = [block for block in PYTHON if beginning in block]
    namespace: dict[str, Any] = dict(given)
    exec(compile(block, "README.md", "exec"), namespace)
    return namespace


def test_the_first_40_lines_show_what_it_is_both_commands_a_handler_and_a_report() -> None:
    first = "\n".join(README.splitlines()[:40])
    for part in (
        "scripts/serve",
        "scripts/test",
        "curl http://127.0.0.1:8000/users/1",
        "@app.get",
        "LINES THAT DO NOT",
    ):
        assert part in first, part


def test_the_handler_of_the_first_screen_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("users.db") as connection:
        connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
        connection.execute("INSERT INTO users VALUES (7, 'Ada')")
    connection.close()
    shown = run_block("users.db")
    try:
        assert shown["app"].test_client().get("/users/7").json() == {"id": 7, "name": "Ada"}
        assert shown["app"].test_client().get("/users/x").status == 404
    finally:
        shown["db"].close()


def test_the_handlers_section_works(capsys: pytest.CaptureFixture[str]) -> None:
    client = run_block("def search")["app"].test_client()
    assert client.get("/search?q=x&tag=a&tag=b").json() == {"q": "x", "limit": 20, "tags": ["a", "b"]}
    assert client.get("/search?q=x&limit=many").json()["error"]["field"] == "limit"
    assert client.put("/users/1/name", json={"name": "Ada"}).header("X-Renamed") == "yes"
    assert capsys.readouterr().out == "renamed 1\n"
    assert client.put("/users/1/name", json={}).json()["error"]["field"] == "name"
    assert client.get("/lines?count=2").text == "line 0\nline 1\n"


def test_the_databases_section_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("shop.db") as connection:
        connection.executescript(
            "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO users VALUES (7, 'Ada');"
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, user_id INT, total INT);"
            "INSERT INTO orders VALUES (1, 7, 30);"
            "CREATE TABLE rates (currency TEXT, rate REAL); INSERT INTO rates VALUES ('EUR', 1.5);"
            "CREATE TABLE accounts (id INTEGER PRIMARY KEY, cents INT); INSERT INTO accounts VALUES (1, 50), (2, 0)"
        )
    connection.close()
    shutil.copy("shop.db", "copy.db")
    shown = run_block("tafe.gather")
    try:
        client = shown["app"].test_client()
        assert client.get("/users/7").json() == {"user": {"id": 7, "name": "Ada"}, "orders": [{"id": 1, "total": 30}]}
        assert client.get("/rates/EUR").json() == {"rate": 1.5}
        assert client.post("/transfers?source=1&target=2&cents=20").status == 204
        assert shown["db"].fetch_all("SELECT cents FROM accounts ORDER BY id") == [{"cents": 30}, {"cents": 20}]
        assert client.get("/reports/orders").json() == {"orders": 1}
    finally:
        shown["db"].close()


def test_the_server_alone_works_in_three_lines() -> None:
    import gevent
    from gevent import socket

    import tafe

    class Bounded(tafe.WSGIServer):
        def __init__(self, address: Any, application: Any) -> None:
            super().__init__((address[0], 0), application)

        def serve_forever(self, stop_timeout: Any = None) -> None:
            self.start()

    original, tafe.WSGIServer = tafe.WSGIServer, Bounded  # type: ignore[misc]
    try:
        server = run_block("serve_forever", app=hello)["server"]
    finally:
        tafe.WSGIServer = original  # type: ignore[misc]
    with gevent.Timeout(5), socket.create_connection(server.address) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"200 OK" in client.recv(1000)
    server.stop()


def test_the_mistake_in_the_configuration_section_is_answered_as_shown() -> None:
    (shown,) = re.findall(
        r"^\$ TAFE_WORKERS=four tafe serve apps.hello:app\n(.*?)^```", README, re.MULTILINE | re.DOTALL
    )
    answer = subprocess.run(
        [sys.executable, "-m", "tafe", "serve", "apps.hello:app"],
        cwd=ROOT,
        env={**os.environ, "TAFE_WORKERS": "four"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert answer.stderr == shown
    assert answer.returncode == 2


def test_the_report_of_the_first_screen_is_what_a_report_looks_like() -> None:
    place, source, count, *advice = re.findall(r"^1\. .*?(?=^```)", README, re.MULTILINE | re.DOTALL)[0].splitlines()
    found = re.fullmatch(r"1\. (\S+):(\d+) in (\w+)   \[blocking\]   delayed requests \d+x: [\d.,]+ ms", place)
    assert found is not None
    lines = (ROOT / found[1]).read_text().splitlines()
    assert lines[int(found[2]) - 1].strip() == source.strip(), "the example's line has moved"
    assert any(f"def {found[3]}(" in line for line in lines)
    shape = r"   \d+ times, [\d.]+ ms each \(p99 [\d.]+, max [\d.]+\), [\d.]+ m?s in all; in .*"
    assert re.fullmatch(shape, count)
    rendered = (ROOT / "tests" / "profiler" / "data" / "two_workers.txt").read_text()
    assert any(re.fullmatch(shape, line) for line in rendered.splitlines()), "the report has changed its words"
    said = " ".join(line.strip() for line in advice).removeprefix("-> ")
    assert said == advise(Case("blocking", source.strip()))

"""Getting connected to MySQL, and why it failed; also processes that are monkey-patched and that are not."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
import pytest
from gevent import socket

from tafe import readiness
from tafe.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tafe.db import Database
    from tests.services.mariadb import MariaDB

ROOT = Path(__file__).resolve().parents[2]


def test_a_unix_socket_can_be_used_instead_of_the_host(
    mysql_url: str, mariadb: MariaDB, connect: Callable[..., Database]
) -> None:
    socket = str(mariadb.directory / "mariadb.sock").replace("/", "%2F")
    database = connect(f"{mysql_url}?unix_socket={socket}".replace(f":{mariadb.port}", ":1"))
    assert database.fetch_one("SELECT 1 AS a") == {"a": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("s3cret", "wrong"), "access denied: check user and password"),
        (("/db_", "/nodb_"), "no such database"),
        (("127.0.0.1", "host.invalid"), "is unavailable: "),
        (("?", "?unix_socket=%2Fno%2Fsocket&"), "no such file or directory"),
    ],
)
def test_why_no_connection_can_be_made_is_told_without_user_and_password(
    mysql_url: str, connect: Callable[..., Database], change: tuple[str, str], said: str
) -> None:
    url = f"{mysql_url}?charset=utf8mb4".replace(*change)
    database = connect(url, name="shop", connect_timeout_s=0.9)
    with pytest.raises(DatabaseUnavailable) as caught:
        database.open()
    text = str(caught.value)
    assert text.startswith("database shop is unavailable: ")
    assert said in text
    assert "tafe" not in text
    assert "s3cret" not in text
    assert caught.value.__context__ is None


def test_a_refused_connection_is_told_as_such(
    free_port: Any, cooperative: None, connect: Callable[..., Database]
) -> None:
    database = connect(f"mysql://ana:hidden@127.0.0.1:{free_port()}/shop")
    with pytest.raises(DatabaseUnavailable, match="database shop is unavailable: connection refused"):
        database.fetch_one("SELECT 1")


def fill_accept_queue(port: int) -> list[Any]:
    """Connect until nothing answers any more; return the sockets."""
    filling = []
    while True:
        one = socket.socket()
        one.settimeout(0.05)
        filling.append(one)
        try:
            one.connect(("127.0.0.1", port))
        except TimeoutError:
            return filling


@pytest.mark.parametrize("kind", ["drops", "silent", "garbage", "hangs up"])
def test_a_server_that_never_completes_the_login_is_given_up_after_connect_timeout(
    kind: str, cooperative: None, connect: Callable[..., Database]
) -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    port = listener.getsockname()[1]
    accepted: list[Any] = []

    def serve() -> None:
        while kind != "silent":
            client, _ = listener.accept()
            accepted.append(client)
            if kind == "garbage":
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20)
            client.close()

    if kind == "drops":
        # Linux drops the SYN when the accept queue is full: as a host that is gone looks.
        accepted += fill_accept_queue(port)
    server = gevent.spawn(serve) if kind in {"garbage", "hangs up"} else None
    database = connect(f"mysql://ana:hidden@127.0.0.1:{port}/shop", connect_timeout_s=0.3)
    begun = time.monotonic()
    waiting = [gevent.spawn(database.fetch_one, "SELECT 1") for _ in range(5)]
    gevent.joinall(waiting)
    assert time.monotonic() - begun < 0.8
    assert {type(greenlet.exception) for greenlet in waiting} == {DatabaseUnavailable}
    if server is not None:
        server.kill()
    for open_socket in [listener, *accepted]:
        open_socket.close()


def test_a_worker_lacks_its_database_while_the_first_connect_is_under_way(
    monkeypatch: pytest.MonkeyPatch, cooperative: None, connect: Callable[..., Database]
) -> None:
    monkeypatch.setattr(readiness, "FIRST_TRY_S", 0.05)
    listener = socket.create_server(("127.0.0.1", 0))  # the kernel completes the handshake; nobody answers
    database = connect(f"mysql://ana:hidden@127.0.0.1:{listener.getsockname()[1]}/shop", connect_timeout_s=5)
    worker = readiness.Readiness(None, (database,))
    worker.start()
    with gevent.Timeout(2):
        while not worker.tried:
            worker.changed.wait(1)
    assert (database.stats.size, database.ready, worker.lacking()) == (0, False, ["shop"])
    listener.close()  # resets what was never accepted, so that the attempts end now
    with gevent.Timeout(2):
        while not worker.why:
            gevent.sleep(0.005)
    assert worker.lacking() == ["shop"]
    worker.stop()


PATCHED = """
from gevent import monkey
monkey.patch_all()
import sys, time
import gevent
from tafe.db import Database

database = Database.from_url(sys.argv[1], min_size=4, max_size=4, slow_query_s=None)
database.open()
begun = time.monotonic()
waiting = [gevent.spawn(database.fetch_one, "SELECT SLEEP(0.2) AS s, %s AS n", (n,)) for n in range(8)]
rows = [greenlet.get() for greenlet in waiting]
took = time.monotonic() - begun
assert rows == [{"s": 0, "n": n} for n in range(8)], rows
assert 0.4 <= took < 0.75, took  # two rounds of four at a time
database.close()
print("ok")
"""


def test_in_a_monkey_patched_process_statements_run_side_by_side(mariadb: MariaDB) -> None:
    url = mariadb.create_database("patched")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PATCHED, url], capture_output=True, text=True, timeout=20, cwd=ROOT
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_in_a_process_that_is_not_patched_statements_work_one_after_the_other(mariadb: MariaDB) -> None:
    url = mariadb.create_database("unpatched")
    script = PATCHED.replace("monkey.patch_all()", "").replace("SLEEP(0.2)", "0").replace("0.4 <=", "0 <=")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, url], capture_output=True, text=True, timeout=20, cwd=ROOT
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")

"""One recognisable user and password, driven into every failure: nothing that is raised, logged or printed has them.

What is looked for are parts without any sign that an encoding would change, upper and lower case alike. The
application's own source is the user's: where it holds a URL, no traceback of ours may quote that line.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import traceback
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import gevent
import pymysql
import pytest

from tafe.db.url import parse
from tafe.errors import QueryError, TafeError, UsageError
from tests.db import protocol
from tests.db.fake_server import FakeServer, done

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tafe.db import Database
    from tests.services.mariadb import MariaDB
    from tests.services.tafe_server import Running

ROOT = Path(__file__).resolve().parents[2]
USER = "okapi"
PASSWORD = "Zebra#9/Quagga@:x"
LOGIN = f"{USER}:Zebra%239%2FQuagga%40%3Ax"
SECRETS = ("okapi", "zebra", "quagga")
# A password's signs left as they are, in every place where they can be.
ODD_URLS = [
    "mysql://okapi:Zebra#9/Quagga@h:3306/d",
    "mysql://okapi:Zebra/Quagga@h/d",
    "mysql://okapi:Zebra?Quagga@h/d",
    "mysql://okapi:Zebra?ssl_ca=Quagga",
    "mysql://okapi:Zebra@Quagga@h:x/d",
    "mysql://okapi:Zebra:Quagga@h:99999/d",
    "mysql://okapi:Zebra%FFQuagga@h/d",
    "mysql://okapi:Zebra@h/d?password=Quagga",
    "mysql://okapi:Zebra@h/d?tls=off&ssl_key_password=Quagga",
    "mysql://okapi:Zebra",
    "mysql://@okapi:Zebra",
    "mysql:okapi:Zebra@Quagga/d",
    "okapi:Zebra@Quagga://h/d",
    "://okapi:Zebra@Quagga",
    " mysql://okapi:Zebra@Quagga/d",
    "okapi Zebra Quagga",
]


def assert_silent(text: str) -> None:
    told = [line for line in text.splitlines() if any(secret in line.lower() for secret in SECRETS)]
    assert not told


def told_by(error: BaseException) -> str:
    """All that anybody who prints it could see."""
    parts = traceback.format_exception(error)
    own = [part for part in parts if not part.startswith("  File ")]  # the lines of this test are the test's own
    return "".join([*own, str(error), repr(error), repr(error.args), repr(vars(error))])


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """At the end, nothing that was logged or printed has a secret in it."""
    caplog.set_level(logging.DEBUG)
    yield
    out, err = capfd.readouterr()
    assert_silent(f"{caplog.text}\n{out}\n{err}")


@pytest.fixture
def server(mariadb: MariaDB, cooperative: None) -> MariaDB:
    """With the user in it, who may read one table and write none."""
    mariadb.create_database("zoo")
    mariadb.query("CREATE TABLE zoo.animals (id INTEGER PRIMARY KEY)")
    mariadb.query("CREATE TABLE zoo.keepers (id INTEGER PRIMARY KEY)")
    mariadb.query(f"CREATE OR REPLACE USER {USER} IDENTIFIED BY '{PASSWORD}'")
    with pymysql.connect(user="root", unix_socket=str(mariadb.directory / "mariadb.sock")) as root:
        root.query(f"GRANT SELECT ON zoo.animals TO {USER}")
    return mariadb


@pytest.mark.parametrize("url", ODD_URLS)
def test_a_url_with_its_password_in_an_odd_place_is_an_error_that_does_not_show_it(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(url)
    assert_silent(told_by(caught.value))


@pytest.mark.usefixtures("said")
@pytest.mark.parametrize(
    "change",
    [
        ("Zebra%23", "Zebra"),
        ("okapi:", "okapinobody:"),
        ("/zoo", "/mysql"),
        ("/zoo", "/no_such"),
        ("127.0.0.1", "host.invalid"),
        ("?", "?tls=required&"),
        ("?", "?unix_socket=%2Fno%2Fsuch&"),
        ("?", "?reader=stock&tls=required&"),
    ],
)
def test_a_failed_login_is_told_without_the_credentials(
    server: MariaDB, connect: Callable[..., Database], change: tuple[str, str]
) -> None:
    url = f"mysql://{LOGIN}@127.0.0.1:{server.port}/zoo?charset=utf8mb4".replace(*change)
    database = connect(url, connect_timeout_s=0.9)
    for ask in (database.open, lambda: database.fetch_one("SELECT 1"), lambda: database.transaction().__enter__()):
        with pytest.raises(TafeError) as caught:
            ask()
        assert_silent(told_by(caught.value))
    assert_silent(f"{database!r} {database.stats!r} {database._driver!r} {database._pool!r}")


@pytest.mark.usefixtures("said")
def test_a_server_that_quotes_the_credentials_is_not_quoted(
    cooperative: None, connect: Callable[..., Database]
) -> None:
    quoting = f"Access denied for user '{USER}'@'127.0.0.1' (using password: {PASSWORD})"
    for number in (1044, 1045, 1130, 1203, 1698, 4242):
        server = FakeServer(lambda text: done(), refuses=protocol.error(number, quoting))
        with pytest.raises(TafeError) as caught:
            connect(f"mysql://{LOGIN}@127.0.0.1:{server.port}/zoo").open()
        assert_silent(told_by(caught.value))
        server.close()


@pytest.mark.usefixtures("said")
@pytest.mark.parametrize("reader", ["fast", "stock"])
def test_what_goes_wrong_with_statements_is_told_without_the_credentials(
    server: MariaDB, connect: Callable[..., Database], reader: str
) -> None:
    url = f"mysql://{LOGIN}@127.0.0.1:{server.port}/zoo?reader={reader}"
    database = connect(url, min_size=1, max_size=1, read_timeout_s=0.2)
    for statement in (
        "INSERT INTO animals VALUES (1)",  # "INSERT command denied to user 'okapi'@'localhost'"
        "SELECT * FROM keepers",
        "SELECT * FROM mysql.user",
        "CREATE TABLE more (id INTEGER)",
        "DROP DATABASE zoo",
        "SELECT SLEEP(5)",
        "SELECT 1 FROM",
        "KILL 1",
        "SET GLOBAL max_connections = 5",
    ):
        with pytest.raises(TafeError) as caught:
            database.execute(statement)
        assert_silent(told_by(caught.value))
    with pytest.raises(QueryError, match=r"\(1142\) INSERT command denied to user \.\.\. for table"):
        database.execute("INSERT INTO animals VALUES (1)")


@pytest.mark.usefixtures("said")
def test_a_connection_killed_in_mid_statement_is_told_without_the_credentials(
    server: MariaDB, connect: Callable[..., Database]
) -> None:
    database = connect(f"mysql://{LOGIN}@127.0.0.1:{server.port}/zoo", min_size=1, max_size=1, read_timeout_s=5)
    row = database.fetch_one("SELECT CONNECTION_ID() AS id")
    assert row is not None
    asking = gevent.spawn(database.execute, "SELECT id, SLEEP(3) FROM (SELECT 1 AS id) AS one FOR UPDATE")
    gevent.sleep(0.05)
    server.query(f"KILL {row['id']}")
    asking.join()
    if asking.exception is not None:  # a read is repeated
        assert_silent(told_by(asking.exception))
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)) as caught:
        pickle.dumps(database)
    assert_silent(told_by(caught.value))


APPLICATION = """
import logging
import tafe

app = tafe.App()
logging.basicConfig(level=logging.DEBUG)
db = tafe.Database.from_url({url!r}, min_size=1, max_size=1, connect_timeout_s=0.5, read_timeout_s=0.2)


@app.on_start
def shown():
    logging.getLogger("app").warning("with %s, %r", db, db._driver)


@app.get("/denied")
def denied():
    return db.fetch_all("SELECT * FROM keepers")


@app.get("/slow")
def slow():
    return db.fetch_all("SELECT SLEEP(3)")


@app.get("/mistake")
def mistake():
    return 1 / 0
"""


def tafe(folder: Path, *arguments: str) -> str:
    """What a command prints, and its whole environment's worth of settings."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TAFE_DATABASE_URL": f"mysql://{LOGIN}@h/zoo"}
    command = [sys.executable, "-m", "tafe", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout or done.stderr
    return done.stdout + done.stderr


def test_commands_show_no_url_whatever_is_wrong_with_it(tmp_path: Path) -> None:
    good = f"mysql://{LOGIN}@127.0.0.1:1/zoo"
    for number, url in enumerate([good, *ODD_URLS]):
        (tmp_path / f"zoo{number}.py").write_text(APPLICATION.format(url=url))
    for number in (0, 1, 12):
        assert_silent(tafe(tmp_path, "routes", f"zoo{number}:app"))
    (tmp_path / "zoo99.py").write_text(APPLICATION.format(url=good).replace("min_size=1", "min_size=99"))
    told = tafe(tmp_path, "routes", "zoo99:app")
    assert "min_size=99" in told
    assert_silent(told)
    assert_silent(tafe(tmp_path, "config"))
    (tmp_path / "tafe.toml").write_text(f'workers = 1\ndatabase_url = "{good}"\n')
    assert_silent(tafe(tmp_path, "config"))
    (tmp_path / "tafe.toml").write_text(f'workers = "{good}"\n')
    assert_silent(tafe(tmp_path, "config"))


def processes_of(running: Running) -> str:
    lines = []
    for pid in [running.pid, *running.worker_pids()]:
        lines.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        lines.append(Path(f"/proc/{pid}/comm").read_text())
    return "\n".join(lines)


def test_a_server_s_log_processes_and_profile_hold_no_credentials(
    server: MariaDB, tafe_serve: Callable[..., Running], tmp_path: Path
) -> None:
    url = f"mysql://{LOGIN}@127.0.0.1:{server.port}/zoo"
    (tmp_path / "zoo.py").write_text(APPLICATION.format(url=url))
    running = tafe_serve("zoo:app", "--workers", "1", cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    answers = []

    def ask(path: str) -> None:
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(running.url + path, timeout=5)
        answers.append(caught.value.read().decode())

    for path in ("/denied", "/slow", "/mistake"):
        ask(path)
    assert "database_timeout" in answers[1]
    server.query(f"SET PASSWORD FOR {USER} = PASSWORD('other')")
    (row,) = server.query("SELECT id FROM information_schema.processlist WHERE user = %s LIMIT 1", (USER,))
    server.query(f"KILL {row['id']}")
    ask("/denied")
    running.wait_for_log(" is down: access denied")
    shown = processes_of(running)
    running.stop()
    assert "with <Database zoo mysql://127.0.0.1" in running.log()
    assert_silent("\n".join([*answers, shown, running.log()]))
    profile = b"".join(path.read_bytes() for path in running.profile_dir.rglob("*") if path.is_file())
    assert_silent(profile.decode(errors="replace"))


def test_a_server_whose_application_has_an_unusable_url_does_not_print_it(
    tafe_serve: Callable[..., Running], tmp_path: Path
) -> None:
    (tmp_path / "zoo.py").write_text(APPLICATION.format(url=ODD_URLS[0]))
    running = tafe_serve("zoo:app", "--workers", "1", cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, wait_ready=False)
    assert running.wait() != 0
    assert "behind its host part" in running.log()
    assert_silent(running.log())

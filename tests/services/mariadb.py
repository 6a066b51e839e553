"""A MariaDB server of our own: data in a temporary folder, a free loopback port, a user with a password.

It runs from conf/mariadb.cnf, the file an operator would use, with test overrides on the command line: small
buffers and no waiting for the disk, since the data is thrown away. The system tables are made once a run and
copied for every further server.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pymysql
import pymysql.cursors

from tests.services.ports import free_port
from tests.services.processes import Server
from tests.services.requirements import program

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf" / "mariadb.cnf"

_TEST_OVERRIDES = [
    "--innodb-buffer-pool-size=64M",  # 100,000 users fit
    "--innodb-log-file-size=16M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    "--key-buffer-size=1M",
    "--aria-pagecache-buffer-size=8M",
    "--performance-schema=OFF",
    "--skip-log-bin",
]


class MariaDB:
    """One server; `start`, `kill` and `stop` may be called again and again, the data stays until `remove`."""

    host = "127.0.0.1"
    user = "tafe"
    password = "s3cret/@:p"  # needs quoting in a URL, so that quoting is tested by every test

    def __init__(self, directory: Path, template: Path, *, options: Sequence[str] = ()) -> None:
        """`options` of mariadbd come last, so they win."""
        self.directory = directory
        self.options = options
        self.port = free_port()
        self._template = template
        self._server: Server | None = None

    def start(self, timeout_s: float = 20.0) -> None:
        """Start and wait until the user can log in."""
        program("mariadbd")
        data = self.directory / "data"
        if not data.exists():
            make_template(self._template)
            shutil.copytree(self._template, data)
        init = self.directory / "init.sql"
        init.write_text(
            f"CREATE OR REPLACE USER '{self.user}'@'%' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO '{self.user}'@'%';\n"
        )
        self._server = Server(
            [
                program("mariadbd"),
                f"--defaults-file={CONF}",
                *_run_as(),
                f"--datadir={data}",
                f"--socket={self.directory / 'mariadb.sock'}",
                f"--pid-file={self.directory / 'mariadb.pid'}",
                f"--tmpdir={self.directory}",
                f"--init-file={init}",
                f"--bind-address={self.host}",
                f"--port={self.port}",
                *_TEST_OVERRIDES,
                *self.options,
            ],
            self.directory / "mariadb.log",
        )
        self._server.wait_until(self._answers, "accepting logins", timeout_s)

    def kill(self) -> None:
        """SIGKILL, as when the machine loses power: clients see a reset, then refused connections."""
        assert self._server is not None
        self._server.kill()

    def freeze(self) -> None:
        """SIGSTOP, as when its disk hangs: the kernel still accepts connections, and nobody answers."""
        assert self._server is not None
        os.kill(self.pid, signal.SIGSTOP)
        self._server.wait_until(self._is_stopped, "frozen", 5.0)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """An orderly shutdown."""
        if self._server is not None and self._server.returncode is None:
            self._server.stop()

    def remove(self) -> None:
        """Stop it and delete its data."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    def url(self, database: str) -> str:
        """The URL for `tafe.Database.from_url`; the password is percent-encoded."""
        return f"mysql://{self.user}:s3cret%2F%40%3Ap@{self.host}:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Make an empty database, dropping one of that name; return its URL."""
        self.query(f"DROP DATABASE IF EXISTS `{name}`")
        self.query(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
        return self.url(name)

    def query(self, sql: str, params: tuple[Any, ...] = (), database: str | None = None) -> list[dict[str, Any]]:
        """Run one statement on a connection of its own; return its rows."""
        connection = pymysql.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            database=database,
            autocommit=True,
            connect_timeout=2,
            cursorclass=pymysql.cursors.DictCursor,
        )
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, params)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def _is_stopped(self) -> bool:
        """Each of its threads has stopped (proc_pid_stat(5): the state follows the name)."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/stat")
        return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)

    def _answers(self) -> bool:
        try:
            self.query("SELECT 1")
        except pymysql.err.OperationalError:
            return False
        return True


def make_template(template: Path) -> None:
    """Make a data folder with the system tables in `template`, once."""
    if template.exists():
        return
    subprocess.run(
        [
            program("mariadb-install-db"),
            "--no-defaults",
            *_run_as(),
            f"--datadir={template}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
            "--innodb-log-file-size=16M",
        ],
        check=True,
        capture_output=True,
    )


def _run_as() -> list[str]:
    """MariaDB refuses to run as root unless told to; the folder belongs to whoever runs the tests."""
    return ["--user=root"] if os.geteuid() == 0 else []

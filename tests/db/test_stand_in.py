"""An application that uses PyMySQL gets our connection after one call; in processes of their own, as it is for good."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.services.mariadb import MariaDB

BEGINNING = """
from gevent import monkey
monkey.patch_all()
import sys
import tafe
import pymysql, pymysql.cursors
login = {"host": sys.argv[1], "port": int(sys.argv[2]), "user": sys.argv[3], "password": sys.argv[4]}
"""


def output_of(program: str, mariadb: MariaDB) -> subprocess.CompletedProcess[str]:
    words: list[Any] = [mariadb.host, mariadb.port, mariadb.user, mariadb.password]
    argv = [sys.executable, "-W", "error", "-c", BEGINNING + program, *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_every_name_of_pymysql_makes_our_connection(mariadb: MariaDB) -> None:
    done = output_of(
        """
assert tafe.use_fast_pymysql() is True
assert tafe.use_fast_pymysql() is True
for make in (pymysql.connect, pymysql.Connect, pymysql.Connection, pymysql.connections.Connection):
    with make(**login, cursorclass=pymysql.cursors.DictCursor) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT %s AS text", ("x",))
        print(type(connection).__module__, isinstance(connection, pymysql.connections.Connection), cursor.fetchall())
""",
        mariadb,
    )
    assert done.stdout.splitlines() == ["tafe.db.fast True [{'text': 'x'}]"] * 4, done.stderr


def test_a_library_that_asks_for_mysqldb_gets_it_too(mariadb: MariaDB) -> None:
    done = output_of(
        """
pymysql.install_as_MySQLdb()
tafe.use_fast_pymysql()
import MySQLdb
with MySQLdb.connect(**login) as connection, connection.cursor() as cursor:
    cursor.execute("SELECT 1")
    print(type(connection).__module__, cursor.fetchone())
""",
        mariadb,
    )
    assert done.stdout == "tafe.db.fast (1,)\n", done.stderr


def test_an_untested_pymysql_stays_as_it_is_and_the_log_says_why(mariadb: MariaDB) -> None:
    done = output_of(
        """
pymysql.VERSION_STRING = "9.9.9"
stock = pymysql.connect
assert tafe.use_fast_pymysql() is False
assert pymysql.connect is pymysql.connections.Connection is stock
""",
        mariadb,
    )
    assert done.returncode == 0, done.stderr
    assert "9.9.9 is installed" in done.stderr


def test_who_asked_for_the_stock_reader_still_gets_it(mariadb: MariaDB) -> None:
    done = output_of(
        """
tafe.use_fast_pymysql()
from tafe.db import fast, wire
print(issubclass(wire.wire_class("stock"), fast.Connection), issubclass(wire.wire_class("fast"), fast.Connection))
""",
        mariadb,
    )
    assert done.stdout == "False True\n", done.stderr

"""The database that the contestants ask: one table, filled, in a MariaDB of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers import contract
from tests.services.mariadb import MariaDB


@contextmanager
def filled(directory: Path) -> Iterator[str]:
    """Start MariaDB with its data in `directory`, fill it, give its URL; it is removed afterwards."""
    mariadb = MariaDB(directory / "mariadb", directory / "mariadb-template")
    mariadb.directory.mkdir()
    try:
        mariadb.start()
        url = mariadb.create_database("bench")
        mariadb.query(
            "CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(64) NOT NULL) ENGINE=InnoDB", database="bench"
        )
        mariadb.query(
            f"INSERT INTO users SELECT seq, CONCAT('user ', seq) FROM seq_1_to_{contract.USERS}", database="bench"
        )
        yield url
    finally:
        mariadb.remove()

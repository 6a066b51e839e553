"""The fill: the same contents for the same seed, nothing to do the second time, begun anew after an interruption."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from apps.bidder import fill, population, schema
from apps.bidder.progress import Progress
from tafe import Database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.services.mariadb import MariaDB

ROOT = Path(__file__).resolve().parents[2]
SIZES = ("--users", "2000", "--campaigns", "100")


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`python -m apps.bidder.fill`, as scripts/fill starts it."""
    return subprocess.run(
        [sys.executable, "-m", "apps.bidder.fill", *arguments],
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'filled.db'}"


@pytest.fixture
def opened(url: str) -> Iterator[Database]:
    db = Database.from_url(url, min_size=1, max_size=1)
    yield db
    db.close()


def count(db: Database, table: str) -> int:
    row = db.fetch_one(f"SELECT count(*) AS n FROM {table}")
    assert row is not None
    return int(row["n"])


def contents(db: Database) -> dict[str, list[dict[str, Any]]]:
    return {table: sorted(db.fetch_all(f"SELECT * FROM {table}"), key=str) for table in schema.TABLES}


def test_a_fill_shows_progress_ends_with_the_next_command_and_is_complete(url: str, opened: Database) -> None:
    done = run(url, *SIZES)
    assert done.returncode == 0, done.stderr
    assert "users: 2,000 of 2,000 (100 %)" in done.stdout
    assert "2,000 users and 100 campaigns put in" in done.stdout
    assert "tafe serve apps.bidder:app" in done.stdout.splitlines()[-1]
    assert count(opened, "users") == 2000
    assert count(opened, "campaigns") == 100
    assert count(opened, "user_segments") > 4000


def test_a_second_fill_has_nothing_to_do_and_says_so(url: str, opened: Database) -> None:
    run(url, *SIZES)
    opened.execute("DELETE FROM user_segments WHERE user_id = 1")
    before = contents(opened)
    again = run(url, *SIZES)
    assert again.returncode == 0
    assert "already there: 2,000 users and 100 campaigns" in again.stdout
    assert contents(opened) == before, "what users changed since is left alone"


def test_an_unfinished_fill_is_done_again(url: str, opened: Database) -> None:
    run(url, *SIZES)
    whole = contents(opened)
    opened.execute("DELETE FROM fill_state")  # as if it had been killed before its last step
    opened.execute("DELETE FROM users WHERE id > 1000")
    assert "put in" in run(url, *SIZES).stdout
    assert contents(opened) == whole


def test_other_sizes_or_another_seed_replace_the_contents(url: str, opened: Database) -> None:
    run(url, *SIZES)
    whole = contents(opened)
    other = run(url, *SIZES, "--seed", "2")
    assert "the database has v1 seed 1: 2000 users, 100 campaigns; filling it again" in other.stdout
    assert count(opened, "users") == 2000
    assert contents(opened)["campaigns"] != whole["campaigns"]


def test_without_a_url_the_environment_names_the_database(url: str, opened: Database) -> None:
    assert run(*SIZES, BIDDER_DATABASE_URL=url).returncode == 0
    assert count(opened, "users") == 2000


def test_a_database_that_cannot_be_reached_is_a_clear_error(free_port: Callable[[], int]) -> None:
    failed = run(f"mysql://root:secret@127.0.0.1:{free_port()}/bidder")
    assert failed.returncode == 1
    assert failed.stderr.startswith("fill: the database cannot be reached: ")
    assert len(failed.stderr.splitlines()) == 1
    assert "secret" not in failed.stderr + failed.stdout


def test_a_folder_that_does_not_exist_is_a_clear_error(tmp_path: Path) -> None:
    failed = run(f"sqlite:///{tmp_path / 'missing' / 'bidder.db'}")
    assert failed.returncode == 1
    assert f"there is no directory {tmp_path / 'missing'}" in failed.stderr


def test_a_url_that_cannot_be_used_says_what_to_type() -> None:
    failed = run("postgres://somewhere/bidder")
    assert failed.returncode == 2
    assert failed.stderr.startswith("fill: unknown kind of database 'postgres'")
    assert "allowed:" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_population_is_the_same_for_the_same_seed() -> None:
    rows = population.campaigns(200, 1)
    assert rows == population.campaigns(200, 1)
    assert rows != population.campaigns(200, 2)
    assert population.creatives(rows, 1) == population.creatives(rows, 1)
    assert list(population.user_segments(50, 1)) == list(population.user_segments(50, 1))


def test_more_users_leave_the_first_ones_as_they_were() -> None:
    assert list(population.user_segments(100, 1))[:50] == list(population.user_segments(50, 1))


def test_users_have_few_segments_and_popular_ones_more_often() -> None:
    users = dict(population.user_segments(5000, 1))
    assert list(users) == list(range(1, 5001))
    assert any(not segments for segments in users.values())
    assert max(map(len, users.values())) <= population.MOST_SEGMENTS
    everywhere = [segment for segments in users.values() for segment in segments]
    assert min(everywhere) >= 1
    assert max(everywhere) <= population.SEGMENTS
    assert everywhere.count(1) > 5 * everywhere.count(150) > 0


def test_one_campaign_of_twenty_is_contextual() -> None:
    rows = population.campaigns(1000, 1)
    contextual = [row for row in rows if row[1] == 0]
    assert len(contextual) == 51
    assert rows[0][9] == population.EVERYWHERE


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_renews_one_line() -> None:
    out = Terminal()
    progress = Progress("users", 1000, out)
    for done in range(100, 1001, 100):
        progress.update(done)
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().endswith("\r\x1b[Kusers: 1,000 of 1,000 (100 %)\n")
    assert out.getvalue().startswith("\r\x1b[Kusers: 100 of 1,000 (10 %)")


def test_progress_elsewhere_is_a_plain_line_at_every_tenth() -> None:
    out = io.StringIO()
    progress = Progress("users", 1000, out)
    for done in range(10, 1001, 10):
        progress.update(done)
    lines = out.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == "users: 100 of 1,000 (10 %)"
    assert "\r" not in out.getvalue()


def test_mariadb_gets_the_same_contents_as_sqlite(mariadb: MariaDB, url: str, opened: Database) -> None:
    mysql_url = mariadb.create_database("bidder_fill")
    db = Database.from_url(mysql_url, min_size=1, max_size=1)
    assert fill.fill(db, "mysql", 500, 100, seed=3)
    assert not fill.fill(db, "mysql", 500, 100, seed=3)
    assert run(url, "--users", "500", "--campaigns", "100", "--seed", "3").returncode == 0
    assert contents(db) == contents(opened)
    db.close()

"""PyMySQL's own tests pass on the fast connection if they pass on PyMySQL's.

They are taken from source distributions, fetched by pip into .run/. That of the installed version holds only
tests/test_auth.py, which logs in to a MySQL 8 on port 3306 as users that its authors' CI makes; login is PyMySQL's own
code here. The last source distribution with the whole suite is 0.10.1's; what changed since fails on
PyMySQL's class as well, and does not count. Whoever has a checkout of the installed version names its folder in
TAFE_PYMYSQL_SOURCE, to run that instead.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pymysql
import pytest

from tests.services.requirements import in_ci

if TYPE_CHECKING:
    from tests.services.mariadb import MariaDB

ROOT = Path(__file__).resolve().parents[2]
FETCHED = ROOT / ".run" / "pymysql"
LAST_WITH_TESTS = "0.10.1"
SOURCE_VARIABLE = "TAFE_PYMYSQL_SOURCE"
# Tests that pass on PyMySQL's class and need not pass on ours, with the reason.
EXCLUDED: dict[str, str] = {}
# With fewer the suite did not really run. Of 0.10.1's 152 tests PyMySQL 1.2.4 passes 143 on MariaDB 10.11.
LEAST_PASSED = 130

pytestmark = [pytest.mark.slow, pytest.mark.real]


def fetch(version: str) -> Path:
    """The unpacked source distribution; skips where it cannot be had, fails in CI."""
    folder = FETCHED / version
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        done = subprocess.run(
            [*command, "--dest", str(FETCHED), f"PyMySQL=={version}"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            problem = f"the source of PyMySQL {version} cannot be fetched: {done.stderr.strip()[-300:]}"
            pytest.fail(problem) if in_ci() else pytest.skip(problem)
        (archive,) = [path for path in FETCHED.glob("*.tar.gz") if path.name.lower() == f"pymysql-{version}.tar.gz"]
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    return unpacked


@pytest.fixture(scope="module")
def source() -> Path:
    named = os.environ.get(SOURCE_VARIABLE)
    if named:
        return Path(named)
    own = fetch(pymysql.VERSION_STRING)
    return own if (own / "pymysql" / "tests").exists() else fetch(LAST_WITH_TESTS)


def outcomes(source: Path, folder: Path, mariadb: MariaDB, kind: str, *, patched: bool) -> dict[str, bool]:
    """Each test's name, and whether it passed; skipped ones are left out."""
    login = {"host": mariadb.host, "port": mariadb.port, "user": mariadb.user, "passwd": mariadb.password}
    first = {**login, "db": "test1", "use_unicode": True, "local_infile": True}
    (source / "pymysql" / "tests" / "databases.json").write_text(json.dumps([first, {**login, "db": "test2"}]))
    for name in ("test1", "test2"):
        mariadb.create_database(name)
    report = folder / "report.xml"
    # Without our settings for pytest, which make errors of its warnings.
    settings = ["-c", os.devnull, f"--rootdir={source}", "-p", "no:cacheprovider", "-p", "no:unraisableexception"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.db.upstream", *settings),
            *("--quiet", f"--junitxml={report}", str(source / "pymysql" / "tests")),
        ],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "UPSTREAM_CLASS": kind,
            "UPSTREAM_GEVENT": str(int(patched)),
            "UPSTREAM_SOURCE": str(source),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    found = {}
    for case in ET.parse(report).iter("testcase"):
        if case.find("skipped") is None:
            bad = case.find("failure") is not None or case.find("error") is not None
            found[f"{case.get('classname')}.{case.get('name')}"] = not bad
    return found


@pytest.fixture(scope="module")
def expected(source: Path, mariadb: MariaDB, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The tests that pass on PyMySQL's own class."""
    mariadb.query("SET GLOBAL local_infile = ON")
    found = outcomes(source, tmp_path_factory.mktemp("stock"), mariadb, "stock", patched=False)
    return {name for name, passed in found.items() if passed}


@pytest.mark.parametrize("patched", [False, True], ids=["blocking", "gevent"])
def test_pymysql_s_own_tests_pass_on_the_fast_connection(
    source: Path, expected: set[str], mariadb: MariaDB, tmp_path: Path, patched: bool
) -> None:
    assert len(expected) >= LEAST_PASSED
    found = outcomes(source, tmp_path, mariadb, "fast", patched=patched)
    failed = {name for name in expected - EXCLUDED.keys() if not found.get(name, False)}
    assert not failed

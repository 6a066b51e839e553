"""What `tafe doctor` says of an application: all that can be seen, and nothing of what is fine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tafe.doctor.known import FUNCTIONS, LIBRARIES, ORIGINALS
from tests.cli.test_commands import CLEAN, ROOT


def doctor(*arguments: str, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tafe", "doctor", *arguments],
        cwd=cwd,
        env={**CLEAN, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def findings(tmp_path: Path, source: str, **environ: str) -> list[dict[str, Any]]:
    """In a module `shop`, which is otherwise a WSGI application."""
    (tmp_path / "shop.py").write_text(source + "\n\ndef app(environ, start_response):\n    return []\n")
    done = doctor("shop:app", "--format", "json", cwd=tmp_path, **environ)
    assert "Traceback" not in done.stderr
    told = json.loads(done.stdout)
    assert (told["schema"], told["app"]) == ("tafe.doctor/1", "shop:app")
    assert done.returncode == (1 if told["findings"] else 0)
    found: list[dict[str, Any]] = told["findings"]
    return found


def whats(found: list[dict[str, Any]]) -> list[tuple[int, str, str]]:
    return [(one["line"], one["function"], one["what"]) for one in found]


@pytest.mark.parametrize("app", ["apps.hello:app", "apps.bidder:app"])
def test_applications_that_yield_are_clean(app: str) -> None:
    done = doctor(app)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{app}: nothing is known to block\n")
    assert "pytest --no-stall=10ms" in done.stdout


def test_what_can_be_seen_of_the_zoo_is_found_at_its_line_and_its_twins_are_not() -> None:
    done = doctor("apps.zoo:app", "--format", "json")
    assert done.returncode == 1
    found = json.loads(done.stdout)["findings"]
    places = {(one["file"], one["function"]) for one in found}
    stalls = {
        "apps/zoo/blocking.py": {
            "stall_sleep", "stall_select", "stall_lock", "stall_dns", "stall_usleep", "stall_usleep_with_gil",
            "stall_system", "stall_flock", "_locked_database", "_write_through", "_native",
        },
        "apps/zoo/native_code.py": {"_derive"},
        "apps/zoo/runtime.py": {"stall_gc_collect", "__del__", "_stalling_stream", "before", "after", "_tidy_up"},
    }  # fmt: skip
    # It takes a lock that is free, which cannot be seen.
    accused = {("apps/zoo/blocking.py", "yield_flock")}
    assert places == {(file, name) for file, names in stalls.items() for name in names} | accused
    for one in found:
        assert (ROOT / one["file"]).read_text().splitlines()[one["line"] - 1].strip() == one["source"]
        assert one["why"]
        assert one["instead"]


def test_names_are_followed_to_the_function_that_would_be_called(tmp_path: Path) -> None:
    source = """
import os as system_calls
import hashlib
from fcntl import flock, LOCK_EX, LOCK_NB
from gevent.monkey import get_original
import time
nap = get_original("time", "sleep")
nap(0)                                  # while loading: nobody is served

class Job:
    def system(self, x): return x
    def run(self):
        nap(1)

def a(): system_calls.system("true")
def b(file): flock(file, LOCK_EX)
def c(file): flock(file, LOCK_EX | LOCK_NB)
def d(nap): nap(1)                      # a parameter
def e():
    from sqlite3 import connect
    return connect("x.db")
def f(): Job().system("fine")
def g(): return lambda: hashlib.pbkdf2_hmac("sha256", b"", b"", 1)
def h(): time.sleep(1)                  # gevent's
def i():
    nap = time.sleep
    nap(1)
def j():
    global nap
    nap(2)
"""
    assert whats(findings(tmp_path, source)) == [
        (13, "run", "time.sleep from before patching"),
        (15, "a", "os.system"),
        (16, "b", "fcntl.flock"),
        (21, "e", "sqlite3.connect"),
        (23, "g", "hashlib.pbkdf2_hmac"),
        (30, "j", "time.sleep from before patching"),
    ]


def test_what_is_handed_to_a_native_thread_may_block(tmp_path: Path) -> None:
    source = """
import hashlib, os, tafe
def slow(): return hashlib.scrypt(b"", salt=b"", n=2, r=1, p=1)
def both(): os.fsync(1)
def handler():
    tafe.offload(slow)
    tafe.offload(lambda: os.system("true"))
    tafe.offload(both)
    both()
"""
    assert whats(findings(tmp_path, source)) == [(4, "both", "os.fsync")]


def test_a_module_that_was_loaded_before_patching_is_told_of_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import early\n")
    (tmp_path / "early.py").write_text("import json\nimport time\nfrom time import sleep as nap\nclock = time.time\n")
    (one,) = findings(tmp_path, "import early", PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert (one["file"], one["line"], one["source"]) == ("early.py", 3, "from time import sleep as nap")
    assert one["what"] == "time.sleep from before patching, called 'nap' in early"
    assert "sitecustomize" in one["instead"]


@pytest.mark.parametrize(
    ("modules", "source", "what"),
    [
        ({"psycopg2/_psycopg.py": "", "psycopg2/extensions.py": "def get_wait_callback(): return None\n"},
         "import psycopg2._psycopg, psycopg2.extensions", "psycopg2 is loaded"),
        ({"psycopg2/_psycopg.py": "", "psycopg2/extensions.py": "def get_wait_callback(): return print\n"},
         "import psycopg2._psycopg, psycopg2.extensions", ""),
        ({"MySQLdb/_mysql.py": ""}, "import MySQLdb._mysql", "mysqlclient is loaded"),
        ({"_mysql_connector.py": ""}, "import _mysql_connector", "mysql-connector's C extension is loaded"),
        ({"grpc/_cython/cygrpc.py": ""}, "import grpc._cython.cygrpc", "grpc is loaded"),
        ({"grpc/_cython/cygrpc.py": "", "grpc/experimental/gevent.py": "def init_gevent(): ...\n"},
         "import grpc._cython.cygrpc\nfrom grpc.experimental.gevent import init_gevent\ninit_gevent()", ""),
        ({"confluent_kafka/cimpl.py": ""}, "import confluent_kafka.cimpl", "confluent_kafka is loaded"),
        ({"pymongo/_cmessage.py": ""}, "import pymongo._cmessage", ""),
    ],
)  # fmt: skip
def test_libraries_that_wait_in_c_are_named_unless_they_were_told_of_gevent(
    tmp_path: Path, modules: dict[str, str], source: str, what: str
) -> None:
    for name, text in modules.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = findings(tmp_path, source)
    assert [one["what"] for one in found] == ([what] if what else [])
    assert all((one["file"], one["line"]) == ("shop.py", 1) or one["file"] == "" for one in found)


def test_the_blocking_resolver_and_native_threads_are_told_of(tmp_path: Path) -> None:
    source = """
from gevent.monkey import get_original
get_original("_thread", "start_new_thread")(get_original("time", "sleep"), (60,))
"""
    found = findings(tmp_path, source, GEVENT_RESOLVER="block")
    assert [one["what"].partition(" ")[0] for one in found] == ["1", "gevent's"]
    assert {one["file"] for one in found} == {""}


def test_what_an_application_prints_is_not_the_answer(tmp_path: Path) -> None:
    assert findings(tmp_path, "print('[]')") == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_thing_at_all\n", "ModuleNotFoundError: No module named 'no_such_thing_at_all'"),
        ("import sys\nsys.exit('no key')\n", "SystemExit: no key"),
        ("import os\nos._exit(7)\n", "the process that loads it ended with status 7"),
        ("x = 1\n", "the module has neither app nor application"),
    ],
)
def test_an_application_that_cannot_be_loaded_has_status_2(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "broken_one.py").write_text(source)
    done = doctor("broken_one", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("tafe: ")
    assert said in done.stderr
    assert "importlib" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["no_such_module_here:app"], ["apps.hello:app", "--format", "pdf"], []])
def test_a_mistake_in_typing_has_status_2(arguments: list[str]) -> None:
    assert doctor(*arguments).returncode == 2


def test_every_row_of_the_tables_names_a_function_or_says_what_to_do() -> None:
    for name, known in FUNCTIONS.items():
        assert "." in name
        assert known.cause in {"blocking", "native", "gc"}
    assert all(why and "." in name for name, why in ORIGINALS.items())
    assert all(library.instead and library.why for library in LIBRARIES.values())

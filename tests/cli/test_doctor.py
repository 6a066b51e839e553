"""What `tafe doctor` says of an application: all that can be seen, and nothing of what is fine."""

from __future__ import annotations

import json
import os
import signal
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


def found_in(found: list[dict[str, Any]]) -> list[str]:
    return [one["function"] for one in found]


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
    assert places == {(file, name) for file, names in stalls.items() for name in names}
    for one in found:
        assert (ROOT / one["file"]).read_text().splitlines()[one["line"] - 1].strip() == one["source"]
        assert one["why"]
        assert one["instead"]


def test_what_the_allow_list_accepts_is_left_out_until_it_expires(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import gc, os\ndef a(): os.fsync(1)\ndef b(): gc.collect()\napp = a\n")
    entry = '[[allow]]\nfile = "shop.py"\nfunction = "%s"\nreason = "one disk"\nexpires = %s\n'
    list_ = tmp_path / "stalls.toml"

    def found(text: str) -> list[str]:
        list_.write_text(text)
        done = doctor("shop:app", "--format", "json", "--allow", str(list_), cwd=tmp_path)
        return found_in(json.loads(done.stdout)["findings"])

    assert found(entry % ("a", "9999-12-31")) == ["b"]
    assert found(entry % ("a", "2020-12-31")) == ["a", "b"]
    assert found(entry % ("b", "9999-12-31") + 'cause = "blocking"\n') == ["a", "b"]
    assert found(entry % ("b", "9999-12-31") + 'cause = "gc"\nup_to_ms = 80\n') == ["a"]
    list_.write_text("[[allow]]\n")
    done = doctor("shop:app", "--allow", str(list_), cwd=tmp_path)
    assert (done.returncode, "lacks 'file'" in done.stderr, done.stdout) == (2, True, "")


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


def test_threads_of_gevents_pool_are_not_told_of(tmp_path: Path) -> None:
    assert findings(tmp_path, "import gevent\ngevent.get_hub().threadpool.apply(print)") == []


@pytest.mark.parametrize(
    "source",
    [
        "print('[]')",
        "import os\nos.fork()",  # both go on loading
        "import os, time\nif os.fork() == 0: time.sleep(60)",
        "import os\nos.closerange(3, 100)",
        "import sys, types\nclass M(types.ModuleType):\n    __file__ = property(abs)\n\nsys.modules['x'] = M('x')",
        "import sys\nclass Odd:\n    __getattribute__ = None\n\nsys.modules['odd'] = odd = Odd()\ndef f(): odd.x()",
    ],
    ids=["prints", "forks", "leaves a child", "closes files", "lazy module", "odd module"],
)
def test_what_an_application_does_while_it_is_loaded_does_not_change_the_answer(tmp_path: Path, source: str) -> None:
    assert findings(tmp_path, source) == []


@pytest.mark.parametrize(
    ("source", "status", "said"),
    [
        ("import no_such_thing_at_all\n", 4, "ModuleNotFoundError: No module named 'no_such_thing_at_all'"),
        ("import sys\nsys.exit('no key')\n", 4, "SystemExit: no key"),
        ("import gevent\nraise gevent.Timeout(1)\n", 4, "gevent.timeout.Timeout: 1 second"),
        ("import gevent\nraise gevent.GreenletExit\n", 4, "GreenletExit"),
        ("raise KeyboardInterrupt\n", 4, "KeyboardInterrupt"),
        ("raise ValueError('\\x1b[31mred')\n", 4, "ValueError: ?[31mred"),
        ("input()\n", 4, "EOFError"),
        ("x = 1\n", 4, "try:      tafe doctor broken_one:NAME"),
        ("import os\nos._exit(7)\n", 3, "the process that loads it ended with status 7"),
        ("import os\nos._exit(0)\n", 3, "the process that loads it ended with status 0"),
        # Its forked copy has gone on and has an answer, but is not the process that was asked.
        ("import os\nif child := os.fork():\n    os.waitpid(child, 0)\n    os._exit(7)\n", 3, "ended with status 7"),
    ],
)
def test_an_application_that_cannot_be_loaded_has_the_status_that_it_has_with_serve(
    tmp_path: Path, source: str, status: int, said: str
) -> None:
    (tmp_path / "broken_one.py").write_text(source)
    done = doctor("broken_one", cwd=tmp_path)
    assert done.returncode == status
    assert done.stderr.startswith("tafe: ")
    assert said in done.stderr
    assert "importlib" not in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_process_that_loads_and_what_that_has_started(
    tmp_path: Path, number: int, status: int
) -> None:
    source = "import os, time\nif os.fork(): print('loading', flush=True)\ntime.sleep(60)\n"
    (tmp_path / "endless.py").write_text(source)
    with subprocess.Popen(
        [sys.executable, "-m", "tafe", "doctor", "endless:app"],
        cwd=tmp_path,
        env={**CLEAN, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stderr is not None
        assert running.stderr.readline() == "loading\n"
        running.send_signal(number)
        # The end is read when nobody has the pipe open any more, as the processes below do for a minute if they live.
        assert running.communicate(timeout=30)[1].strip() == ""
        assert running.returncode == status


def test_text_from_the_source_does_not_steer_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import os\ndef app(*_): os.system('\x1b]0;owned\x07\x9b31m')\n")
    done = doctor("shop:app", cwd=tmp_path)
    assert "os.system('?]0;owned??31m')" in done.stdout
    assert all(character.isprintable() or character == "\n" for character in done.stdout)


def test_a_result_that_cannot_be_written_is_no_finding() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tafe", "doctor", "apps.hello:app"],
            cwd=ROOT, env=CLEAN, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "tafe: cannot write what was found: No space left on device\n")


def test_a_file_that_is_named_for_its_module_is_explained(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("app = print\n")
    done = doctor("shop.py:app", cwd=tmp_path)
    assert "'shop' is a file, not a package" in done.stderr
    assert "try:      tafe doctor shop:app\n" in done.stderr


@pytest.mark.parametrize("arguments", [["no_such_module_here:app"], ["apps.hello:app", "--format", "pdf"], []])
def test_a_mistake_in_typing_has_status_2(arguments: list[str]) -> None:
    assert doctor(*arguments).returncode == 2


def test_every_row_of_the_tables_names_a_function_or_says_what_to_do() -> None:
    for name, known in FUNCTIONS.items():
        assert "." in name
        assert known.cause in {"blocking", "native", "gc"}
    assert all(why and "." in name for name, why in ORIGINALS.items())
    assert all(library.instead and library.why for library in LIBRARIES.values())

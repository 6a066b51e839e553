"""The command line as a user meets it: a process of its own, its output and its exit status."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tafe.settings import TABLE

ROOT = Path(__file__).resolve().parents[2]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("TAFE_")}


def _tafe(*arguments: str, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tafe", *arguments],
        cwd=cwd,
        env={**CLEAN, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def _complaint(*arguments: str, cwd: Path = ROOT, **environ: str) -> str:
    """What is said on standard error by a command that must fail with status 2 and without a traceback."""
    done = _tafe(*arguments, cwd=cwd, **environ)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("tafe: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


def test_help_names_every_command_and_the_help_of_serve_every_setting() -> None:
    shown = _tafe("--help").stdout
    for command in ("serve", "report", "routes", "config"):
        assert re.search(rf"(?m)^  {command} ", shown)
    shown = _tafe("serve", "--help").stdout
    for setting in TABLE:
        assert setting.env in shown or setting.name == "app"
        assert setting.flag in shown or setting.name == "app"


def test_help_version_and_config_load_neither_gevent_nor_the_arbiter() -> None:
    probe = (
        "import sys; sys.argv = ['tafe', *sys.argv[1:]]\n"
        "from tafe import cli\n"
        "try:\n    cli.main()\n"
        "finally:\n"
        "    heavy = {'gevent', 'gunicorn.arbiter', 'pymysql', 'ssl'}\n"
        "    print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    for argument in ("--help", "--version", "config"):
        done = subprocess.run(
            [sys.executable, "-c", probe, argument], cwd=ROOT, env=CLEAN, capture_output=True, text=True, check=True
        )
        assert done.stderr.splitlines()[-1] == "[]"
        assert done.stdout


def test_the_version_is_printed() -> None:
    assert re.fullmatch(r"tafe \d+\.\d+\.\d+\n", _tafe("--version").stdout)


def test_a_wrong_value_is_one_message_with_exit_status_2() -> None:
    assert _complaint("serve", "apps.hello:app", TAFE_WORKERS="four") == (
        "tafe: --workers: 'four' is not a whole number\n"
        "  set by:   TAFE_WORKERS\n"
        "  allowed:  1 to 512\n"
        "  try:      tafe serve --workers 2 apps.hello:app\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve"], ["no application was named", "tafe serve apps.hello:app"]),
        (["serve", "no_such_module_here:app"], ["there is no module 'no_such_module_here'"]),
        (["serve", "apps/hello.py"], ["does not name an application", "tafe serve apps.hello"]),
        (["serve", "apps.hello:app", "--worker", "3"], ["--worker is not an option", "--workers"]),
        (["serve", "apps.hello:app", "--workers"], ["requires an argument", "tafe serve --help"]),
        (["serve", "apps.hello:app", "more"], ["unexpected extra argument", "tafe serve --help"]),
        (["server", "apps.hello:app"], ["no such command", "tafe --help"]),
        (["report", "no/such/dir"], ["no/such/dir"]),
        (["report", "scripts/serve"], ["'scripts/serve' is a file", "tafe report scripts\n"]),
        (["report", ".", "--format", "pdf"], ["'pdf' is not a format", "collapsed or perfetto"]),
        (["report", ".", "--since", "yesterday"], ["yesterday", "15m"]),
        (["report"], ["missing argument", "tafe report --help"]),
        (["routes", "no_such_module_here:app"], ["there is no module 'no_such_module_here'"]),
        (["routes", "tests.process.application:app"], ["is of type function, which does not list its routes"]),
        (["config", "--config", "none.toml"], ["cannot read none.toml: No such file"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0] in {"serve", "report", "routes"} else "",
)
def test_every_mistake_is_one_message_with_what_to_type_instead(arguments: list[str], said: list[str]) -> None:
    message = _complaint(*arguments)
    for part in said:
        assert part in message


def test_a_directory_that_cannot_be_written_to_is_refused_before_anything_is_forked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = _complaint("serve", "tests.process.application:app", "--run-dir", str(tmp_path / "file"))
    assert f"--run-dir: cannot write to {tmp_path}/file/profile: Not a directory" in message
    assert "or --no-profile" in message


def test_an_application_that_fails_to_load_is_explained_by_routes(tmp_path: Path) -> None:
    (tmp_path / "broken_one.py").write_text("import no_such_thing_at_all\n")
    done = _tafe("routes", "broken_one:app", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (4, "")
    message = done.stderr
    assert message.startswith("tafe: broken_one:app cannot be loaded\n")
    assert "Traceback" not in message
    assert message.endswith("ModuleNotFoundError: No module named 'no_such_thing_at_all'\n")
    assert "importlib" not in message


def test_routes_lists_methods_template_handler_and_place(tmp_path: Path) -> None:
    (tmp_path / "routed.py").write_text(
        "import tafe\napp = tafe.App()\n\n"
        "@app.get('/users/{id:int}')\ndef user(id: int):\n    return {}\n\n"
        "@app.post('/users')\ndef add(body: dict):\n    return {}\n"
    )
    done = _tafe("routes", "routed:app", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0][-3:-1] == ["/users/{id:int}", "user"]
    assert rows[0][0] == "GET"
    assert rows[0][-1].endswith("routed.py:4") or rows[0][-1].endswith("routed.py:5")
    assert rows[1][0] == "POST"


def test_config_shows_what_is_in_force_and_who_set_it(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text('backlog = 77\ndrain_delay = "3s"\n')
    shown = _tafe("config", "--config", "my.toml", "--workers", "4", cwd=tmp_path, TAFE_DRAIN_DELAY="5s").stdout
    assert re.search(r"(?m)^workers = 4 +# --workers$", shown)
    assert re.search(r"(?m)^drain_delay = \"5s\" +# TAFE_DRAIN_DELAY$", shown)
    assert re.search(r"(?m)^backlog = 77 +# my\.toml$", shown)
    assert re.search(r"(?m)^max_requests = 0 +# default$", shown)


def test_config_says_which_variables_are_ignored() -> None:
    done = _tafe("config", TAFE_XYZZY="3")
    assert done.returncode == 0
    assert done.stderr.splitlines()[0] == "tafe: TAFE_XYZZY is not a setting and is ignored"


def test_config_says_what_is_compiled_and_why_the_rest_is_not() -> None:
    done = _tafe("config", TAFE_COMPILED="0", PROFILER_COMPILED="0")
    assert done.returncode == 0
    pattern = r"tafe: modules: tafe interpreted \((.*)\), profiler interpreted \((.*)\)\n"
    found = re.fullmatch(pattern, done.stderr)
    assert found is not None, done.stderr
    for package, reason in zip(("TAFE", "PROFILER"), found.groups(), strict=True):
        assert reason in ("not compiled", f"switched off by {package}_COMPILED=0")
    assert "profiler" not in _tafe("config", "--no-profile").stderr, "it is not loaded then"

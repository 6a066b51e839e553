"""From MODULE:APP to a callable, and what is said when that fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tafe import load
from tafe.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is searched first."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def _write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _message(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        load.find(load.parse(text))
    return str(caught.value)


def test_find_imports_nothing_not_even_a_parent_package(folder: Path) -> None:
    _write(folder, "outer_pkg/__init__.py", "raise RuntimeError('imported')")
    _write(folder, "outer_pkg/inner.py", "raise RuntimeError('imported')")
    spec = load.find(load.parse("outer_pkg.inner:app"))
    assert spec.origin == str(folder / "outer_pkg" / "inner.py")
    assert "outer_pkg" not in sys.modules


def test_packages_without_init_are_found(folder: Path) -> None:
    _write(folder, "plain_dir/thing.py", "")
    assert load.find(load.parse("plain_dir.thing")).origin == str(folder / "plain_dir" / "thing.py")


def test_a_missing_module_is_answered_with_one_that_is_spelled_like_it(folder: Path) -> None:
    _write(folder, "some_site/hello.py", "")
    message = _message("some_site.helo:app")
    assert message.startswith(f"'some_site.helo:app': there is no module 'some_site.helo' in {folder / 'some_site'}\n")
    assert "try:      tafe serve some_site.hello:app" in message
    assert "try:      tafe serve some_site.hello:app" in _message("some_sit.hello:app")
    assert "PYTHONPATH" in _message("qqqqzzz:app")
    assert "there is no module 'some_site.hello.deeper'" in _message("some_site.hello.deeper:app")


def test_a_file_s_name_is_answered_with_its_module(folder: Path) -> None:
    _write(folder, "good.py", "")
    assert "try:      tafe serve good\n" in _message("good.py") + "\n"
    assert "try:      tafe serve good:app\n" in _message("good.py:app") + "\n"


@pytest.mark.parametrize(
    ("text", "try_"),
    [
        ("apps/hello.py:app", "apps.hello:app"),
        ("./site.py", "site"),
        ("hello:app(1)", "apps.hello:app"),
        ("", "apps.hello:app"),
        ("a..b:c", "apps.hello:app"),
        (":app", "apps.hello:app"),
    ],
)
def test_what_does_not_name_an_application_is_answered_with_what_does(text: str, try_: str) -> None:
    assert f"try:      tafe serve {try_}" in _message(text)


@pytest.mark.parametrize(
    ("spec", "answer"),
    [
        ("loaded_one:app", "app"),
        ("loaded_one", "app"),
        ("loaded_two", "application"),
        ("loaded_one:make()", "made"),
        ("loaded_one:holder.inner", "inner"),
    ],
)
def test_an_application_is_found_by_name_by_habit_and_by_factory(folder: Path, spec: str, answer: str) -> None:
    _write(
        folder,
        "loaded_one.py",
        "def app(): return 'app'\n"
        "def make(): return lambda: 'made'\n"
        "class holder:\n    inner = staticmethod(lambda: 'inner')\n",
    )
    _write(folder, "loaded_two.py", "def application(): return 'application'\n")
    assert load.load(load.parse(spec))() == answer


@pytest.mark.parametrize(
    ("spec", "complaint", "try_"),
    [
        ("wrong_names:aplication", "has no 'aplication'", "tafe serve wrong_names:application_x"),
        ("wrong_names", "has neither app nor application", "tafe serve wrong_names:NAME"),
        ("wrong_names:number", "is of type int and cannot be called", ""),
        ("wrong_names:nothing()", "is of type NoneType and cannot be called", ""),
    ],
)
def test_a_wrong_name_in_a_module_is_explained(folder: Path, spec: str, complaint: str, try_: str) -> None:
    _write(folder, "wrong_names.py", "number = 7\ndef application_x(): pass\ndef nothing(): pass\n")
    with pytest.raises(UsageError) as caught:
        load.load(load.parse(spec))
    assert complaint in str(caught.value)
    assert try_ in str(caught.value)


def test_a_failure_shows_the_application_s_frames_and_not_the_machinery(folder: Path) -> None:
    _write(folder, "failing_inner.py", "def fail():\n    return {}['missing']\n")
    _write(folder, "failing_app.py", "import failing_inner\nfailing_inner.fail()\n")
    with pytest.raises(KeyError) as caught:
        load.load(load.parse("failing_app:app"))
    shown = load.failure(caught.value)
    assert "importlib" not in shown
    assert "tafe/load.py" not in shown
    assert f'File "{folder}/failing_app.py", line 2, in <module>' in shown
    assert "return {}['missing']" in shown
    assert shown.endswith("KeyError: 'missing'")


def test_a_deep_failure_fits_on_a_screen(folder: Path) -> None:
    _write(folder, "deep_app.py", "def down(n):\n    return down(n - 1) + down(n) if n else 1 / 0\ndown(50)\n")
    with pytest.raises(ZeroDivisionError) as caught:
        load.load(load.parse("deep_app:app"))
    shown = load.failure(caught.value)
    assert "outer frames left out" in shown
    assert len(shown.splitlines()) < 45
    assert shown.endswith("ZeroDivisionError: division by zero")


def test_a_syntax_error_is_shown_with_its_line(folder: Path) -> None:
    _write(folder, "unreadable_app.py", "x = 1\ndef app(:\n")
    with pytest.raises(SyntaxError) as caught:
        load.load(load.parse("unreadable_app:app"))
    shown = load.failure(caught.value)
    assert f'File "{folder}/unreadable_app.py", line 2' in shown
    assert "def app(:" in shown

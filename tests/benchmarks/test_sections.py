"""The sections of a run: each is measured and stored by itself."""

from __future__ import annotations

import inspect
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from benchmarks import __main__ as command
from benchmarks import sections, strictness

if TYPE_CHECKING:
    from pathlib import Path

WHERE = {"date": "2026-01-02T03:04:05+00:00", "machine": {"cpu": "a CPU", "cores": 2, "python": "3.11.7"}}


def _section(value: int) -> sections.Section:
    return sections.Section("", lambda cores, **length: {**WHERE, "value": value, **length}, lambda result: "shown")


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> dict[str, sections.Section]:
    made = {"one": _section(1), "two": _section(2)}
    monkeypatch.setattr(sections, "SECTIONS", made)
    monkeypatch.setattr(command, "SECTIONS", made)
    monkeypatch.setattr(command, "_prepare", lambda: (0, 1))
    return made


def _run(*arguments: str) -> Any:
    return CliRunner().invoke(command.main, arguments)


def test_a_section_measured_again_replaces_itself_and_leaves_the_others(tmp_path: Path, two: object) -> None:
    path = tmp_path / "result.json"
    for name, value in (("two", 2), ("one", 1), ("two", 3)):
        sections.store(path, name, {"value": value})
    assert sections.read(path)["sections"] == {"one": {"value": 1}, "two": {"value": 3}}
    assert list(sections.read(path)["sections"]) == ["one", "two"]


def test_a_file_of_another_schema_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text('{"schema": "tafe.benchmark/1"}')
    with pytest.raises(ValueError, match=r"tafe\.benchmark/1"):
        sections.store(path, "table", {})
    assert path.read_text() == '{"schema": "tafe.benchmark/1"}'


def test_a_file_that_cannot_take_the_result_is_refused_before_anything_is_measured(tmp_path: Path, two: object) -> None:
    path = tmp_path / "result.json"
    path.write_text('{"schema": "tafe.benchmark/1"}')
    done = _run("--sections", "one", "-o", str(path))
    assert done.exit_code == 2
    assert "section one" not in done.output
    assert "'tafe.benchmark/2' is wanted; name another file" in done.output


def test_one_command_runs_every_section_into_one_file(tmp_path: Path, two: object) -> None:
    path = tmp_path / "result.json"
    done = _run("--sections", "one,two", "-o", str(path))
    assert done.exit_code == 0, done.output
    assert {name: each["value"] for name, each in json.loads(path.read_text())["sections"].items()} == {
        "one": 1,
        "two": 2,
    }
    assert "## one" in done.output
    assert "## two" in done.output


def test_a_section_that_fails_is_said_to_and_does_not_stop_the_others(
    tmp_path: Path, two: dict[str, sections.Section]
) -> None:
    def fail(cores: tuple[int, int]) -> dict[str, Any]:
        raise RuntimeError("no such luck")

    two["one"] = sections.Section("", fail, lambda result: "")
    path = tmp_path / "result.json"
    done = _run("--sections", "one,two", "-o", str(path))
    assert done.exit_code == 1
    assert "section one failed: RuntimeError: no such luck" in done.output
    assert list(json.loads(path.read_text())["sections"]) == ["two"]


def test_an_unknown_section_is_an_error_that_names_those_there_are() -> None:
    done = _run("--sections", "table,speed")
    assert done.exit_code == 2
    assert "'speed' is no section; allowed: table, strictness, " in done.output


def test_the_short_form_of_every_section_fits_its_function() -> None:
    for name, section in sections.SECTIONS.items():
        bound = inspect.signature(section.measure).bind((0, 1), **section.quick)
        assert bound.args == ((0, 1),), name


def test_strictness_counts_every_case_once_by_group() -> None:
    kinds = [("host", "same"), ("host", "lets through"), ("chunked", "refuses"), ("chunked", "hangs"), ("host", "same")]
    groups = strictness._groups(kinds)
    assert groups == {
        "chunked": {"agrees": 0, "more lenient": 0, "stricter": 1, "otherwise": 1},
        "host": {"agrees": 2, "more lenient": 1, "stricter": 0, "otherwise": 0},
    }
    assert strictness.totals(groups) == {"agrees": 2, "more lenient": 1, "stricter": 1, "otherwise": 1}


def test_strictness_shows_a_line_for_each_group_and_their_sum() -> None:
    groups = strictness._groups([("host", "same"), ("chunked", "lets through")])
    text = strictness.table({"cases": 2, "servers": {"tafe": {"groups": groups}, "pywsgi": {"groups": groups}}})
    assert text.splitlines()[4:] == [
        "| chunked | 1 | 0 / 1 / 0 / 0 | 0 / 1 / 0 / 0 |",
        "| host | 1 | 1 / 0 / 0 / 0 | 1 / 0 / 0 / 0 |",
        "| all | 2 | 1 / 1 / 0 / 0 | 1 / 1 / 0 / 0 |",
    ]


def test_a_case_that_differs_counts_as_it_comes_out_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    first = [SimpleNamespace(kind=kind, case=kind) for kind in ("same", "hangs")]
    monkeypatch.setattr(strictness.compare, "run_all", lambda address: first)
    monkeypatch.setattr(strictness.client, "send", lambda address, case, timeout_s: f"{case} again")
    monkeypatch.setattr(strictness.compare, "Result", lambda case, outcome: outcome)
    assert strictness._twice(("127.0.0.1", 1)) == [first[0], "hangs again"]

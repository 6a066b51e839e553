"""Files that were damaged, or are none of ours: a report or a clear error, whatever is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiler.errors import ProfilerError
from profiler.render import json as json_format
from profiler.render import text
from profiler.report import run
from tests.profiler.contract import CONTRACT, EXAMPLE, check, copy_of_example, report_on


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """A good file with a value, a key or some bytes of it changed."""
    lines = draw(st.sampled_from(sorted(EXAMPLE.glob("*.jsonl")))).read_bytes().splitlines(keepends=True)
    number = draw(st.integers(0, len(lines) - 1))
    if draw(st.booleans()):
        value: Any = json.loads(lines[number])
        inner = value
        while isinstance(inner, dict | list) and inner:
            key: Any = draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
            if not (isinstance(inner[key], dict | list) and inner[key] and draw(st.booleans())):
                inner[key] = draw(ODD)
                break
            inner = inner[key]
        lines[number] = json.dumps(value).encode() + b"\n"
    else:
        at = draw(st.integers(0, len(lines[number])))
        until = draw(st.integers(at, len(lines[number])))
        lines[number] = lines[number][:at] + draw(st.binary(max_size=8)) + lines[number][until:]
    return b"".join(lines)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**53, 2**63, 10**300, -1, 8159, 8160, -8160]),
    st.floats(),
    st.sampled_from([1e300, 1e-300, 5e-324, -0.0, 253402300800.0]),
    st.text(st.characters(), max_size=3),
    st.just("\ud800"),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=2), st.floats(), max_size=2),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=damaged_files())
def test_a_damaged_file_gives_a_report_or_a_clear_error(tmp_path: Path, file: bytes) -> None:
    (tmp_path / "worker-a-1-1.jsonl").write_bytes(file)
    try:
        report = report_on(tmp_path)
    except ProfilerError:
        return
    check(report, CONTRACT)
    text.render(report).encode()
    json.loads(json_format.render(report).encode(), parse_constant=pytest.fail)


def test_files_that_hold_no_line_of_a_profile_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "worker-a-1-1.jsonl").write_bytes(bytes(range(256)) * 40)
    with pytest.raises(
        ProfilerError, match=r"can be read: its worker-.* hold no line of a profile; name the directory"
    ):
        run([str(tmp_path)])


def test_a_file_that_holds_no_line_of_a_profile_is_no_worker_but_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_of_example(tmp_path)
    (tmp_path / "worker-a-1-1.jsonl").write_bytes(b"\xff\n\xfe\n")
    assert run([str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("2 workers")
    assert "\n2 lines could not be read" in shown.out
    assert shown.err == ""


def test_a_file_of_another_schema_is_skipped_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, _ = copy_of_example(tmp_path)
    first.write_text(first.read_text().replace("profiler.data/2", "profiler.data/9"))
    assert run([str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("1 worker, 100 requests")
    assert shown.err == f"profiler: skipped 1 file of another schema: {str(first)!r} is of 'profiler.data/9'\n"


def test_a_link_in_a_circle_costs_the_others_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy_of_example(tmp_path)
    link = tmp_path / "worker-3.jsonl"
    link.symlink_to(link.name)
    assert run([str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("2 workers, 1,006 requests")


@pytest.mark.parametrize("moment", [32_503_680_000.0, 0, 0.0])
def test_a_line_of_a_moment_in_which_nobody_wrote_it_is_no_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], moment: float
) -> None:
    first, _ = copy_of_example(tmp_path)
    window = report_on(tmp_path)["window"]
    with first.open("a") as file:
        file.write(json.dumps({"t": moment, "type": "of a newer writer"}) + "\n")
    assert report_on(tmp_path)["window"] == window
    assert run([str(tmp_path)]) == 0
    assert "\n1 line could not be read" in capsys.readouterr().out


def test_of_lines_without_a_time_since_is_not_to_blame(tmp_path: Path) -> None:
    for path in copy_of_example(tmp_path):
        lines = [{**json.loads(line), "t": 0} for line in path.read_text().splitlines() if line.startswith("{")]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ProfilerError, match="can be read: its worker-"):
        run([str(tmp_path)])


def test_of_a_servers_directory_the_profile_in_it_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "profile").mkdir()
    with pytest.raises(ProfilerError, match="there is no profile in"):
        run([str(tmp_path)])
    copy_of_example(tmp_path / "profile")
    assert run([str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("2 workers, 1,006 requests")

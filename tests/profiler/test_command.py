"""The command when what it reads, or where it writes, is not as it should be: each time a clear answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from profiler.render import text
from profiler.report import main
from profiler.report.reader import MAX_LINE_BYTES
from tests.profiler.contract import DATA, EXAMPLE, copy_of_example, report_on

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "profiler", "report"]


def test_directories_of_several_hosts_are_one_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("two_workers", "zoo"):
        shutil.copytree(DATA / name, tmp_path / name)
    (path,) = (tmp_path / "zoo").iterdir()
    path.write_text(path.read_text().replace('"host":"web-1"', '"host":"web-2"'))
    assert main(["report", str(tmp_path / "two_workers"), str(tmp_path / "zoo"), "--format", "json"]) == 0
    both = json.loads(capsys.readouterr().out)
    parts = [report_on(tmp_path / name) for name in ("two_workers", "zoo")]
    assert both["workers"] == sorted([w for part in parts for w in part["workers"]], key=lambda w: str(w["host"]))
    assert len(both["sites"]) == sum(len(part["sites"]) for part in parts)
    assert both["slowest"][0]["total_ms"] == max(part["slowest"][0]["total_ms"] for part in parts)
    assert both["sites"][0]["function"] == "fetch_rate", "by harm, wherever it was"


def test_of_several_directories_one_without_a_profile_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(EXAMPLE), str(tmp_path)]) == 0
    assert capsys.readouterr().err == f"profiler: there is no profile in {str(tmp_path)!r}\n"


@pytest.mark.parametrize("command", ["profiler", "tafe"])
def test_a_file_in_place_of_its_directory_is_told_apart(command: str) -> None:
    path = next(EXAMPLE.iterdir())
    ran = subprocess.run(
        [sys.executable, "-m", command, "report", str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert str(EXAMPLE) in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_directory_that_cannot_be_read_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)  # root may read what it may not
    assert main(["report", str(loop)]) == 2
    told = f"profiler: cannot read {str(loop)!r}: Too many levels of symbolic links; "
    assert capsys.readouterr().err.startswith(told)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, _ = copy_of_example(tmp_path)
    first.chmod(0)
    assert main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"profiler: cannot read {str(first)!r}: Permission denied; ")


def test_a_pipe_among_the_files_is_waited_for_by_nobody(tmp_path: Path) -> None:
    copy_of_example(tmp_path)
    os.mkfifo(tmp_path / "worker-web-9-1-1.jsonl")
    assert report_on(tmp_path) == report_on(EXAMPLE)


def test_a_huge_line_is_one_that_could_not_be_read_and_what_follows_it_counts(tmp_path: Path) -> None:
    first, _ = copy_of_example(tmp_path)
    header, *rest = first.read_bytes().splitlines(keepends=True)
    first.write_bytes(header + b"x" * (3 * MAX_LINE_BYTES + 17) + b"\n" + b"".join(rest))
    report = report_on(tmp_path)
    assert report["left_out"]["unreadable_lines"] == 1
    assert report["sites"] == report_on(EXAMPLE)["sites"]
    first.write_bytes(first.read_bytes() + b"y" * 2 * MAX_LINE_BYTES)
    assert report_on(tmp_path)["left_out"]["unreadable_lines"] == 2, "the end of a file ends it, too"


def test_unreadable_lines_are_told_once(tmp_path: Path) -> None:
    first, _ = copy_of_example(tmp_path)
    first.write_bytes(first.read_bytes()[:-20])
    shown = text.render(report_on(tmp_path))
    assert "\n1 line could not be read, as a killed worker leaves one\n" in shown
    assert "\n2 records dropped" in shown, "as before"


@pytest.mark.parametrize("command", ["profiler", "tafe"])
def test_a_reader_who_has_seen_enough_is_no_error(command: str) -> None:
    ran = subprocess.Popen(
        [sys.executable, "-m", command, "report", str(DATA / "zoo"), "--format", "json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert ran.stdout is not None
    assert ran.stderr is not None
    assert ran.stdout.readline() == b"{\n"  # much more was written than a pipe takes
    ran.stdout.close()
    with ran.stderr:
        assert ran.stderr.read() == b""
    assert ran.wait() == 0


@pytest.mark.parametrize("format_", ["text", "json"])
def test_a_standard_output_that_is_closed_is_said_so_and_a_file_is_written_all_the_same(
    format_: str, tmp_path: Path
) -> None:
    command = f"{' '.join(COMMAND)} {EXAMPLE} --format {format_} >&-"
    ran = subprocess.run(command, shell=True, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    told = "profiler: standard output is closed; redirect it, or write to a file with -o\n"
    assert (ran.returncode, ran.stderr) == (2, told)
    shown = tmp_path / "report"
    subprocess.run(command.replace(">&-", f"-o {shown} >&-"), shell=True, cwd=ROOT, check=True)
    assert shown.stat().st_size > 1000


@pytest.mark.parametrize("command", ["profiler", "tafe"])
def test_a_full_disk_behind_standard_output_says_so(command: str) -> None:
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", command, "report", str(EXAMPLE)],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"{command}: cannot write the report: No space left on device")
    assert "Traceback" not in ran.stderr
    assert "Exception" not in ran.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_characters_that_the_terminal_has_not_are_question_marks_and_json_is_utf_8_all_the_same(
    tmp_path: Path, encoding: str
) -> None:
    first, second = copy_of_example(tmp_path)
    for path in (first, second):
        path.write_text(path.read_text().replace("POST /order", "POST /價格"))
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for format_, expected in (("json", "utf-8"), ("text", encoding)):
        ran = subprocess.run(
            [*COMMAND, str(tmp_path), "--format", format_], cwd=ROOT, env=environment, capture_output=True, check=True
        )
        shown = ran.stdout.decode(expected)
        assert ("POST /價格" if expected == "utf-8" else "POST /??") in shown


def test_output_to_a_pipe_is_plain_and_as_wide_as_it_may_be() -> None:
    environment = {**os.environ, "COLUMNS": "50", "TERM": "xterm-256color"}
    ran = subprocess.run(
        [*COMMAND, str(DATA / "zoo")], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout == (DATA / "zoo.txt").read_text()
    assert "\x1b" not in ran.stdout


def test_on_a_terminal_it_is_as_wide_as_that() -> None:
    ours, theirs = os.openpty()
    try:
        os.set_blocking(ours, False)
        environment = {**os.environ, "COLUMNS": "64", "TERM": "xterm"}
        subprocess.run([*COMMAND, str(DATA / "two_workers")], cwd=ROOT, env=environment, stdout=theirs, check=True)
        lines = os.read(ours, 65_536).decode().splitlines()
    finally:
        os.close(ours)
        os.close(theirs)
    assert 55 < max(map(len, lines)) <= 64


def test_everything_is_shown_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(DATA / "zoo"), "--all"]) == 0
    shown = capsys.readouterr().out
    assert shown == text.render(report_on(DATA / "zoo"), everything=True)
    assert "\n42. " in shown

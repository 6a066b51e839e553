"""The report: read from files that may be broken, built to its contract, shown on one screen."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from profiler.errors import ProfilerError
from profiler.render import html, text
from profiler.report import main, run
from profiler.report.advice import Case, advise
from profiler.report.profile import MAX_ROUTES
from profiler.report.reader import read
from tests.profiler.contract import CONTRACT, DATA, EXAMPLE, check, copy_of_example, report_on

ROOT = Path(__file__).resolve().parents[2]


def test_the_report_has_exactly_the_keys_and_types_of_its_contract() -> None:
    report = report_on(EXAMPLE)
    check(report, CONTRACT)
    assert report["schema"] == "profiler.report/1"
    assert all(report[name] for name in ("workers", "sites", "routes", "slowest")), "nothing went unchecked"


def _keys(shape: Any) -> set[str]:
    if isinstance(shape, list):
        return _keys(shape[0])
    if not isinstance(shape, dict):
        return set()
    return {key for key in shape if key != "*"}.union(*map(_keys, shape.values()))


def test_each_key_of_the_contract_is_described_in_the_design() -> None:
    design = (ROOT / "profiler" / "DESIGN.md").read_text()
    (section,) = re.findall(r"^## The report\n(.*?)^\*\*", design, re.MULTILINE | re.DOTALL)
    described = set(re.findall(r"`(\w+)`", section))
    assert _keys(CONTRACT) | {"allowed", "until", "expired", "reason"} == described


def test_workers_are_added_up() -> None:
    report = report_on(EXAMPLE)
    assert [worker["pid"] for worker in report["workers"]] == [4001, 4002]
    assert [worker["requests"] for worker in report["workers"]] == [906, 100]
    assert [worker["hub_busy_ratio"] for worker in report["workers"]] == [0.6, 0.1]
    price, order = report["routes"]
    assert (price["route"], price["requests"]) == ("GET /price/{id}", 1000)
    assert (order["route"], order["errors"]) == ("POST /order", 1)
    assert price["total_ms"]["p50"] == pytest.approx(1.2, rel=0.02)
    assert price["total_ms"]["p99"] == pytest.approx(33, rel=0.02), "of the merged histogram"
    assert report["window"]["duration_s"] == 2.1
    assert report["threshold_ms"] == 10


def test_sites_are_ranked_by_harm_then_by_time() -> None:
    sites = report_on(EXAMPLE)["sites"]
    assert [site["rank"] for site in sites] == [1, 2, 3]
    keys = [(site["harm_ms"], site["busy_ms"]["total"]) for site in sites]
    assert keys == sorted(keys, reverse=True)


def test_the_line_with_most_time_is_shown_for_a_function() -> None:
    site = report_on(EXAMPLE)["sites"][1]
    assert (site["function"], site["line"], site["source"]) == ("score", 32, "for item in items:")
    assert not site["exact"], "one of three was"


def test_slices_kept_by_line_join_those_of_their_function(tmp_path: Path) -> None:
    _, second = copy_of_example(tmp_path)
    lines = [json.loads(line) for line in second.read_text().splitlines()]
    by_line = next(line for line in lines if line["type"] == "site" and line["key"][1] == "score")
    by_line = {**by_line, "key": [*by_line["key"][:3], 32, False], "count": 1, "causes": {"unknown": 0.045}}
    with second.open("a") as file:
        file.write(json.dumps(by_line) + "\n")
    (site,) = [site for site in report_on(tmp_path)["sites"] if site["function"] == "score"]
    assert (site["count"], site["cause"]) == (4, "python")


def test_a_line_cut_by_a_kill_is_counted_and_the_rest_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = copy_of_example(tmp_path)
    whole = report_on(tmp_path)
    first.write_bytes(first.read_bytes()[:-20])
    cut = report_on(tmp_path)
    assert cut["routes"] == whole["routes"]
    assert cut["workers"][0]["dropped"] == 1
    assert run([str(tmp_path)]) == 0
    assert "\n1 line could not be read" in capsys.readouterr().out
    assert run([str(tmp_path)], "json") == 0
    assert capsys.readouterr().err == "profiler: 1 line could not be read (a worker that was killed leaves one)\n"


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\n",
        b"[]\n",
        b"null\n",
        b'{"t":1}\n',
        b'{"t":"soon","type":"hub"}\n',
        b'{"t":1,"type":"route","route":"/","requests":1,"errors":0,"total":[1]}\n',
        b'{"t":1,"type":"site","key":[1,2]}\n',
        b'{"t":1,"type":"slowest","requests":[{}]}\n',
        b'{"t":1,"type":"dropped","count":"many"}\n',
        b"\x00" * 4096 + b"\n",
        b'{"t":1e300,"type":"x"}\n',
        b'{"t":NaN,"type":"x"}\n',
        b'{"t":-1,"type":"x"}\n',
        b"[" * 100_000 + b"\n",
        b'{"t":1,"type":"dropped","count":' + b"9" * 400 + b"}\n",
        (
            b'{"t":1,"type":"hub","wall_s":1,"idle_s":0,"overhead_s":0,"switches":1,"slices_over":0,"dropped":0,'
            b'"displaced":0,"failures":0,"delay":[0,1,-99999999999,5]}\n'
        ),
    ],
)
def test_an_unreadable_line_costs_only_itself(tmp_path: Path, line: bytes) -> None:
    first, _ = copy_of_example(tmp_path)
    whole = report_on(tmp_path)
    header, *rest = first.read_bytes().splitlines(keepends=True)
    first.write_bytes(header + line + b"".join(rest))
    report = report_on(tmp_path)
    assert report["workers"][0].pop("dropped") == whole["workers"][0].pop("dropped") + 1
    assert (report.pop("left_out")["unreadable_lines"], whole.pop("left_out")["unreadable_lines"]) == (1, 0)
    assert report == whole
    check(report["slowest"], CONTRACT["slowest"])


def test_lines_of_a_newer_writer_are_passed_over(tmp_path: Path) -> None:
    first, _ = copy_of_example(tmp_path)
    whole = report_on(tmp_path)
    with first.open("a") as file:
        file.write('{"t":1767225601.0,"type":"convoy","of":"many"}\n')
    assert report_on(tmp_path) == whole


def test_a_stall_that_went_on_counts_once(tmp_path: Path) -> None:
    first, _ = copy_of_example(tmp_path)
    site = next(line for line in map(json.loads, first.read_text().splitlines()) if line["type"] == "site")
    still_open = json.dumps({**site, "type": "open", "count": 1})
    text_before = first.read_text()
    first.write_text(text_before + still_open + "\n" + still_open + "\n")
    assert report_on(tmp_path)["sites"][0]["count"] == 7, "the worker did not live to see its end"
    first.write_text(text_before + still_open + "\n" + json.dumps(site) + "\n")
    assert report_on(tmp_path)["sites"][0]["count"] == 12, "it did: two deltas of 6"


def test_where_a_worker_was_when_it_was_last_heard_of_is_ranked_by_how_long_it_had_been_there(tmp_path: Path) -> None:
    first, second = copy_of_example(tmp_path)
    whole = report_on(tmp_path)["sites"]
    assert all(site["stuck_ms"] == 0.0 for site in whole)
    least = [site for site in whole if not site["innocent"]][-1]
    lines = (line for path in (first, second) for line in map(json.loads, path.read_text().splitlines()))
    site = next(one for one in lines if one["type"] == "site" and one["key"][:2] == [least["file"], least["function"]])
    alone = {"harm_s": 0.0, "victims": 0, "busy_s": 640.0, "count": 1}
    with first.open("a") as file:
        file.write(json.dumps({**site, **alone, "type": "open"}) + "\n")
    report = report_on(tmp_path)
    worst = report["sites"][0]
    assert (worst["file"], worst["function"], worst["stuck_ms"]) == (least["file"], least["function"], 640_000.0)
    assert worst["harm_ms"] == least["harm_ms"], "what it delays is not known"
    told = text.render(report).splitlines()
    assert "not over after 640.00 s" in "\n".join(told[: told.index(f"     {worst['source']}")])
    assert "not over after 640.00 s" in html.render(report)


def test_a_worker_that_has_only_just_begun_is_shown(tmp_path: Path) -> None:
    header = next(EXAMPLE.glob("*.jsonl")).read_text().splitlines()[0]
    (tmp_path / "worker-a-1-1.jsonl").write_text(header + "\n")
    (tmp_path / "worker-a-2-1.jsonl").write_text("")
    report = report_on(tmp_path)
    check(report, CONTRACT)
    assert len(report["workers"]) == 1
    assert "none" in text.render(report)


def test_far_too_many_routes_are_bounded_and_counted(tmp_path: Path) -> None:
    first, _ = copy_of_example(tmp_path)
    route = next(line for line in map(json.loads, first.read_text().splitlines()) if line["type"] == "route")
    times = {name: [-3751, 1] for name in ("total", "running", "waiting", "queued", "longest_slice")}
    with first.open("a") as file:
        for number in range(MAX_ROUTES + 10):
            file.write(json.dumps({**route, **times, "route": f"GET /{number}", "requests": 1}) + "\n")
    report = report_on(tmp_path)
    assert len(report["routes"]) == MAX_ROUTES + 1
    assert sum(route["requests"] for route in report["routes"]) == 1006 + MAX_ROUTES + 10, "none is lost"
    *_, rest = report["routes"]
    assert (rest["route"], rest["requests"]) == ("(other routes)", 12)
    assert report["left_out"]["routes"] == 12
    assert report["routes"][0]["route"] == "GET /price/{id}", "though it came first"


def test_a_day_of_a_busy_worker_is_reported_in_seconds(tmp_path: Path) -> None:
    first, _ = copy_of_example(tmp_path)
    lines = first.read_text().splitlines()
    route = json.dumps({**json.loads(lines[2]), "total": [-3500, *([9] * 120)]})
    with first.open("a") as file:
        for _ in range(20_000):
            file.write(route + "\n")
    started = time.process_time()
    report_on(tmp_path)
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("cause", "source", "stack", "word"),
    [
        ("blocking", "time.sleep(1)", [], "gevent.sleep"),
        ("blocking", "requests.get(url)", [], "patch_all()"),
        ("blocking", "fetch()", ["app.py:1 fetch", "lib/python3.11/socket.py:700 readinto"], "socket"),
        ("blocking", "subprocess.run(cmd)", [], "gevent.subprocess"),
        ("blocking", "cursor.execute(sql)", [], "threadpool"),
        ("python", "for row in rows:", [], "gevent.sleep(0.0001)"),
        ("native", "json.dumps(x)", [], "by parts"),
        ("native", "compute(x)", [], "C code"),
        ("gc", "", [], "gc.freeze()"),
        ("starved", "", [], "innocent"),
        ("unknown", "", [], "slow_slice_ms"),
    ],
)
def test_advice_fits_the_case(cause: str, source: str, stack: list[str], word: str) -> None:
    assert word in advise(Case(cause, source, stack))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "profiler", *arguments], cwd=ROOT, check=False, capture_output=True, text=True
    )


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    printed = command("report", str(EXAMPLE), "--format", "json")
    assert printed.returncode == 0
    check(json.loads(printed.stdout), CONTRACT)
    output = tmp_path / "report.txt"
    assert command("report", str(EXAMPLE), "-o", "-").stdout == command("report", str(EXAMPLE)).stdout
    written = command("report", str(EXAMPLE), "-o", str(output))
    assert (written.returncode, written.stdout) == (0, "")
    assert output.read_text() == (DATA / "two_workers.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "nowhere"], "there is no directory 'nowhere'; name the one the server was told to profile into"),
        (
            ["report", "EMPTY"],
            "there is no profile in 'EMPTY'; serve some requests with the profiler on, then ask again",
        ),
        (
            ["report", "EXAMPLE", "--format", "xml"],
            "'xml' is not a format; use text, json, html, speedscope, collapsed or perfetto",
        ),
        (["report", "EXAMPLE", "-o", "EMPTY/no/such"], "cannot write 'EMPTY/no/such': No such file or directory; "),
        (["report"], "the following arguments are required: DIR; try: python -m profiler report DIR"),
        (["repot"], "argument report: invalid choice: 'repot'"),
        ([], "the following arguments are required: report; try: python -m profiler report DIR"),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy_and_status_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    names = {"EMPTY": str(tmp_path), "EXAMPLE": str(EXAMPLE)}
    given = [argument.replace("EMPTY", names["EMPTY"]) if "EMPTY" in argument else argument for argument in arguments]
    given = [names.get(argument, argument) for argument in given]
    assert main(given) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("profiler: " + message.replace("EMPTY", str(tmp_path)))
    assert shown.count("\n") == 1


def test_a_profile_of_an_unknown_schema_is_refused(tmp_path: Path) -> None:
    header = json.dumps(
        {"t": 1, "type": "worker", "schema": "profiler.data/9", "host": "a", "pid": 1, "threshold_s": 1}
    )
    (tmp_path / "worker-a-1-1.jsonl").write_text(header + "\n")
    with pytest.raises(ProfilerError, match=r"is of schema 'profiler.data/9'"):
        read([str(tmp_path)])


def test_other_files_in_the_directory_are_left_alone(tmp_path: Path) -> None:
    copy_of_example(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    os.mkdir(tmp_path / "worker-directory")
    assert len(report_on(tmp_path)["workers"]) == 2

"""The reader's test: the report on the ground truth is one screen, and each line of it can be acted on.

`data/zoo` is what `python -m tests.profiler.truth` stored on a quiet machine, with other paths and another host.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import profiler
from profiler.render import text
from tests.profiler import reader
from tests.profiler.contract import DATA, EXAMPLE, report_on

FIRST = "worker-web-1-4001-1767225600000.jsonl"
# What there is to type, or to leave out, in a sentence of advice.
_TYPED = re.compile(r"\w\(|\w\.\w|GIL|import |gevent|what changes|indent=|a set or a dict")


@pytest.fixture
def report() -> dict[str, Any]:
    return report_on(DATA / "zoo")


def test_the_screen_is_as_it_was_agreed(report: dict[str, Any]) -> None:
    assert text.render(report) == (DATA / "zoo.txt").read_text()


def test_the_five_worst_lines_are_on_one_screen_with_place_cause_harm_and_remedy(report: dict[str, Any]) -> None:
    reader.check(text.render(report), report)


def test_each_site_has_advice_that_says_what_to_type(report: dict[str, Any]) -> None:
    told = reader.read(text.render(report, everything=True))
    guilty = [site for site in report["sites"] if not site["innocent"]]
    assert len(told) == len(guilty) >= 40
    for one in told:
        assert _TYPED.search(one.advice), one.advice


def test_everything_has_each_section_and_no_line_that_is_too_wide(report: dict[str, Any]) -> None:
    shown = text.render(report, everything=True)
    for head in ("LINES THAT DO NOT YIELD", "ROUTES", "SLOWEST REQUESTS", "WORKERS", "TO ACCEPT A LINE"):
        assert f"\n{head}" in shown
    assert max(map(len, shown.splitlines())) <= reader.COLUMNS
    assert not re.search("^and .* more lines", shown, re.MULTILINE), "there are none"


@pytest.mark.parametrize("width", [40, 60, 79])
def test_on_a_narrower_terminal_nothing_that_is_needed_is_cut_off(report: dict[str, Any], width: int) -> None:
    lines = text.render(report, width).splitlines()
    assert max(map(len, lines)) <= width
    words = " ".join(" ".join(lines).split())
    for site in [site for site in report["sites"] if not site["innocent"]][:5]:
        assert site["advice"] in words
        assert f":{site['line']} in {site['function']}" in words
        if site["victims"]:
            assert re.search(rf"delayed (a request|requests {site['victims']}x): [\d.]+ ms", words)


def test_what_a_server_has_for_advice_is_in_its_files_and_in_the_report(
    install: Callable[..., profiler.Session], tmp_path: Path
) -> None:
    remedies = {"thread": "server.aside({})", "sqlite": "server.Rows"}
    session = install(tmp_path, remedies=remedies)
    session.close()
    (path,) = tmp_path.iterdir()
    header, *_ = map(json.loads, path.read_text().splitlines())
    assert header["remedies"] == remedies
    site = next(line for line in map(json.loads, (EXAMPLE / FIRST).read_text().splitlines()) if line["type"] == "site")
    for source in ("zlib.compress(data)", "db.execute('BEGIN IMMEDIATE')"):
        cause = "native" if "zlib" in source else "blocking"
        odd = {**site, "causes": {cause: 1.0}, "lines": [[12, 1.0, source]], "key": ["/a.py", source, 1, 12, False]}
        with path.open("a") as file:
            file.write(json.dumps({**odd, "t": header["t"] + 1}) + "\n")
    advised = {site["advice"] for site in report_on(tmp_path)["sites"]}
    assert advised == {"compression needs no GIL: server.aside(zlib.compress, data)", "SQLite's lock: server.Rows"}

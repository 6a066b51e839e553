"""The report on a terminal: one screen, whatever is in it."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

import pytest

from profiler.allow import load
from profiler.errors import ProfilerError
from profiler.render import html, perfetto, text
from profiler.render.words import columns, cut
from profiler.report.profile import MAX_SITES
from tests.profiler.contract import DATA, EXAMPLE, copy_of_example, report_on


def test_text_is_as_it_was_agreed() -> None:
    assert text.render(report_on(EXAMPLE)) == (DATA / "two_workers.txt").read_text()


def test_text_fits_the_screen_whatever_is_in_it(tmp_path: Path) -> None:
    first, _ = copy_of_example(tmp_path)
    site = next(line for line in map(json.loads, first.read_text().splitlines()) if line["type"] == "site")
    with first.open("a") as file:
        for number in range(30):
            key = [f"/srv/{'long/' * 40}{number}.py", "handler" * 20, 1, 1, False]
            file.write(json.dumps({**site, "key": key, "lines": [[1, 1.0, "x" * 500 + "\x1b[2J\n"]]}) + "\n")
    shown = text.render(report_on(tmp_path))
    lines = shown.splitlines()
    dropped_and_displaced = 2
    assert len(lines) - dropped_and_displaced <= text.SCREEN
    assert all(columns(line) <= text.WIDTH and line.isprintable() for line in lines)
    assert re.search(
        r"^1\. \.\.\./long/\d+\.py:1 in handlerhandler\w+\.\.\.   \[blocking\]   delayed requests 20x: 620 ms$",
        shown,
        re.M,
    )
    assert "\nand 27 more lines, " in shown


def test_what_nobody_saw_the_line_of_gives_way_to_what_can_be_acted_on() -> None:
    report = report_on(EXAMPLE)
    worst = report["sites"][0]
    report["sites"] = [{**worst, "file": "", "line": 0, "function": "", "source": ""}, *report["sites"]]
    shown = text.render(report)
    assert f":{worst['line']} in {worst['function']} " in next(at for at in shown.splitlines() if at.startswith("1. "))
    assert ". a line nobody saw for certain " in shown


def test_wide_characters_count_as_two_columns_and_accents_as_none(tmp_path: Path) -> None:
    report = report_on(EXAMPLE)
    for site in report["sites"]:
        site.update(file="/srv/" + "価格/" * 30 + "表.py", function="取得" * 30, source="価格 = 取得()  # " * 20)
        site["routes"] = ["GET /" + "商品/" * 40, "GET /e\u0301te\u0301"]
    shown = text.render(report)
    assert all(columns(line) <= text.WIDTH for line in shown.splitlines())
    assert max(columns(line) for line in shown.splitlines()) > text.WIDTH - 3, "the room is used"
    assert "表.py:12 in 取得取得" in shown
    assert columns("e\u0301") == 1
    assert cut("価格価格", 6) == "価..."


def test_a_library_is_named_from_its_package_on() -> None:
    report = report_on(EXAMPLE)
    report["sites"][0].update(file="/opt/venv/lib/python3.11/site-packages/shop/prices.py", library=True)
    assert "\n1. library shop/prices.py:12 in fetch_rate   [blocking]   delayed requests 20x: 620 ms\n" in text.render(
        report
    )


def test_a_site_without_a_line_of_the_application_says_so_and_advises_nothing_that_cannot_be_done(
    tmp_path: Path,
) -> None:
    first, _ = copy_of_example(tmp_path)
    site = next(line for line in map(json.loads, first.read_text().splitlines()) if line["type"] == "site")
    for number, cause in enumerate(("blocking", "python", "native")):
        key = ["/opt/server/transport.py", "write", 9, 127 + number, False]
        with first.open("a") as file:
            file.write(json.dumps({**site, "key": key, "library": True, "causes": {cause: 1.0}, "harm_s": 9.0}) + "\n")
    report = report_on(tmp_path)
    sites = [site for site in report["sites"] if site["library"]]
    assert len(sites) == 3
    assert not any(word in site["advice"] for site in sites for word in ("offload", "threadpool", "patch"))
    assert all(site["advice"].startswith("none of your lines ran: ") for site in sites)
    assert "\n1. library /opt/server/transport.py:127 in write   [blocking]" in text.render(report)


def test_the_lines_shown_are_numbered_from_one_whatever_their_rank(tmp_path: Path) -> None:
    first, _ = copy_of_example(tmp_path)
    site = next(line for line in map(json.loads, first.read_text().splitlines()) if line["type"] == "site")
    with first.open("a") as file:
        file.write(json.dumps({**site, "key": [*site["key"][:4], True], "harm_s": 1000.0}) + "\n")
    report = report_on(tmp_path)
    assert report["sites"][0]["innocent"]
    numbered = re.findall(r"^(\d)\. ", text.render(report), re.MULTILINE)
    assert numbered == ["1", "2"]


def test_a_slow_request_behind_a_slice_that_nobody_saw_says_so(tmp_path: Path) -> None:
    first, _ = copy_of_example(tmp_path)
    first.write_text(first.read_text().replace('"file":"/srv/shop/prices.py","line":12', '"file":"","line":0'))
    assert "of that 31.0 ms by a line that was not seen\n" in text.render(report_on(tmp_path))


def test_a_line_that_is_not_to_blame_is_not_blamed_for_a_slow_request_either(tmp_path: Path) -> None:
    first, _ = copy_of_example(tmp_path)
    example = first.read_text()
    assert "no CPU" not in text.render(report_on(tmp_path), everything=True).partition("SLOWEST")[2]
    for excuse, told in (("starved", ", which had no CPU"), ("gil", ", a thread with the GIL"), (["x"], "")):
        first.write_text(example.replace('"blamed":[{', f'"blamed":[{{"excuse":{json.dumps(excuse)},'))
        report = report_on(tmp_path)
        slowest = text.render(report, everything=True).partition("SLOWEST")[2]
        assert f"of that 31.0 ms by /srv/shop/prices.py:12{told}\n" in slowest
        assert f"by /srv/shop/prices.py:12{told} for" in html.render(report)
        assert f'queued behind prices.py:12{told}"' in perfetto.render(report)


def test_a_request_without_an_id_is_told_without_the_word(tmp_path: Path) -> None:
    copy_of_example(tmp_path)
    shown = text.render(report_on(tmp_path), everything=True)
    assert " id " in shown
    for path in tmp_path.glob("*.jsonl"):
        path.write_text(re.sub('"request_id":"[^"]*"', '"request_id":""', path.read_text()))
    assert " id " not in text.render(report_on(tmp_path), everything=True)


def test_a_stranger_cannot_write_to_the_terminal_through_a_request_id() -> None:
    assert "\x1b" not in text.render(report_on(EXAMPLE))


def test_the_five_worst_lines_with_what_was_measured_fit_a_screen(tmp_path: Path) -> None:
    first, _ = copy_of_example(tmp_path)
    site = next(line for line in map(json.loads, first.read_text().splitlines()) if line["type"] == "site")
    with first.open("a") as file:
        for number in range(30):
            key = [f"/srv/shop/views_{number}.py", f"handler_{number}", 1, 12, False]
            file.write(json.dumps({**site, "key": key}) + "\n")
    lines = text.render(report_on(tmp_path)).splitlines()
    dropped_and_displaced = 2
    assert len(lines) - dropped_and_displaced <= text.SCREEN
    assert sum(line.startswith("   -> ") for line in lines) == text.TOP_SITES


def test_sites_without_a_row_of_their_own_are_counted_under_the_others(tmp_path: Path) -> None:
    first, _ = copy_of_example(tmp_path)
    site = next(line for line in map(json.loads, first.read_text().splitlines()) if line["type"] == "site")
    with first.open("a") as file:
        for number in range(2 * MAX_SITES + 50):
            key = ["/srv/shop/views.py", f"handler_{number}", 1, 12, False]
            file.write(json.dumps({**site, "key": key, "count": 1, "harm_s": 0.001, "busy_s": 0.01}) + "\n")
    report = report_on(tmp_path)
    *_, rest = report["sites"]
    assert len(report["sites"]) == MAX_SITES + 1
    assert (rest["function"], rest["file"]) == ("(other sites)", "")
    assert sum(site["count"] for site in report["sites"]) == 10 + 2 * MAX_SITES + 50
    assert report["sites"][0]["function"] == "fetch_rate"
    assert f"{MAX_SITES + 53:,} more sites in one row, none of which gave more than 1.0 ms of harm" in rest["advice"]
    shown = text.render(report)
    assert "(other sites)" not in shown
    assert f"\nand some {2 * MAX_SITES + 50 - 3:,} more lines, " in shown


def test_routes_that_do_not_fit_the_line_are_counted_on_it() -> None:
    report = report_on(EXAMPLE)
    site = report["sites"][0]
    for routes, shown in (
        (["GET /a", "GET /b", "GET /c"], "GET /a, GET /b and 1 more"),
        (["GET /a/route/longer", "GET /another/one"], "GET /a/route/longer and 1 more"),
        (["GET /a/route/that/is/longer/than/" + "the/line" * 9, "GET /b"], "GET /a/route/that/is/... and 1 more"),
    ):
        site["routes"] = routes
        assert f"186 ms in all; in {shown}\n" in text.render(report)
    site["routes"] = []
    assert "186 ms in all\n" in text.render(report)


def test_a_site_of_several_causes_says_how_its_time_divides(tmp_path: Path) -> None:
    first, _ = copy_of_example(tmp_path)
    text_of_file = first.read_text()
    first.write_text(text_of_file.replace('"causes":', '"parts":{"blocking":0.1,"python":0.085,"gc":0.001},"causes":'))
    assert "1. /srv/shop/prices.py:12 in fetch_rate   [blocking 54%, python 46%]   delayed" in text.render(
        report_on(tmp_path)
    )
    assert "      of its time: blocking 54%, python 46%\n" in text.render(report_on(tmp_path), everything=True)
    first.write_text(text_of_file.replace('"causes":', '"parts":{"blocking":0.17,"python":0.016},"causes":'))
    assert "fetch_rate   [blocking]   delayed" in text.render(report_on(tmp_path))


def test_slices_behind_another_thread_are_not_said_to_have_lacked_a_cpu(tmp_path: Path) -> None:
    first, _ = copy_of_example(tmp_path)
    site = next(line for line in map(json.loads, first.read_text().splitlines()) if line["type"] == "site")
    with first.open("a") as file:
        key = ["/srv/shop/thread.py", "hog", 1, 3, True]
        file.write(json.dumps({**site, "key": key, "count": 2, "busy_s": 0.06, "causes": {"gil": 0.06}}) + "\n")
    told = "22.0 ms without a CPU"
    alone = f"1 slice slow only because of {told}: fewer workers, or more CPUs"
    assert f"\nnot to blame: {alone}\n" in text.render(report_on(EXAMPLE))
    assert f"\nnot to blame: {told}; 60.0 ms behind a thread's GIL: /srv/shop/thread.py:3 in hog\n" in text.render(
        report_on(tmp_path)
    )


def test_of_slices_without_a_cpu_only_the_time_without_it_is_the_machines_fault() -> None:
    report = report_on(EXAMPLE)
    starved = report["sites"][-1]
    assert starved["innocent"]
    starved.update(count=140, split_ms={"starved": 18.2, "native": 3.8})
    told = "\nnot to blame: 140 slices slow only because of 18.2 ms without a CPU: fewer workers, or more CPUs\n"
    assert told in text.render(report)


def test_delays_are_counted_and_not_those_who_were_delayed() -> None:
    report = report_on(EXAMPLE)
    for delays, told in ((1, "delayed a request: 620 ms"), (1234, "delayed requests 1,234x: 620 ms")):
        report["sites"][0]["victims"] = delays
        assert f"   [blocking]   {told}\n" in text.render(report)


def test_sections_follow_as_far_as_they_fit_the_screen_and_the_last_line_says_which_do_not() -> None:
    report = report_on(EXAMPLE)
    assert text.render(report).splitlines()[-1] == "workers, an allow list, stacks: --all, or --format html"
    report["routes"] *= 3
    shown = text.render(report)
    assert len(shown.splitlines()) <= text.SCREEN
    assert "ROUTES" in shown
    assert "  and 1 more route (--format html)\n" in shown
    assert shown.splitlines()[-1].startswith("slowest requests, workers, ")


def test_what_would_accept_a_line_is_accepted_once_it_has_a_reason(tmp_path: Path) -> None:
    report = report_on(EXAMPLE)
    shown = text.render(report, everything=True)
    entry = shown[shown.index("[[allow]]") :]
    path = tmp_path / "stalls.toml"
    path.write_text(entry)
    with pytest.raises(ProfilerError, match="reason = '' does not fit"):
        load(path)
    path.write_text(entry.replace('reason = ""', 'reason = "it is replaced in spring"'))
    load(path).mark(report["sites"], date(2026, 4, 1))
    assert [site["allowed"] and site["allowed"]["expired"] for site in report["sites"]] == [False, None, None]
    assert "[[allow]]" in text.render(report, everything=True), "of the next line"
    load(path).mark(report["sites"], date(2026, 4, 2))
    assert report["sites"][0]["allowed"]["expired"]

"""Each format: what its readers require of a file, and that it says what the JSON says."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from profiler.render import collapsed, html, perfetto, speedscope, text
from profiler.report import FORMATS, run
from tests.profiler.contract import DATA, EXAMPLE, copy_of_example, report_on

ODD = "/srv/a;b c/x.py:7 f\n;<script>"


@pytest.fixture
def report() -> dict[str, Any]:
    return report_on(EXAMPLE)


@pytest.fixture
def nothing(tmp_path: Path) -> dict[str, Any]:
    """A report on a worker that has only begun."""
    header = next(EXAMPLE.glob("*.jsonl")).read_text().splitlines()[0]
    (tmp_path / "worker-a-1-1.jsonl").write_text(header + "\n")
    return report_on(tmp_path)


def test_all_formats_have_the_sites_requests_and_sums_of_the_json() -> None:
    report = report_on(DATA / "zoo")
    harm_ms = sum(site["harm_ms"] for site in report["sites"])
    busy_ms = sum(site["busy_ms"]["total"] for site in report["sites"])
    places = [(site["file"], site["line"], site["cause"]) for site in report["sites"]]
    assert harm_ms > 1000
    assert len(set(places)) > 40

    folded = stacks(collapsed.render(report))
    assert sum(weight for _, weight in folded) == pytest.approx(harm_ms * 1000, abs=len(folded))
    assert [stack[-1] for stack, _ in folded] == [f"[{cause}]" for _, _, cause in places]

    scope = json.loads(speedscope.render(report))
    assert [profile["endValue"] for profile in scope["profiles"]] == pytest.approx([harm_ms, busy_ms])

    trace = json.loads(perfetto.render(report))
    told = trace["otherData"]["sites"]
    assert [(site["file"], site["line"], site["cause"]) for site in told] == places
    assert sum(site["harm_ms"] for site in told) == pytest.approx(harm_ms)
    assert sum(site["busy_ms"] for site in told) == pytest.approx(busy_ms)
    drawn = sorted(event["dur"] / 1000 for event in trace["traceEvents"] if event.get("cat") == "request")
    assert drawn == pytest.approx(sorted(request["total_ms"] for request in report["slowest"]), abs=0.01)

    page = html.render(report)
    shown = [float(value) for value in re.findall(r'<td class="number harm" data-value="([^"]+)"', page)]
    assert shown == [site["harm_ms"] for site in report["sites"]]

    everything = text.render(report, everything=True)
    harms = re.findall(r"   delayed (?:a request|requests [\d,]+x): ([\d.,]+) ms$", everything, re.MULTILINE)
    guilty_ms = sum(site["harm_ms"] for site in report["sites"] if not site["innocent"])
    assert sum(float(harm.replace(",", "")) for harm in harms) == pytest.approx(guilty_ms, abs=0.05 * len(harms))


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_is_written_to_a_file_as_it_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], format_: str
) -> None:
    output = tmp_path / "report"
    assert run([str(EXAMPLE)], format_, str(output)) == 0
    assert capsys.readouterr().out == ""
    assert run([str(EXAMPLE)], format_) == 0
    assert capsys.readouterr().out == output.read_text() != ""


# speedscope: `FileFormat.File` and `SampledProfile` of its file-format-spec.ts.


def check_speedscope(document: dict[str, Any]) -> None:
    assert document["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert 0 <= document["activeProfileIndex"] < len(document["profiles"])
    frames = document["shared"]["frames"]
    for frame in frames:
        assert isinstance(frame["name"], str)
        assert frame["name"]
        assert set(frame) <= {"name", "file", "line", "col"}
    for profile in document["profiles"]:
        assert set(profile) == {"type", "name", "unit", "startValue", "endValue", "samples", "weights"}
        assert (profile["type"], profile["unit"]) == ("sampled", "milliseconds")
        assert len(profile["samples"]) == len(profile["weights"])
        assert all(0 <= frame < len(frames) for sample in profile["samples"] for frame in sample)
        assert all(weight >= 0 for weight in profile["weights"])
        assert profile["endValue"] - profile["startValue"] == pytest.approx(sum(profile["weights"]))


def test_speedscope_weighs_each_stack_by_its_harm_outermost_frame_first(report: dict[str, Any]) -> None:
    document = json.loads(speedscope.render(report))
    check_speedscope(document)
    harm, busy = document["profiles"]
    assert document["activeProfileIndex"] == 0
    assert harm["weights"] == [site["harm_ms"] for site in report["sites"]]
    assert busy["weights"] == [site["busy_ms"]["total"] for site in report["sites"]]
    names = [[document["shared"]["frames"][frame]["name"] for frame in sample] for sample in harm["samples"]]
    assert names[0] == ["handle app.py:40", "fetch_rate prices.py:12", "[blocking]"]
    assert "not to blame" in names[2][0], "what the machine did stands apart"
    framed = document["shared"]["frames"][harm["samples"][0][1]]
    assert (framed["file"], framed["line"]) == ("/srv/shop/prices.py", 12)


def test_speedscope_of_nothing_is_a_file_all_the_same(nothing: dict[str, Any]) -> None:
    check_speedscope(json.loads(speedscope.render(nothing)))


# Collapsed stacks: `frame;frame weight`, as flamegraph.pl splits a line.


def stacks(rendered: str) -> list[tuple[list[str], int]]:
    found = [re.fullmatch(r"(.+) (\d+)", line) for line in rendered.splitlines()]
    return [(match[1].split(";"), int(match[2])) for match in found if match is not None]


def test_collapsed_stacks_have_a_line_a_site_weighed_by_harm_in_microseconds(report: dict[str, Any]) -> None:
    rendered = collapsed.render(report)
    read = stacks(rendered)
    assert len(read) == rendered.count("\n") == len(report["sites"])
    assert [weight for _, weight in read] == [round(site["harm_ms"] * 1000) for site in report["sites"]]
    assert read[0][0] == ["handle (/srv/shop/app.py:40)", "fetch_rate (/srv/shop/prices.py:12)", "[blocking]"]


def test_no_text_of_a_frame_can_make_another_frame_or_line(report: dict[str, Any]) -> None:
    site = report["sites"][0]
    site["stack"] = [ODD, "no frame at all; \x1b[2J\r\n9"]
    read = stacks(collapsed.render(report))
    assert [len(stack) for stack, _ in read] == [3, 3, 3]
    assert len(read) == len(report["sites"])
    assert read[0][0][0] == "/srv/a:b c/x.py:7 f?:<script>"
    check_speedscope(json.loads(speedscope.render(report)))


def test_a_site_without_a_stack_is_one_frame(report: dict[str, Any]) -> None:
    report["sites"][0]["stack"] = []
    assert stacks(collapsed.render(report))[0][0] == ["fetch_rate (/srv/shop/prices.py:12)", "[blocking]"]


# Perfetto, chrome://tracing: the JSON Object Format of the Trace Event Format.


def check_trace(document: dict[str, Any]) -> None:
    assert isinstance(document["traceEvents"], list)
    assert document["displayTimeUnit"] in ("ms", "ns")
    flows: dict[Any, list[dict[str, Any]]] = {}
    slices = [event for event in document["traceEvents"] if event["ph"] == "X"]
    for event in document["traceEvents"]:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event["ph"] in ("M", "X", "s", "f")
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            continue
        assert isinstance(event["ts"], int)
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
        else:
            flows.setdefault((event["cat"], event["id"]), []).append(event)
            around = [one for one in slices if _track(one) == _track(event)]
            assert any(one["ts"] <= event["ts"] <= one["ts"] + one["dur"] for one in around), (
                "an arrow binds to a slice"
            )
    for start, end in flows.values():
        assert (start["ph"], end["ph"], end["bp"]) == ("s", "f", "e")
        assert start["name"] == end["name"]
        assert start["ts"] <= end["ts"]
        assert _track(start) != _track(end)
    for one in slices:  # within a track slices nest, or follow each other
        for other in slices:
            if _track(one) == _track(other) and one["ts"] < other["ts"] < one["ts"] + one["dur"]:
                assert other["ts"] + other["dur"] <= one["ts"] + one["dur"]


def _track(event: dict[str, Any]) -> tuple[int, int]:
    return event["pid"], event["tid"]


def test_a_trace_has_an_arrow_from_the_culprit_to_its_victim_and_none_to_itself(report: dict[str, Any]) -> None:
    document = json.loads(perfetto.render(report))
    check_trace(document)
    events = document["traceEvents"]
    requests = [event for event in events if event.get("cat") == "request"]
    assert {event["name"] for event in requests} == {one["route"] for one in report["slowest"]}
    (culprit,) = [event for event in events if event.get("cat") == "culprit"]
    assert (culprit["name"], culprit["dur"], culprit["tid"]) == ("prices.py:12", 31_000, 1), "blamed twice, drawn once"
    start, end = [event for event in events if event["ph"] in "sf"]
    assert start["tid"] == 1
    (victim,) = [event for event in requests if event["name"] == "GET /price/{id}"]
    assert _track(end) == _track(victim)
    assert victim["args"]["queued_ms"] == 31.8
    names = {event["args"]["name"] for event in events if event["ph"] == "M"}
    assert "web-1 4001" in names
    assert [site["harm_ms"] for site in document["otherData"]["sites"]] == [site["harm_ms"] for site in report["sites"]]


def test_slices_of_a_trace_nest_whatever_the_times_in_a_file(report: dict[str, Any]) -> None:
    request = report["slowest"][0]
    by = request["blamed"][0]
    started = request["started"]
    request["blamed"] = [
        {**by, "started": started, "length_ms": 900.0, "ms": 900.0, "own": False},
        {**by, "started": started, "length_ms": 20.0, "ms": 10.0, "own": False},
        {**by, "started": "2025-12-31T23:59:59.000000Z", "length_ms": 2.0, "ms": 2.0, "own": False},
        {**by, "started": None, "length_ms": None},
    ]
    report["slowest"] = [request]
    document = json.loads(perfetto.render(report))
    zero = min(datetime.fromisoformat(moment) for moment in (started, "2025-12-31T23:59:59.000000Z"))
    first = next(event for event in document["traceEvents"] if event.get("cat") == "request")
    assert first["ts"] == round((datetime.fromisoformat(started) - zero).total_seconds() * 1e6)
    inside = [event for event in document["traceEvents"] if event.get("cat") in ("own", "queued")]
    assert [(event["ts"] - first["ts"], event["dur"]) for event in inside] == [(0, first["dur"])], "clipped; no overlap"
    assert all(event.get("ts", 0) >= 0 for event in document["traceEvents"])


@pytest.mark.parametrize("off_us", [-300, 0, 300])
def test_a_slice_whose_moment_two_requests_put_differently_is_one_and_its_arrows_reach_it(
    report: dict[str, Any], off_us: int
) -> None:
    _, victim = report["slowest"]
    victim["started"] = "2026-01-01T00:00:00.504000Z"
    victim["blamed"][0]["started"] = f"2026-01-01T00:00:00.{505_000 + off_us:06}Z"
    document = json.loads(perfetto.render(report))
    check_trace(document)
    assert sum(event.get("cat") == "culprit" for event in document["traceEvents"]) == 1


def test_files_that_do_not_tell_when_a_culprit_ran_have_no_arrow_but_still_its_name(tmp_path: Path) -> None:
    first, _ = copy_of_example(tmp_path)
    text = re.sub(r',"own":(true|false),"started":[\d.]+,"length_s":[\d.]+', "", first.read_text())
    first.write_text(text)
    document = json.loads(perfetto.render(report_on(tmp_path)))
    check_trace(document)
    assert not [event for event in document["traceEvents"] if event["ph"] in "sf"]
    (first_request, *_) = [event for event in document["traceEvents"] if event["ph"] == "X"]
    assert first_request["args"]["blamed"][0]["file"] == "/srv/shop/prices.py"


def test_a_trace_of_nothing_is_a_file_all_the_same(nothing: dict[str, Any]) -> None:
    check_trace(json.loads(perfetto.render(nothing)))

"""The HTML report: complete, in one file, and whatever strangers put into it stays text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from profiler.render import html
from tests.profiler.contract import EXAMPLE, copy_of_example, report_on

VOID = {"meta", "br"}
ATTACK = "</pre></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[2J\u202e"


class Page(HTMLParser):
    """What a browser makes of it: elements, and the text that is shown."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.script = ""
        self.open: list[str] = []
        self.feed(document)
        self.close()
        assert self.open == [], "all elements are closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.script += data
        elif self.open[-1:] != ["style"]:
            self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


@pytest.fixture
def report() -> dict[str, Any]:
    return report_on(EXAMPLE)


def test_every_row_of_the_json_is_in_it(report: dict[str, Any]) -> None:
    page = Page(html.render(report))
    rows = sum(len(report[name]) for name in ("sites", "routes", "slowest", "workers"))
    assert page.count("tr") == rows + 4
    for site in report["sites"]:
        for text in (site["function"], site["source"], site["advice"], *site["stack"], *site["routes"]):
            assert text in page.text
        assert f"{site['harm_ms']:,.2f}" in page.text
    for name in ("a?[31m1", "b7", "GET /price/{id}", "web-1"):
        assert name in page.text
    assert "2 records dropped" in page.text


def moment(report: dict[str, Any], **ran: Any) -> dict[str, Any]:
    """Of the report's slowest request, with one slice, and more of each than is stored."""
    request, waiter = report["slowest"]
    told = {"kind": "request", "route": "GET /other", "request_id": "o1", "file": "/srv/shop/other.py", "line": 9}
    told |= {"function": "other", "yielded": True, "excuse": "", "started": request["started"], "length_ms": 7.5, **ran}
    return {
        "request": request,
        "objective_ms": 25.0,
        "start": request["started"],
        "length_ms": 41.0,
        "idle_ms": 3.0,
        "short_ms": 1.5,
        "slices": [told],
        "more_slices": {"count": 2, "ms": 29.0},
        "waited": [waiter],
        "more_waited": {"count": 4, "queued_ms": 60.0},
    }


def test_a_moment_tells_who_had_the_hub_and_who_waited(report: dict[str, Any]) -> None:
    assert "None were stored: no request was too slow." in Page(html.render(report)).text
    report["moments"] = [moment(report)]
    report["left_out"]["moments"] = 1200
    page = Page(html.render(report))
    assert page.count("tr") == sum(len(report[name]) for name in ("sites", "routes", "slowest", "workers")) + 1 + 5
    for text in (
        "41.0 ms of it: hub idle 3.00 ms, in short slices 1.50 ms; 6 requests queued for 91.9 ms",
        "7.50 ms  GET /other o1, until it yielded at /srv/shop/other.py:9",
        "29.0 ms in 2 more slices",
        "31.8 ms of 33.0 ms  GET /price/{id}  a?[31m1",
        "60.0 ms, 4 more requests",
        "1,200 more requests were too slow.",
    ):
        assert text in page.text, text
    allowed = [
        attributes["data-value"] for tag, attributes in page.elements if tag == "td" and "number" in str(attributes)
    ]
    assert "25.0" in allowed


def test_a_moment_without_an_objective_sorts_before_those_with_one(report: dict[str, Any]) -> None:
    report["moments"] = [moment(report) | {"objective_ms": None}]
    page = Page(html.render(report))
    assert ("td", {"class": "number", "data-value": "-1"}) in page.elements
    assert ">any<" in html.render(report)


def test_a_site_tells_how_its_time_divides_and_what_would_accept_it(report: dict[str, Any]) -> None:
    blocking, python, innocent = report["sites"]
    assert python["split_ms"] == innocent["split_ms"] == {}, "files that do not tell are shown all the same"
    blocking["split_ms"] = {"blocking": 120.0, "python": 65.0, "gc": 15.0}
    page = Page(html.render(report))
    assert "blocking 60%, python 32%, gc 8%" in page.text
    assert page.text.count("[[allow]]") == 2, "what the machine did is nothing to accept"
    assert 'function = "fetch_rate"' in page.text


def test_it_needs_nothing_from_elsewhere(report: dict[str, Any]) -> None:
    document = html.render(report)
    page = Page(document)
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        assert not {"src", "href", "action"} & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)
    assert "http:" not in document
    assert "https:" not in document
    assert "url(" not in document
    (policy,) = [attributes["content"] for _, attributes in page.elements if "http-equiv" in attributes]
    assert "default-src 'none'" in policy
    (allowed,) = re.findall(r"script-src 'sha256-([^']+)'", policy)
    assert base64.b64decode(allowed) == hashlib.sha256(page.script.encode()).digest(), "the one script, and no other"


def test_what_strangers_wrote_stays_text(tmp_path: Path) -> None:
    first, _ = copy_of_example(tmp_path)
    lines = [json.loads(line) for line in first.read_text().splitlines()]
    for line in lines:
        if line["type"] == "worker":
            line["host"] = ATTACK
        elif line["type"] == "route":
            line["route"] = ATTACK
        elif line["type"] == "slowest":
            line["requests"][0].update(route=ATTACK, request_id=ATTACK)
            line["requests"][0]["blamed"][0].update(file=ATTACK, route=ATTACK)
        elif line["type"] == "site":
            line.update(routes=[ATTACK], lines=[[12, 1.0, ATTACK]], stack=[ATTACK], causes={ATTACK: 1.0})
            line["key"][:2] = [ATTACK, ATTACK]
    first.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = report_on(tmp_path)
    for site in report["sites"]:
        site["advice"] = ATTACK
        site["allowed"] = {"until": ATTACK, "expired": False, "reason": ATTACK}
        site["split_ms"] = {ATTACK: 1.0, "python": 1.0}
    odd = dict.fromkeys(("route", "request_id", "file", "function"), ATTACK)
    report["moments"] = [moment(report, **odd)]
    document = html.render(report)
    page = Page(document)
    assert page.count("script") == 1
    assert page.count("img") == 0
    assert page.text.count("<script>alert(1)</script>") >= 10
    assert not any(attributes.keys() & {"onerror", "onclick"} for _, attributes in page.elements)
    assert "\x1b" not in document
    assert "\u202e" not in document


def test_without_a_script_it_reads_the_same() -> None:
    page = Page(html.render(report_on(EXAMPLE)))
    assert page.count("button") == 0, "heads become buttons only where the script runs"
    assert not any("hidden" in attributes for _, attributes in page.elements)


def test_numbers_sort_as_numbers(report: dict[str, Any]) -> None:
    report["sites"][0]["harm_ms"] = 1_234_567.8
    page = Page(html.render(report))
    cells = [attributes for tag, attributes in page.elements if tag == "td" and "number" in attributes.get("class", "")]
    assert "1,234,568" in page.text
    assert 1_234_567.8 in [float(attributes["data-value"]) for attributes in cells]

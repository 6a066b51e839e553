"""What somebody with a minute reads off the text report: the screen, taken apart again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from profiler.render.words import short_path

LINES, COLUMNS = 24, 100
MS = r"([\d,.]+) m?s"
_PLACE = re.compile(
    r"(?P<rank>\d+)\. (?P<about>about |library )?(?P<file>\S+):(?P<line>\d+) in (?P<function>\S+)"
    r"   \[(?P<cause>[^]]+)\]   "
    rf"(?P<harm>delayed nobody|delayed (?:a request|requests (?P<victims>[\d,]+)x): {MS})"
)
_HELD = re.compile(
    rf"   (once, {MS}|[\d,]+ times, {MS} each \(p99 [\d,.]+, max [\d,.]+\), {MS} in all); in (?P<route>.+)"
)


@dataclass
class Told:
    """Of one site."""

    place: re.Match[str]
    source: str
    held: re.Match[str]
    advice: str


def read(shown: str) -> list[Told]:
    """The sites of a report that is as wide as it may be; raises AssertionError for one of another form."""
    lines = shown.splitlines()
    told = []
    for number in [number for number, line in enumerate(lines) if _PLACE.fullmatch(line)]:
        place, source, held, advice = lines[number : number + 4]
        found = _HELD.fullmatch(held)
        assert found, held
        assert source.startswith("     "), source
        assert advice.startswith("   -> "), advice
        match = _PLACE.fullmatch(place)
        assert match
        told.append(Told(match, source.strip(), found, advice.removeprefix("   -> ")))
    return told


def check(shown: str, report: dict[str, Any]) -> None:
    """The five worst sites of a report that has so many are on the screen, each with all that one must know to act."""
    lines = shown.splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    guilty = sorted((site for site in report["sites"] if not site["innocent"]), key=lambda site: not site["file"])
    sites = read(shown)
    assert len(sites) == 5
    for told, site in zip(sites, guilty, strict=False):
        assert short_path(site["file"]).endswith(told.place["file"].removeprefix("..."))
        assert (int(told.place["line"]), told.place["function"]) == (site["line"], site["function"])
        assert told.place["about"] == (None if site["exact"] else "about ")
        assert site["cause"] in told.place["cause"]
        assert told.source == site["source"][: len(told.source)]
        assert told.held["route"] == ", ".join(site["routes"])
        if site["victims"]:
            assert int((told.place["victims"] or "1").replace(",", "")) == site["victims"]
        assert told.advice == site["advice"]
    assert any(line.startswith(f"and {len(guilty) - 5} more lines, ") for line in lines), "nothing is left out unsaid"

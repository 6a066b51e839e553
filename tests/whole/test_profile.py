"""The report after load on apps/zoo: it names the stalls, line and route, counts them, and leaves the twins alone.

One worker, so that its watchdog finds a core free on a machine with two. Where other work takes the cores all the same
the report says so (innocent sites, a slice that nobody saw); then the load is tried again, since a stall that was
sampled too late cannot be told from one that was not sampled.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from apps.zoo import ZOO
from tests.whole.client import Request, ask_all, summary
from tests.whole.report import report_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.services.tafe_server import Running

pytestmark = pytest.mark.slow

STALLS = ("sleep", "cpu_loop")
TIMES = 12
CONNECTIONS = 8
TRIES = 4
MS = 60  # six times the threshold: neither the clock's grain nor a busy machine hides it


@pytest.fixture(scope="module")
def visits() -> list[str]:
    """Every stall and every twin, equally often, mixed; the same mix each time."""
    paths = [f"/{kind}/{name}" for name in STALLS for kind in ("stall", "yield") for _ in range(TIMES)]
    random.Random(1).shuffle(paths)
    return paths


@pytest.fixture
def report(visits: list[str], tafe_serve: Callable[..., Running]) -> dict[str, Any]:
    for _ in range(TRIES):
        server = tafe_serve("apps.zoo:app", "--workers", "1")
        answers = ask_all(server.port, [Request("GET", f"{path}?ms={MS}") for path in visits], CONNECTIONS)
        assert set(summary(answers)) <= {"200", "204"}, summary(answers)
        assert server.stop() == 0
        report = report_of(server.profile_dir)
        if not any(site["innocent"] or was_not_seen(site) for site in report["sites"]):
            break
    return report


def was_not_seen(site: dict[str, Any]) -> bool:
    """Slices that were over before the watchdog had the CPU: known, with their route, but without a line."""
    return bool(site["line"] == 0)


def test_the_report_names_and_counts_the_stalls_and_not_their_twins(report: dict[str, Any], visits: list[str]) -> None:
    guilty = [site for site in report["sites"] if not site["innocent"] and not was_not_seen(site)]
    by_route = {route: [site for site in guilty if route in site["routes"]] for route in routes_of(visits)}

    for name in STALLS:
        exhibit = ZOO[name]
        (site,) = by_route[f"GET /stall/{name}"]
        assert Path(site["file"]).samefile(exhibit.file)
        assert site["line"] in exhibit.lines
        assert site["function"] == exhibit.function
        assert site["routes"] == [f"GET /stall/{name}"]
        assert site["cause"] == exhibit.cause
        assert site["source"].strip() == Path(exhibit.file).read_text().splitlines()[site["line"] - 1].strip()
        assert MS * 0.9 < site["busy_ms"]["p50"] <= site["busy_ms"]["max"]
        assert site["busy_ms"]["total"] > site["count"] * MS * 0.9
        assert site["harm_ms"] > 0, "others waited for it"
        # On a quiet machine these are the site's alone.
        here = [other for other in report["sites"] if other["function"] == exhibit.function or was_not_seen(other)]
        assert sum(other["count"] for other in here if site["routes"][0] in other["routes"]) == TIMES
        assert site["count"] > TIMES / 2
        assert by_route[f"GET /yield/{name}"] == [], "the twin is not named"

    named = {(Path(site["file"]).name, site["function"]) for site in guilty}
    assert named == {(Path(ZOO[name].file).name, ZOO[name].function) for name in STALLS}, "and nobody else"
    assert sum(worker["slices_over"] for worker in report["workers"]) >= len(STALLS) * TIMES


def test_the_report_counts_the_requests_of_each_route_and_splits_their_time(
    report: dict[str, Any], visits: list[str]
) -> None:
    counted = {route["route"]: route for route in report["routes"]}
    for route, sent in routes_of(visits).items():
        assert counted[route]["requests"] == sent
        assert counted[route]["errors"] == 0
        assert counted[route]["total_ms"]["p50"] > MS * 0.9
    stalled, waited = counted["GET /stall/sleep"], counted["GET /yield/sleep"]
    assert stalled["running_ms"]["p50"] > MS * 0.9, "a sleep that holds the hub counts as running"
    assert waited["running_ms"]["p50"] < 10
    assert waited["waiting_ms"]["p50"] > MS * 0.5
    # Eight connections on a hub that stalls for most of the time: somebody waits for it.
    assert max(route["queued_ms"]["max"] for route in counted.values()) > MS * 0.5


def routes_of(visits: list[str]) -> dict[str, int]:
    """How often each route was visited."""
    return {f"GET {path}": visits.count(path) for path in dict.fromkeys(visits)}

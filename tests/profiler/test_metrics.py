"""The totals for monitoring: exact, never falling, bounded, and with room for what matters."""

from __future__ import annotations

import pytest

from profiler.causes import Verdict
from profiler.frames import Place
from profiler.hook import Counts
from profiler.metrics import (
    AT_LEAST,
    BOUNDS_S,
    MACHINE,
    MAX_ROUTES,
    MAX_SITES,
    OTHER,
    Cost,
    CountedSites,
    Ledger,
    RouteFigures,
    Site,
    Times,
    longest_of,
)
from profiler.model import Slice, Span
from profiler.recorder import Recorder
from profiler.sites import HUB_ROUTE, Finding
from profiler.tally import Tally, bucket
from profiler.usage import Usage

PYTHON = Verdict("python", innocent=False, on_cpu=True)
BLOCKING = Verdict("blocking", innocent=False, on_cpu=False)
NOTHING = Counts(0, 0, 0.0, 0, 0, 0, 0)


def finished(
    route: str = "GET /", total_s: float = 0.003, *, waited: bool = False, outcome: int = 0, error: bool = False
) -> Span:
    span = Span()
    span.route, span.request_id, span.blamed = route, "r", None
    span.error, span.outcome = error, outcome
    span.started_s, span.queued_s = 1.0, total_s / 4
    span._running_s = span._longest_s = total_s / 2  # if it waited; else all that was not queued
    span._out_s = 1.5 if waited else 0.0
    span.total_s = total_s
    return span


class Worker:
    """A recorder and a ledger, as a session has them."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.ledger = Ledger()

    def serve(self, *spans: Span) -> None:
        for span in spans:
            (self.recorder.waited if span._out_s else self.recorder.batch).append(span)
        self.recorder.unusual += [span for span in spans if span.error or span.outcome]
        self.recorder.fold()

    def hand_over(self) -> None:
        self.ledger.absorb(self.recorder.take(NOTHING, NOTHING, 1.0, 0.0))

    @property
    def requests(self) -> dict[str, int]:
        return {route: figures.requests for route, figures in self.routes.items()}

    @property
    def routes(self) -> dict[str, RouteFigures]:
        return self.ledger.routes(self.recorder.unfinished(), float("inf"))


def test_a_tally_is_counted_between_edges_as_its_buckets_say() -> None:
    tally = Tally()
    tally.add([0.0, -1.0, 1e-10, 0.001, 0.0011, 0.3, 0.3, 5.0, 1e9])
    assert tally.coarse([bucket(0.001) + 1, bucket(0.1), bucket(1.0)]) == [4, 1, 2, 2]
    assert tally.coarse([]) == [9]
    assert tally.coarse([bucket(1e9) + 5]) == [9, 0]
    assert tally.coarse([0]) == [0, 9]


@pytest.mark.parametrize("bound_s", BOUNDS_S)
def test_a_time_at_a_bound_counts_as_under_it_and_one_well_above_does_not(bound_s: float) -> None:
    tally = Tally()
    tally.add([bound_s, bound_s * 1.04])
    times = Times()
    times.add_tally(tally)
    index = BOUNDS_S.index(bound_s)
    assert times.counts[index] == times.counts[index + 1] == 1
    assert sum(times.counts) == 2


def test_what_was_handed_over_and_what_was_not_are_added_up() -> None:
    worker = Worker()
    worker.serve(finished(), finished(total_s=0.3, waited=True, outcome=404))
    before = worker.routes["GET /"]
    worker.hand_over()
    worker.serve(finished(total_s=0.02, outcome=500, error=True), finished("GET /b"))
    routes = worker.routes
    after = routes["GET /"]
    assert (before.requests, after.requests, routes["GET /b"].requests) == (2, 3, 1)
    assert (before.outcomes, after.outcomes) == ({404: 1}, {404: 1, 500: 1})
    assert after.total.sum_s == pytest.approx(0.323)
    assert (after.running_s, after.queued_s) == (pytest.approx(0.16725), pytest.approx(0.08075))
    assert after.waiting_s == pytest.approx(0.075)  # of the one that waited
    assert {BOUNDS_S[i] for i, count in enumerate(after.total.counts) if count} == {0.005, 0.025, 0.5}
    assert longest_of(worker.routes).sum_s == pytest.approx(0.1695)


def test_asking_twice_counts_nothing_twice() -> None:
    worker = Worker()
    worker.serve(finished())
    assert worker.requests == worker.requests == {"GET /": 1}
    worker.hand_over()
    assert worker.requests == worker.requests == {"GET /": 1}


def test_many_routes_are_brought_up_to_date_in_turn_and_none_ever_falls() -> None:
    worker = Worker()
    names = [f"GET /{number}" for number in range(MAX_ROUTES // 2)]
    earlier: dict[str, int] = {}
    for number in range(30):
        worker.serve(*map(finished, names))
        if number % 7 == 0:
            worker.hand_over()
        figures = worker.ledger.routes(worker.recorder.unfinished(), 0.0)
        now = {name: route.requests for name, route in figures.items()}
        assert all(now[name] >= count for name, count in earlier.items())
        assert sum(now[name] > earlier.get(name, 0) for name in names) == AT_LEAST
        assert all(sum(route.total.counts) == route.requests for route in figures.values())
        earlier = now
    assert min(earlier.values()) >= 30 - MAX_ROUTES // 2 // AT_LEAST
    assert worker.requests == dict.fromkeys(names, 30)


def test_ten_thousand_paths_are_bounded_and_none_of_their_requests_is_lost() -> None:
    worker = Worker()
    earlier: dict[str, int] = {}
    for first in range(0, 10_000, 500):
        worker.serve(*[finished(f"GET /{number}") for number in range(first, first + 500)])
        now = worker.requests
        assert all(now[route] >= count for route, count in earlier.items())
        earlier = now
        worker.hand_over()
        assert worker.requests == now
    assert len(earlier) == MAX_ROUTES // 2 + 1
    assert sum(earlier.values()) == 10_000


def test_a_route_in_use_gets_a_place_however_many_paths_strangers_made_up_before_it() -> None:
    worker = Worker()
    worker.serve(*[finished(f"GET /{number}") for number in range(1000)])
    worker.hand_over()
    for _ in range(3):
        worker.serve(*[finished("GET /busy") for _ in range(20)], *[finished(f"GET /x{n}") for n in range(50)])
        worker.hand_over()
    assert worker.requests["GET /busy"] == 40  # those before it had shown itself are with the others
    assert worker.requests[OTHER] == 1000 - 50 + 20 + 3 * 50


def finding(
    function: str = "f",
    *,
    verdict: Verdict = PYTHON,
    line: int = 10,
    length_s: float = 0.5,
    harm_s: float = 0.25,
    route: str | None = "GET /",
) -> Finding:
    record = Slice(1.0, 1.0 + length_s, route and finished(route), 0.0, Usage(1.5, 0.0, 0.0), (1.0, 0.0), ())
    record.harm_s, record.victims = harm_s, 2
    return Finding(record, Place("/srv/app.py", line, function, 7), {line: length_s}, (), verdict, exact=True)


def test_stalls_and_harm_are_counted_by_site_and_by_route() -> None:
    table = CountedSites()
    for one in (finding(), finding(line=12), finding("g", verdict=BLOCKING, line=30, route=None)):
        table.add(one)
    assert table.sites == {
        Site("/srv/app.py", "f", 0, "python"): Cost(2, 1.0, 0.5, 4),
        Site("/srv/app.py", "g", 30, "blocking"): Cost(1, 0.5, 0.25, 2),
    }
    assert table.culprits == {"GET /": Cost(2, 1.0, 0.5, 4), HUB_ROUTE: Cost(1, 0.5, 0.25, 2)}
    assert len(table.take()) == 2
    assert len(table.sites) == 2


def test_what_the_machine_did_is_held_against_no_line_and_no_route() -> None:
    table = CountedSites()
    table.add(finding(verdict=Verdict("starved", innocent=True, on_cpu=True)))
    assert table.sites == {Site(MACHINE, "", 0, "starved"): Cost(1, 0.5, 0.25, 2)}
    assert table.culprits == {}


def test_sites_and_culprits_are_bounded_and_a_bad_one_that_comes_late_has_a_place() -> None:
    table = CountedSites()
    for number in range(5000):
        table.add(finding(f"f{number}", route=f"GET /{number}"))
        table.take()
    for line in range(5000):
        table.add(finding("g" if line % 2 else "f0", verdict=BLOCKING, line=line, length_s=0.001, harm_s=0.0))
    table.add(finding("late", harm_s=1000.0, route="GET /late"))
    assert len(table.sites) <= MAX_SITES + 2
    assert len(table.culprits) <= MAX_ROUTES + 1
    assert Site("/srv/app.py", "late", 0, "python") in table.sites
    assert "GET /late" in table.culprits
    assert sum(cost.slices for cost in table.sites.values()) == 10_001
    assert sum(cost.slices for cost in table.culprits.values()) == 10_001

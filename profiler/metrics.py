"""Figures that only grow, for whoever watches a worker from outside, as monitoring systems do.

The files tell what happened between two hand-overs; here the same is added up since the start, in buckets that are
coarse and never change, so that the figures of many workers can be summed.
Nothing of it is on a request's way: what the recorder has gathered is read when somebody asks, and kept when the
recorder hands it over. Slow slices are counted where the watchdog's thread brings them to their site.
Bounds: `MAX_ROUTES` routes and `MAX_SITES` sites have figures of their own, the rest is `OTHER`. A name that has a
place keeps it, since a figure that moved to `OTHER` would look like new events. The last half of the places is for
names that matter, so that paths which strangers make up cannot take them all.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, NamedTuple

from profiler.model import OTHER_ROUTES, route_of
from profiler.sites import HUB_ROUTE, SiteTable
from profiler.tally import bucket

if TYPE_CHECKING:
    from profiler.recorder import Delta
    from profiler.sites import Finding
    from profiler.tally import RouteTimes, Tally

MAX_ROUTES = 100  # some 25 numbers each: a service with more routes than this looks at the report
MAX_SITES = 50  # lines to be repaired; who has more begins with the worst
LEAST_REQUESTS = 10  # in a hand-over of seconds: fewer may be anybody's
AT_LEAST = 5  # routes are brought up to date each time, however long it takes: a hundred in 20 s
OTHER = "(other)"
MACHINE = "(the machine)"  # in place of a site that is not to blame

# Upper bounds of all histograms of times. A hello takes 0.1 ms, a row 0.3 ms, 10 s is where clients have given up.
BOUNDS_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# The same as the recorder's buckets, which are 3 % wide: the one that holds a bound counts as under it.
_EDGES = [bucket(bound_s) + 1 for bound_s in BOUNDS_S]


class Times:
    """A histogram by `BOUNDS_S`."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)  # the last is for what is longer than all bounds
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def add_tally(self, tally: Tally | None) -> None:
        """Count what it has counted; the sum is the caller's."""
        if tally is not None:
            self.counts = list(map(int.__add__, self.counts, tally.coarse(_EDGES)))

    def copy(self) -> Times:
        """To add to."""
        copied = Times()
        copied.counts, copied.sum_s = self.counts[:], self.sum_s
        return copied


class RouteFigures:
    """The requests of a route since the start."""

    __slots__ = ("longest", "outcomes", "queued_s", "requests", "running_s", "total", "waiting_s")

    def __init__(self) -> None:
        self.requests = 0
        self.outcomes: dict[int, int] = {}  # those that had one
        self.running_s = self.waiting_s = self.queued_s = 0.0
        self.total = Times()
        self.longest = Times()  # each request's longest slice

    def add(self, times: RouteTimes) -> None:
        """Add a delta's."""
        self.requests += times.requests
        for outcome, count in times.outcomes.items():
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count
        self.running_s += times.running_s
        self.waiting_s += times.waiting_s
        self.queued_s += times.queued_s
        self.total.add_tally(times.total)
        self.total.sum_s += times.total_s
        self.longest.add_tally(times.at_once)
        self.longest.add_tally(times.longest)
        self.longest.sum_s += times.longest_s

    def copy(self) -> RouteFigures:
        """To add to."""
        copied = RouteFigures()
        copied.requests, copied.outcomes = self.requests, self.outcomes.copy()
        copied.running_s, copied.waiting_s, copied.queued_s = self.running_s, self.waiting_s, self.queued_s
        copied.total, copied.longest = self.total.copy(), self.longest.copy()
        return copied


class Cost(NamedTuple):
    """What slow slices have cost."""

    slices: int = 0
    busy_s: float = 0.0  # the hub
    harm_s: float = 0.0  # requests that were ready: the time they were queued
    victims: int = 0

    def plus(self, finding: Finding) -> Cost:
        """And one more."""
        record = finding.record
        return Cost(
            self.slices + 1,
            self.busy_s + record.length_s,
            self.harm_s + finding.harm_s,
            self.victims + finding.victims,
        )

    def grown(self, harm_s: float, victims: int) -> Cost:
        """And harm that one of them was given later."""
        return self._replace(harm_s=self.harm_s + harm_s, victims=self.victims + victims)


class Site(NamedTuple):
    """What slow slices are counted by: a line, or a function where the samples fell on several of its lines."""

    file: str
    function: str
    line: int  # 0: several
    cause: str


class Figures(NamedTuple):
    """Everything since the start."""

    wall_s: float
    idle_s: float  # the hub had nothing to do
    overhead_s: float  # estimated: of the profiler, on the hub
    switches: int
    slices_over: int
    dropped: int
    displaced: int
    failures: int
    unwritten: int  # records and lines that are in no file: the disk was too slow or full, or they could not be made
    exceeded: int  # requests over their objective, or queued for ten thresholds: the flight recorder's
    delay: Times  # how late a timer was that was due
    longest: Times  # each request's longest slice
    routes: dict[str, RouteFigures]
    sites: dict[Site, Cost]
    culprits: dict[str, Cost]  # by the route of the request that had the hub; without what the machine did


class Places:
    """Which names have figures of their own: half as they come, the others only if they matter.

    That is for those of more than `2 / most` of everything, so at no time can there be too many of them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: set[Hashable] = set()

    def give(self, name: Hashable, share: float) -> bool:
        """Whether `name`, which makes up `share` of everything lately, has a place; if need be from now on."""
        if name in self._taken:
            return True
        if len(self._taken) >= (self._most if share > 2 / self._most else self._most // 2):
            return False
        self._taken.add(name)
        return True


class CountedSites(SiteTable):
    """A site table that also keeps totals. Rows are replaced whole, so that any thread may read them.

    `tell_open`, if set, is told of slices that have not ended after a second, in the watchdog's thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sites: dict[Site, Cost] = {}
        self.culprits: dict[str, Cost] = {}
        self.lost = 0
        self.tell_open: Callable[[Finding], None] | None = None
        self._site_places = Places(MAX_SITES)
        self._culprit_places = Places(MAX_ROUTES)
        self._charged_s = 0.0

    def add(self, finding: Finding) -> None:
        """See `SiteTable`; for the watchdog's thread."""
        super().add(finding)
        site, route = self._names(finding, finding.record.length_s + finding.harm_s)
        self.sites[site] = self.sites.get(site, Cost()).plus(finding)
        if route is not None:
            self.culprits[route] = self.culprits.get(route, Cost()).plus(finding)

    def _add_harm(self, finding: Finding, harm_s: float, victims: int) -> None:
        super()._add_harm(finding, harm_s, victims)
        site, route = self._names(finding, harm_s)
        self.sites[site] = self.sites.get(site, Cost()).grown(harm_s, victims)
        if route is not None:
            self.culprits[route] = self.culprits.get(route, Cost()).grown(harm_s, victims)

    def _names(self, finding: Finding, cost_s: float) -> tuple[Site, str | None]:
        """Under which it is counted, as a site, and as a culprit if it is one."""
        record, place, cause = finding.record, finding.place, finding.verdict.cause
        self._charged_s += cost_s
        share = cost_s / self._charged_s
        if finding.verdict.innocent:
            return Site(MACHINE, "", 0, cause), None
        site = Site(place.file, place.function, 0 if finding.by_function else place.line, cause)
        if not self._site_places.give(site, share):
            site = Site(OTHER, "", 0, cause)
        route = route_of(record.span) if record.span else HUB_ROUTE
        return site, route if self._culprit_places.give(route, share) else OTHER

    def still_open(self, finding: Finding) -> None:
        """See `SiteTable`."""
        super().still_open(finding)
        if self.tell_open is not None:
            self.tell_open(finding)

    def lose(self) -> None:
        """See `SiteTable`."""
        super().lose()
        self.lost += 1


class _Account:
    """A name's figures."""

    __slots__ = ("booked", "finished", "seen", "shown")

    def __init__(self) -> None:
        self.booked = RouteFigures()  # of deltas that were handed over
        self.finished: list[RouteTimes] = []  # of those, too, but not booked yet
        self.seen = 0  # requests of the present delta in `shown`
        self.shown = self.booked

    def bring_up_to_date(self, present: list[RouteTimes]) -> None:
        """Book what is finished; show that and `present`."""
        for times in self.finished:
            self.booked.add(times)
        self.finished.clear()
        self.shown = self.booked.copy()
        for times in present:
            self.shown.add(times)


class Ledger:
    """The totals of routes and delays; only the hub's thread calls it.

    Reading the tallies of a busy route takes some 10 us when compiled, and ten times as long interpreted. So it is done
    in turn: what is shown of one route is of one moment, which may be another for the next.
    """

    def __init__(self) -> None:
        self.delay = Times()
        self._accounts: dict[str, _Account] = {}  # the one that was read longest ago is first
        self._places = Places(MAX_ROUTES)
        self._names: dict[str, str] = {}  # under which the routes of the present delta are counted: to its end

    def absorb(self, delta: Delta) -> None:
        """The recorder has handed this over; it grows no more."""
        for route, times in delta.routes.items():
            account = self._account(route)
            account.finished.append(times)
            account.seen = 0
        self._names = {}
        requests = delta.records
        for route, times in delta.routes.items():
            if times.requests >= LEAST_REQUESTS and route != OTHER_ROUTES:
                self._places.give(route, times.requests / requests)

    def routes(self, delta: Delta, limit_s: float) -> dict[str, RouteFigures]:
        """The totals up to now, or not long ago; `delta` is the one that is being gathered. Not to be changed."""
        until_s = time.perf_counter() + limit_s
        present: dict[_Account, list[RouteTimes]] = {}
        for route, times in delta.routes.items():
            present.setdefault(self._account(route), []).append(times)
        done = 0
        for name, account in list(self._accounts.items()):
            now = present.get(account, [])
            requests = sum(times.requests for times in now)
            if not account.finished and requests == account.seen:
                continue
            if done >= AT_LEAST and time.perf_counter() > until_s:
                break
            account.bring_up_to_date(now)
            account.seen = requests
            self._accounts[name] = self._accounts.pop(name)
            done += 1
        return {name: account.shown for name, account in self._accounts.items()}

    def _account(self, route: str) -> _Account:
        name = self._names.get(route)
        if name is None:
            has_place = route != OTHER_ROUTES and self._places.give(route, 0.0)
            name = self._names[route] = route if has_place else OTHER
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = _Account()
        return account


def longest_of(routes: dict[str, RouteFigures]) -> Times:
    """Each request's longest slice, of all routes."""
    longest = Times()
    if routes:
        columns = zip(*(figures.longest.counts for figures in routes.values()), strict=True)
        longest.counts = list(map(sum, columns))
        longest.sum_s = math.fsum(figures.longest.sum_s for figures in routes.values())
    return longest

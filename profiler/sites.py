"""Slow slices gathered by the line to blame: what the watchdog adds, and the writer takes about once a second.

A site is a function, and a line of it: of a loop in Python the samples fall on every line in turn, so such
slices are kept by function and the line most sampled is shown. Slices the machine lengthened are sites of
their own, marked innocent.
Harm is given to a slice for as long as requests wait that were ready when it ran. What comes after it was added, its
site gets later: so of a site there may be harm and no slice between two takings.
Bounds: `MAX_SITES` sites between two takings, `MAX_LINES` lines and `MAX_ROUTES` routes a site; slices of
further sites are one site, `OTHER_SITES`. As many slices are kept for later harm as the hook keeps. The two native
threads that meet here use a native lock; the hub never comes here.
"""

from __future__ import annotations

import linecache
from collections import deque
from typing import TYPE_CHECKING, Any

from profiler.frames import Place, Stack, describe
from profiler.histogram import Histogram
from profiler.model import OTHER_SITES, Slice, route_of
from profiler.native import Lock
from profiler.stalls import RECENT, RECENT_S

if TYPE_CHECKING:
    from profiler.causes import Verdict

MAX_SITES = 1000  # a second: at one slow slice a site and millisecond, more than can happen
MAX_LINES = 16  # the loop's lines that samples fell on
MAX_ROUTES = 16  # shown; who needs more names the function
CATCH_UP_S = 0.5  # between two looks for harm that came later, at 2,000 slices at most: 0.2 ms
MAX_TOLD = 10_000  # sites whose stack is not stored again: some 3 MB at worst
HUB_ROUTE = "(hub)"  # work for no request: hub callbacks, background greenlets


_Key = tuple[str, str, int, int, bool]  # file, function, its first line, line or 0, innocent


class Finding:
    """What is known of one slow slice."""

    __slots__ = (
        "exact",
        "harm_s",
        "holder",
        "library",
        "lines",
        "parts",
        "place",
        "record",
        "stack",
        "verdict",
        "victims",
    )

    def __init__(
        self,
        record: Slice,
        place: Place,
        lines: dict[int, float],
        stack: Stack,
        verdict: Verdict,
        *,
        exact: bool,
        library: bool = False,
        holder: int = 0,
    ) -> None:
        self.record = record
        self.place = place
        self.lines = lines  # of the place's function, with the seconds samples give them
        self.stack = stack
        self.verdict = verdict
        self.exact = exact
        self.library = library  # no line of the application was running
        self.holder = holder  # the thread that had the GIL, if it was another than the hub's
        self.parts: dict[str, float] = {}  # its seconds by cause, as far as they are known (causes.parts)
        self.harm_s, self.victims = record.harm_s, record.victims  # that its site has, or is about to get

    def take_harm(self) -> tuple[float, int]:
        """What the record's harm and victims have grown by."""
        before_s, before = self.harm_s, self.victims
        self.harm_s, self.victims = self.record.harm_s, self.record.victims
        return self.harm_s - before_s, self.victims - before

    @property
    def by_function(self) -> bool:
        """Whether the line is one of several that the code was on."""
        return self.verdict.on_cpu and not (self.verdict.cause == "native" and len(self.lines) == 1)


class _Site:
    def __init__(self) -> None:
        self.findings = 0
        self.exact = 0
        self.busy_s = 0.0
        self.busy = Histogram()
        self.harm_s = 0.0
        self.victims = 0
        self.causes: dict[str, float] = {}  # the seconds of slices, each by its cause
        self.parts: dict[str, float] = {}  # the same, but each slice divided
        self.routes: set[str] = set()
        self.lines: dict[int, float] = {}
        self.stack: Stack = ()
        self.library = False

    def add(self, finding: Finding) -> None:
        record = finding.record
        self.findings += 1
        self.exact += finding.exact
        self.busy_s += record.length_s
        self.busy.add(record.length_s)
        self.harm(finding, finding.harm_s, finding.victims)
        self.causes[finding.verdict.cause] += record.length_s
        for part, seconds in finding.parts.items():
            self.parts[part] = self.parts.get(part, 0.0) + seconds
        if len(self.routes) < MAX_ROUTES:
            self.routes.add(route_of(record.span) if record.span else HUB_ROUTE)
        for line, weight_s in finding.lines.items():
            if line in self.lines or len(self.lines) < MAX_LINES:
                self.lines[line] = self.lines.get(line, 0.0) + weight_s
        self.stack = self.stack or finding.stack

    def harm(self, finding: Finding, harm_s: float, victims: int) -> None:
        self.harm_s += harm_s
        self.victims += victims
        self.causes.setdefault(finding.verdict.cause, 0.0)
        self.library = finding.library  # the same for all: it depends on the file alone


class SiteTable:
    """Sites since the last `take`."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._sites: dict[_Key, _Site] = {}
        self._dropped = 0
        self._open: dict[str, Any] | None = None
        self._told: set[_Key] = set()  # whose stack is in the file already
        # Of the watchdog's thread
        self._growing: deque[Finding] = deque()  # which may be given more harm
        self._caught_up_s = 0.0

    def add(self, finding: Finding) -> None:
        """Count a slow slice; for the watchdog's thread."""
        finding.take_harm()
        with self._lock:
            placed = self._placed(finding)
            self._sites[_key(placed)].add(placed)
        # Thousands may be kept, so without what is large and of no more use.
        finding.stack = finding.record.yielded = finding.record.collected = ()
        finding.record.threads = {}
        self._growing.append(finding)

    def catch_up(self, now_s: float) -> None:
        """Count what harm slow slices were given after they were added; for the watchdog's thread, at every look."""
        if now_s - self._caught_up_s < CATCH_UP_S:
            return
        self._caught_up_s = now_s
        growing = self._growing
        for finding in growing:
            harm_s, victims = finding.take_harm()
            if victims:
                self._add_harm(finding, harm_s, victims)
        while growing and (now_s - growing[0].record.end_s > RECENT_S or len(growing) > RECENT):
            growing.popleft()

    def _add_harm(self, finding: Finding, harm_s: float, victims: int) -> None:
        with self._lock:
            placed = self._placed(finding)
            self._sites[_key(placed)].harm(placed, harm_s, victims)

    def _placed(self, finding: Finding) -> Finding:
        """It has a site now, if need be as one of those without a place."""
        key = _key(finding)
        if key not in self._sites:
            if len(self._sites) >= MAX_SITES:
                finding = _placeless(finding)
                key = _key(finding)
            self._sites.setdefault(key, _Site())
        return finding

    def still_open(self, finding: Finding) -> None:
        """A slice has not ended yet: stored, so that a worker killed in the middle of it leaves word."""
        site = _Site()
        site.add(finding)
        line = {**_line(_key(finding), site), "type": "open"}
        with self._lock:
            self._open = line

    def lose(self) -> None:
        """Count a slow slice, or a look at one, as dropped."""
        with self._lock:
            self._dropped += 1

    def retell(self) -> None:
        """A new file: the next line of each site has its stack again."""
        with self._lock:
            self._told.clear()

    def take(self) -> list[dict[str, Any]]:
        """The lines to store, and begin anew; for the writer's thread."""
        with self._lock:
            sites, self._sites = self._sites, {}
            dropped, self._dropped = self._dropped, 0
            still_open, self._open = self._open, None
            told = self._told
            if len(told) + len(sites) > MAX_TOLD:
                told.clear()
            lines = [_line(key, site, told=key in told) for key, site in sites.items()]
            told.update(sites)
        if dropped:
            lines.append({"type": "dropped", "count": dropped})
        if still_open:
            lines.append(still_open)
        return lines


def _key(finding: Finding) -> _Key:
    place = finding.place
    line = 0 if finding.by_function else place.line
    return place.file, place.function, place.first_line, line, finding.verdict.innocent


def _placeless(finding: Finding) -> Finding:
    placeless = Finding(finding.record, Place("", 0, OTHER_SITES, 0), {}, (), finding.verdict, exact=False)
    placeless.parts, placeless.harm_s, placeless.victims = finding.parts, finding.harm_s, finding.victims
    return placeless


def _line(key: _Key, site: _Site, *, told: bool = False) -> dict[str, Any]:
    file = key[0]
    return {
        "type": "site",
        "key": list(key),
        "count": site.findings,
        "exact": site.exact,
        "library": site.library,
        "busy_s": site.busy_s,
        "busy": site.busy.packed(),
        "harm_s": site.harm_s,
        "victims": site.victims,
        "causes": site.causes,
        "parts": {part: round(seconds, 6) for part, seconds in site.parts.items()},
        "routes": sorted(site.routes),
        # The source may have changed by the time of the report.
        "lines": [[line, weight_s, linecache.getline(file, line).strip()] for line, weight_s in site.lines.items()],
        "stack": [] if told else describe(site.stack),  # the most of a line, and the same each time
    }

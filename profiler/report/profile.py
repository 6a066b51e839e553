"""What is added up from the workers' lines, and how: one function a type of line.

A line is judged whole before any of it counts, so one that is odd (a number beyond any clock, a list where a text
belongs) raises ValueError, TypeError, KeyError, IndexError or AttributeError and leaves everything as it was.
Bounded, whatever the number of files: `MAX_ROUTES` routes, `MAX_SITES` sites, `MAX_WORKERS` workers and `SLOWEST`
requests have rows of their own; the rest of each is added up in a row for the rest (table.py), so nothing is lost from
the sums.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from profiler.histogram import MAX_COUNT, Histogram
from profiler.model import OTHER_ROUTES, OTHER_SITES
from profiler.report.sketch import Sketch
from profiler.report.table import Table, Weight

MAX_ROUTES = 200  # as many as a worker tells apart (recorder.py); five sketches each take 10 KB
MAX_SITES = 1000  # lines of code that anybody will look at; with its stack one takes 3 KB
MAX_WORKERS = 1000  # sessions: a week of four workers that are replaced every half an hour
SLOWEST = 20  # requests a reader looks at
MAX_SITE_ROUTES = 50
MAX_SITE_LINES = 64  # four times what a worker stores at once: of a function those that were sampled
MAX_BLAMED = 50  # slices of one request
MAX_SECONDS = 1e9  # 30 years: more is no time that anything took
MAX_MOMENT_S = 32_503_680_000.0  # the year 3000
MAX_REMEDY = 60  # characters: what is longer does not fit the line of an advice
MOMENTS = 20  # as many as the slowest requests: one is a page to read
MAX_RAN = 200  # slices of a moment, twice what a worker stores
KINDS = ("request", "spawned", "greenlet", "hub", "gil")
EXCUSES = ("starved", "gil")  # causes of which the code is innocent
TIMES = ("total", "running", "waiting", "queued", "longest_slice")
OTHER_WORKERS = "(other workers)"

SiteKey = tuple[str, str, int, int, bool]  # file, function, its first line, line or 0, innocent


@dataclass(slots=True)
class Worker:
    """One session of the profiler, in one file or several."""

    host: str = ""
    pid: int = 0
    threshold_s: float | None = None
    hook: str = "unknown"  # or compiled, or interpreted
    remedies: dict[str, str] = field(default_factory=dict)  # what its server has for advice
    start_s: float = 0.0
    end_s: float = 0.0  # 0.0: nothing of it is in the window
    requests: int = 0
    switches: int = 0
    slices_over: int = 0
    sited: int = 0  # those of them that were stored with their site
    wall_s: float = 0.0
    idle_s: float = 0.0
    overhead_s: float = 0.0
    dropped: int = 0
    displaced: int = 0
    still_open: dict[str, Any] | None = None  # the last line, if it says that a slice went on

    def merge(self, other: Worker) -> None:
        """Add up with another session, which has ended."""
        self.start_s = min(self.start_s or other.start_s, other.start_s)
        self.end_s = max(self.end_s, other.end_s)
        if other.threshold_s is not None:
            self.threshold_s = min(self.threshold_s or other.threshold_s, other.threshold_s)
        for name in ("requests", "switches", "slices_over", "wall_s", "idle_s", "overhead_s", "dropped", "displaced"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Route:
    """One route, of all workers."""

    requests: int = 0
    errors: int = 0
    times: dict[str, Sketch] = field(default_factory=lambda: {name: Sketch() for name in TIMES})

    @property
    def weight(self) -> Weight:
        """Busy time, then requests: whom a route harmed is known of its slow slices only, which their sites tell."""
        return self.times["running"].total_s, float(self.requests)

    def merge(self, other: Route) -> None:
        """Add what the other counted."""
        self.requests += other.requests
        self.errors += other.errors
        for name, sketch in other.times.items():
            self.times[name].merge(sketch)


@dataclass(slots=True)
class Site:
    """One site, of all workers."""

    count: int = 0
    exact: int = 0
    busy_s: float = 0.0
    busy: Sketch = field(default_factory=Sketch)
    harm_s: float = 0.0
    victims: int = 0
    stuck_s: float = 0.0  # how long its slices had lasted that were not over when their workers were last heard of
    causes: dict[str, float] = field(default_factory=dict)  # the seconds of slices, each by its cause
    parts: dict[str, float] = field(default_factory=dict)  # the same, but each slice divided
    routes: set[str] = field(default_factory=set)
    lines: dict[int, tuple[float, str]] = field(default_factory=dict)  # line: seconds, source
    stack: tuple[str, ...] = ()
    library: bool = False  # no line of the application was running
    remedies: dict[str, str] = field(default_factory=dict)  # of the worker that told of it last

    @property
    def weight(self) -> Weight:
        """Harm, then busy time, as a report ranks them. Of what is not over nobody knows yet whom it delays."""
        return self.harm_s + self.stuck_s, self.busy_s

    def merge(self, other: Site) -> None:
        """Add what the other counted; its lines and stack are its own."""
        self.count += other.count
        self.exact += other.exact
        self.busy_s += other.busy_s
        self.busy.merge(other.busy)
        self.harm_s += other.harm_s
        self.victims += other.victims
        self.stuck_s += other.stuck_s
        _add_up(self.causes, other.causes)
        _add_up(self.parts, other.parts)
        self.add_routes(other.routes)

    def add_routes(self, routes: Iterable[str]) -> None:
        """Name them too, as far as there is room."""
        for route in routes:
            if len(self.routes) < MAX_SITE_ROUTES:
                self.routes.add(route)

    def add_line(self, number: int, weight_s: float, source: str) -> None:
        """Samples fell on a line of its function."""
        if number in self.lines or len(self.lines) < MAX_SITE_LINES:
            before_s, before = self.lines.get(number, (0.0, ""))
            self.lines[number] = (before_s + weight_s, source or before)


def _add_up(sums: dict[str, float], more: dict[str, float]) -> None:
    for name, seconds in more.items():
        sums[name] = sums.get(name, 0.0) + seconds


def _rest_of_sites(key: SiteKey) -> SiteKey:
    return ("", OTHER_SITES, 0, 0, key[4])  # what the machine did apart from what code did


@dataclass
class Profile:
    """Everything that was read."""

    workers: list[Worker] = field(default_factory=list)
    other_workers: Worker = field(default_factory=lambda: Worker(host=OTHER_WORKERS))
    merged_workers: int = 0  # how many are in that
    delay: Sketch = field(default_factory=Sketch)
    routes: Table[str, Route] = field(default_factory=lambda: Table(MAX_ROUTES, Route, lambda _: OTHER_ROUTES))
    sites: Table[SiteKey, Site] = field(default_factory=lambda: Table(MAX_SITES, Site, _rest_of_sites))
    slowest: list[dict[str, Any]] = field(default_factory=list)
    moments: list[dict[str, Any]] = field(default_factory=list)
    exceeded: int = 0  # requests that were too slow, and whose moment is not in `moments`
    since_s: float = 0.0  # Unix time: what is older was left out
    unreadable: int = 0  # lines, in all files
    empty: list[str] = field(default_factory=list)  # directories without any file
    skipped: dict[str, str] = field(default_factory=dict)  # files of another schema, with its name


def add(line: dict[str, Any], worker: Worker, profile: Profile) -> None:
    """Count one line, of any type but `worker`."""
    match line["type"]:
        case "hub":
            _add_hub(line, worker, profile)
        case "route":
            _add_route(line, worker, profile)
        case "site":
            add_site(line, worker, profile)
        case "slowest":
            profile.slowest += [_slow_request(one, worker) for one in line["requests"]]
            profile.slowest.sort(key=lambda request: -request["total_s"])
            del profile.slowest[SLOWEST:]
        case "moment":
            profile.moments.append(_moment(line, worker))
            profile.moments.sort(key=lambda one: -one["request"]["total_s"])
            profile.exceeded += len(profile.moments[MOMENTS:])
            del profile.moments[MOMENTS:]
        case "exceeded":
            profile.exceeded += _count(line["count"])
        case "dropped":
            worker.dropped += _count(line["count"])


def _add_hub(line: dict[str, Any], worker: Worker, profile: Profile) -> None:
    delay = Histogram.of_packed(line["delay"])
    switches, over, dropped, displaced = (
        _count(line[name]) for name in ("switches", "slices_over", "dropped", "displaced")
    )
    wall_s, idle_s, overhead_s = (_seconds(line[name]) for name in ("wall_s", "idle_s", "overhead_s"))
    worker.switches += switches
    worker.slices_over += over
    worker.dropped += dropped
    worker.displaced += displaced
    worker.wall_s += wall_s
    worker.idle_s += idle_s
    worker.overhead_s += overhead_s
    profile.delay.add(delay)


def _add_route(line: dict[str, Any], worker: Worker, profile: Profile) -> None:
    same = {"longest_slice": line["running"], **line}  # left out when nothing waited
    times = {name: Histogram.of_packed(same[name]) for name in TIMES}
    requests, errors, name = _count(line["requests"]), _count(line["errors"]), text(line["route"])
    route = profile.routes.at(name)
    worker.requests += requests
    route.requests += requests
    route.errors += errors
    for time_name, histogram in times.items():
        route.times[time_name].add(histogram)


def _slow_request(one: dict[str, Any], worker: Worker) -> dict[str, Any]:
    parts = ("total_s", "running_s", "waiting_s", "queued_s")
    blamed = sorted((_blamed(by) for by in one["blamed"]), key=lambda by: -by["s"])
    return {
        "host": worker.host,
        "pid": worker.pid,
        "route": text(one["route"]),
        "request_id": text(one["request_id"]),
        "started": moment(one["started"]),
        **{name: _seconds(one[name], least=-MAX_SECONDS) for name in parts},  # a rounding error below zero
        "blamed": blamed[:MAX_BLAMED],
    }


def _blamed(by: dict[str, Any]) -> dict[str, Any]:
    return {
        "file": text(by["file"]),
        "line": _count(by["line"]),
        "route": text(by["route"]),
        "s": _seconds(by["s"]),
        # Not known of files that were written before these were.
        "own": by.get("own", False) is True,
        "excuse": _excuse(by),
        "started": moment(by["started"]) if "started" in by else None,
        "length_s": _seconds(by["length_s"]) if "length_s" in by else None,
    }


def _moment(line: dict[str, Any], worker: Worker) -> dict[str, Any]:
    objective_s = line["objective_s"]
    more_slices, more_waited = line["more_slices"], line["more_waited"]
    return {
        "request": _slow_request(line["request"], worker),
        "objective_s": None if objective_s is None else _seconds(objective_s),
        "start": moment(line["start"]),
        "length_s": _seconds(line["length_s"]),
        "idle_s": _seconds(line["idle_s"]),
        "slices": [_ran(one) for one in line["slices"][:MAX_RAN]],
        "more_slices": (_count(more_slices[0]), _seconds(more_slices[1])),
        "waited": [_slow_request(one, worker) for one in line["waited"][:SLOWEST]],
        "more_waited": (_count(more_waited[0]), _seconds(more_waited[1])),
    }


def _ran(one: dict[str, Any]) -> dict[str, Any]:
    if one["kind"] not in KINDS:
        raise ValueError("no such kind of greenlet")
    return {
        "started": moment(one["started"]),
        "length_s": _seconds(one["length_s"]),
        "line": _count(one["line"]),
        **{name: text(one[name]) for name in ("kind", "route", "request_id", "file", "function")},
        "yielded": one["yielded"] is True,
        "excuse": _excuse(one),
    }


def _excuse(told: dict[str, Any]) -> str:
    excuse = told.get("excuse", "")
    return excuse if excuse in EXCUSES else ""


def add_site(line: dict[str, Any], worker: Worker, profile: Profile, *, only_texts: bool = False) -> Site:
    """Count a site's slices; `only_texts`: take but its stack and source lines, which are stored once a file."""
    file, function, first_line, number, innocent = line["key"]
    key = (text(file), text(function), _count(first_line), _count(number), bool(innocent))
    busy = Histogram.of_packed(line["busy"])
    count, exact, victims = (_count(line[name]) for name in ("count", "exact", "victims"))
    library = line.get("library", False) is True
    busy_s, harm_s = _seconds(line["busy_s"]), _seconds(line["harm_s"])
    causes = {text(cause): _seconds(seconds) for cause, seconds in line["causes"].items()}
    # Not known of files that were written before these were.
    parts = {text(cause): _seconds(seconds) for cause, seconds in line.get("parts", {}).items()}
    routes = [text(route) for route in line["routes"]]
    lines = [(_count(number), _seconds(weight_s), text(source)) for number, weight_s, source in line["lines"]]
    stack = tuple(text(frame) for frame in line["stack"])
    site = profile.sites.at(key)
    site.stack = site.stack or stack
    for number, weight_s, source in lines:
        site.add_line(number, 0.0 if only_texts else weight_s, source)
    if only_texts:
        return site
    worker.sited += count
    site.count += count
    site.library = library
    site.remedies = worker.remedies
    site.exact += exact
    site.busy_s += busy_s
    site.busy.add(busy)
    site.harm_s += harm_s
    site.victims += victims
    _add_up(site.causes, causes)
    _add_up(site.parts, parts)
    site.add_routes(routes)
    return site


def add_header(line: dict[str, Any]) -> Worker:
    """The worker that a first line tells of."""
    return Worker(
        host=text(line["host"]),
        pid=_count(line["pid"]),
        threshold_s=_seconds(line["threshold_s"]),
        hook=text(line.get("hook", "unknown")),
        remedies={text(name): text(how)[:MAX_REMEDY] for name, how in line.get("remedies", {}).items()},
        start_s=moment(line.get("started", line["t"])),
    )


def moment(value: object) -> float:
    """A Unix time."""
    return _number(value, 0.0, MAX_MOMENT_S)


def text(value: object) -> str:
    """A text; what UTF-8 cannot hold becomes a question mark."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    # One copy of each: routes, files and the frames that call the application are the same in thousands of lines.
    return sys.intern(value if value.isascii() else value.encode("utf-8", "replace").decode())


def _seconds(value: object, least: float = 0.0) -> float:
    return _number(value, least, MAX_SECONDS)


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise ValueError("not a count")
    return value


def _number(value: object, least: float, most: float) -> float:
    if type(value) not in (int, float) or not least <= value <= most:  # type: ignore[operator]
        raise ValueError("not a number, or beyond what can be")
    return float(value)  # type: ignore[arg-type]

"""What is added up from the workers' lines, and how: one function a type of line.

A line is judged whole before any of it counts, so one that is odd (a number beyond any clock, a list where a text
belongs) raises ValueError, TypeError, KeyError, IndexError or AttributeError and leaves everything as it was.
Bounded: `MAX_ROUTES` routes, `MAX_SITES` sites and `SLOWEST` requests, whatever the number of files; what is
beyond is counted as dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from profiler.model import MAX_COUNT, Histogram
from profiler.recorder import OTHER_ROUTES

MAX_ROUTES = 2000  # ten times what a worker stores at once
MAX_SITES = 20_000  # some 60 MB at worst; ground for one report of many hosts
SLOWEST = 20  # requests a reader looks at
MAX_SITE_ROUTES = 50
MAX_SECONDS = 1e9  # 30 years: more is no time that anything took
MAX_MOMENT_S = 32_503_680_000.0  # the year 3000
TIMES = ("total", "running", "waiting", "queued", "longest_slice")

SiteKey = tuple[str, str, int, int, bool]  # file, function, its first line, line or 0, innocent


@dataclass
class Worker:
    """One session of the profiler, in one file or several."""

    host: str = ""
    pid: int = 0
    threshold_s: float | None = None
    hook: str = "unknown"  # or compiled, or interpreted
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


@dataclass
class Route:
    """One route, of all workers."""

    requests: int = 0
    errors: int = 0
    times: dict[str, Histogram] = field(default_factory=lambda: {name: Histogram() for name in TIMES})


@dataclass
class Site:
    """One site, of all workers."""

    count: int = 0
    exact: int = 0
    busy_s: float = 0.0
    busy: Histogram = field(default_factory=Histogram)
    harm_s: float = 0.0
    victims: int = 0
    causes: dict[str, float] = field(default_factory=dict)
    routes: set[str] = field(default_factory=set)
    lines: dict[int, tuple[float, str]] = field(default_factory=dict)  # line: seconds, source
    stack: list[str] = field(default_factory=list)
    library: bool = False  # no line of the application was running


@dataclass
class Profile:
    """Everything that was read."""

    workers: list[Worker] = field(default_factory=list)
    delay: Histogram = field(default_factory=Histogram)
    routes: dict[str, Route] = field(default_factory=dict)
    sites: dict[SiteKey, Site] = field(default_factory=dict)
    slowest: list[dict[str, Any]] = field(default_factory=list)
    since_s: float = 0.0  # Unix time: what is older was left out
    unreadable: int = 0  # lines, in all files
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
            profile.slowest += [_slow_request(one) for one in line["requests"]]
            profile.slowest.sort(key=lambda request: -request["total_s"])
            del profile.slowest[SLOWEST:]
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
    profile.delay.merge([delay])


def _add_route(line: dict[str, Any], worker: Worker, profile: Profile) -> None:
    same = {"longest_slice": line["running"], **line}  # left out when nothing waited
    times = {name: Histogram.of_packed(same[name]) for name in TIMES}
    requests, errors, name = _count(line["requests"]), _count(line["errors"]), text(line["route"])
    if name not in profile.routes and len(profile.routes) >= MAX_ROUTES:
        name = OTHER_ROUTES
        worker.dropped += requests
    route = profile.routes.setdefault(name, Route())
    worker.requests += requests
    route.requests += requests
    route.errors += errors
    for time_name, histogram in times.items():
        route.times[time_name].merge([histogram])


def _slow_request(one: dict[str, Any]) -> dict[str, Any]:
    parts = ("total_s", "running_s", "waiting_s", "queued_s")
    return {
        "route": text(one["route"]),
        "request_id": text(one["request_id"]),
        "started": moment(one["started"]),
        **{name: _seconds(one[name], least=-MAX_SECONDS) for name in parts},  # a rounding error below zero
        "blamed": [
            {
                "file": text(by["file"]),
                "line": _count(by["line"]),
                "route": text(by["route"]),
                "s": _seconds(by["s"]),
            }
            for by in one["blamed"]
        ],
    }


def add_site(line: dict[str, Any], worker: Worker, profile: Profile, *, only_texts: bool = False) -> None:
    """Count a site's slices; `only_texts`: take but its stack and source lines, which are stored once a file."""
    file, function, first_line, number, innocent = line["key"]
    key = (text(file), text(function), _count(first_line), _count(number), bool(innocent))
    busy = Histogram.of_packed(line["busy"])
    count, exact, victims = (_count(line[name]) for name in ("count", "exact", "victims"))
    library = line.get("library", False) is True
    busy_s, harm_s = _seconds(line["busy_s"]), _seconds(line["harm_s"])
    causes = {text(cause): _seconds(seconds) for cause, seconds in line["causes"].items()}
    routes = [text(route) for route in line["routes"]]
    lines = [(_count(number), _seconds(weight_s), text(source)) for number, weight_s, source in line["lines"]]
    stack = [text(frame) for frame in line["stack"]]
    site = profile.sites.get(key)
    if site is None:
        if len(profile.sites) >= MAX_SITES:
            worker.dropped += 0 if only_texts else count
            return
        site = profile.sites[key] = Site()
    site.stack = site.stack or stack
    for number, weight_s, source in lines:
        before_s, before = site.lines.get(number, (0.0, ""))
        site.lines[number] = (before_s if only_texts else before_s + weight_s, source or before)
    if only_texts:
        return
    worker.sited += count
    site.count += count
    site.library = library
    site.exact += exact
    site.busy_s += busy_s
    site.busy.merge([busy])
    site.harm_s += harm_s
    site.victims += victims
    for cause, seconds in causes.items():
        site.causes[cause] = site.causes.get(cause, 0.0) + seconds
    if len(site.routes) < MAX_SITE_ROUTES:
        site.routes.update(routes)


def add_header(line: dict[str, Any]) -> Worker:
    """The worker that a first line tells of."""
    return Worker(
        host=text(line["host"]),
        pid=_count(line["pid"]),
        threshold_s=_seconds(line["threshold_s"]),
        hook=text(line.get("hook", "unknown")),
        start_s=moment(line.get("started", line["t"])),
    )


def moment(value: object) -> float:
    """A Unix time."""
    return _number(value, 0.0, MAX_MOMENT_S)


def text(value: object) -> str:
    """A text; what UTF-8 cannot hold becomes a question mark."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value.encode("utf-8", "replace").decode()


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

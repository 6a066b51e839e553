"""Reads the workers' files and adds them up, whoever wrote them and in whatever order.

Every line is complete in itself (writer.py), so a line that cannot be read costs only itself: it is counted,
and told apart where it is just the last line of a worker that was killed. Lines of an unknown type are passed
over: a newer writer.
Bounded: `MAX_ROUTES` routes, `MAX_SITES` sites and `SLOWEST` requests, whatever the number of files; what is
beyond is counted as dropped.
"""

from __future__ import annotations

import glob
import json
import os
from dataclasses import dataclass, field
from typing import Any

from profiler.errors import ProfilerError
from profiler.model import Histogram
from profiler.recorder import OTHER_ROUTES
from profiler.writer import SCHEMA

MAX_ROUTES = 2000  # ten times what a worker stores a second
MAX_SITES = 20_000  # some 60 MB at worst; ground for one report of many hosts
SLOWEST = 20  # requests a reader looks at
MAX_SITE_ROUTES = 50
TIMES = ("total", "running", "waiting", "queued", "longest_slice")

SiteKey = tuple[str, str, int, int, bool]  # file, function, its first line, line or 0, innocent


@dataclass
class Worker:
    """One file."""

    path: str
    host: str = ""
    pid: int = 0
    start_s: float = 0.0
    end_s: float = 0.0
    requests: int = 0
    switches: int = 0
    slices_over: int = 0
    wall_s: float = 0.0
    idle_s: float = 0.0
    overhead_s: float = 0.0
    dropped: int = 0
    displaced: int = 0
    unreadable: int = 0


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


@dataclass
class Profile:
    """Everything that was read."""

    workers: list[Worker] = field(default_factory=list)
    thresholds_s: set[float] = field(default_factory=set)
    delay: Histogram = field(default_factory=Histogram)
    routes: dict[str, Route] = field(default_factory=dict)
    sites: dict[SiteKey, Site] = field(default_factory=dict)
    slowest: list[dict[str, Any]] = field(default_factory=list)

    @property
    def unreadable(self) -> int:
        """Lines that could not be read, in all files."""
        return sum(worker.unreadable for worker in self.workers)


def read(directories: list[str]) -> Profile:
    """Read every worker's file in these directories.

    Raises ProfilerError when a directory does not exist, or none of them holds a profile.
    """
    paths: set[str] = set()
    for directory in directories:
        if not os.path.isdir(directory):
            raise ProfilerError(
                f"there is no directory {directory!r}", "name the one the server was told to profile into"
            )
        paths.update(glob.glob(os.path.join(glob.escape(directory), "worker-*.jsonl")))
    profile = Profile()
    for path in sorted(paths):
        _read_file(path, profile)
    if not profile.workers:
        named = ", ".join(repr(directory) for directory in directories)
        raise ProfilerError(
            f"there is no profile in {named}", "serve some requests with the profiler on, then ask again"
        )
    return profile


def _read_file(path: str, profile: Profile) -> None:
    worker = Worker(path)
    still_open: dict[str, Any] | None = None
    try:
        with open(path, "rb") as file:
            for text in file:
                try:
                    line = json.loads(text)
                    worker.end_s = float(line["t"])
                    if line["type"] == "open":
                        still_open = line
                        continue
                    still_open = None  # the hub went on
                    _add(line, worker, profile)
                except (ValueError, KeyError, TypeError, IndexError, AttributeError):
                    worker.unreadable += 1
                    worker.dropped += 1
    except OSError as error:
        raise ProfilerError(
            f"cannot read {path!r}: {error.strerror}", "run the report as the user of the server"
        ) from error
    if not worker.start_s:  # not even its first line
        if not worker.unreadable:
            return
        worker.start_s = worker.end_s = worker.end_s or os.path.getmtime(path)
    if still_open is not None:  # the worker did not live to see its end
        worker.slices_over += 1
        _add_site(still_open, worker, profile)
    profile.workers.append(worker)


def _add(line: dict[str, Any], worker: Worker, profile: Profile) -> None:
    match line["type"]:
        case "worker":
            if line["schema"] != SCHEMA:
                raise ProfilerError(
                    f"{worker.path!r} is of schema {line['schema']!r}, not {SCHEMA!r}", "use the profiler that wrote it"
                )
            worker.host, worker.pid, worker.start_s = str(line["host"]), int(line["pid"]), float(line["t"])
            profile.thresholds_s.add(float(line["threshold_s"]))
        case "hub":
            _add_hub(line, worker, profile)
        case "route":
            _add_route(line, worker, profile)
        case "site":
            _add_site(line, worker, profile)
        case "slowest":
            profile.slowest += [_slow_request(one) for one in line["requests"]]
            profile.slowest.sort(key=lambda request: -request["total_s"])
            del profile.slowest[SLOWEST:]
        case "dropped":
            worker.dropped += int(line["count"])


def _add_hub(line: dict[str, Any], worker: Worker, profile: Profile) -> None:
    delay = Histogram.of_packed(line["delay"])
    worker.switches += line["switches"]
    worker.slices_over += line["slices_over"]
    worker.dropped += line["dropped"]
    worker.displaced += line["displaced"]
    worker.wall_s += line["wall_s"]
    worker.idle_s += line["idle_s"]
    worker.overhead_s += line["overhead_s"]
    profile.delay.merge([delay])


def _add_route(line: dict[str, Any], worker: Worker, profile: Profile) -> None:
    times = {name: Histogram.of_packed(line.get(name, line["running"])) for name in TIMES}
    requests, errors, name = int(line["requests"]), int(line["errors"]), str(line["route"])
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
    numbers = ("started", "total_s", "running_s", "waiting_s", "queued_s")
    return {
        "route": str(one["route"]),
        "request_id": str(one["request_id"]),
        **{name: float(one[name]) for name in numbers},
        "blamed": [
            {"file": str(by["file"]), "line": int(by["line"]), "route": str(by["route"]), "s": float(by["s"])}
            for by in one["blamed"]
        ],
    }


def _add_site(line: dict[str, Any], worker: Worker, profile: Profile) -> None:
    file, function, first_line, number, innocent = line["key"]
    busy = Histogram.of_packed(line["busy"])
    key = (str(file), str(function), int(first_line), int(number), bool(innocent))
    site = profile.sites.get(key)
    if site is None:
        if len(profile.sites) >= MAX_SITES:
            worker.dropped += int(line["count"])
            return
        site = profile.sites[key] = Site()
    site.count += int(line["count"])
    site.exact += int(line["exact"])
    site.busy_s += line["busy_s"]
    site.busy.merge([busy])
    site.harm_s += line["harm_s"]
    site.victims += line["victims"]
    for cause, seconds in line["causes"].items():
        site.causes[cause] = site.causes.get(cause, 0.0) + seconds
    if len(site.routes) < MAX_SITE_ROUTES:
        site.routes.update(line["routes"])
    for number, weight_s, source in line["lines"]:
        site.lines[number] = (site.lines.get(number, (0.0, ""))[0] + weight_s, source)
    site.stack = site.stack or line["stack"]

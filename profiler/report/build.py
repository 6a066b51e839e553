"""From what was read to the report: one object that every format shows (`profiler.report/1`, see DESIGN.md).

Times are in ms, moments ISO 8601 in UTC. A quantile is of the merged histogram, never of quantiles.
Sites are ranked by harm, then by busy time.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from profiler.model import Histogram
from profiler.report.advice import advise
from profiler.report.profile import TIMES, Profile, Route, Site, SiteKey, Worker

SCHEMA = "profiler.report/1"

Report = dict[str, Any]


def build(profile: Profile) -> Report:
    """The report of a profile."""
    start_s = min(worker.start_s for worker in profile.workers)
    end_s = max(worker.end_s for worker in profile.workers)
    thresholds_s = [worker.threshold_s for worker in profile.workers if worker.threshold_s is not None]
    routes = sorted(profile.routes.items(), key=lambda item: (-item[1].requests, item[0]))
    return {
        "schema": SCHEMA,
        "window": {"start": _iso(start_s), "end": _iso(end_s), "duration_s": round(max(0.0, end_s - start_s), 3)},
        "threshold_ms": _ms(min(thresholds_s, default=0.0)),
        "workers": [_worker(worker) for worker in profile.workers],
        "hub": {"delay_ms": _quantiles(profile.delay)},
        "sites": _sites(profile.sites),
        "routes": [_route(name, route) for name, route in routes],
        "slowest": [_slow_request(request) for request in profile.slowest],
    }


def _worker(worker: Worker) -> dict[str, Any]:
    busy_s = max(0.0, worker.wall_s - worker.idle_s)
    return {
        "host": worker.host,
        "pid": worker.pid,
        "requests": worker.requests,
        "switches": worker.switches,
        "slices_over": worker.slices_over,
        "hub_busy_ratio": round(busy_s / worker.wall_s, 4) if worker.wall_s else 0.0,
        "overhead_ratio": min(1.0, round(worker.overhead_s / busy_s, 4)) if busy_s else 0.0,
        "dropped": worker.dropped,
        "displaced": worker.displaced,
        "hook": worker.hook,
    }


def _sites(sites: dict[SiteKey, Site]) -> list[dict[str, Any]]:
    listed = [_site(key, site) for key, site in _joined(sites).items()]
    listed.sort(key=lambda site: (-site["harm_ms"], -site["busy_ms"]["total"], site["file"]))
    return [{"rank": rank, **site} for rank, site in enumerate(listed, 1)]


def _joined(sites: dict[SiteKey, Site]) -> dict[SiteKey, Site]:
    """One site for a function whose slices were on the CPU, where some were kept by line for want of samples."""
    joined = dict(sites)
    for key, site in sites.items():
        file, function, first_line, line, innocent = key
        whole = joined.get((file, function, first_line, 0, innocent))
        if line and whole is not None and _cause(site) in ("native", "unknown"):
            _merge(whole, joined.pop(key))
    return joined


def _merge(whole: Site, part: Site) -> None:
    whole.count += part.count
    whole.exact += part.exact
    whole.busy_s += part.busy_s
    whole.busy.merge([part.busy])
    whole.harm_s += part.harm_s
    whole.victims += part.victims
    whole.routes |= part.routes
    for cause, seconds in part.causes.items():
        whole.causes[cause] = whole.causes.get(cause, 0.0) + seconds
    for line, (weight_s, source) in part.lines.items():
        whole.lines[line] = (whole.lines.get(line, (0.0, ""))[0] + weight_s, source)


def _cause(site: Site) -> str:
    return max(site.causes, key=lambda cause: site.causes[cause], default="unknown")


def _site(key: SiteKey, site: Site) -> dict[str, Any]:
    file, function, _, line, innocent = key
    if not line and site.lines:
        line = max(site.lines, key=lambda number: site.lines[number][0])
    cause = _cause(site)
    source = site.lines.get(line, (0.0, ""))[1]
    return {
        "file": file,
        "line": line,
        "function": function,
        "exact": 2 * site.exact >= site.count,
        "cause": cause,
        "innocent": innocent,
        "library": site.library,
        "routes": sorted(site.routes),
        "count": site.count,
        "busy_ms": {"total": _ms(site.busy_s), **_quantiles(site.busy)},
        "harm_ms": _ms(site.harm_s),
        "victims": site.victims,
        "source": source,
        "stack": site.stack,
        "advice": advise(cause, source, site.stack, library=site.library),
    }


def _route(name: str, route: Route) -> dict[str, Any]:
    times = {f"{time}_ms": _quantiles(route.times[time]) for time in TIMES}
    return {"route": name, "requests": route.requests, "errors": route.errors, **times}


def _slow_request(request: dict[str, Any]) -> dict[str, Any]:
    return {
        "route": request["route"],
        "request_id": request["request_id"],
        "started": _iso(request["started"]),
        "total_ms": _ms(request["total_s"]),
        "running_ms": _ms(request["running_s"]),
        "waiting_ms": _ms(request["waiting_s"]),
        "queued_ms": _ms(request["queued_s"]),
        "blamed": [
            {"file": one["file"], "line": one["line"], "route": one["route"], "ms": _ms(one["s"])}
            for one in request["blamed"]
        ],
    }


def _quantiles(histogram: Histogram) -> dict[str, float]:
    return {
        "p50": _ms(histogram.quantile(0.5)),
        "p99": _ms(histogram.quantile(0.99)),
        "max": _ms(histogram.quantile(1.0)),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 4)


def _iso(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""From what was read to the report: one object that every format shows (`profiler.report/1`, see DESIGN.md).

Times are in ms, moments ISO 8601 in UTC. A quantile is of the merged histogram, never of quantiles.
Sites are ranked by harm, then by busy time. The time of a slice that was not over when its worker was last heard of
counts as harm there, as what it delays is not known before its end.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from profiler.report.advice import Case, advise
from profiler.report.profile import TIMES, Profile, Route, Site, SiteKey, Worker
from profiler.report.sketch import Sketch

SCHEMA = "profiler.report/1"

Report = dict[str, Any]


def build(profile: Profile) -> Report:
    """The report of a profile."""
    workers = [*profile.workers, *([profile.other_workers] if profile.merged_workers else [])]
    start_s = min(worker.start_s for worker in workers)
    end_s = max(worker.end_s for worker in workers)
    thresholds_s = [worker.threshold_s for worker in workers if worker.threshold_s is not None]
    routes = sorted(profile.routes.entries.items(), key=lambda item: (-item[1].requests, item[0]))
    return {
        "schema": SCHEMA,
        "window": {"start": _iso(start_s), "end": _iso(end_s), "duration_s": round(max(0.0, end_s - start_s), 3)},
        "threshold_ms": _ms(min(thresholds_s, default=0.0)),
        "workers": [_worker(worker) for worker in workers],
        "hub": {"delay_ms": _quantiles(profile.delay)},
        "sites": _sites(profile),
        "routes": [_route(name, route) for name, route in [*routes, *profile.routes.rest.items()]],
        "slowest": [_slow_request(request) for request in profile.slowest],
        "moments": [_moment(one) for one in profile.moments],
        "left_out": {
            "sites": profile.sites.merged,
            "routes": profile.routes.merged,
            "workers": profile.merged_workers,
            "moments": profile.exceeded,
            "unreadable_lines": profile.unreadable,
            "files_of_another_schema": len(profile.skipped),
        },
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


def _sites(profile: Profile) -> list[dict[str, Any]]:
    listed = [_site(key, site) for key, site in _joined(profile.sites.entries).items()]
    listed.sort(key=lambda site: (-site["harm_ms"] - site["stuck_ms"], -site["busy_ms"]["total"], site["file"]))
    for key, site in profile.sites.rest.items():
        listed.append({**_site(key, site), "advice": _of_the_rest(profile)})
    return [{"rank": rank, **site} for rank, site in enumerate(listed, 1)]


def _of_the_rest(profile: Profile) -> str:
    sites, (harm_s, _) = profile.sites, profile.sites.lightest
    todo = "repair those above first, or look at less with --since"
    if sites.came_merged:  # a worker had no room either
        return f"all sites without a row of their own: {todo}"
    return f"{sites.merged:,} more sites in one row, none of which gave more than {_ms(harm_s):,} ms of harm: {todo}"


def _joined(sites: dict[SiteKey, Site]) -> dict[SiteKey, Site]:
    """One site for a function whose slices were on the CPU, where some were kept by line for want of samples."""
    joined = dict(sites)
    for key, site in sites.items():
        file, function, first_line, line, innocent = key
        whole = joined.get((file, function, first_line, 0, innocent))
        if line and whole is not None and _cause(site) in ("native", "unknown"):
            part = joined.pop(key)
            whole.merge(part)
            for number, (weight_s, source) in part.lines.items():
                whole.add_line(number, weight_s, source)
    return joined


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
        "split_ms": {part: _ms(site.parts[part]) for part in sorted(site.parts, key=lambda part: -site.parts[part])},
        "harm_ms": _ms(site.harm_s),
        "victims": site.victims,
        "stuck_ms": _ms(site.stuck_s),
        "source": source,
        "stack": list(site.stack),
        "advice": advise(
            Case(cause, source, site.stack, file, line, function, site.library, _on_cpu(site), site.remedies)
        ),
    }


def _on_cpu(site: Site) -> bool:
    return site.parts.get("python", 0.0) + site.parts.get("native", 0.0) > site.busy_s / 2


def _route(name: str, route: Route) -> dict[str, Any]:
    times = {f"{time}_ms": _quantiles(route.times[time]) for time in TIMES}
    return {"route": name, "requests": route.requests, "errors": route.errors, **times}


def _slow_request(request: dict[str, Any]) -> dict[str, Any]:
    return {
        "host": request["host"],
        "pid": request["pid"],
        "route": request["route"],
        "request_id": request["request_id"],
        "started": _iso(request["started"], "microseconds"),
        "total_ms": _ms(request["total_s"]),
        "running_ms": _ms(request["running_s"]),
        "waiting_ms": _ms(request["waiting_s"]),
        "queued_ms": _ms(request["queued_s"]),
        "blamed": [_blamed(one) for one in request["blamed"]],
    }


def _moment(one: dict[str, Any]) -> dict[str, Any]:
    """A request that was too slow, who had the hub meanwhile, and who waited."""
    end_s = one["start"] + one["length_s"]
    inside_s = sum(_inside_s(ran, one["start"], end_s) for ran in one["slices"])
    more, more_s = one["more_slices"]
    more_waited, more_queued_s = one["more_waited"]
    return {
        "request": _slow_request(one["request"]),
        "objective_ms": None if one["objective_s"] is None else _ms(one["objective_s"]),
        "start": _iso(one["start"], "microseconds"),
        "length_ms": _ms(one["length_s"]),
        "idle_ms": _ms(one["idle_s"]),
        "short_ms": _ms(max(0.0, one["length_s"] - one["idle_s"] - inside_s - more_s)),
        "slices": [
            {
                **{
                    name: ran[name]
                    for name in ("kind", "route", "request_id", "file", "line", "function", "yielded", "excuse")
                },
                "started": _iso(ran["started"], "microseconds"),
                "length_ms": _ms(ran["length_s"]),
            }
            for ran in one["slices"]
        ],
        "more_slices": {"count": more, "ms": _ms(more_s)},
        "waited": [_slow_request(request) for request in one["waited"]],
        "more_waited": {"count": more_waited, "queued_ms": _ms(more_queued_s)},
    }


def _inside_s(ran: dict[str, Any], start_s: float, end_s: float) -> float:
    began_s: float = ran["started"]
    return max(0.0, min(began_s + float(ran["length_s"]), end_s) - max(began_s, start_s))


def _blamed(one: dict[str, Any]) -> dict[str, Any]:
    known = one["started"] is not None and one["length_s"] is not None
    return {
        "file": one["file"],
        "line": one["line"],
        "route": one["route"],
        "ms": _ms(one["s"]),
        "own": one["own"],
        "excuse": one["excuse"],
        "started": _iso(one["started"], "microseconds") if known else None,
        "length_ms": _ms(one["length_s"]) if known else None,
    }


def _quantiles(sketch: Sketch) -> dict[str, float]:
    return {
        "p50": _ms(sketch.quantile(0.5)),
        "p99": _ms(sketch.quantile(0.99)),
        "max": _ms(sketch.quantile(1.0)),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 4)


def _iso(moment_s: float, timespec: str = "milliseconds") -> str:
    return datetime.fromtimestamp(moment_s, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")

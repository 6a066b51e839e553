"""What the text report has below its screen: routes, slowest requests, moments, workers, and what is behind a site."""

from __future__ import annotations

from typing import Any

from profiler.allow import suggestion
from profiler.render.frames import frames_of
from profiler.render.words import (
    NOT_SEEN,
    columns,
    cut,
    excused,
    many,
    milliseconds,
    number,
    place_of,
    plain,
    short_path,
    split_of,
)

TOP_ROUTES = 5
TOP_SLOWEST = 3
TOP_MOMENTS = 2  # of up to six lines each
TOP_SLICES = 3  # of a moment
TOP_FRAMES = 6  # innermost: further out is what calls every handler
PARTS = ("total", "running", "waiting", "queued")
_NARROW = 84  # columns: below that what a route's time is made of has no room


def behind(site: dict[str, Any]) -> list[str]:
    """How its time divides, and its stack."""
    stack = [frame for frame in frames_of(site) if frame.file]
    lines = []
    if len(site["split_ms"]) > 1:
        lines.append(f"      of its time: {', '.join(split_of(site))}")
    for number_, frame in enumerate(reversed(stack[-TOP_FRAMES:])):
        lines.append(f"      {'at' if number_ == 0 else 'by'} {short_path(frame.file)}:{frame.line} {frame.function}")
    if len(stack) > TOP_FRAMES:
        lines.append(f"      and {many(len(stack) - TOP_FRAMES, 'more frame')} further out")
    return lines


def acceptance(sites: list[dict[str, Any]], until: str) -> list[str]:
    """What would accept the first of them."""
    first = next((site for site in sites if site["file"] and not site.get("allowed")), None)
    if first is None:
        return []
    return ["TO ACCEPT A LINE FOR A TIME (--allow FILE with this in it)", *suggestion(first, until).splitlines()]


def routes(report: dict[str, Any], width: int) -> list[str]:
    """Those with the most requests."""
    parts = PARTS if width >= _NARROW else PARTS[:1]
    name_width = width - 16 - 14 * len(parts)
    head = f"{cut('ROUTES (ms: p50 / p99)', name_width):<{name_width}}{'requests':>9}{'errors':>7}"
    lines = [head + "".join(f"{part:>14}" for part in parts)]
    for route in report["routes"][:TOP_ROUTES]:
        name = cut(plain(route["route"]), name_width - 3)
        padded = "  " + name + " " * (name_width - 2 - columns(name))
        times = "".join(f"{_pair(route[f'{part}_ms']):>14}" for part in parts)
        lines.append(f"{padded}{route['requests']:>9,}{route['errors']:>7,}{times}")
    more = len(report["routes"]) - TOP_ROUTES
    if more > 0:
        lines.append(f"  and {many(more, 'more route')} (--format html)")
    return lines


def slowest(report: dict[str, Any], width: int) -> list[str]:
    """Requests, and what each was blamed on most."""
    if not report["slowest"]:
        return []
    lines = ["SLOWEST REQUESTS (total = running + waiting + queued)"]
    for request in report["slowest"][:TOP_SLOWEST]:
        parts = " + ".join(milliseconds(request[f"{part}_ms"]) for part in ("running", "waiting", "queued"))
        lines.append(cut(f"  {milliseconds(request['total_ms'])} = {parts}   {plain(_named(request))}", width))
        if request["blamed"]:
            worst = max(request["blamed"], key=lambda one: float(one["ms"]))
            lines.append(f"      of that {milliseconds(worst['ms'])} by {place_of(worst)}{excused(worst)}")
    return lines


def moments(report: dict[str, Any], width: int) -> list[str]:
    """What the hub did while requests were too slow."""
    kept = report["moments"]
    if not kept:
        return []
    lines = ["MOMENTS (what the hub did while a request was too slow)"]
    for moment in kept[:TOP_MOMENTS]:
        lines += [cut(plain(line), width) for line in _moment(moment)]
    more = len(kept[TOP_MOMENTS:]) + report["left_out"]["moments"]
    if more > 0:
        lines.append(f"  {many(more, 'more request')} too slow: --format html has {many(len(kept), 'moment')}")
    return lines


def _moment(moment: dict[str, Any]) -> list[str]:
    request, objective_ms = moment["request"], moment["objective_ms"]
    over = f", {milliseconds(objective_ms)} allowed" if objective_ms is not None else ""
    head = f"  {milliseconds(request['total_ms'])}{over}, queued {milliseconds(request['queued_ms'])}"
    ran = sorted(moment["slices"], key=lambda one: -float(one["length_ms"]))
    lines = [
        f"{head}   {_named(request)}",
        f"      {meanwhile(moment)}",
    ]
    lines += [f"      {milliseconds(one['length_ms'])} {slice_of(one)}" for one in ran[:TOP_SLICES]]
    rest = ran[TOP_SLICES:]
    count, rest_ms = len(rest) + moment["more_slices"]["count"], sum(one["length_ms"] for one in rest)
    if count:
        lines.append(f"      {milliseconds(rest_ms + moment['more_slices']['ms'])} in {many(count, 'more slice')}")
    return lines


def _named(request: dict[str, Any]) -> str:
    told = f"   id {request['request_id']}" if request["request_id"] else ""  # a job may have none
    return cut(plain(request["route"]), 30) + told


def meanwhile(moment: dict[str, Any]) -> str:
    """How the time divides, and who waited."""
    waited = [*moment["waited"], moment["request"]]
    queued_ms = sum(one["queued_ms"] for one in waited) + moment["more_waited"]["queued_ms"]
    waiters = many(len(waited) + moment["more_waited"]["count"], "request")
    hub = f"hub idle {milliseconds(moment['idle_ms'])}, in short slices {milliseconds(moment['short_ms'])}"
    return f"{milliseconds(moment['length_ms'])} of it: {hub}; {waiters} queued for {milliseconds(queued_ms)}"


def slice_of(ran: dict[str, Any]) -> str:
    """Who had the hub, and at which line."""
    where = place_of(ran)
    return f"{_who(ran)}, {'until it yielded at ' if ran['yielded'] and where != NOT_SEEN else ''}{where}{excused(ran)}"


def _who(ran: dict[str, Any]) -> str:
    if ran["route"]:
        child = "a child of " if ran["kind"] == "spawned" else ""
        return f"{child}{cut(ran['route'], 30)} {ran['request_id']}"
    return {"gil": "another thread had the GIL", "hub": "the hub's callbacks"}.get(ran["kind"], "a greenlet")


def workers(report: dict[str, Any]) -> list[str]:
    """The busiest, and what the profiler costs there."""
    ranked = sorted(report["workers"], key=lambda worker: -float(worker["hub_busy_ratio"]))
    lines = ["WORKERS (the busiest)"]
    for worker in ranked[:TOP_ROUTES]:
        cost = f"{worker['overhead_ratio']:.1%} of that for the profiler, hook {worker['hook']}"
        lines.append(
            f"  {worker['host']} {worker['pid']}: {many(worker['requests'], 'request')},"
            f" hub busy {worker['hub_busy_ratio']:.0%} of the time, {cost}"
        )
    return lines


def _pair(times: dict[str, float]) -> str:
    return f"{number(times['p50'])} / {number(times['p99'])}"

"""The report for a terminal: what an engineer must know within a minute.

First the lines that did not yield, worst first: each with its source, whom it delayed, how often and for how long it
held the hub, and what to do. Five of them, with what was measured, fit a screen. Then what the machine did (innocent),
the routes, the slowest requests. What does not fit is counted, not shown: JSON and HTML have it all.
Text from requests and sources is printed without control characters: a route may come from a stranger.
"""

from __future__ import annotations

import os
from typing import Any

WIDTH = 100  # columns: what two terminals side by side on a laptop have
REST = "(other sites)"  # the function of a row for all sites that have none of their own
TOP_SITES = 5  # of five lines each, with advice that takes two: a screen
TOP_ROUTES = 5
TOP_SLOWEST = 3
TOP_MOMENTS = 2  # of up to six lines each
TOP_SLICES = 3  # of a moment
WORTH_SPLITTING = 0.2  # of a site's time, by another cause than its own: less is what any call costs beside
_INNOCENT = {"starved": "a machine without a free CPU", "gil": "other threads that kept the GIL"}


def render(report: dict[str, Any]) -> str:
    """Lines of at most `WIDTH` columns."""
    lines = [*_head(report), "", *_sites(report), "", *_routes(report)]
    if report["slowest"]:
        lines += ["", *_slowest(report)]
    if report["moments"]:
        lines += ["", *_moments(report)]
    return "\n".join(_fit(line) for line in lines) + "\n"


def _head(report: dict[str, Any]) -> list[str]:
    workers = report["workers"]
    window, delay = report["window"], report["hub"]["delay_ms"]
    requests = sum(worker["requests"] for worker in workers)
    over = sum(worker["slices_over"] for worker in workers)
    busiest = max(worker["hub_busy_ratio"] for worker in workers)
    costliest = max(worker["overhead_ratio"] for worker in workers)
    covered = f"{_duration(window['duration_s'])} from {_second(window['start'])} to {_second(window['end'])}"
    delays = f"p50 {_ms(delay['p50'])}, p99 {_ms(delay['p99'])}, max {_ms(delay['max'])}"
    return [
        f"{_many(len(workers), 'worker')}, {_many(requests, 'request')}, {covered}",
        f"{_many(over, 'slice')} of {report['threshold_ms']:g} ms or more; hub delay {delays}",
        f"hub busy {busiest:.0%} of the time, {costliest:.1%} of that for the profiler (the worst worker's)"
        + _hook(workers),
        *warnings(report),
    ]


def warnings(report: dict[str, Any]) -> list[str]:
    """In what the report falls short, a sentence each."""
    dropped, displaced = (sum(worker[name] for worker in report["workers"]) for name in ("dropped", "displaced"))
    left_out = report["left_out"]
    lines = []
    if dropped:
        lines.append(f"{_many(dropped, 'record')} dropped: counts are too low by up to that many")
    if left_out["unreadable_lines"]:
        lines.append(f"{_many(left_out['unreadable_lines'], 'line')} could not be read, as a killed worker leaves one")
    if left_out["files_of_another_schema"]:
        lines.append(f"{_many(left_out['files_of_another_schema'], 'file')} of another schema skipped")
    if displaced:
        lines.append(f"the tracer was displaced {_many(displaced, 'time')}: something else calls greenlet.settrace")
    return lines


def _hook(workers: list[dict[str, Any]]) -> str:
    """Whether it is compiled, which makes it cost a third."""
    kinds = sorted({worker["hook"] for worker in workers} - {"unknown"})
    return f", hook {' or '.join(kinds)}" if kinds else ""


def _sites(report: dict[str, Any]) -> list[str]:
    listed = [site for site in report["sites"] if not _is_rest(site)]
    guilty = [site for site in listed if not site["innocent"]]
    lines = ["LINES THAT DO NOT YIELD"]
    if not guilty:
        lines.append("  none")
    for number, site in enumerate(guilty[:TOP_SITES], 1):  # a rank counts innocent sites too
        lines += _site(number, site)
    rest = [site for site in report["sites"] if _is_rest(site)]
    further = [*guilty[TOP_SITES:], *(site for site in rest if not site["innocent"])]
    if further:
        together = report["left_out"]["sites"]
        number = max(0, len(guilty) - TOP_SITES) + together
        many = ("some " if together else "") + _many(number, "more line") if number else "further lines"
        harm_ms, busy_ms = sum(site["harm_ms"] for site in further), sum(site["busy_ms"]["total"] for site in further)
        lines.append(f"  and {many}, {_ms(busy_ms)} in all, which delayed requests by {_ms(harm_ms)} (--format html)")
    for cause, why in _INNOCENT.items():
        innocent = [
            site for site in report["sites"] if site["innocent"] and (site["cause"] == "gil") == (cause == "gil")
        ]
        if innocent:
            count = sum(site["count"] for site in innocent)
            total = sum(site["busy_ms"]["total"] for site in innocent)
            lines.append(f"  not to blame: {_many(count, 'slice')}, {_ms(total)}, made long by {why}")
    return lines


def _is_rest(site: dict[str, Any]) -> bool:
    return not site["file"] and bool(site["function"] == REST)


def _site(number: int, site: dict[str, Any]) -> list[str]:
    busy = site["busy_ms"]
    if site["library"]:
        what = f"{short_path(site['file'])}:{site['line']} in {site['function']}"
        where = f"no line of the application was running; {what} of a library was"
    elif site["file"]:
        about = "" if site["exact"] else "about "
        where = f"{about}{short_path(site['file'])}:{site['line']} in {site['function']}"
    else:
        where = "a line that was never seen: it ended before the watchdog could look"
    head = f"{number}. {where}   [{site['cause']}]"
    lines = _wrap(head, "", "   ") if site["library"] else [head]
    if site["victims"]:
        harm = f"delayed {_many(site['victims'], 'request')} by {_ms(site['harm_ms'])}"
        if len(lines[-1]) + len(harm) + 3 <= WIDTH:
            lines[-1] += f"   {harm}"
        else:
            lines.append(f"   {harm}")
    if site["source"]:
        lines.append(f"     {site['source']}")
    each = f"{_ms(busy['p50'])} (longest {_ms(busy['max'])}), {_ms(busy['total'])} in all"
    held = f"   {_many(site['count'], 'time')}, each {each}; in "
    lines.append(held + _short(site["routes"], WIDTH - len(held)))
    lines += _split(site)
    lines += _wrap(f"-> {site['advice']}", "   ", "      ")
    allowed = site.get("allowed")
    return [*lines, *_wrap(allowed_text(allowed), "   ", "      ")] if allowed else lines


def _split(site: dict[str, Any]) -> list[str]:
    """How its time divides, where another cause than the one shown had much of it."""
    parts, total_ms = site["split_ms"], sum(site["split_ms"].values())
    if site["cause"] == "convoy" or all(
        ms < WORTH_SPLITTING * total_ms for part, ms in parts.items() if part != site["cause"]
    ):
        return []
    shown = ", ".join(f"{part} {ms / total_ms:.0%}" for part, ms in parts.items() if ms >= total_ms / 100)
    return [f"   of that {shown}"]


def allowed_text(allowed: dict[str, Any]) -> str:
    """What an allow list says of a site (profiler/allow.py), in a sentence."""
    if allowed["expired"]:
        return f"it was allowed until {allowed['until']}, which is over: {allowed['reason']}"
    return f"it is allowed until {allowed['until']}: {allowed['reason']}"


def _routes(report: dict[str, Any]) -> list[str]:
    parts = ("total", "running", "waiting", "queued")
    lines = [f"{'ROUTES (ms: p50 / p99)':<28}{'requests':>9}{'errors':>7}" + "".join(f"{part:>14}" for part in parts)]
    for route in report["routes"][:TOP_ROUTES]:
        times = "".join(f"{_pair(route[f'{part}_ms']):>14}" for part in parts)
        lines.append(f"  {_cut(route['route'], 25):<26}{route['requests']:>9,}{route['errors']:>7,}{times}")
    more = len(report["routes"]) - TOP_ROUTES
    if more > 0:
        lines.append(f"  and {_many(more, 'more route')}")
    return lines


def _slowest(report: dict[str, Any]) -> list[str]:
    lines = ["SLOWEST REQUESTS (total = running + waiting + queued)"]
    for request in report["slowest"][:TOP_SLOWEST]:
        parts = " + ".join(_ms(request[f"{part}_ms"]) for part in ("running", "waiting", "queued"))
        lines.append(
            f"  {_ms(request['total_ms'])} = {parts}   {_cut(request['route'], 30)}   id {request['request_id']}"
        )
        if request["blamed"]:
            worst = max(request["blamed"], key=lambda one: float(one["ms"]))
            culprit = f"{short_path(worst['file'])}:{worst['line']}" if worst["file"] else "a line that was not seen"
            lines.append(f"      of that {_ms(worst['ms'])} by {culprit}")
    return lines


def _moments(report: dict[str, Any]) -> list[str]:
    moments = report["moments"]
    lines = ["MOMENTS (what the hub did while a request was too slow)"]
    for moment in moments[:TOP_MOMENTS]:
        lines += _moment(moment)
    more = len(moments[TOP_MOMENTS:]) + report["left_out"]["moments"]
    if more > 0:
        lines.append(f"  {_many(more, 'more request')} too slow: --format json has {_many(len(moments), 'moment')}")
    return lines


def _moment(moment: dict[str, Any]) -> list[str]:
    request, objective_ms = moment["request"], moment["objective_ms"]
    over = f", {_ms(objective_ms)} allowed" if objective_ms is not None else ""
    waited = [*moment["waited"], request]
    queued_ms = sum(one["queued_ms"] for one in waited) + moment["more_waited"]["queued_ms"]
    waiters = _many(len(waited) + moment["more_waited"]["count"], "request")
    slices = sorted(moment["slices"], key=lambda ran: -float(ran["length_ms"]))
    head = f"  {_ms(request['total_ms'])}{over}, queued {_ms(request['queued_ms'])}   {_cut(request['route'], 30)}"
    hub = f"hub idle {_ms(moment['idle_ms'])}, in short slices {_ms(moment['short_ms'])}"
    lines = [
        f"{head}   id {request['request_id']}",
        f"      {_ms(moment['length_ms'])} of it: {hub}; {waiters} queued for {_ms(queued_ms)}",
    ]
    for ran in slices[:TOP_SLICES]:
        where = f"{short_path(ran['file'])}:{ran['line']}" if ran["file"] else "a line that was not seen"
        then = "until it yielded at " if ran["yielded"] and ran["file"] else ""
        lines.append(f"      {_ms(ran['length_ms'])} {_who(ran)}, {then}{where}")
    rest = slices[TOP_SLICES:]
    count, rest_ms = len(rest) + moment["more_slices"]["count"], sum(one["length_ms"] for one in rest)
    if count:
        lines.append(f"      {_ms(rest_ms + moment['more_slices']['ms'])} in {_many(count, 'more slice')}")
    return lines


def _who(ran: dict[str, Any]) -> str:
    if ran["route"]:
        child = "a child of " if ran["kind"] == "spawned" else ""
        return f"{child}{_cut(ran['route'], 30)} {ran['request_id']}"
    return {"gil": "another thread had the GIL", "hub": "the hub's callbacks"}.get(ran["kind"], "a greenlet")


def _pair(times: dict[str, float]) -> str:
    return f"{_number(times['p50'])} / {_number(times['p99'])}"


def _number(ms: float) -> str:
    return f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:.0f}"


def _ms(ms: float) -> str:
    return f"{ms / 1000:.2f} s" if ms >= 10_000 else f"{_number(ms)} ms"


def _duration(seconds: float) -> str:
    for unit_s, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.1f} {unit}"
    return f"{seconds:.1f} s"


def _second(moment: str) -> str:
    """To the second: what is shorter is in the duration."""
    return moment.partition(".")[0] + "Z"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _short(routes: list[str], width: int) -> str:
    """The first two if they fit, else one; and how many more there are."""
    for shown in (2, 1):
        more = f" and {len(routes) - shown} more" if len(routes) > shown else ""
        named = ", ".join(routes[:shown])
        if len(named) + len(more) <= width:
            break
    return _cut(named, width - len(more)) + more


def short_path(path: str) -> str:
    """Relative where that is shorter: the reader stands in the project."""
    relative = os.path.relpath(path) if os.path.isabs(path) else path
    return min(path, relative, key=len)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _fit(line: str) -> str:
    return _cut("".join(c if c.isprintable() else "?" for c in line), WIDTH)


def _wrap(text: str, first: str, rest: str) -> list[str]:
    lines = [first]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > WIDTH:
            lines.append(rest)
        lines[-1] += word if lines[-1].endswith(" ") else f" {word}"
    return lines

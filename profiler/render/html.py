"""The report as one HTML file: to be mailed, attached to a ticket, opened years later.

Everything is in the file; a Content-Security-Policy keeps it from loading anything, and from running any script but the
one of page.py, known by its hash. Routes, request ids and sources come from strangers: every text is escaped, in
elements and in attributes, and characters that do not print are shown as `?`. Nothing of a report is in the script.
Complete: each row of the JSON is a row here, with stack, routes and advice; a moment with all that is known of it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from profiler.allow import suggestion
from profiler.render.details import meanwhile, slice_of
from profiler.render.page import SCRIPT, STYLE
from profiler.render.words import (
    accepted,
    excused,
    many,
    milliseconds,
    place_of,
    plain,
    short_path,
    split_of,
    stuck,
    warnings,
)

_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"
)
TOP_ROUTES = 3  # of a site: further ones are shown when asked for
_PARTS = ("total", "running", "waiting", "queued", "longest_slice")


def render(report: dict[str, Any]) -> str:
    """A whole document."""
    window = report["window"]
    title = f"What did not yield, {window['start']} to {window['end']}"
    body = [
        f"<h1>{_text(title)}</h1>",
        *_head(report),
        "<h2>Lines that do not yield</h2>",
        *_sites(report["sites"], report["window"]["end"]),
        "<h2>Routes</h2>",
        *_routes(report["routes"]),
        "<h2>Slowest requests</h2>",
        *_slowest(report["slowest"]),
        "<h2>Moments: what the hub did while a request was too slow</h2>",
        *_moments(report),
        "<h2>Workers</h2>",
        *_workers(report["workers"]),
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(title)}</title><style>{STYLE}</style></head><body>",
            *body,
            f"<script>{SCRIPT}</script></body></html>\n",
        ]
    )


def _head(report: dict[str, Any]) -> list[str]:
    workers, delay = report["workers"], report["hub"]["delay_ms"]
    requests, over = (sum(worker[name] for worker in workers) for name in ("requests", "slices_over"))
    duration_s = report["window"]["duration_s"]
    lines = [
        f"Workers: {len(workers):,}. Requests: {requests:,}, in {duration_s:,} s.",
        f"Slices of {report['threshold_ms']:g} ms or more: {over:,}.",
        f"Hub delay in ms: p50 {_number(delay['p50'])}, p99 {_number(delay['p99'])}, max {_number(delay['max'])}.",
    ]
    shown = [f"<p>{_text(line)}</p>" for line in lines]
    shown += [f'<p class="warning">{_text(line)}</p>' for line in warnings(report)]
    return [
        *shown,
        '<p class="dim">Times in ms. Harm is the delay that a line gave to other requests.</p>',
        '<p class="dim">Delays: how often it did so, once for each slice and request.</p>',
    ]


def _sites(sites: Sequence[dict[str, Any]], until: str) -> list[str]:
    if not sites:
        return ["<p>None.</p>"]
    most = max(site["harm_ms"] for site in sites)
    heads = ("#", "Line, and what to do", "Cause")
    numbers = ("Harm", "Delays", "Times", "Busy in all", "p50", "p99", "Longest")
    return _table(heads, numbers, (_site(site, most, until) for site in sites))


def _site(site: dict[str, Any], most_harm_ms: float, until: str) -> str:
    busy, share = site["busy_ms"], site["harm_ms"] / most_harm_ms if most_harm_ms else 0.0
    place = f"{short_path(site['file'])}:{site['line']} in {site['function']}" if site["file"] else site["function"]
    where = [
        f"<code><b>{_text(place or 'a line that was not seen')}</b></code>",
        "" if site["exact"] or not site["line"] else ' <span class="dim">(about this line)</span>',
        ' <span class="dim">(a library: no line of the application was running)</span>' if site["library"] else "",
        f"<pre>{_text(site['source'])}</pre>" if site["source"] else "",
        f'<div class="todo">&rarr; {_text(site["advice"])}</div>' if site["advice"] else "",
        f"<div>{_text(stuck(site))}</div>" if site["stuck_ms"] else "",
        f"<div>{_text(accepted(site['allowed']))}</div>" if site.get("allowed") else "",
        f'<div class="dim">in {_text(", ".join(site["routes"][:TOP_ROUTES]))}</div>' if site["routes"] else "",
    ]
    if len(site["routes"]) > TOP_ROUTES:
        where.append(_folded(f"and {len(site['routes']) - TOP_ROUTES} more routes", site["routes"][TOP_ROUTES:]))
    if site["stack"]:
        where.append(_folded("stack, outermost first", site["stack"]))
    if site["file"] and not site["innocent"]:
        where.append(_folded("to accept it for a time: an entry for --allow", suggestion(site, until).splitlines()))
    cause = site["cause"] + (", not to blame" if site["innocent"] else "")
    cells = [
        _cell(str(site["rank"]), sort_by=f"{site['rank']:09}"),
        f'<td data-value="{_text(place)}">{"".join(where)}</td>',
        f'<td data-value="{_text(cause)}"><span class="cause">{_text(cause)}</span>{_split(site)}</td>',
        _numeric(site["harm_ms"], f' style="--share: {share:.1%}"', "harm"),
        *(_numeric(value) for value in (site["victims"], site["count"], busy["total"])),
        *(_numeric(busy[name]) for name in ("p50", "p99", "max")),
    ]
    return f"<tr{' class=innocent' if site['innocent'] else ''}>{''.join(cells)}</tr>"


def _split(site: dict[str, Any]) -> str:
    """How its time divides, where that is by more than one cause."""
    parts = split_of(site)
    return f'<div class="dim">{_text(", ".join(parts))}</div>' if len(parts) > 1 else ""


def _folded(summary: str, lines: Sequence[str]) -> str:
    shown = "\n".join(_text(line) for line in lines)
    return f"<details><summary>{summary}</summary><pre>{shown}</pre></details>"


def _routes(routes: Sequence[dict[str, Any]]) -> list[str]:
    numbers = (
        "Requests",
        "Errors",
        *(f"{part.replace('_', ' ')} {at}" for part in _PARTS for at in ("p50", "p99", "max")),
    )
    rows = (
        f"<tr>{_cell(route['route'])}{_numeric(route['requests'])}{_numeric(route['errors'])}"
        + "".join(_numeric(route[f"{part}_ms"][at]) for part in _PARTS for at in ("p50", "p99", "max"))
        + "</tr>"
        for route in routes
    )
    return _table(("Route",), numbers, rows)


def _slowest(requests: Sequence[dict[str, Any]]) -> list[str]:
    if not requests:
        return ["<p>None were stored.</p>"]
    rows = (
        f"<tr>{_cell(request['started'])}{_cell(request['route'])}{_cell(request['request_id'])}"
        + _cell("; ".join(_blame(by) for by in request["blamed"]) or "nothing over the threshold")
        + "".join(_numeric(request[f"{part}_ms"]) for part in _PARTS[:4])
        + "</tr>"
        for request in requests
    )
    return _table(("Started", "Route", "Request id", "Of that"), ("Total", "Running", "Waiting", "Queued"), rows)


def _moments(report: dict[str, Any]) -> list[str]:
    moments, more = report["moments"], report["left_out"]["moments"]
    if not moments:
        return ["<p>None were stored: no request was too slow.</p>"]
    shown = _table(
        ("Started", "Route", "Request id", "Who had the hub, and who waited"),
        ("Total", "Allowed", "Queued", "Hub idle", "In short slices"),
        (_moment(moment) for moment in moments),
    )
    return [*shown, *([f"<p>{more:,} more requests were too slow.</p>"] if more else [])]


def _moment(moment: dict[str, Any]) -> str:
    request, objective_ms, more = moment["request"], moment["objective_ms"], moment["more_slices"]
    ran = [f"{one['started']}  {milliseconds(one['length_ms'])}  {slice_of(one)}" for one in moment["slices"]]
    ran += [f"{milliseconds(more['ms'])} in {many(more['count'], 'more slice')}"] if more["count"] else []
    waited = [
        f"{milliseconds(one['queued_ms'])} of {milliseconds(one['total_ms'])}  {one['route']}  {one['request_id']}"
        for one in moment["waited"]
    ]
    rest = moment["more_waited"]
    waited += [f"{milliseconds(rest['queued_ms'])}, {many(rest['count'], 'more request')}"] if rest["count"] else []
    told = [f"<div>{_text(meanwhile(moment))}</div>"]
    told += [_folded(f"{many(len(moment['slices']) + more['count'], 'slice')} on the hub", ran)] if ran else []
    told += [_folded("who was queued besides", waited)] if waited else []
    return (
        f"<tr>{_cell(request['started'])}{_cell(request['route'])}{_cell(request['request_id'])}<td>{''.join(told)}</td>"
        + _numeric(request["total_ms"])
        + (_numeric(objective_ms) if objective_ms is not None else '<td class="number" data-value="-1">any</td>')
        + "".join(_numeric(value) for value in (request["queued_ms"], moment["idle_ms"], moment["short_ms"]))
        + "</tr>"
    )


def _blame(by: dict[str, Any]) -> str:
    return f"{_number(by['ms'])} by {place_of(by)}{excused(by)}" + (
        ", its own" if by["own"] else f" for {by['route']}" if by["route"] else ""
    )


def _workers(workers: Sequence[dict[str, Any]]) -> list[str]:
    keys = ("pid", "requests", "switches", "slices_over", "hub_busy_ratio", "overhead_ratio", "dropped", "displaced")
    rows = (
        f"<tr>{_cell(worker['host'])}{_cell(worker['hook'])}{''.join(_numeric(worker[key]) for key in keys)}</tr>"
        for worker in workers
    )
    return _table(("Host", "Hook"), tuple(key.replace("_", " ") for key in keys), rows)


def _table(texts: Sequence[str], numbers: Sequence[str], rows: Iterable[str]) -> list[str]:
    heads = [f'<th scope="col">{_text(head)}</th>' for head in texts]
    heads += [f'<th scope="col" class="number">{_text(head)}</th>' for head in numbers]
    begin = f'<div class="wide"><table class="sortable"><thead><tr>{"".join(heads)}</tr></thead><tbody>'
    return [begin, *rows, "</tbody></table></div>"]


def _cell(shown: str, sort_by: str | None = None) -> str:
    return f'<td data-value="{_text(shown if sort_by is None else sort_by)}">{_text(shown)}</td>'


def _numeric(value: float, more: str = "", kind: str = "") -> str:
    return f'<td class="number {kind}" data-value="{value}"{more}>{_number(value)}</td>'


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"


def _text(text: str) -> str:
    return escape(plain(text))

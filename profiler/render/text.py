"""The report for a terminal: what an engineer must know within a minute, on one screen.

First the lines that did not yield, worst first, in four lines of text each: the place, why, and whom it delayed; the
source; how often, for how long and in which routes; what to do. Five of them, and a line on all others, are `SCREEN`
lines; sections further down (details.py) follow as far as they fit there whole. What is left out is said in the
last line, and shown with `everything`. What a report warns of, and an advice that is wrapped since the terminal is
narrower than `WIDTH`, come on top.
"""

from __future__ import annotations

from typing import Any

from profiler.render.details import acceptance, behind, moments, routes, slowest, workers
from profiler.render.words import (
    accepted,
    columns,
    cut,
    cut_path,
    duration,
    many,
    milliseconds,
    number,
    plain,
    short_path,
    split_of,
    stuck,
    warnings,
    wrap,
)

WIDTH = 100  # columns: what two terminals side by side on a laptop have
NARROWEST = 40  # columns: below that a place and its harm are not readable
SCREEN = 24  # lines: the terminal that everybody has
REST = "(other sites)"  # the function of a row for all sites that have none of their own
TOP_SITES = 5  # of four lines each: a screen
_LONGEST_FUNCTION = 32  # columns
WORTH_SPLITTING = 0.2  # of a site's time, by another cause than its own: less is what any call costs beside


def render(report: dict[str, Any], width: int = WIDTH, *, everything: bool = False) -> str:
    """Lines of at most `width` columns: a screen, or everything."""
    width = min(WIDTH, max(NARROWEST, width))
    lines = [*_head(report, width), *_sites(report, width, everything=everything), *_innocent(report, width)]
    made = {
        "routes": routes(report, width),
        "slowest requests": slowest(report, width),
        "moments": moments(report, width),
        "workers": workers(report),
        "an allow list": acceptance(_listed(report), report["window"]["end"]),
    }
    sections = [(name, section) for name, section in made.items() if section]
    while sections and (
        everything or len(lines) + len(sections[0][1]) + 2 <= SCREEN
    ):  # with an empty and the last line
        lines += ["", *sections.pop(0)[1]]
    if not everything:
        left_out = ", ".join([*(name for name, _ in sections), "stacks"])
        lines += wrap(_further(report) or f"{left_out}: --all, or --format html", "", "  ", width)
    return "\n".join(cut(plain(line), width) for line in lines) + "\n"


def _head(report: dict[str, Any], width: int) -> list[str]:
    window, delay = report["window"], report["hub"]["delay_ms"]
    requests, over = (sum(worker[name] for worker in report["workers"]) for name in ("requests", "slices_over"))
    busiest = max(worker["hub_busy_ratio"] for worker in report["workers"])
    return [
        *wrap(
            f"{many(len(report['workers']), 'worker')}, {many(requests, 'request')}, {duration(window['duration_s'])}"
            f" from {_second(window['start'])} to {_second(window['end'])}",
            *("", "  ", width),
        ),
        *(line for warning in warnings(report) for line in wrap(warning, "", "  ", width)),
        *wrap(
            f"LINES THAT DO NOT YIELD: {many(over, 'slice')} of {report['threshold_ms']:g} ms or more;"
            f" hub {busiest:.0%} busy, delay p99 {number(delay['p99'])}, max {milliseconds(delay['max'])}",
            *("", "  ", width),
        ),
    ]


def _second(moment: str) -> str:
    """To the second: what is shorter is in the duration."""
    return moment.partition(".")[0] + "Z"


def _listed(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The sites that are to blame, but for the row for the rest."""
    return [site for site in report["sites"] if not site["innocent"] and not _is_rest(site)]


def _is_rest(site: dict[str, Any]) -> bool:
    return not site["file"] and bool(site["function"] == REST)


def _sites(report: dict[str, Any], width: int, *, everything: bool) -> list[str]:
    listed = _listed(report)
    lines = []
    for rank, site in enumerate(listed if everything else _worst(listed), 1):  # the report's counts innocent ones
        lines += _site(rank, site, width)
        if everything:
            lines += behind(site)
    return lines or ["  none"]


def _worst(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For the screen: what nobody saw the line of cannot be acted on, so it comes after what can."""
    return sorted(listed, key=lambda site: not site["file"])[:TOP_SITES]


def _site(rank: int, site: dict[str, Any], width: int) -> list[str]:
    busy = site["busy_ms"]
    if site["count"] == 1:
        held = f"once, {milliseconds(busy['max'])}; in "
    else:
        each = f"{milliseconds(busy['p50'])} each (p99 {number(busy['p99'])}, max {number(busy['max'])})"
        held = f"{site['count']:,} times, {each}, {milliseconds(busy['total'])} in all; in "
    if not site["routes"]:
        held = held.removesuffix("; in ")
    elif width < WIDTH:
        held += _short(site["routes"], width - 6)
    else:
        held += _short(site["routes"], width - 3 - columns(held))
    return [
        *_place(rank, site, width),
        *([f"     {site['source']}"] if site["source"] else []),
        *wrap(held, "   ", "      ", width),
        *wrap(plain(site["advice"]), "   -> ", "      ", width),
        *(wrap(plain(accepted(site["allowed"])), "   ", "      ", width) if site.get("allowed") else []),
    ]


def _place(rank: int, site: dict[str, Any], width: int) -> list[str]:
    """Where, why, and whom it delayed: on one line, for which the path and how its time divides give way."""
    begin = f"{rank}. "
    harm = "   delayed nobody"
    if site["victims"]:
        harm = f"   {_delayed(site['victims'])}: {milliseconds(site['harm_ms'])}"
    if site["stuck_ms"]:
        harm = f"   {stuck(site)}" if not site["victims"] else f"{harm}; {stuck(site)}"
    whole = "a line nobody saw for certain"
    shortest = whole
    if site["file"]:
        begin += "library " if site["library"] else "" if site["exact"] else "about "
        after = f":{site['line']} in {cut(plain(site['function']), _LONGEST_FUNCTION)}"
        path = plain(short_path(site["file"]))
        whole = path + after
        shortest = cut_path(path, width - columns(f"{begin}{after}   [{site['cause']}]{harm}")) + after
    for where, why in ((whole, _why(site)), (whole, site["cause"]), (shortest, site["cause"])):
        head = f"{begin}{where}   [{why}]"
        if columns(head + harm) <= width:
            return [head + harm]
    return [*wrap(f"{where} [{why}]", begin, "   ", width), harm]


def _delayed(times: int) -> str:
    """A request counts once for each slice that delayed it: how many requests that were is not known."""
    return "delayed a request" if times == 1 else f"delayed requests {times:,}x"


def _why(site: dict[str, Any]) -> str:
    """Its cause; and how its time divides, where another had much of it."""
    parts, total_ms = site["split_ms"], sum(site["split_ms"].values())
    others = [ms for cause, ms in parts.items() if cause != site["cause"]]
    if site["cause"] == "convoy" or all(ms < WORTH_SPLITTING * total_ms for ms in others):
        return str(site["cause"])
    return ", ".join(split_of(site)[:2])


def _short(routes: list[str], width: int) -> str:
    """The first two if they fit, else one; and how many more there are."""
    for shown in (2, 1):
        more = f" and {len(routes) - shown} more" if len(routes) > shown else ""
        named = plain(", ".join(routes[:shown]))
        if columns(named + more) <= width:
            break
    return cut(named, width - columns(more)) + more


def _innocent(report: dict[str, Any], width: int) -> list[str]:
    """What the machine and other threads made long: one line."""
    innocent = [site for site in report["sites"] if site["innocent"]]
    starved = [site for site in innocent if site["cause"] != "gil"]
    behind_threads = [site for site in innocent if site["cause"] == "gil"]
    if not innocent:
        return []
    told = "not to blame: "
    if starved:
        without = f"{_all_of(starved, 'starved')} without a CPU"
        slices = many(sum(site["count"] for site in starved), "slice")
        only = f"{slices} slow only because of {without}: fewer workers, or more CPUs"
        told += f"{without}; " if behind_threads else only  # there is a line for it
    if behind_threads:
        told += f"{_all_of(behind_threads, 'gil')} behind a thread's GIL"
        seen = next((site for site in behind_threads if site["file"]), None)
        if seen:
            after = f":{seen['line']} in {seen['function']}"
            path = cut_path(short_path(seen["file"]), width - columns(told + after) - 2)
            told += f": {path}{after}"
    return wrap(plain(told), "", "  ", width)


def _all_of(sites: list[dict[str, Any]], cause: str) -> str:
    """Of their time what is of this cause; all of it where that was not divided, as in older files."""
    wholes = [site["busy_ms"]["total"] for site in sites]
    return milliseconds(sum(min(site["split_ms"].get(cause) or ms, ms) for site, ms in zip(sites, wholes, strict=True)))


def _further(report: dict[str, Any]) -> str:
    """What of the sites is not on the screen; "" if they all are."""
    listed = _listed(report)
    worst = _worst(listed)
    further = [site for site in listed if site not in worst]
    rest = [site for site in report["sites"] if _is_rest(site) and not site["innocent"]]
    if not further and not rest:
        return ""
    together = report["left_out"]["sites"]
    count = len(further) + together
    named = ("some " if together else "") + many(count, "more line") if count else "further lines"
    harm_ms, busy_ms = (
        sum(site["harm_ms"] for site in (*further, *rest)),
        sum(site["busy_ms"]["total"] for site in (*further, *rest)),
    )
    harm = f"which delayed requests by {milliseconds(harm_ms)}"
    return f"and {named}, {milliseconds(busy_ms)}, {harm}: --all, or --format html"

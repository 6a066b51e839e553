"""From the bursts of threads.py to figures, verdicts and markdown.

Pure: what was measured comes in as plain values, with each burst's latencies, and plain values and text go out.
A figure is made of all bursts of a server at one share of its capacity, their latencies put together, since a
percentile's percentile means nothing; bursts from which the hypervisor stole count only where there are no others.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.bounds import MET, MISSED, UNKNOWN
from benchmarks.open_loop import percentile_ms
from benchmarks.threads_servers import GEVENT, MOD_WSGI, OURS, OURS_FAST

QUERY, MIX = "query", "mix"
PERCENTILES = (("p50_ms", 50.0), ("p99_ms", 99.0), ("p999_ms", 99.9))
SUBJECTS = (OURS, OURS_FAST)
_CALM_PERCENT = 60  # of our own capacity, at which we promise a p99
SLOW_MS = 50.0  # a p99 at which threads count as lost

# What we hold ourselves to: capacity beside another's; p99 when calm; p99 where mod_wsgi's is lost, beside its own.
_CAPACITY = ((QUERY, MOD_WSGI, 4.0), (QUERY, GEVENT, 2.5), (MIX, MOD_WSGI, 1.8))
_CALM_MS = 10.0
_OF_SLOW = 0.25


Floor = Mapping[str, Mapping[str, float]]  # by scenario: `p50_ms` and `p99_ms` of its queries alone


def percentiles(bursts: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Of all requests of some bursts."""
    latencies = sorted(latency for burst in bursts for latency in burst["latencies_ns"])
    offered = sum(burst["offered"] for burst in bursts)
    return {name: _rounded(percentile_ms(latencies, offered, percent)) for name, percent in PERCENTILES}


def figures(bursts: Sequence[Mapping[str, Any]], floor: Floor) -> list[dict[str, Any]]:
    """One for each scenario, server and share of its capacity."""
    made = []
    for scenario, contestant, percent in dict.fromkeys(
        (burst["scenario"], burst["contestant"], burst["percent"]) for burst in bursts
    ):
        mine = [b for b in bursts if (b["scenario"], b["contestant"], b["percent"]) == (scenario, contestant, percent)]
        made.append(
            {
                "scenario": scenario,
                "contestant": contestant,
                "percent": percent,
                **figure(mine, floor[scenario]["p50_ms"]),
            }
        )
    return made


def figure(bursts: Sequence[Mapping[str, Any]], floor_ms: float) -> dict[str, Any]:
    """What bursts of one kind come to; `floor_ms`: what their queries alone take."""
    used = [burst for burst in bursts if not burst["spoilt"]] or list(bursts)
    made = percentiles(used)
    p99_ms = made["p99_ms"]
    return {
        "rate": round(statistics.median(burst["rate"] for burst in used)),
        **made,
        "p99_over_floor_ms": None if p99_ms is None else _rounded(p99_ms - floor_ms),
        "requests": sum(burst["offered"] for burst in used),
        "errors": sum(sum(burst["errors"].values()) for burst in used),
        "late_p99_ms": max(burst["late_p99_ms"] for burst in used),
        "load_busy_percent": max(burst["load_busy_percent"] for burst in used),
        "others_percent": max(burst["others_percent"] for burst in used),
        "steal_percent": max(burst["steal_percent"] for burst in used),
        "bursts": len(used),
        "spoilt": sum(burst["spoilt"] for burst in bursts),
    }


def is_slow(burst: Mapping[str, Any]) -> bool:
    """Whether its p99 exceeds `SLOW_MS` or falls among lost requests, and the machine is not to blame."""
    lost = burst["p99_ms"] is None
    return not burst["spoilt"] and (lost or burst["p99_ms"] > SLOW_MS)


def by_server(bursts: Sequence[Mapping[str, Any]], floor_ms: float) -> list[dict[str, Any]]:
    """One figure for each server."""
    return [
        {"contestant": name, **figure([burst for burst in bursts if burst["contestant"] == name], floor_ms)}
        for name in dict.fromkeys(burst["contestant"] for burst in bursts)
    ]


def capacities(measured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Medians over the rounds, and medians of the ratios within a round of each of `SUBJECTS` to it."""
    made = []
    for scenario, contestant in dict.fromkeys((each["scenario"], each["contestant"]) for each in measured):
        mine = [
            each
            for each in measured
            if (each["scenario"], each["contestant"]) == (scenario, contestant) and "error" not in each
        ]
        middle = {
            name: round(statistics.median(each[name] for each in mine), 1) if mine else None
            for name in ("requests_per_s", "cpu_us", "busy_percent", "load_busy_percent")
        }
        ratios = {subject: _ratio(measured, scenario, subject, contestant) for subject in SUBJECTS}
        made.append({"scenario": scenario, "contestant": contestant, **middle, "ratio_of_ours": ratios})
    return made


def _ratio(measured: Iterable[Mapping[str, Any]], scenario: str, subject: str, other: str) -> float | None:
    rates = {
        (each["round"], each["contestant"]): each["requests_per_s"]
        for each in measured
        if each["scenario"] == scenario and "error" not in each
    }
    ratios = [
        rate / rates[number, other]
        for (number, name), rate in rates.items()
        if name == subject and rates.get((number, other))
    ]
    return round(statistics.median(ratios), 3) if ratios else None


def arithmetic(
    capacity: Sequence[Mapping[str, Any]], python_us: float, debian_us: float | None
) -> list[dict[str, Any]]:
    """What CPU time says about the mix's ratio, for each of `SUBJECTS`; `python_us`: of the mix's own code, with us.

    CPU time drifts with the machine too, but a core that others use does not count twice.
    """
    cpu_us = {each["contestant"]: each["cpu_us"] for each in capacity if each["scenario"] == MIX}
    theirs = cpu_us.get(MOD_WSGI)
    if not theirs or debian_us is None:
        return []
    return [
        {
            "contestant": subject,
            "mod_wsgi_us": theirs,
            "ours_us": cpu_us[subject],
            "python_us": python_us,
            "debian_python_us": debian_us,
            "ratio": round(theirs / cpu_us[subject], 3),
            "ratio_same_python": round((theirs - debian_us + python_us) / cpu_us[subject], 3),
            "ceiling": round(theirs / python_us, 3),
        }
        for subject in SUBJECTS
        if cpu_us.get(subject)
    ]


def verdicts(
    capacity: Sequence[Mapping[str, Any]],
    made: Sequence[Mapping[str, Any]],
    slow: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """One for each promise and each of `SUBJECTS`; `slow` holds the figures at mod_wsgi's slow rate."""
    ratios = {(each["scenario"], each["contestant"]): each["ratio_of_ours"] for each in capacity}
    judged = []
    for subject in SUBJECTS:
        for scenario, other, limit in _CAPACITY:
            ratio = ratios.get((scenario, other), {}).get(subject)
            kept = None if ratio is None else ratio >= limit
            judged.append(_verdict(subject, f"{scenario}: capacity / {other}'s", f"at least {limit:g}", ratio, kept))
        judged += [_when_calm(subject, made), _beside_slow(subject, slow)]
    return judged


def is_calm(figure: Mapping[str, Any]) -> bool:
    """Whether it is one of ours at the share of its capacity at which we promise a p99."""
    return figure["scenario"] == QUERY and figure["contestant"] in SUBJECTS and figure["percent"] == _CALM_PERCENT


def _when_calm(subject: str, made: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    what = f"{QUERY}: p99 at {_CALM_PERCENT} % of its capacity, ms"
    p99 = [each["p99_ms"] for each in made if is_calm(each) and each["contestant"] == subject]
    if not p99:
        return _verdict(subject, what, f"less than {_CALM_MS:g}", None, None)
    return _verdict(subject, what, f"less than {_CALM_MS:g}", p99[0], p99[0] is not None and p99[0] < _CALM_MS)


def _beside_slow(subject: str, slow: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where theirs falls among lost requests there is no ratio, and none is made up."""
    what = f"{MIX}: p99 / {MOD_WSGI}'s, at the lowest rate at which that exceeded {SLOW_MS:g} ms"
    p99 = {each["contestant"]: each["p99_ms"] for each in slow}
    ours, theirs = p99.get(subject), p99.get(MOD_WSGI)
    if theirs is None or subject not in p99:
        return _verdict(subject, what, f"at most {_OF_SLOW:g}", None, None)
    ratio = None if ours is None else round(ours / theirs, 3)
    return _verdict(subject, what, f"at most {_OF_SLOW:g}", ratio, ratio is not None and ratio <= _OF_SLOW)


def _verdict(subject: str, what: str, limit: str, reached: float | None, kept: bool | None) -> dict[str, Any]:
    """`kept`: None if it was not measured; `reached` is None too where what was measured was lost."""
    word = UNKNOWN if kept is None else MET if kept else MISSED
    return {"contestant": subject, "bound": what, "limit": limit, "reached": reached, "verdict": word}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)

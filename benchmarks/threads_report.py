"""What threads.py measured, in markdown: verdicts, capacities, and latency against offered rate. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report import compiled
from benchmarks.threads_servers import MOD_WSGI
from benchmarks.threads_verdicts import MIX, SLOW_MS, SUBJECTS, is_calm

_WHAT = {
    "query": "one row by primary key",
    MIX: "three queries, one of them 5 ms long on the server, and 0.3 ms of Python",
}


def table(result: Mapping[str, Any]) -> str:
    """The whole result."""
    settings, work = result["settings"], result["work"]
    lines = [
        (
            f"{settings['arrivals']} arrivals over {settings['connections']} keep-alive connections, "
            f"{settings['rounds']} rounds of {settings['seconds']:g} s a rate; one worker on one core, "
            f"{settings['pool_size']} database connections and, where it has any, {settings['threads']} threads. "
            f"Latency from the intended moment."
        ),
        compiled(result["interpreted"]),
        (
            f"The mix's Python took {' and '.join(f'{us:.0f}' for us in work['us'])} us before and after, "
            f"{_shown(work['us_in_debian_python'], 0)} us in Debian's Python."
        ),
        "The queries alone: "
        + "; ".join(
            f"{name} p50 {floor['p50_ms']:.2f} ms, p99 {floor['p99_ms']:.2f} ms"
            for name, floor in result["floor"].items()
        )
        + ".",
        _client(result["client"]),
        "",
        summary(result),
        "",
        *_slow(result["slow"]),
    ]
    for scenario in dict.fromkeys(figure["scenario"] for figure in result["figures"]):
        mine = [figure for figure in result["figures"] if figure["scenario"] == scenario]
        lines += ["", f"### {scenario}: {_WHAT[scenario]}", "", *_figures(mine)]
    lines += ["", *(f"- {each['name']}: {_about(each)}." for each in result["contestants"])]
    return "\n".join(lines)


def summary(result: Mapping[str, Any]) -> str:
    """The verdicts, who could do how much, and what the CPU times say of it."""
    return "\n".join(
        [
            *_verdicts(result["verdicts"]),
            "",
            *_capacities(result["capacities"]),
            "",
            *(_arithmetic(each) for each in result["arithmetic"]),
            *(_when_calm(each) for each in result["figures"] if is_calm(each)),
        ]
    )


def _client(limit: Sequence[Mapping[str, Any]] | None) -> str:
    if not limit:
        return "The client's own limit was not measured: nginx is not here."
    best = max(limit, key=lambda each: each["answers_per_s"])
    return f"The client alone, with nginx's fixed answer: up to {best['answers_per_s']:,} answers a second."


def _verdicts(verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        "| we hold ourselves to | server | bound | reached | verdict |",
        "| --- | --- | ---: | ---: | --- |",
        *(
            f"| {each['bound']} | {each['contestant']} | {each['limit']} | {_shown(each['reached'], 2)} "
            f"| {each['verdict']} |"
            for each in verdicts
        ),
    ]


def _capacities(capacities: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who could do how much, and by how much more we could."""
    ratios = " | ".join(f"{subject} /" for subject in SUBJECTS)
    return [
        f"| closed loop | server | req/s | CPU us | busy % | load's core % | {ratios} |",
        "| --- | --- | ---: | ---: | ---: | ---: |" + " ---: |" * len(SUBJECTS),
        *(
            f"| {each['scenario']} | {each['contestant']} | {_shown(each['requests_per_s'], 0)} "
            f"| {_shown(each['cpu_us'], 0)} | {_shown(each['busy_percent'], 0)} "
            f"| {_shown(each['load_busy_percent'], 0)} "
            f"| {' | '.join(_shown(each['ratio_of_ours'][subject], 2) for subject in SUBJECTS)} |"
            for each in capacities
        ),
    ]


def _arithmetic(parts: Mapping[str, Any]) -> str:
    """What the CPU time of a request says about the mix's ratio, which a shared and a fast core cannot."""
    return (
        f"- Mix, CPU time a request: {MOD_WSGI} {parts['mod_wsgi_us']:.0f} us, {parts['contestant']} "
        f"{parts['ours_us']:.0f} us: a ratio of {parts['ratio']:.2f}; {parts['ratio_same_python']:.2f} if the mix's "
        f"Python took {MOD_WSGI} as long as it takes us. That Python, {parts['python_us']:.0f} us, is in every "
        f"request: with everything else for nothing the ratio would be {parts['ceiling']:.2f}."
    )


def _when_calm(figure: Mapping[str, Any]) -> str:
    """Whose queue the p99 that we promise was spent in: that of our core, or that of the other one."""
    return (
        f"- Query, {figure['contestant']} at {figure['percent']} % of its capacity, {figure['rate']:,} requests a "
        f"second: p99 {_latency(figure['p99_ms'])} ms, while MariaDB and the client used "
        f"{figure['load_busy_percent']:.0f} % of the core that they share."
    )


def _slow(slow: Sequence[Mapping[str, Any]]) -> list[str]:
    if not slow:
        return [f"No rate of the mix at which {MOD_WSGI}'s p99 exceeded {SLOW_MS:g} ms twice was found."]
    return [
        f"The lowest rate of the mix at which {MOD_WSGI}'s p99 exceeded {SLOW_MS:g} ms, offered again to it and to us:",
        "",
        f"| server | req/s | {_LATENCIES} |",
        f"| --- | ---: | {_ALIGNED} |",
        *(f"| {each['contestant']} | {each['rate']:,} | {_latencies(each)} |" for each in slow),
    ]


_LATENCIES = "p50 ms | p99 ms | p99 - floor | p99.9 ms | errors | client late ms | others % | steal %"
_ALIGNED = " | ".join(["---:"] * 8)


def _figures(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"| server | % | req/s | {_LATENCIES} |",
        f"| --- | ---: | ---: | {_ALIGNED} |",
        *(f"| {each['contestant']} | {each['percent']} | {each['rate']:,} | {_latencies(each)} |" for each in figures),
    ]


def _latencies(figure: Mapping[str, Any]) -> str:
    latencies = (_latency(figure[name]) for name in ("p50_ms", "p99_ms", "p99_over_floor_ms", "p999_ms"))
    return (
        f"{' | '.join(latencies)} | {figure['errors']:,} | {figure['late_p99_ms']:.1f} "
        f"| {figure['others_percent']:.0f} | {figure['steal_percent']:.1f}"
    )


def _latency(value: float | None) -> str:
    """Three digits of it; "lost" where it falls among requests that got no right answer."""
    return "lost" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _about(contestant: Mapping[str, Any]) -> str:
    if contestant["left_out"]:
        return f"left out: {contestant['left_out']}"
    versions = ", ".join(f"{name} {version}" for name, version in contestant["versions"].items())
    return f"{contestant['note']}; {versions}"


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"

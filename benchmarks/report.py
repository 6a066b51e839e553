"""From bursts and counts to plain values and markdown tables.

The result holds every burst beside the figures made of them, so that a doubtful median can be looked into.
Pure: what was measured comes in, text and plain values go out.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import bounds
from benchmarks.contestants import OURS, Contestant
from benchmarks.measure import Burst, Counted
from benchmarks.scenarios import Scenario

PERF = "perf"
CALLGRIND = "callgrind"
_METHODS = {
    PERF: "instructions retired in user and kernel mode, by perf, while wrk ran",
    CALLGRIND: (
        "instructions in user mode only, by callgrind, since this machine shows no hardware counters; "
        "the kernel's share is given of CPU time, never of instructions"
    ),
}


def figures(
    bursts: Sequence[Burst], counted: Sequence[Counted], scenarios: Sequence[Scenario], names: Sequence[str]
) -> list[dict[str, Any]]:
    """One entry for each scenario and contestant that was measured."""
    made = []
    for scenario in scenarios:
        of_scenario = [burst for burst in bursts if burst.scenario == scenario.name]
        reference = {burst.round: burst.load.requests_per_s for burst in of_scenario if burst.contestant == OURS}
        for name in names:
            mine = [burst for burst in of_scenario if burst.contestant == name]
            counts = [c for c in counted if (c.contestant, c.scenario) == (name, scenario.name)]
            if mine:
                made.append({"scenario": scenario.name, "contestant": name, **_figure(mine, counts, reference)})
    return made


def _figure(mine: Sequence[Burst], counts: Sequence[Counted], reference: Mapping[int, float]) -> dict[str, Any]:
    ratios = [burst.load.requests_per_s / reference[burst.round] for burst in mine if reference.get(burst.round)]
    kept = [burst.load.kept_alive for burst in mine if burst.load.kept_alive is not None]
    requests = sum(burst.load.requests for burst in mine)
    calls = [count.system_calls for count in counts if count.system_calls is not None]
    kernel = [count.kernel_share for count in counts if count.kernel_share is not None]
    main_thread = [count.main_thread_share for count in counts if count.main_thread_share is not None]
    return {
        "requests_per_s": _spread(mine, lambda burst: burst.load.requests_per_s),
        "requests_per_s_to_tafe": round(statistics.median(ratios), 3) if ratios else None,
        "p50_ms": _spread(mine, lambda burst: burst.load.p50_ms),
        "p99_ms": _spread(mine, lambda burst: burst.load.p99_ms),
        "cpu_us": _spread(mine, lambda burst: burst.cpu_user_us + burst.cpu_system_us),
        "cpu_user_us": _spread(mine, lambda burst: burst.cpu_user_us),
        "cpu_system_us": _spread(mine, lambda burst: burst.cpu_system_us),
        "kernel_share": round(kernel[0], 3) if kernel else None,
        "main_thread_share": round(main_thread[0], 3) if main_thread else None,
        "instructions": _instructions(mine, counts),
        "system_calls": round(calls[0], 2) if calls else None,
        "busy_percent": _spread(mine, lambda burst: burst.busy_percent),
        "others_percent": _spread(mine, lambda burst: burst.others_percent),
        "steal_percent": _spread(mine, lambda burst: burst.steal_percent),
        "requests": requests,
        "errors": sum(burst.load.errors for burst in mine),
        "kept_alive_ratio": round(sum(kept) / max(1, requests), 3) if kept else None,
    }


def _spread(mine: Sequence[Burst], value: Callable[[Burst], float]) -> dict[str, float]:
    values = [value(burst) for burst in mine]
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def _instructions(mine: Sequence[Burst], counts: Sequence[Counted]) -> dict[str, Any] | None:
    """By either method; `kernel` is None where it could not be counted, never a guess."""
    user = [burst.instructions_user for burst in mine if burst.instructions_user is not None]
    kernel = [burst.instructions_kernel for burst in mine if burst.instructions_kernel is not None]
    if user and kernel:
        return {
            "method": PERF,
            "user": round(statistics.median(user)),
            "kernel": round(statistics.median(kernel)),
            "samples": [round(value) for value in user],
        }
    samples = [sample for count in counts for sample in count.instructions_user]
    if not samples:
        return None
    return {
        "method": CALLGRIND,
        "user": round(statistics.median(samples)),
        "kernel": None,
        "samples": [round(value) for value in samples],
    }


def result(
    *,
    settings: Mapping[str, Any],
    interpreted: Mapping[str, str],
    chosen: Sequence[Contestant],
    versions: Mapping[str, Mapping[str, str]],
    left_out: Mapping[str, str],
    bursts: Sequence[Burst],
    made: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Everything, as it goes into the JSON file."""
    methods = sorted({figure["instructions"]["method"] for figure in made if figure["instructions"]})
    return {
        "settings": dict(settings),
        "interpreted": dict(interpreted),
        "instructions_method": {method: _METHODS[method] for method in methods},
        "contestants": [
            {
                "name": contestant.name,
                "note": contestant.note,
                "versions": dict(versions[contestant.name]),
                "left_out": left_out.get(contestant.name),
            }
            for contestant in chosen
        ],
        "bounds": bounds.verdicts(made),
        "figures": list(made),
        "bursts": [dataclasses.asdict(burst) for burst in bursts],
    }


def table(result_: Mapping[str, Any]) -> str:
    """The result for a reader: the bounds, then a table a scenario, best first."""
    settings = result_["settings"]
    lines = [
        (
            f"{settings['rounds']} interleaved rounds of {settings['seconds']} s, one worker on one core, "
            f"{settings['connections']} keep-alive connections. Medians; p99 with its range."
        ),
    ]
    lines += [f"Instructions: {method}." for method in result_["instructions_method"].values()]
    lines += [compiled(result_["interpreted"]), "", "### bounds", "", bounds.table(result_["bounds"])]
    for name in dict.fromkeys(figure["scenario"] for figure in result_["figures"]):
        of_scenario = [figure for figure in result_["figures"] if figure["scenario"] == name]
        lines += ["", f"### {name}", "", *_table(of_scenario)]
    lines += [f"\nLeft out: {c['name']}: {c['left_out']}" for c in result_["contestants"] if c["left_out"]]
    return "\n".join(lines)


def compiled(interpreted: Mapping[str, str]) -> str:
    """Which of our packages ran with their compiled modules, where not switched off, and why the others did not."""
    words = [f"{package} {f'no ({reason})' if reason else 'yes'}" for package, reason in interpreted.items()]
    return f"Compiled modules in use: {', '.join(words)}."


def kernel_percent(figure: Mapping[str, Any]) -> str:
    """The kernel's share of CPU time: sampled or else, with a tilde, by the kernel's own clock tick."""
    sampled = figure["kernel_share"]
    if sampled is not None:
        return f"{sampled:.0%}"
    return f"~{figure['cpu_system_us']['median'] / max(0.001, figure['cpu_us']['median']):.0%}"


def _table(figures_: Sequence[Mapping[str, Any]]) -> list[str]:
    by_ab = figures_[0]["kept_alive_ratio"] is not None
    heads = ["server", "instructions", "x tafe", "CPU us", "kernel", "system calls", "req/s", "x tafe"]
    heads += ["p50 ms", "p99 ms", "busy %", "others %", "steal %", "errors"]
    reference = next((_total(f) for f in figures_ if f["contestant"] == OURS), 0)
    if by_ab:
        heads = [*heads[:1], *heads[3:], "kept alive"]
    rows = []
    for figure in sorted(figures_, key=lambda figure: figure["cpu_us"]["median"]):
        cells = [figure["contestant"], *_instruction_cells(figure, reference)]
        if by_ab:
            cells = cells[:1]
        calls = figure["system_calls"]
        ratio = figure["requests_per_s_to_tafe"]
        p99 = figure["p99_ms"]
        cells += [
            f"{figure['cpu_us']['median']:.1f}",
            kernel_percent(figure),
            "-" if calls is None else f"{calls:.2f}",
            f"{figure['requests_per_s']['median']:,.0f}",
            "-" if ratio is None else f"{ratio:.2f}",
            f"{figure['p50_ms']['median']:.2f}",
            f"{p99['median']:.1f} ({p99['min']:.1f}-{p99['max']:.1f})",
            f"{figure['busy_percent']['median']:.0f}",
            f"{figure['others_percent']['max']:.1f}",
            f"{figure['steal_percent']['max']:.1f}",
            f"**{figure['errors']}**" if figure["errors"] else "0",
        ]
        if by_ab:
            cells.append(f"{figure['kept_alive_ratio']:.0%}")
        rows.append(cells)
    return [_row(heads), _row(["---"] + ["---:"] * (len(heads) - 1)), *map(_row, rows)]


def _total(figure: Mapping[str, Any]) -> int:
    """User and, where it was counted, kernel instructions; 0 if neither was."""
    counted = figure["instructions"]
    return counted["user"] + (counted["kernel"] or 0) if counted else 0


def _instruction_cells(figure: Mapping[str, Any], reference: int) -> list[str]:
    total = _total(figure)
    if not total:
        return ["-", "-"]
    return [f"{total:,}", f"{total / reference:.2f}" if reference else "-"]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"

"""How evenly a server serves its connections: the fewest answers that one got over the most.

    python -m benchmarks.fairness            about three minutes
    python -m benchmarks.fairness --quick    to see that it works

64 keep-alive connections, each with one request under way, for 5 s after a second of warm-up; `closed_loop.py` counts
by connection and prefers none. nginx is the control: it serves in turn, so what it lacks of 1 is the client's and the
machine's doing. Contestants take turns, round after round; the figure is the median of the rounds.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import closed_loop, contestants, database, disturbance, environment, loads, machine, measure, scenarios
from benchmarks.client import LoadError
from benchmarks.serving import Contender

NAMES = ("tafe", "tafe, its own API", "gunicorn -k gevent", "gevent.pywsgi", "granian", "nginx")
SCENARIOS = (scenarios.HELLO, scenarios.QUERY)
BOUNDS = {scenarios.HELLO.name: 0.9, scenarios.QUERY.name: 0.8}  # what we hold ourselves to


def run(
    cores: tuple[int, int], *, rounds: int = 3, seconds: float = 5.0, names: Sequence[str] = NAMES
) -> dict[str, Any]:
    """Measure; `cores` are the server's and the load's, where this process must be already.

    Returns plain values: the settings, a row a contestant and scenario, and why whoever is missing is.
    """
    chosen = [contestant for contestant in contestants.CONTESTANTS if contestant.name in names]
    plan = measure.Plan(rounds, int(seconds), *cores, SCENARIOS)
    seen: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="tafe-bench-") as folder:
        directory = Path(folder)
        with (
            database.filled(directory) as url,
            measure.all_up(chosen, plan, directory, url, environment.ensure()) as (up, left_out),
        ):
            for number in range(rounds):
                for scenario in SCENARIOS:
                    for contender in up:
                        name = contender.contestant.name
                        if contender.contestant.takes(scenario):
                            burst = _burst(contender, scenario, cores, seconds)
                            seen.setdefault((scenario.name, name), []).append(burst)
                            measure.say(f"fairness {number + 1}/{rounds}  {scenario.name:<6} {name:<20} {_line(burst)}")
    return {
        "connections": loads.CONNECTIONS,
        "seconds": seconds,
        "rounds": rounds,
        "bounds": BOUNDS,
        "rows": [_row(scenario, name, bursts) for (scenario, name), bursts in seen.items()],
        "left_out": left_out,
    }


def _burst(
    contender: Contender, scenario: scenarios.Scenario, cores: tuple[int, int], seconds: float
) -> dict[str, Any]:
    """One burst as plain values; one that failed has but `error`."""
    try:
        load, disturbed = disturbance.during(
            contender,
            cores,
            lambda: closed_loop.run(contender.port, scenario.exchanges, seconds, connections=loads.CONNECTIONS),
        )
    except (LoadError, OSError) as error:
        return {"error": str(error)[:500]}
    return {
        "fairness": round(load.fairness, 3),
        "fewest": min(load.answers),
        "most": max(load.answers),
        "requests_per_s": round(load.requests_per_s),
        "p99_ms": round(load.p99_ms, 3),
        **dataclasses.asdict(disturbed),
    }


def _line(burst: dict[str, Any]) -> str:
    if "error" in burst:
        return f"failed: {burst['error']}"
    return (
        f"{burst['fewest']:>6,} to {burst['most']:>6,} answers: {burst['fairness']:.3f}  "
        f"(steal {burst['steal_percent']} %, others {burst['others_percent']} %)"
    )


def _row(scenario: str, name: str, bursts: list[dict[str, Any]]) -> dict[str, Any]:
    whole = [burst for burst in bursts if "error" not in burst]
    figure = round(statistics.median(burst["fairness"] for burst in whole), 3) if whole else None
    return {"scenario": scenario, "contestant": name, "fairness": figure, "bursts": bursts}


def table(result: dict[str, Any]) -> str:
    """The result in markdown."""
    how = f"of {result['connections']} connections in {result['seconds']:g} s; the median of {result['rounds']} rounds"
    lines = [
        f"Fewest over most answers {how}, and of the round nearest to it the answers. 1 is fair.",
        "",
        "| load | server | fewest/most | lowest round | fewest | most | req/s | others % | steal % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        whole = [burst for burst in row["bursts"] if "error" not in burst]
        if not whole:
            lines.append(
                f"| {row['scenario']} | {row['contestant']} | failed: {row['bursts'][0]['error'][:60]} |" + " |" * 6
            )
            continue
        typical = min(whole, key=lambda burst: abs(burst["fairness"] - row["fairness"]))
        lowest = min(burst["fairness"] for burst in whole)
        others, steal = (max(burst[name] for burst in whole) for name in ("others_percent", "steal_percent"))
        lines.append(
            f"| {row['scenario']} | {row['contestant']} | {row['fairness']:.3f} | {lowest:.3f} | {typical['fewest']:,} "
            f"| {typical['most']:,} | {typical['requests_per_s']:,} | {others:.0f} | {steal:.1f} |"
        )
    bounds = ", ".join(f"{bound} for {scenario}" for scenario, bound in result["bounds"].items())
    lines += ["", f"We hold ourselves to at least {bounds}."]
    lines += [f"Left out: {name}: {reason}" for name, reason in result["left_out"].items()]
    return "\n".join(lines)


@click.command(context_settings={"max_content_width": 110})
@click.option("--quick", is_flag=True, help="One round of one second: to try it, not to publish it.")
@click.option("--only", multiple=True, metavar="NAME", type=click.Choice(NAMES), help="Only these; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and no table.")
def main(*, quick: bool, only: tuple[str, ...], as_json: bool) -> None:
    """Measure how evenly TAFE and its peers serve 64 connections."""
    cores = machine.needed_cores()
    os.sched_setaffinity(0, {cores[1]})
    length: dict[str, Any] = {"rounds": 1, "seconds": 1.0} if quick else {}
    result = run(cores, names=only or NAMES, **length)
    print(json.dumps(result, indent=1) if as_json else table(result))


if __name__ == "__main__":
    main()

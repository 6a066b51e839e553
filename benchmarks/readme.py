"""The short tables in the README, made from a result file and held to it by a test.

`python -m benchmarks.readme` rewrites them from the newest file in results/. The README has the two lines BEGIN and
END; everything between them is replaced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import chaos, mysql_reader, sqlite_delay, strictness, threads_report
from benchmarks.environment import ROOT
from benchmarks.report import CALLGRIND, kernel_percent
from benchmarks.scenarios import HELLO, QUERY

BEGIN = "<!-- benchmark begin: python -m benchmarks.readme -->"
END = "<!-- benchmark end -->"
README = ROOT / "README.md"
_IN_FULL = (HELLO.name, QUERY.name)  # the other loads get two figures each
RESULTS = Path(__file__).with_name("results")


def newest() -> Path | None:
    """The result file with the latest date in its name."""
    return max(RESULTS.glob("*.json"), default=None)


def tables(document: Mapping[str, Any]) -> str:
    """What a user compares: the table's figures, cheapest first; results, threads, databases; strictness by server."""
    sections = document["sections"]
    lines = _figures(sections["table"]) if "table" in sections else []
    if "reader" in sections:
        lines += ["", mysql_reader.table(sections["reader"])]
    if "threads" in sections:
        lines += ["", *_threads(sections["threads"])]
    if "sqlite" in sections:
        lines += ["", sqlite_delay.summary(sections["sqlite"])]
    if "chaos" in sections:
        lines += ["", chaos.summary(sections["chaos"])]
    if "strictness" in sections:
        lines += ["", *_strictness(sections["strictness"])]
    if "overhead" in sections:
        lines += ["", *_overhead(sections["overhead"])]
    return "\n".join(lines)


def _figures(result: Mapping[str, Any]) -> list[str]:
    settings, machine = result["settings"], result["machine"]
    lines = [
        f"One worker on one core, {settings['connections']} keep-alive connections, MariaDB and the load on another "
        f"core; {result['date'][:10]}, {machine['cpu']}, CPython {machine['python']}, medians of "
        f"{settings['rounds']} interleaved rounds. The machine is shared, so compare columns, not days. "
        + " ".join(f"Instructions: {method}." for method in result["instructions_method"].values()),
    ]
    figures = sorted(result["figures"], key=lambda figure: figure["cpu_us"]["median"])
    for scenario in _IN_FULL:
        lines += ["", *_in_full(scenario, [figure for figure in figures if figure["scenario"] == scenario])]
    lines += ["", *_in_short([figure for figure in figures if figure["scenario"] not in _IN_FULL])]
    return [*lines, "", *(f"- {each['name']}: {each['note']}." for each in result["contestants"])]


def _in_full(scenario: str, figures: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"| {scenario} | {_unit(figures)} | CPU us | of it kernel | req/s | p50 ms | p99 ms | steal % |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *map(_row, figures),
    ]


def _in_short(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    """The other loads: instructions and CPU time, a column each."""
    scenarios = list(dict.fromkeys(figure["scenario"] for figure in figures))
    if not scenarios:
        return []
    cells = {(figure["contestant"], figure["scenario"]): _cost(figure) for figure in figures}
    lines = [
        f"| {_unit(figures)} / CPU us | {' | '.join(scenarios)} |",
        "| --- |" + " ---: |" * len(scenarios),
    ]
    for name in dict.fromkeys(figure["contestant"] for figure in figures):
        row = [cells.get((name, scenario), "-") for scenario in scenarios]
        lines.append(f"| {_name(name)} | {' | '.join(row)} |")
    return lines


def _threads(result: Mapping[str, Any]) -> list[str]:
    """The picture (`python -m benchmarks.threads_picture`), and what it comes to."""
    settings = result["settings"]
    return [
        (
            f"Threads against greenlets: one worker on one core, CPython {result['machine']['python']} for all, one "
            f"WSGI application, {settings['pool_size']} database connections each. Requests come at fixed rates, "
            f"whatever is answered (for {settings['seconds']:g} s a rate; rounds: {settings['rounds']}). Latency is "
            "from the intended moment."
        ),
        "",
        "![latency against offered rate](benchmarks/results/threads.svg)",
        "",
        threads_report.summary(result),
    ]


def _strictness(result: Mapping[str, Any]) -> list[str]:
    """One line a server: the groups are in the result file."""
    lines = [
        f"| the {result['cases']} cases of `tests/corpus` | {' | '.join(strictness.WORDS)} |",
        "| --- |" + " ---: |" * len(strictness.WORDS),
    ]
    for name, server in result["servers"].items():
        counts = strictness.totals(server["groups"])
        lines.append(f"| {_name(name)} | {' | '.join(str(counts[word]) for word in strictness.WORDS)} |")
    return lines


def _overhead(result: Mapping[str, Any]) -> list[str]:
    """What a hello costs more under each profiler, cheapest first."""
    off, *others = result["hello"]
    counted = f" of {off['instructions']:,}" if off["instructions"] else ""
    lines = [f"| a hello under | user instructions more{counted} | CPU more |", "| --- | ---: | ---: |"]
    for each in sorted(others, key=lambda figure: figure["cpu_more_percent"]):
        more = "-" if each["instructions_more"] is None else f"{each['instructions_more']:,}"
        name = f"**{each['name']}**" if each["name"].startswith("ours") else each["name"]
        lines.append(f"| {name} | {more} | {each['cpu_more_percent']:+.0f} % |")
    return lines


def _unit(figures: Sequence[Mapping[str, Any]]) -> str:
    counted = [figure["instructions"]["method"] for figure in figures if figure["instructions"]]
    return "user instructions" if counted and set(counted) == {CALLGRIND} else "instructions"


def _row(figure: Mapping[str, Any]) -> str:
    median = {key: figure[key]["median"] for key in ("cpu_us", "requests_per_s", "p50_ms", "p99_ms")}
    return (
        f"| {_name(figure['contestant'])} | {_total(figure)} | {median['cpu_us']:.1f} | {kernel_percent(figure)} "
        f"| {median['requests_per_s']:,.0f} | {median['p50_ms']:.2f} | {median['p99_ms']:.1f} "
        f"| {figure['steal_percent']['max']:.1f} |"
    )


def _cost(figure: Mapping[str, Any]) -> str:
    return f"{_total(figure)} / {figure['cpu_us']['median']:.1f}"


def _total(figure: Mapping[str, Any]) -> str:
    counted = figure["instructions"]
    return f"{counted['user'] + (counted['kernel'] or 0):,}" if counted else "-"


def _name(contestant: str) -> str:
    return f"**{contestant}**" if contestant.startswith("tafe") else contestant


def replaced(readme: str, document: Mapping[str, Any]) -> str:
    """`readme` with the tables of `document` in place of what it had. Raises ValueError without the two lines."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no {BEGIN!r} ... {END!r}")
    return f"{before}{BEGIN}\n{tables(document)}\n{END}{after}"


def main() -> None:
    """Rewrite the README's tables."""
    path = newest()
    if path is None:
        raise SystemExit("no result file in benchmarks/results/; try: benchmarks/run")
    README.write_text(replaced(README.read_text(), json.loads(path.read_text())))
    print(f"README.md now shows {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

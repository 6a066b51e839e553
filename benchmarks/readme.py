"""The short tables in the README, made from a result file and held to it by a test.

`python -m benchmarks.readme` rewrites them from the newest file in results/. The README has the two lines BEGIN and
END; everything between them is replaced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.environment import ROOT
from benchmarks.report import CALLGRIND

BEGIN = "<!-- benchmark begin: python -m benchmarks.readme -->"
END = "<!-- benchmark end -->"
README = ROOT / "README.md"
RESULTS = Path(__file__).with_name("results")


def newest() -> Path | None:
    """The result file with the latest date in its name."""
    return max(RESULTS.glob("*.json"), default=None)


def tables(document: Mapping[str, Any]) -> str:
    """The figures a user compares, a table for each load, cheapest first."""
    settings, machine = document["settings"], document["machine"]
    lines = [
        f"One worker on one core, {settings['connections']} keep-alive connections, MariaDB and the load on another "
        f"core; {document['date'][:10]}, {machine['cpu']}, CPython {machine['python']}, medians of "
        f"{settings['rounds']} interleaved rounds. The machine is shared, so compare columns, not days. "
        + " ".join(f"Instructions: {method}." for method in document["instructions_method"].values()),
    ]
    for scenario in dict.fromkeys(figure["scenario"] for figure in document["figures"]):
        figures = [figure for figure in document["figures"] if figure["scenario"] == scenario]
        figures.sort(key=lambda figure: figure["cpu_us"]["median"])
        user_only = all((f["instructions"] or {}).get("method") == CALLGRIND for f in figures)
        lines += [
            "",
            f"| {scenario} | {'user ' if user_only else ''}instructions | CPU us | req/s | p50 ms | p99 ms | steal % |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        lines += [_row(figure) for figure in figures]
    lines += ["", *(f"- {c['name']}: {c['note']}." for c in document["contestants"])]
    return "\n".join(lines)


def _row(figure: Mapping[str, Any]) -> str:
    counted = figure["instructions"]
    total = f"{counted['user'] + (counted['kernel'] or 0):,}" if counted else "-"
    name = f"**{figure['contestant']}**" if figure["contestant"].startswith("tafe") else figure["contestant"]
    median = {key: figure[key]["median"] for key in ("cpu_us", "requests_per_s", "p50_ms", "p99_ms")}
    return (
        f"| {name} | {total} | {median['cpu_us']:.1f} | {median['requests_per_s']:,.0f} "
        f"| {median['p50_ms']:.2f} | {median['p99_ms']:.1f} | {figure['steal_percent']['max']:.1f} |"
    )


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

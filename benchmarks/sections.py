"""The sections of a benchmark run, and the file in which they meet.

A section is a module with `run(cores, **length) -> dict` of plain values and `table(result) -> str`, markdown. The file
(`schema: tafe.benchmark/2`) holds the newest result of each section of one day, with its date and machine, so that one
section can be measured again without the others; it is written after each, so that a failure loses nothing.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import (
    chaos,
    crowd,
    fairness,
    machine,
    mysql_reader,
    profiler_overhead,
    profiler_truth,
    soak,
    sqlite_delay,
    strictness,
    table,
    threads,
    transfer,
)

SCHEMA = "tafe.benchmark/2"
_MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Section:
    """What is measured, by whom, and what makes it short."""

    what: str
    measure: Callable[..., dict[str, Any]]
    table: Callable[[dict[str, Any]], str]
    quick: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # arguments of `measure`

    def run(self, cores: tuple[int, int], length: Mapping[str, Any]) -> dict[str, Any]:
        """Measure; the result, with when and where."""
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return {"date": started, "machine": machine.describe(), **self.measure(cores, **length)}


SECTIONS = {
    "table": Section("what a request costs, beside the peers", table.run, table.table, {"quick": True}),
    "strictness": Section("the test corpus, sent to the peers too", strictness.run, strictness.table),
    "reader": Section(
        "what reading a result costs, beside PyMySQL", mysql_reader.run, mysql_reader.table, mysql_reader.QUICK
    ),
    "fairness": Section(
        "answers by connection", fairness.run, fairness.table, {"rounds": 1, "seconds": 1.0, "names": ("tafe", "nginx")}
    ),
    "crowd": Section("beside idle and slow connections", crowd.run, crowd.table, crowd.QUICK),
    "transfer": Section(
        "large uploads and downloads",
        transfer.run,
        transfer.table,
        {"size_bytes": 64 * _MIB, "rounds": 1, "peers": False},
    ),
    "threads": Section("latency by offered rate, beside threads", threads.run, threads.table, threads.QUICK),
    "sqlite": Section(
        "how late SQLite's threads make a timer", sqlite_delay.run, sqlite_delay.table, sqlite_delay.QUICK
    ),
    "overhead": Section(
        "what the profiler costs, beside other profilers",
        profiler_overhead.run,
        profiler_overhead.table,
        profiler_overhead.QUICK,
    ),
    "truth": Section(
        "the profiler's times, beside those of handlers and clients",
        profiler_truth.run,
        profiler_truth.table,
        profiler_truth.QUICK,
    ),
    "soak": Section("memory over many requests", soak.run, soak.table, {"requests": 30_000, "interval_s": 1}),
    "chaos": Section(
        "rows, connections and memory while the database is disturbed", chaos.run, chaos.table, chaos.QUICK
    ),
}


def tables(sections: Mapping[str, dict[str, Any]]) -> str:
    """Results by their section's name, for a reader."""
    lines = []
    for name, result in sections.items():
        where = result["machine"]
        head = f"{result['date'][:10]}, {where['cpu']}, {where['cores']} cores, CPython {where['python']}."
        lines += [f"## {name}", "", head, "", SECTIONS[name].table(result), ""]
    return "\n".join(lines)


def read(path: Path) -> dict[str, Any]:
    """The document in `path`; an empty one if there is none. Raises ValueError for another schema."""
    if not path.exists():
        return {"schema": SCHEMA, "sections": {}}
    document: dict[str, Any] = json.loads(path.read_text())
    if document.get("schema") != SCHEMA:
        raise ValueError(f"{path}: schema {document.get('schema')!r}, where {SCHEMA!r} is wanted")
    return document


def store(path: Path, name: str, result: Mapping[str, Any]) -> None:
    """Put a section's result into the file in place of an earlier one."""
    document = read(path)
    sections = {**document["sections"], name: dict(result)}
    document["sections"] = {each: sections[each] for each in SECTIONS if each in sections}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")

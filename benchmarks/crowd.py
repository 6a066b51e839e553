"""What a crowd costs a worker that serves somebody else: in memory, and in the others' latency.

    python -m benchmarks.crowd            about six minutes
    python -m benchmarks.crowd --quick    to see that it works

Two crowds (`bystanders.py`), each beside 32 active connections that ask for hello as fast as they are answered:
10,000 idle keep-alive connections, and 1,000 slow senders with 1,000 slow readers. A pair is one measurement with the
crowd and one without it, seconds apart; the figure is the median ratio of their p99s over the pairs. A pair in which
the hypervisor took over 2 % of a core is measured again, at most as often as there are pairs, and shown all the same.
Memory is that of all the server's processes: their resident sets (shared pages count for each) and their proportional
ones. The kernel's own for sockets, some KiB a connection for any server, is in neither.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import bystanders, closed_loop, contestants, disturbance, environment, machine, measure, scenarios
from benchmarks.client import LoadError
from benchmarks.serving import Contender, WrongAnswerError
from tests.services.processes import ServerError

# gunicorn -k gevent and granian hold a thousand connections, unless told otherwise, and leave the rest waiting.
NAMES = ("tafe", "gunicorn -k gevent", "gevent.pywsgi", "granian")
ACTIVE = 32
SETTLE_S = 15.0  # for a server to notice that thousands have left


@dataclasses.dataclass(frozen=True)
class Crowd:
    """A kind of crowd and how large it is."""

    name: str
    role: str  # of bystanders.py
    counts: tuple[int, ...]
    bound: float  # of the ratio; what we hold ourselves to
    bound_bytes: int | None  # resident, a connection

    @property
    def connections(self) -> int:
        """All of them."""
        return sum(self.counts)

    def divided(self, divisor: int) -> Crowd:
        """The same, but smaller."""
        return dataclasses.replace(self, counts=tuple(count // divisor for count in self.counts))


CROWDS = (Crowd("idle", "idle", (10_000,), 1.2, 3 * 1024), Crowd("slow", "slow", (1000, 1000), 1.5, None))
KINDS = tuple(crowd.name for crowd in CROWDS)
QUICK = {"pairs": 1, "seconds": 1.0, "divisor": 5, "names": ("tafe",)}  # of `run`: to try it, not to publish it


@dataclasses.dataclass(frozen=True)
class Memory:
    """Of all processes of a server, in bytes."""

    resident: int
    proportional: int  # shared pages divided among those who share them

    @classmethod
    def of(cls, pids: Sequence[int]) -> Memory:
        """What the processes hold now (proc_pid_smaps(5))."""
        totals = {"Rss:": 0, "Pss:": 0}
        for pid in pids:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, *value = line.split()
                if name in totals:
                    totals[name] += int(value[0]) * 1024
        return cls(totals["Rss:"], totals["Pss:"])


def run(
    cores: tuple[int, int],
    *,
    pairs: int = 5,
    seconds: float = 3.0,
    names: Sequence[str] = NAMES,
    kinds: Sequence[str] = KINDS,
    divisor: int = 1,
) -> dict[str, Any]:
    """Measure; `cores` are the server's and the load's, where this process must be already. Returns plain values.

    `kinds`: names of crowds; each is as large as its table says, divided by `divisor`. Raises
    `bystanders.DescriptorError` if not enough files may be opened.
    """
    crowds = [crowd.divided(divisor) for crowd in CROWDS if crowd.name in kinds]
    bystanders.need_descriptors(max(crowd.connections for crowd in crowds) + ACTIVE)
    programs = environment.ensure() if any(name != contestants.OURS for name in names) else Path()
    rows = []
    for contestant in contestants.CONTESTANTS:
        if contestant.name in names:
            for crowd in crowds:
                with tempfile.TemporaryDirectory(prefix="tafe-bench-") as folder:
                    try:
                        row = _measure(contestant, crowd, Path(folder), programs, cores, pairs, seconds)
                    except (LoadError, OSError, ServerError, WrongAnswerError) as error:
                        measure.say(f"crowd {crowd.name:<5} {contestant.name:<16} failed: {error}")
                        row = {"error": str(error)[:500]}
                rows.append({"crowd": crowd.name, "contestant": contestant.name, **row})
    return {
        "active": ACTIVE,
        "seconds": seconds,
        "pairs": pairs,
        "max_steal_percent": disturbance.MAX_STEAL_PERCENT,
        "crowds": [dataclasses.asdict(crowd) for crowd in crowds],
        "rows": rows,
    }


def _measure(
    contestant: contestants.Contestant,
    crowd: Crowd,
    directory: Path,
    programs: Path,
    cores: tuple[int, int],
    pairs: int,
    seconds: float,
) -> dict[str, Any]:
    contender = Contender(contestant, directory, cores[0], database_url=None, programs=programs)
    try:
        closed_loop.run(contender.port, scenarios.HELLO.exchanges, seconds, connections=ACTIVE)
        empty = _descriptors(contender)
        before = Memory.of(contender.pids)

        def measured() -> dict[str, Any]:
            pair = _with_crowd(contender, crowd, cores, seconds, before)
            _settle(contender, empty)
            pair["without"] = _half(contender, cores, seconds)
            return pair

        made = []
        for pair in counted_pairs(measured, pairs):
            measure.say(f"crowd {crowd.name:<5} {contestant.name:<16} {_line(pair)}")
            made.append(pair)
    finally:
        contender.kill()
    return {"before_bytes": before.resident, **figures(made), "pairs": made}


def counted_pairs(measured: Callable[[], dict[str, Any]], wanted: int) -> Iterator[dict[str, Any]]:
    """Pairs, until `wanted` of them count, or twice as many were measured."""
    counted = 0
    for _ in range(2 * wanted):
        pair = measured()
        pair["counts"] = not any(pair[half]["spoilt"] for half in ("with", "without"))
        pair["ratio"] = round(pair["with"]["p99_ms"] / pair["without"]["p99_ms"], 3)
        counted += pair["counts"]
        yield pair
        if counted == wanted:
            return


def figures(made: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of pairs: the most memory, and medians of those that count."""
    counted = [pair for pair in made if pair["counts"]]
    return {
        "bytes_each": max(pair["bytes_each"] for pair in made),
        "proportional_bytes_each": max(pair["proportional_bytes_each"] for pair in made),
        "ratio": _median(pair["ratio"] for pair in counted),
        "p99_with_ms": _median(pair["with"]["p99_ms"] for pair in counted),
        "p99_without_ms": _median(pair["without"]["p99_ms"] for pair in counted),
    }


def _with_crowd(
    contender: Contender, crowd: Crowd, cores: tuple[int, int], seconds: float, before: Memory
) -> dict[str, Any]:
    """The half of a pair with the crowd there, and what the crowd took."""
    with bystanders.present(crowd.role, contender.port, *crowd.counts) as present:
        half = _half(contender, cores, seconds)
        with_them = Memory.of(contender.pids)
    return {
        "with": half,
        "bytes_each": (with_them.resident - before.resident) // crowd.connections,
        "proportional_bytes_each": (with_them.proportional - before.proportional) // crowd.connections,
        "crowd": present.fate,
    }


def _half(contender: Contender, cores: tuple[int, int], seconds: float) -> dict[str, Any]:
    load, disturbed = disturbance.during(
        contender,
        cores,
        lambda: closed_loop.run(contender.port, scenarios.HELLO.exchanges, seconds, connections=ACTIVE),
    )
    return {
        "p50_ms": round(load.p50_ms, 3),
        "p99_ms": round(load.p99_ms, 3),
        "max_ms": round(load.max_ms, 1),
        "requests_per_s": round(load.requests_per_s),
        "spoilt": disturbed.spoils,
        **dataclasses.asdict(disturbed),
    }


def _median(values: Iterable[float]) -> float | None:
    """None where no pair counts: a figure that was never measured is not made up."""
    known = list(values)
    return round(statistics.median(known), 3) if known else None


def _descriptors(contender: Contender) -> int:
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in contender.pids)


def _settle(contender: Contender, empty: int) -> None:
    """Wait until the server has closed what the crowd left behind; whoever keeps some has to live with it."""
    deadline = time.monotonic() + SETTLE_S
    while _descriptors(contender) > empty + ACTIVE and time.monotonic() < deadline:
        time.sleep(0.05)


def _line(pair: dict[str, Any]) -> str:
    spoilt = "" if pair["counts"] else "  not counted: steal"
    return (
        f"p99 {pair['with']['p99_ms']:7.3f} ms with, {pair['without']['p99_ms']:7.3f} ms without: {pair['ratio']:.2f}  "
        f"{pair['bytes_each']:,} bytes each{spoilt}"
    )


def table(result: dict[str, Any]) -> str:
    """The result in markdown."""
    lines = []
    for crowd in result["crowds"]:
        counts = " + ".join(f"{count:,}" for count in crowd["counts"])
        lines += [
            f"### {counts} {crowd['name']} connections beside {result['active']} active ones",
            "",
            "| server | bytes each | proportional | p99 with | p99 without, ms | ratio | pairs | others % | steal % |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            *(_cells(row) for row in result["rows"] if row["crowd"] == crowd["name"]),
            "",
            f"We hold ourselves to a ratio of at most {crowd['bound']}"
            + (f", and to {crowd['bound_bytes']:,} bytes each." if crowd["bound_bytes"] else "."),
            "",
        ]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"| {row['contestant']} | failed: {row['error'][:120]} |" + " |" * 7
    halves = [pair[half] for pair in row["pairs"] for half in ("with", "without")]
    others, steal = (max(half[name] for half in halves) for name in ("others_percent", "steal_percent"))
    counted = sum(pair["counts"] for pair in row["pairs"])
    figures = ("-" if row[name] is None else f"{row[name]:.3f}" for name in ("p99_with_ms", "p99_without_ms", "ratio"))
    return (
        f"| {row['contestant']} | {row['bytes_each']:,} | {row['proportional_bytes_each']:,} | {' | '.join(figures)} "
        f"| {counted} of {len(row['pairs'])} | {others:.0f} | {steal:.1f} |"
    )


@click.command(context_settings={"max_content_width": 110})
@click.option("--quick", is_flag=True, help="One short pair and small crowds: to try it, not to publish it.")
@click.option("--only", multiple=True, metavar="NAME", help=f"Only these servers; default: {', '.join(NAMES)}.")
@click.option("--crowd", "kinds", multiple=True, type=click.Choice(KINDS), help="Only this.")
@click.option("--pairs", default=5, show_default=True, type=click.IntRange(1, 50))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and no table.")
def main(*, quick: bool, only: tuple[str, ...], kinds: tuple[str, ...], pairs: int, as_json: bool) -> None:
    """Measure what idle and slow connections cost TAFE and its peers."""
    known = [contestant.name for contestant in contestants.CONTESTANTS]
    for name in only:
        if name not in known:
            raise click.UsageError(f"--only: {name!r} is no contestant; allowed: {', '.join(known)}")
    cores = machine.needed_cores()
    os.sched_setaffinity(0, {cores[1]})
    length: dict[str, Any] = {"pairs": pairs, "kinds": kinds or KINDS}
    if quick:
        length |= QUICK
    if only:
        length["names"] = only
    try:
        result = run(cores, **length)
    except bystanders.DescriptorError as error:
        raise click.UsageError(str(error)) from error
    print(json.dumps(result, indent=1) if as_json else table(result))


if __name__ == "__main__":
    main()

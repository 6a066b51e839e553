"""A database that is disturbed without end: does every row still reach the request that asked for it, and nobody else?

    python -m benchmarks.chaos                       1,000,000 answered queries: ten minutes or more
    python -m benchmarks.chaos --quick               20,000 queries: to see that it works
    python -m benchmarks.chaos --reader stock        with PyMySQL's own reading of results
    python -m benchmarks.chaos --database sqlite     requests are killed, and nothing else

A gevent-patched process (chaos_process.py) with the modules that are compiled here, a pool of 8 to 16 connections and a
MariaDB of its own has 64 clients (chaos_load.py): rows by key, ranges of rows of up to 300 KiB, stored procedures,
queries in parallel, slow queries, inserts, updates, transactions. Meanwhile (chaos_harm.py) connections and statements
are ended by KILL, connections are cut, MariaDB is stopped, killed and frozen, tables are locked until the pool is
exhausted, and requests are killed in mid-query, by three kinds of exceptions and by timers. What must hold:

- Each row that a request gets is the one it asked for, in answer to this very question, and fits its check value.
- Each query that was asked comes back: answered, refused by the database, unavailable, busy (no connection in time), or
  killed. An exception thrown into a request comes out of it.
- What was acknowledged is in the database once, crashes included; what failed for certain is not; what was lost on the
  way is there once at most. Money moved between accounts stays the same (chaos_data.py).
- After each leg, when everybody rests: the pool reaches its full size, nothing is in use, nobody waits, the server has
  no other connection, and the process no more descriptors and greenlets than before the first query.
- After the first quarter memory grows by less than `MOST_GROWTH_KIB`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from benchmarks import machine

QUERIES = 1_000_000
QUICK = {"queries": 20_000, "legs": 2}  # of `run`
LEGS = 8
# What the allocator keeps of the longest rows, a dozen of MiB for 64 requests at once, varies by leg: by 2 MiB,
# and by 6 MiB where 16 threads of SQLite have memory of their own (in 1,000,000 and 120,000 queries).
MOST_GROWTH_KIB = {"mariadb": 4096, "sqlite": 8192}
_END_S = 30.0  # for the process to stop its server once it is told to end


def run(
    cores: tuple[int, int] | None,
    *,
    queries: int = QUERIES,
    legs: int = LEGS,
    seed: int = 1,
    database: str = "mariadb",
    reader: str = "auto",
) -> dict[str, Any]:
    """Ask and disturb, on `cores`, until so many queries are answered. Raises `RuntimeError` if that cannot be done.

    `seed` decides what is asked and which harm is done; when, the machine has its say. `database`: mariadb or sqlite.
    """
    options = {"queries": queries, "legs": legs, "seed": seed, "database": database, "reader": reader}
    argv = [sys.executable, "-m", "benchmarks.chaos_process"]
    argv += [f"--{name}={value}" for name, value in options.items()]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(cores) if cores else before)
    try:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    finally:
        os.sched_setaffinity(0, before)
    try:
        printed, _ = process.communicate()
    except BaseException:
        process.send_signal(signal.SIGTERM)
        process.wait(_END_S)
        raise
    if process.returncode:
        raise RuntimeError(f"{' '.join(argv[1:])} ended with {process.returncode}")
    result: dict[str, Any] = json.loads(printed)
    growth_kib = grown_kib(result["samples"])
    if growth_kib >= MOST_GROWTH_KIB[database]:
        result["problems"].append(f"after the first quarter memory grew by {growth_kib:,} KiB")
    return {"growth_kib": growth_kib, **result}


def grown_kib(samples: Sequence[Mapping[str, Any]]) -> int:
    """From the first sample behind a quarter of the queries to the last."""
    last = samples[-1]
    warm = next(sample for sample in samples if sample["answered"] * 4 >= last["answered"])
    grown: int = last["resident_kib"] - warm["resident_kib"]
    return grown


def summary(result: Mapping[str, Any]) -> str:
    """In a sentence."""
    queries, harm = result["queries"], sum(result["harm"].values())
    held = "every promise was kept" if not result["problems"] else f"{len(result['problems'])} promises were not kept"
    return (
        f"A disturbed database (`python -m benchmarks.chaos`): {queries['answered']:,} queries answered and "
        f"{queries['rows']:,} rows checked while it was disturbed {harm:,} times (connections killed and cut, the "
        f"server stopped, killed and frozen, requests ended in mid-query): {queries['wrong']:,} wrong rows; {held}."
    )


def table(result: Mapping[str, Any]) -> str:
    """What was asked, what was done to it, what was held, and the verdict, in markdown."""
    queries, settings = result["queries"], result["settings"]
    ends = ("answered", "refused", "unavailable", "busy", "killed", "faulty", "open")
    harm = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in sorted(result["harm"].items()))
    pool, most_kib = result["pool"], MOST_GROWTH_KIB[settings["database"]]
    longest = f"The longest query took {queries['longest_s']:.1f} s."
    how = f"reader {settings['reader']}, seed {settings['seed']}"
    lines = [
        f"{settings['clients']} clients on {settings['database']}, {how}.",
        "",
        "| queries | " + " | ".join(ends) + " | rows checked | wrong |",
        "| ---: |" + " ---: |" * (len(ends) + 2),
        f"| {queries['asked']:,} | "
        + " | ".join(f"{queries[end]:,}" for end in ends)
        + f" | {queries['rows']:,} | {queries['wrong']:,} |",
        "",
        f"- Harm: {harm}.",
        f"- Connections made: {pool['created']:,}; discarded: {pool['discarded']:,}. {longest}",
        *(
            f"- {what}: {each['done']:,} done, {each['undone']:,} undone, {each['unknown']:,} unknown to their senders."
            for what, each in (("INSERTs", result["tokens"]), ("Transactions", result["transfers"]))
        ),
        f"- After the first quarter memory grew by {result['growth_kib']:,} KiB (at most {most_kib:,}).",
        "",
        "| answered | minutes | resident MiB | descriptors | greenlets | pool | in use | waiters | on the server |",
        "| ---: |" + " ---: |" * 8,
        *(
            f"| {each['answered']:,} | {each['seconds'] / 60:.1f} | {each['resident_kib'] / 1024:.1f} "
            f"| {each['descriptors']} | {each['greenlets']} | {each['size']} | {each['in_use']} | {each['waiters']} "
            f"| {'-' if each['on_server'] is None else each['on_server']} |"
            for each in result["samples"]
        ),
        "",
    ]
    problems = result["problems"]
    lines += [f"**Not kept:** {problem.strip()}" for problem in problems] or ["Every promise was kept."]
    return "\n".join(lines)


@click.command(context_settings={"max_content_width": 110})
@click.option("--queries", default=QUERIES, show_default=True, type=click.IntRange(1000, 100_000_000), help="Answered.")
@click.option("--quick", is_flag=True, help="20,000 queries in two legs: to try it, not to publish it.")
@click.option("--seed", default=1, show_default=True, type=int, help="Of all that is left to chance.")
@click.option("--database", default="mariadb", show_default=True, type=click.Choice(["mariadb", "sqlite"]))
@click.option("--reader", default="auto", show_default=True, type=click.Choice(["auto", "fast", "stock"]))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and no table.")
def main(*, queries: int, quick: bool, seed: int, database: str, reader: str, as_json: bool) -> None:
    """Disturb a database under load; exit status 1 if a promise is not kept."""
    length = QUICK if quick else {"queries": queries}
    result = run(machine.two_cores(), seed=seed, database=database, reader=reader, **length)
    print(json.dumps(result, indent=1) if as_json else table(result))
    if result["problems"]:
        sys.exit(1)


if __name__ == "__main__":
    main()

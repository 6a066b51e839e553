"""Strictness beside the peers: the cases of tests/corpus, sent to each server, and how its answers compare.

A case holds what this project wants; where an RFC leaves a choice, it is the strict side. So to differ is not to be
wrong: `more lenient` answers what we refuse, `stricter` refuses what we answer, and `otherwise` has another status,
another body or another end of the connection, or keeps silent. Whatever differs is sent a second time, a few at a time,
and that counts: on a busy machine a right answer may come too late.
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gevent.pool

import tafe
from benchmarks import environment
from benchmarks.measure import say
from tests.corpus import client, compare

COLUMNS = {"same": "agrees", "lets through": "more lenient", "refuses": "stricter"}  # of compare.KINDS
OTHERWISE = "otherwise"
WORDS = (*COLUMNS.values(), OTHERWISE)
_PACKAGES = {"gunicorn-gevent": "gunicorn", "pywsgi": "gevent"}
_AT_ONCE = 8  # the second time


def run(cores: tuple[int, int]) -> dict[str, Any]:
    """Compare; takes about ten seconds a server. `cores` do not matter here."""
    del cores
    installed = environment.versions(Path(sys.executable))
    servers = {}
    for name in compare.SERVERS:
        results = compare.with_server(name, _twice)
        servers[name] = {
            "version": tafe.__version__ if name == "tafe" else installed.get(_PACKAGES[name]),
            "groups": _groups([(each.case.folder, each.kind) for each in results]),
            "kinds": dict(collections.Counter(each.kind for each in results)),
            "differing": {each.case.name: each.kind for each in results if each.kind != "same"},
        }
        say(f"strictness  {name:<16} {servers[name]['kinds']}")
    return {"cases": len(results), "servers": servers}


def _twice(address: tuple[str, int]) -> list[compare.Result]:
    """Every case; those that differ once more."""

    def again(result: compare.Result) -> compare.Result:
        if result.kind == "same":
            return result
        return compare.Result(result.case, client.send(address, result.case, timeout_s=compare.TIMEOUT_S))

    first = compare.run_all(address)
    results: list[compare.Result] = gevent.pool.Pool(_AT_ONCE).map(again, first)
    return results


def _groups(kinds: Sequence[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """By group of cases, how many agree and in what way the others do not."""
    groups: dict[str, dict[str, int]] = {}
    for group, kind in sorted(kinds):
        counts = groups.setdefault(group, dict.fromkeys(WORDS, 0))
        counts[COLUMNS.get(kind, OTHERWISE)] += 1
    return groups


def totals(groups: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Over all groups."""
    return {word: sum(counts[word] for counts in groups.values()) for word in WORDS}


def table(result: Mapping[str, Any]) -> str:
    """By group: how many cases agree, are answered more leniently, more strictly, or otherwise."""
    servers = {name: server["groups"] for name, server in result["servers"].items()}
    lines = [
        f"{result['cases']} cases, each sent to each server: {' / '.join(WORDS)}.",
        "",
        f"| group | cases | {' | '.join(servers)} |",
        "| --- | ---: |" + " --- |" * len(servers),
    ]
    groups = next(iter(servers.values()))
    for group, counts in groups.items():
        cells = [_cell(of_server[group]) for of_server in servers.values()]
        lines.append(f"| {group} | {sum(counts.values())} | {' | '.join(cells)} |")
    cells = [_cell(totals(of_server)) for of_server in servers.values()]
    lines.append(f"| all | {result['cases']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(counts: Mapping[str, int]) -> str:
    return " / ".join(str(counts[word]) for word in WORDS)

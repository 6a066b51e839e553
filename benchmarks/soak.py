"""Millions of requests of every kind, good and bad: does a worker's memory stay, and does every descriptor come back?

    python -m benchmarks.soak                    3,000,000 requests: ten minutes or more
    python -m benchmarks.soak --quick            30,000 requests: to see that it works
    python -m benchmarks.soak --requests 500000 -- --slow-slice 20ms      further options are `tafe serve`'s

One worker, profiler on, serves soak_app.py over SQLite. wrk sends the bulk: answers, queries and JSON bodies, pipelined
in every second interval. Meanwhile greenlets make the visits of soak_visits.py: bad requests, clients that leave or
reset anywhere, slow ones, timeouts, uploads, streams; each checks what it gets. After each interval everybody is gone,
the worker collects its garbage, and what it holds is written down: resident memory, descriptors, greenlets, objects.

Flat memory means: the last three quarters of the requests (the first warms up) raise resident memory by less than
`MOST_GROWTH_KIB`, and a straight line through their samples rises by less than `MOST_SLOPE_KIB` in 100,000 requests.
Fewer than `LEAST_FOR_SLOPE` requests say nothing about a slope: what is rare goes on touching a new page now and then
for a million requests (14 KiB in 100,000 there, and less than 1 KiB in the third million).
Descriptors must be exactly as many as before the first request whenever nobody is connected. A worker keeps idle
greenlets, as many as ran at once: no more than two a client, since a request whose client left may run on.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import gevent
from gevent.threadpool import ThreadPool

from benchmarks import loads, machine, soak_visits
from benchmarks.client import Exchange
from benchmarks.measure import say
from benchmarks.peers import contract
from tests.services.tafe_server import Running, start_tafe

MOST_GROWTH_KIB = 2048  # two arenas of Python's allocator
MOST_SLOPE_KIB = 32  # in 100,000 requests: a third of a byte a request
LEAST_FOR_SLOPE = 1_500_000
_QUICK_VISITORS = 4
_MOST_GREENLETS = 2 * (loads.CONNECTIONS + _QUICK_VISITORS + len(soak_visits.SLOW))  # kept idle
_LEAVE_S = 6.0  # until the last connection is closed: the server's own timeouts add up to less
_SETTLE_S = 0.5  # until who asked whether the worker is ready has left
_POLL_S = 0.05

_ECHO = b'{"id":7,"tags":["a","b"],"at":1.5,"note":"' + b"x" * 400 + b'"}'


@dataclasses.dataclass(frozen=True)
class _Pipelined(Exchange):
    """A request, and others right behind it."""

    others: tuple[Exchange, ...] = ()

    def request(self, port: int) -> bytes:
        """The bytes of all."""
        return super().request(port) + b"".join(other.request(port) for other in self.others)


_BULK = (
    Exchange("/hello?with=a&query=string", b""),
    *(Exchange("/hello", b"", headers=(("X-Request-Id", f"an-id-{number}"),)) for number in range(300)),
    *(Exchange(f"/users/{id_}", b"") for id_ in range(1, 200)),
    *(
        Exchange("/echo", b"", "POST", (("Content-Type", "application/json"),), _ECHO.replace(b"7", b"%d" % number))
        for number in range(100)
    ),
)
_BULK_PIPELINED = tuple(_Pipelined("/hello", b"", others=_BULK[at : at + 3]) for at in range(0, len(_BULK) - 2, 3))


@dataclasses.dataclass(frozen=True)
class Sample:
    """What the worker held when nobody was connected, after a collection."""

    requests: int  # until then
    seconds: float  # since the first sample
    resident_kib: int
    descriptors: int
    greenlets: int
    objects: int  # tracked by the garbage collector


def run(
    cores: tuple[int, int] | None,
    *,
    requests: int = 3_000_000,
    interval_s: int = 10,
    options: Sequence[str] = (),
) -> dict[str, Any]:
    """Soak a worker started with `options`; `cores` are the server's and the load's, if there are two.

    Raises `ServerError` if it does not start.
    """
    server_core, load_core = cores or (None, None)
    with tempfile.TemporaryDirectory(prefix="tafe-soak-") as folder:
        directory = Path(folder)
        with machine.on_core(server_core):
            running = _start(directory, options)
        try:
            with machine.on_core(load_core):
                worker = _Worker(running)
                first_kinds = worker.held()["kinds"]
                soaked = _soak(worker, requests, interval_s, directory / "requests")
                last_kinds = worker.held()["kinds"]
        finally:
            running.stop()
    return {
        "settings": {"requests": requests, "interval_s": interval_s, "options": list(options)},
        "more_objects": _more(first_kinds, last_kinds),
        **dataclasses.asdict(soaked),
        **judged(soaked.samples),
    }


def _start(directory: Path, options: Sequence[str]) -> Running:
    with closing(sqlite3.connect(directory / "users.db")) as database:
        database.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        database.executemany(
            "INSERT INTO users VALUES (?, ?)", ((n, f"user {n}") for n in range(1, contract.USERS + 1))
        )
        database.commit()
    timeout = f"{soak_visits.TIMEOUT_S:g}s"
    limits = [f"--{name}-timeout={timeout}" for name in ("head", "body", "write")]
    limits += [f"--keep-alive={timeout}", f"--request-timeout={soak_visits.REQUEST_TIMEOUT_S:g}s"]
    return start_tafe(
        directory,
        "benchmarks.soak_app:app",
        *("--workers", "1", *limits, *options),
        env={contract.DATABASE_URL_VARIABLE: f"sqlite:///{directory / 'users.db'}"},
    )


class _Worker:
    """The one worker, looked at from outside."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.port = running.port
        self.pid = int(self.held()["pid"])
        gevent.sleep(_SETTLE_S)
        self.first_descriptors = self._descriptors()
        self._began_s = time.monotonic()

    def held(self) -> dict[str, Any]:
        """What it says that it holds."""
        with urllib.request.urlopen(f"{self._running.url}/held", timeout=_LEAVE_S) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def sample(self, requests: int) -> Sample:
        """Wait until everybody has left, then ask; the question's own descriptor is gone as well."""
        left = self._wait_until_left(self.first_descriptors)
        held = self.held()
        descriptors = self._wait_until_left(left)
        return Sample(
            requests=requests,
            seconds=time.monotonic() - self._began_s,
            resident_kib=held["resident_kib"],
            descriptors=descriptors,
            greenlets=held["greenlets"],
            objects=held["objects"],
        )

    def _wait_until_left(self, wanted: int) -> int:
        """The number of descriptors: when it is `wanted`, or when the server's own timeouts are over."""
        deadline_s = time.monotonic() + _LEAVE_S
        while (count := self._descriptors()) != wanted and time.monotonic() < deadline_s:
            gevent.sleep(_POLL_S)
        return count

    def _descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@dataclasses.dataclass
class _Soaked:
    """What was seen, from outside and by the clients."""

    samples: list[Sample]
    wrong: int = 0  # answers
    late: int = 0  # visits that say nothing, since the client did not get the processor
    faults: dict[str, str] = dataclasses.field(default_factory=dict)  # the last one of each kind of visit


def _soak(worker: _Worker, requests: int, interval_s: int, file: Path) -> _Soaked:
    threads = ThreadPool(1)
    soaked = _Soaked([worker.sample(0)])
    done = 0
    while done < requests:
        visitors = soak_visits.Visitors(worker.port, _QUICK_VISITORS)
        bulk = _BULK if len(soaked.samples) % 2 else _BULK_PIPELINED
        # In a native thread: waiting for wrk must not hold up the visitors, whose loop this is.
        load = loads.parse_wrk(
            threads.apply(loads.run, (loads.wrk_argv(worker.port, bulk, interval_s, file), interval_s))
        )
        visitors.stop()
        done += load.requests + visitors.requests
        soaked.wrong += load.errors + visitors.wrong
        soaked.late += visitors.late
        soaked.faults |= visitors.faults
        if load.errors:
            soaked.faults["wrk"] = f"{load.errors} errors"
        soaked.samples.append(worker.sample(done))
        say(_line(dataclasses.asdict(soaked.samples[-1])) + f"  wrong {soaked.wrong}  late {soaked.late}")
    threads.kill()
    return soaked


def _more(first: Mapping[str, int], last: Mapping[str, int]) -> dict[str, int]:
    """The ten kinds of objects of which there are most more."""
    grown = {kind: count - first.get(kind, 0) for kind, count in last.items()}
    return {kind: grown[kind] for kind in sorted(grown, key=lambda kind: -grown[kind])[:10] if grown[kind] > 0}


def judged(samples: Sequence[Sample]) -> dict[str, Any]:
    """The verdict, and the figures it rests on."""
    first, last = samples[0], samples[-1]
    warm = [sample for sample in samples if sample.requests >= last.requests / 4]
    growth_kib = last.resident_kib - warm[0].resident_kib
    span = last.requests - warm[0].requests
    slope_kib = None
    if span >= LEAST_FOR_SLOPE and len(warm) > 2:
        fitted = statistics.linear_regression(
            [sample.requests for sample in warm], [sample.resident_kib for sample in warm]
        )
        slope_kib = fitted.slope * 100_000
    return {
        "growth_kib": growth_kib,
        "slope_kib_per_100k": slope_kib,
        "memory_flat": growth_kib < MOST_GROWTH_KIB and (slope_kib is None or slope_kib < MOST_SLOPE_KIB),
        "descriptors_back": all(sample.descriptors == first.descriptors for sample in samples),
        "greenlets_bounded": all(sample.greenlets <= first.greenlets + _MOST_GREENLETS for sample in samples),
    }


def table(result: Mapping[str, Any]) -> str:
    """Ten of the samples as a markdown table, and the verdict."""
    samples = result["samples"]
    step = max(1, (len(samples) - 1) // 10)
    shown = [*samples[:-1:step], samples[-1]]
    slope = result["slope_kib_per_100k"]
    lines = [
        "| requests | minutes | resident MiB | descriptors | greenlets | objects |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {each['requests']:,} | {each['seconds'] / 60:.1f} | {each['resident_kib'] / 1024:.1f} "
            f"| {each['descriptors']} | {each['greenlets']} | {each['objects']:,} |"
            for each in shown
        ),
        "",
        f"- After the first quarter memory grew by {result['growth_kib']:,} KiB (at most {MOST_GROWTH_KIB:,})"
        + ("" if slope is None else f", by {slope:.1f} KiB in 100,000 requests (at most {MOST_SLOPE_KIB})")
        + f": {_kept(result['memory_flat'])}."
        + ("" if result["memory_flat"] else f" Objects of which there are more: {result['more_objects']}."),
        f"- Every descriptor came back: {_kept(result['descriptors_back'])}.",
        f"- No more greenlets are kept than two a client: {_kept(result['greenlets_bounded'])}.",
        f"- Answers other than expected: {result['wrong']:,}; visits whose client was late itself: {result['late']:,}."
        + "".join(f" {name}: {what}." for name, what in result["faults"].items()),
    ]
    return "\n".join(lines)


def _line(sample: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {value:,.0f}" for name, value in sample.items())


def _kept(promise: bool) -> str:
    return "kept" if promise else "**not kept**"


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--requests", default=3_000_000, show_default=True, type=click.IntRange(1, 100_000_000), help="How many.")
@click.option("--quick", is_flag=True, help="30,000 requests, a second an interval: to try it, not to publish it.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def main(*, requests: int, quick: bool, options: tuple[str, ...]) -> None:
    """Soak a worker; exit status 1 if a promise is not kept. OPTIONS are given to tafe serve."""
    cores = machine.two_cores()
    if quick:
        result = run(cores, requests=30_000, interval_s=1, options=options)
    else:
        result = run(cores, requests=requests, options=options)
    print(table(result))
    if not (result["memory_flat"] and result["descriptors_back"] and result["greenlets_bounded"]):
        sys.exit(1)


if __name__ == "__main__":
    main()

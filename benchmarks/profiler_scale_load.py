"""A million requests, ten thousand places that stall and a hundred thousand URLs, as the profiler's recorder sees them.

Made up, and the same each time; but it goes through all that records: labels of URLs (`routes`), folding (`recorder`),
sites (`sites`), files (`writer`). What sees the slices in the first place, hook and watchdog, keeps a fixed number of
them and is not part of this. Time is made up too: `REQUESTS_A_SECOND`, a hand-over every ten seconds; the writer is
waited for at the end of each second, since its own are real.
Half of the requests are for `ROUTES` routes of an application, half for URLs that have no number to leave out, each as
often as any other. Places are hit by the harmonic series, so that few do most of the harm: what a report must find.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

from profiler.causes import Verdict
from profiler.frames import Place
from profiler.hook import BATCH
from profiler.model import Counts, Slice, Span
from profiler.recorder import Recorder
from profiler.routes import Routes
from profiler.sites import Finding, SiteTable
from profiler.usage import Usage
from profiler.writer import Writer

ROUTES = 50  # of an application of some size
REQUESTS_A_SECOND = 10_000  # what a worker answers at most
HAND_OVER_S = 10
SITES_A_MODULE = 50
DEPTH = 40  # frames of a stack: a framework, its middlewares, an application
SLICES_A_SITE = 2  # on average
NOTHING = Counts(0, 0, 0.0, 0, 0, 0, 0)

FUNCTION = """def stall_{number}(rows):
    total = 0
    for row in rows:
        total += row.price * row.count  # {number}
    return total


"""


@dataclass(frozen=True)
class Size:
    """How much of it."""

    requests: int = 1_000_000
    sites: int = 10_000
    urls: int = 100_000


@dataclass
class Truth:
    """What was recorded: what a report has to add up to."""

    requests: int = 0
    slices: int = 0
    harm_s: float = 0.0
    victims: int = 0


class Sites:
    """Functions in files of their own, whose source is read when a site is stored."""

    def __init__(self, directory: Path, sites: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._functions: list[CodeType] = []
        for first in range(0, sites, SITES_A_MODULE):
            path = directory / f"module_{first}.py"
            source = "".join(FUNCTION.format(number=n) for n in range(first, min(first + SITES_A_MODULE, sites)))
            path.write_text(source)
            module = compile(source, str(path), "exec")
            self._functions += [code for code in module.co_consts if isinstance(code, CodeType)]
        around = compile("\n" * 10 + "def call(request):\n    return answer(request)\n", "/srv/framework.py", "exec")
        self._around = next(code for code in around.co_consts if isinstance(code, CodeType))

    def finding(self, site: int, span: Span, length_s: float) -> Finding:
        """A slow slice of that request there; it harmed ten others by half its length each."""
        code = self._functions[site]
        line = code.co_firstlineno + 3
        start_s, end_s = span.started_s, span.started_s + length_s
        record = Slice(start_s, end_s, span, 0.0, Usage(end_s, length_s, 0.0), (start_s, 0.0), ())
        record.harm_s, record.victims = 5 * length_s, 10
        stack = ((code, line), *((self._around, 11 + depth) for depth in range(DEPTH)))
        place = Place(code.co_filename, line, code.co_name, code.co_firstlineno)
        verdict = Verdict("python", innocent=False, on_cpu=True)
        return Finding(record, place, {line: length_s, line - 1: length_s / 4}, stack, verdict, exact=True)


class _Written:
    """A hand-over of nothing, by which the writer is waited for."""

    records = 0

    def __init__(self) -> None:
        self._done = threading.Event()

    def lines(self) -> Iterator[dict[str, Any]]:
        self._done.set()
        return iter(())

    def wait(self) -> None:
        if not self._done.wait(60):
            raise SystemExit("profiler_scale: the writer has not written for a minute")


def record(directory: Path, sites: Sites, size: Size) -> Truth:
    """Record it into `directory`; what a report has to say."""
    chance = random.Random(1)
    table, recorder, routes, truth = SiteTable(), Recorder(), Routes(), Truth()
    writer = Writer(str(directory), "scale", 0.01, table)
    writer.start()
    slices = _slices(size, chance)
    due = next(slices, None)
    for number in range(size.requests):
        span = _finished(number, _route(number, routes, size), chance, recorder.spare)
        (recorder.waited if span._out_s else recorder.batch).append(span)  # noqa: SLF001 - as the hook does
        if len(recorder.batch) >= BATCH:
            recorder.fold()
        while due is not None and due[0] <= number:
            finding = sites.finding(due[1], span, due[2])
            span.blamed = [(finding.record, finding.record.length_s)]
            finding.record.place = finding.place
            table.add(finding)
            truth.slices += 1
            truth.harm_s += finding.record.harm_s
            truth.victims += finding.record.victims
            due = next(slices, None)
        if (number + 1) % REQUESTS_A_SECOND == 0 or number + 1 == size.requests:
            second = (number + 1) // REQUESTS_A_SECOND
            table.catch_up(float(second))  # as the watchdog does at each look
            if second % HAND_OVER_S == 0 or number + 1 == size.requests:
                recorder.fold()
                writer.hand_over(recorder.take(NOTHING, NOTHING, float(HAND_OVER_S), 0.1))
            written = _Written()
            writer.hand_over(written)
            written.wait()
    writer.stop()
    truth.requests = size.requests
    return truth


def _slices(size: Size, chance: random.Random) -> Iterator[tuple[int, int, float]]:
    """After which request, at which site, how long; each site at least once, the first the most and the longest."""
    hits = list(range(size.sites))
    share = (SLICES_A_SITE - 1) * size.sites / sum(1 / (site + 1) for site in hits)
    for site in range(size.sites):
        hits += [site] * int(share / (site + 1))
    chance.shuffle(hits)
    for number, site in enumerate(hits):
        yield number * size.requests // len(hits), site, 0.01 + 0.04 / (site + 1) + 0.0005 * chance.random()


def _route(number: int, routes: Routes, size: Size) -> str:
    if number % 2:
        return f"GET /api/resource-{'abcdefghij'[number // 2 % 10]}/{number // 20 % (ROUTES // 10)}/{{id}}"
    path = f"/shop/{_word(number // 2 * 7919 % size.urls)}"  # a prime: in no order that favours any
    try:
        return routes.known["GET"][path]
    except KeyError:
        return routes.remember("GET", path)


def _word(number: int) -> str:
    """Letters for a number: what is put in place of an identifier has digits."""
    letters = ""
    while True:
        number, letter = divmod(number, 26)
        letters += chr(ord("a") + letter)
        if not number:
            return f"article-{letters}"


def _finished(number: int, route: str, chance: random.Random, spare: list[Span]) -> Span:
    running_s = 0.0002 + 0.001 * chance.random()
    waits = number % 3 == 0
    queued_s = 0.0005 * chance.random()
    span = spare.pop() if spare else Span()
    span.route, span.request_id = route, f"r{number}"
    span.error, span.blamed = False, None
    span.started_s = number / REQUESTS_A_SECOND
    span._running_s = span._longest_s = running_s  # noqa: SLF001 - as the hook sets them
    span.queued_s = queued_s
    span._out_s = 1.0 if waits else 0.0  # noqa: SLF001
    span.total_s = running_s + queued_s + (0.002 + 0.02 * chance.random() if waits else 0.0)
    return span

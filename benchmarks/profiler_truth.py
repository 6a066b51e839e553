"""Whether the profiler's times are true: how long stalls were, what they did to others' requests, and whose they were.

    python -m benchmarks.profiler_truth            three minutes
    python -m benchmarks.profiler_truth --quick    to see that it works

One worker of `tafe serve`, with the profiler as it is by default, on one core, the clients on the other. Three parts,
each compared with the JSON report on it:

durations   A handler that blocks the hub in one of four ways measures that itself, `VISITS` times for each, and yields.
            Wrong by: the route's longest slice (one row a visit) and the 20 slowest requests' running time, against it.
harm        Requests come in an open loop (timed_requests.py) while every 207 ms a handler blocks the hub for 30 ms;
            the same plan is also run without those. A victim's delay is its latency, less that of the same request
            without stalls (the median of the rounds), both from the moment it was due; victims are those that were
            under way during a stall. Their sum, against the sum of `harm_ms` of the stalls' site. Three kinds of
            victims are apart: answered at once, waiting for a timer, and waiting for another server.
pairs       The scripted scenario of profiler_truth_script.py.

A round counts if the hypervisor took less than 2 % of either core, and other programs less than 5 % of the server's:
the profiler cannot know when a request would have been served on a quiet machine. Others are shown; where none counts
the verdict is `unknown`. What is left between the two sums is the time that victims wait for one another after a stall,
which is no stall's harm, and the clients' own lateness, which is shown.
"""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from benchmarks import machine, profiler_truth_app, profiler_truth_script, timed_requests
from benchmarks.disturbance import MAX_STEAL_PERCENT
from benchmarks.measure import say
from tests.services.tafe_server import Running, start_tafe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.timed_requests import Timed

VISITS = 15  # of each kind
SHORTEST_MS, LONGEST_MS = 12.0, 60.0  # asked for; what it took is measured
DURATION_MS, DURATION_SHARE = 1.0, 0.02  # a duration may be wrong by the larger of them
HARM_SHARE = 0.1
MAX_OTHERS_PERCENT = 5.0  # of the server's core; half of what harm may be wrong by
VICTIMS = ("answers", "naps", "asks")
_EVERY_S = 0.005  # a victim's request: six each stall
_STALL_EVERY_S = 0.207  # in no step with the requests
_STALL_MS = 30.0
QUICK: dict[str, Any] = {"rounds": 1, "seconds": 2.0, "visits": 2}  # of `run`: to try it, not to publish it
KEPT, NOT_KEPT, UNKNOWN = "kept", "not kept", "unknown"

_T = TypeVar("_T")


def run(cores: tuple[int, int], *, rounds: int = 3, seconds: float = 8.0, visits: int = VISITS) -> dict[str, Any]:
    """Measure; `cores` are the server's and the load's, where this process must be already. Returns plain values."""
    with tempfile.TemporaryDirectory(prefix="tafe-bench-") as name:
        folder = Path(name)
        durations = [_durations(folder / f"durations-{number}", cores, visits) for number in range(rounds)]
        harm = []
        for number in range(rounds):
            for kind in VICTIMS:
                harm.append({"victims": kind, **_harm(folder / f"harm-{kind}-{number}", cores, kind, seconds)})
                say(f"truth, harm: {harm[-1]}")
        played = profiler_truth_script.play(folder)
    return {
        "durations": durations,
        "harm": harm,
        "pairs": {
            "requests": len(played.expected),
            "pairs": sum(map(len, played.expected.values())),
            "differences": list(profiler_truth_script.differences(played)),
        },
    }


def _durations(folder: Path, cores: tuple[int, int], visits: int) -> dict[str, Any]:
    with serving(folder, cores[0]) as running:
        stalls, disturbed = _during(running, cores, lambda: visit_all(running, visits))
    measured_ms = {stall.visit: (stall.end_s - stall.began_s) * 1000 for stall in stalls}
    made = {**wrong_by(measured_ms, profiler_truth_script.report_of(running)), **disturbed}
    say(f"truth, durations: {made}")
    return made


class Stall(NamedTuple):
    """By `time.perf_counter`, in seconds."""

    visit: int
    sent_s: float  # by the client
    began_s: float  # by the handler
    end_s: float


def visit_all(running: Running, visits: int) -> list[Stall]:
    """Ask for each kind of stall so often, one after the other."""
    kinds = list(profiler_truth_app.KINDS)
    total = visits * len(kinds)
    sent_s = []
    for visit in range(total):
        ms = SHORTEST_MS + (LONGEST_MS - SHORTEST_MS) * visit / total
        sent_s.append(time.perf_counter())
        _get(running, f"/stalls/{kinds[visit % len(kinds)]}?visit={visit}&ms={ms:.1f}")
    return [Stall(visit, sent_s[visit], began_s, end_s) for visit, began_s, end_s in _measured(running)]


def _measured(running: Running) -> list[tuple[int, float, float]]:
    noted: list[tuple[int, float, float]] = json.loads(_get(running, "/measured"))
    return noted


def wrong_by(measured_ms: Mapping[int, float], report: Mapping[str, Any]) -> dict[str, Any]:
    """How far the report is from what the handlers measured, by visit; as shares of what is allowed, too."""
    rows = {row["route"]: row for row in report["routes"]}
    slowest = {row["route"]: row["running_ms"] for row in report["slowest"]}
    figures = [
        (abs(reported_ms - ms), ms)
        for visit, ms in measured_ms.items()
        for reported_ms in (
            rows.get(f"visit {visit}", {"longest_slice_ms": {"max": 0.0}})["longest_slice_ms"]["max"],
            slowest.get(f"visit {visit}", ms),
        )
    ]
    exact = [abs(slowest[f"visit {visit}"] - ms) for visit, ms in measured_ms.items() if f"visit {visit}" in slowest]
    return {
        "visits": len(measured_ms),
        "worst_ms": round(max(off for off, _ in figures), 3),
        "worst_of_allowed": round(max(off / max(DURATION_MS, DURATION_SHARE * ms) for off, ms in figures), 3),
        "slowest_worst_ms": round(max(exact), 3),  # of times that went through no histogram
        "total_ms": round(sum(measured_ms.values()), 3),
        "reported_total_ms": round(sum(site["busy_ms"]["total"] for site in report["sites"]), 3),
    }


def _harm(folder: Path, cores: tuple[int, int], kind: str, seconds: float) -> dict[str, Any]:
    plain = [(number * _EVERY_S, f"/{kind}") for number in range(int(seconds / _EVERY_S))]
    stalls = [
        (0.1 + number * _STALL_EVERY_S, f"/stalls/sleeps?visit=1&ms={_STALL_MS:g}")
        for number in range(int((seconds - 0.2) / _STALL_EVERY_S))
    ]
    with serving(folder, cores[0]) as running:
        timed_requests.send(running.port, plain[:200])  # to warm up

        def measure() -> tuple[list[list[Timed]], list[Timed]]:
            calm = [timed_requests.send(running.port, plain)]
            both = timed_requests.send(running.port, sorted(plain + stalls))
            stalled = [one for one, (_, path) in zip(both, sorted(plain + stalls), strict=True) if path == f"/{kind}"]
            calm.append(timed_requests.send(running.port, plain))
            return calm, stalled

        (calm, stalled), disturbed = _during(running, cores, measure)
        held = [(began_s, end_s) for _, began_s, end_s in _measured(running)]
    report = profiler_truth_script.report_of(running)
    sites = [site for site in report["sites"] if site["function"] == "_sleeps"]
    delays_s = delays(calm, stalled, held)
    late_s = sorted(one.sent_s - one.due_s for one in stalled)
    return {
        "stalls": len(held),
        "stalls_reported": sum(site["count"] for site in sites),
        "delay_ms": round(1000 * sum(delays_s), 3),
        "harm_ms": round(sum(site["harm_ms"] for site in sites), 3),
        "delayed": len(delays_s),
        "victims_reported": sum(site["victims"] for site in sites),
        "client_late_p99_ms": round(1000 * late_s[len(late_s) * 99 // 100], 3),
        **disturbed,
    }


def delays(
    calm: Sequence[Sequence[Timed]], stalled: Sequence[Timed], held: Sequence[tuple[float, float]]
) -> list[float]:
    """In seconds, of the requests that were under way during a stall, more than without stalls."""
    return [
        one.answered_s - one.due_s - statistics.median(other.answered_s - other.due_s for other in others)
        for one, *others in zip(stalled, *calm, strict=True)
        if any(one.due_s < end_s and one.answered_s > began_s for began_s, end_s in held)
    ]


@contextmanager
def serving(folder: Path, core: int | None) -> Iterator[Running]:
    """The application, on this core, and what it asks, on ours."""
    with tempfile.TemporaryDirectory(prefix="tafe-") as short:  # a socket's path holds 107 bytes
        path = f"{short}/backend"
        backend = subprocess.Popen([sys.executable, "-m", "benchmarks.profiler_truth_app", path])
        try:
            with machine.on_core(core):
                running = start_tafe(
                    folder,
                    "benchmarks.profiler_truth_app:app",
                    *("--workers", "1"),
                    env={profiler_truth_app.BACKEND_VARIABLE: path},
                )
            try:
                running.wait_until(lambda: Path(path).exists(), "able to ask another server")
                yield running
            finally:
                running.stop()
        finally:
            backend.kill()
            backend.wait()


def _get(running: Running, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10.0)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{path}: {answer.status} {body[:200]!r}")
        return body
    finally:
        connection.close()


def _during(running: Running, cores: tuple[int, int], measure: Callable[[], _T]) -> tuple[_T, dict[str, Any]]:
    pids = [running.pid, *running.worker_pids()]
    before, cpu_before = [machine.core_times(core) for core in cores], machine.cpu_times(pids)
    measured = measure()
    cpu = machine.cpu_times(pids) - cpu_before
    spent = [machine.core_times(core) - then for core, then in zip(cores, before, strict=True)]
    others_s = spent[0].busy_s - cpu.user_s - cpu.system_s
    return measured, {
        "others_percent": round(max(0.0, 100 * others_s / spent[0].total_s), 1),
        "steal_percent": round(max(100 * each.steal_s / each.total_s for each in spent), 1),
    }


def quiet(round_: Mapping[str, Any]) -> bool:
    """Whether the machine let it be measured."""
    calm: bool = round_["steal_percent"] < MAX_STEAL_PERCENT and round_["others_percent"] < MAX_OTHERS_PERCENT
    return calm


def _ratio(rounds: Sequence[Mapping[str, Any]]) -> float:
    ratio: float = statistics.median(each["harm_ms"] / each["delay_ms"] for each in rounds)
    return ratio


def verdicts(result: Mapping[str, Any]) -> dict[str, str]:
    """By what was promised: kept, not kept, or unknown, since the machine had other work in every round."""
    made = {}
    good = [each for each in result["durations"] if quiet(each)]
    made["durations"] = _verdict([each["worst_of_allowed"] for each in good], 1.0)
    for kind in VICTIMS:
        good = [each for each in result["harm"] if each["victims"] == kind and quiet(each)]
        made[f"harm, {kind}"] = _verdict([abs(_ratio(good) - 1)] if good else [], HARM_SHARE)
    made["pairs"] = NOT_KEPT if result["pairs"]["differences"] else KEPT
    return made


def _verdict(figures: Sequence[float], limit: float) -> str:
    """Of all rounds that count."""
    return UNKNOWN if not figures else KEPT if max(figures) <= limit else NOT_KEPT


def table(result: Mapping[str, Any]) -> str:
    """Markdown."""
    judged = verdicts(result)
    lines = [
        "| durations: visits | wrong by ms | slowest's | of the allowed | total ms | reported | others % | steal % |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {each['visits']} | {each['worst_ms']:.2f} | {each['slowest_worst_ms']:.2f} "
        f"| {each['worst_of_allowed']:.2f} | {each['total_ms']:,.1f} | {each['reported_total_ms']:,.1f} "
        f"| {_disturbed(each)} |"
        for each in result["durations"]
    ]
    lines += [
        "",
        "| harm to | stalls | victims | reported | delay ms | harm ms | harm / delay | late ms | others % | steal % |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {each['victims']} | {each['stalls']} | {each['delayed']} | {each['victims_reported']} "
        f"| {each['delay_ms']:,.0f} | {each['harm_ms']:,.0f} | {_ratio([each]):.3f} "
        f"| {each['client_late_p99_ms']:.2f} | {_disturbed(each)} |"
        for each in result["harm"]
    ]
    pairs = result["pairs"]
    lines += [
        "",
        "- Late: the client itself, in 99 of 100 requests at most so much. Victims were under way during a stall.",
        f"- Durations within {DURATION_MS:g} ms or {DURATION_SHARE:.0%}: {_shown(judged['durations'])}.",
        *(
            f"- Harm within {HARM_SHARE:.0%} of the delay, {kind}: {_shown(judged[f'harm, {kind}'])}."
            for kind in VICTIMS
        ),
        f"- {pairs['pairs']} pairs of {pairs['requests']} scripted requests: {_shown(judged['pairs'])}.",
        *(f"  - {difference}" for difference in pairs["differences"]),
    ]
    return "\n".join(lines)


def _disturbed(each: Mapping[str, Any]) -> str:
    return f"{each['others_percent']:.1f} | {each['steal_percent']:.1f}"


def _shown(verdict: str) -> str:
    if verdict == UNKNOWN:
        return "unknown, the machine had other work in every round"
    return verdict if verdict == KEPT else f"**{verdict}**"


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 50))
@click.option("--seconds", default=8.0, show_default=True, type=click.FloatRange(1, 600), help="Of each run of a plan.")
@click.option("--quick", is_flag=True, help="A short form: to try it, not to publish it.")
def main(*, rounds: int, seconds: float, quick: bool) -> None:
    """Compare the profiler's times with those of handlers and clients; exit status 1 if it was wrong."""
    cores = machine.needed_cores()
    with machine.on_core(cores[1]):
        result = run(cores, **QUICK) if quick else run(cores, rounds=rounds, seconds=seconds)
    print(table(result))
    if NOT_KEPT in verdicts(result).values():
        sys.exit(1)


if __name__ == "__main__":
    main()

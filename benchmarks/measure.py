"""The measurement itself: all contestants up at once, short bursts of load in turn, round after round.

Shared machines drift: requests a second change severalfold within an hour, so a figure is comparable only
with one taken seconds before or after it. Hence A B C, A B C, ... instead of all of A, then all of B;
medians over rounds; and ratios taken within a round before their median. Idle contestants wait in epoll and
cost nothing measurable. The servers share one core; wrk, ab, MariaDB and this program have the other. What
the hypervisor stole and what other programs used of the server's core is written beside each burst, so that
a reader can see a spoilt one.

Where perf has no hardware counters each contestant is started once more, alone, under callgrind
(counters.py).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import client, counters, environment, loads, machine, serving
from benchmarks.contestants import Contestant
from benchmarks.scenarios import Scenario
from tests.services.processes import ServerError

WARM_UP_S = 1  # before each burst; after it wrk opens its 64 connections anew, so it is caches that it warms


@dataclasses.dataclass(frozen=True)
class Burst:
    """One burst of load on one contestant."""

    contestant: str
    scenario: str
    round: int
    load: loads.LoadResult
    cpu_user_us: float  # a request, of all the server's processes
    cpu_system_us: float
    busy_percent: float  # of the server's core, used by the server; well below 100: it waited for load or database
    others_percent: float  # of the server's core, used by other programs
    steal_percent: float  # taken by the hypervisor from the core, server's or load's, that lost more
    instructions_user: float | None  # a request; None where perf has no hardware counters
    instructions_kernel: float | None


@dataclasses.dataclass(frozen=True)
class Counted:
    """What was counted once for a contestant and a scenario."""

    contestant: str
    scenario: str
    instructions_user: tuple[float, ...] = ()  # a request, one figure a sample; empty where perf counted instead
    system_calls: float | None = None  # a request
    kernel_share: float | None = None  # of CPU time, 0 to 1, sampled
    main_thread_share: float | None = None  # of CPU time, 0 to 1: of the thread that used most


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long and on which cores."""

    rounds: int
    seconds: int
    server_core: int
    load_core: int
    scenarios: tuple[Scenario, ...]
    samples: int = 3  # under callgrind; their spread shows how exact the figure is


def say(line: str) -> None:
    """Progress, apart from the result."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def all_up(
    chosen: Sequence[Contestant], plan: Plan, directory: Path, database_url: str, programs: Path
) -> Iterator[tuple[list[serving.Contender], dict[str, str]]]:
    """Start everyone; give those that answer rightly, and why the others are out."""
    up: list[serving.Contender] = []
    out: dict[str, str] = {}
    try:
        for number, contestant in enumerate(chosen):
            if reason := _absence(contestant, programs):
                out[contestant.name] = reason
                say(f"left out: {contestant.name}: {reason}")
                continue
            say(f"starting {contestant.name}")
            try:
                contender = serving.Contender(
                    contestant,
                    directory / f"open-{number}",
                    plan.server_core,
                    database_url=database_url,
                    programs=programs,
                )
            except (serving.WrongAnswerError, ServerError) as error:
                out[contestant.name] = str(error)
                say(f"  left out: {error}")
            else:
                up.append(contender)
        yield up, out
    finally:
        for contender in up:
            contender.kill()


def _absence(contestant: Contestant, programs: Path) -> str:
    """Why it cannot be started at all; empty if it can."""
    if contestant.program:
        return "" if environment.found(contestant.program) else f"{contestant.program} is not installed"
    reasons = {} if contestant.ours else environment.not_built(programs)
    return "; ".join(reasons[package] for package in contestant.packages if package in reasons)


def rounds(up: Sequence[serving.Contender], plan: Plan, directory: Path) -> Iterator[Burst]:
    """Every scenario for every contestant, in turn, `plan.rounds` times."""
    for number in range(1, plan.rounds + 1):
        for scenario in plan.scenarios:
            for contender in _taking(up, scenario):
                burst = _burst(contender, scenario, number, plan, directory)
                say(
                    f"round {number}/{plan.rounds}  {scenario.name:<18} {contender.contestant.name:<20} "
                    f"{burst.load.requests_per_s:>9,.0f} req/s  p99 {burst.load.p99_ms:6.1f} ms  "
                    f"CPU {burst.cpu_user_us + burst.cpu_system_us:6.1f} us"
                )
                yield burst


def _taking(up: Sequence[serving.Contender], scenario: Scenario) -> list[serving.Contender]:
    return [contender for contender in up if contender.contestant.takes(scenario)]


def _burst(contender: serving.Contender, scenario: Scenario, number: int, plan: Plan, directory: Path) -> Burst:
    loads.run(scenario.argv(contender.port, WARM_UP_S, directory), WARM_UP_S)
    argv = scenario.argv(contender.port, plan.seconds, directory)
    output = directory / "perf.out"
    if counters.perf_counts_instructions():
        argv = counters.perf_argv((counters.USER, counters.KERNEL), contender.pids, output, argv)
    cores = (plan.server_core, plan.load_core)
    before, cpu_before = [machine.core_times(core) for core in cores], contender.cpu_times()
    text = loads.run(argv, plan.seconds)
    cpu = contender.cpu_times() - cpu_before
    core, load_core = (machine.core_times(core) - then for core, then in zip(cores, before, strict=True))
    load = loads.parse_ab(text) if scenario.tool == "ab" else loads.parse_wrk(text)
    requests = max(1, load.requests)
    counts = counters.parse_perf(output.read_text()) if output.exists() else {}
    return Burst(
        contestant=contender.contestant.name,
        scenario=scenario.name,
        round=number,
        load=load,
        cpu_user_us=cpu.user_s * 1e6 / requests,
        cpu_system_us=cpu.system_s * 1e6 / requests,
        busy_percent=100 * (cpu.user_s + cpu.system_s) / core.total_s,
        others_percent=max(0.0, 100 * (core.busy_s - cpu.user_s - cpu.system_s) / core.total_s),
        steal_percent=max(100 * each.steal_s / each.total_s for each in (core, load_core)),
        instructions_user=counts[counters.USER] / requests if counts else None,
        instructions_kernel=counts[counters.KERNEL] / requests if counts else None,
    )


def watched(up: Sequence[serving.Contender], plan: Plan, directory: Path) -> Iterator[Counted]:
    """System calls a request and the kernel's share, each in a burst of its own since watching slows a server."""
    if not counters.perf_counts_syscalls() and not counters.perf_samples():
        return
    for scenario in plan.scenarios:
        for contender in _taking(up, scenario):
            calls = _system_calls(contender, scenario, directory) if counters.perf_counts_syscalls() else None
            samples = _samples(contender, scenario, directory) if counters.perf_samples() else counters.Samples(0, 0, 0)
            name = contender.contestant.name
            say(f"watched  {scenario.name:<18} {name:<20} system calls {calls or 0:6.2f}  {samples}")
            yield Counted(
                name,
                scenario.name,
                system_calls=calls,
                kernel_share=samples.kernel_share,
                main_thread_share=samples.main_thread_share,
            )


def _system_calls(contender: serving.Contender, scenario: Scenario, directory: Path) -> float:
    output = directory / "syscalls.out"
    load = scenario.argv(contender.port, WARM_UP_S, directory)
    text = loads.run(counters.perf_argv((counters.SYSCALLS,), contender.pids, output, load), WARM_UP_S)
    seen = loads.parse_ab(text) if scenario.tool == "ab" else loads.parse_wrk(text)
    return counters.parse_perf(output.read_text())[counters.SYSCALLS] / max(1, seen.requests)


def _samples(contender: serving.Contender, scenario: Scenario, directory: Path) -> counters.Samples:
    output = directory / "samples.data"
    load = scenario.argv(contender.port, WARM_UP_S, directory)
    loads.run(counters.sampling_argv(contender.pids, output, load), WARM_UP_S)
    return counters.read_samples(output)


def callgrind(
    contestant: Contestant,
    plan: Plan,
    directory: Path,
    *,
    database_url: str | None,
    programs: Path = Path(),
) -> Iterator[Counted]:
    """User instructions a request of one contestant, alone under valgrind.

    The connections are opened in the warm-up and closed after the last sample, so that neither is counted: with wrk and
    perf they are one in thousands of requests.
    """
    counting = counters.Callgrind(directory / "callgrind", main_thread_only=contestant.ours)
    contender = serving.Contender(
        contestant,
        directory,
        plan.server_core,
        database_url=database_url,
        programs=programs,
        callgrind=counting,
    )
    try:
        pids = contender.pids
        counting_on = False
        for scenario in plan.scenarios:
            requests = scenario.counted_requests
            if requests == 0 or not contestant.takes(scenario):
                continue
            with client.Client(contender.port, connections=loads.CONNECTIONS) as connections:
                _exchange(contender, connections, scenario, max(loads.CONNECTIONS * 3, requests // 4))
                if counting_on:
                    counting.take(pids)
                else:
                    counting.begin(pids)
                    counting_on = True
                samples = []
                for _ in range(plan.samples):
                    _exchange(contender, connections, scenario, requests)
                    samples.append(counting.take(pids) / requests)
            say(
                f"callgrind     {scenario.name:<18} {contestant.name:<20} "
                + "  ".join(f"{sample:,.0f}" for sample in samples)
            )
            yield Counted(contestant.name, scenario.name, instructions_user=tuple(samples))
    finally:
        contender.kill()


def _exchange(contender: serving.Contender, connections: client.Client, scenario: Scenario, requests: int) -> None:
    wrong = connections.send(scenario.exchanges, requests)
    if wrong:
        raise serving.WrongAnswerError(
            f"{contender.contestant.name}: {wrong} of {requests} answers to {scenario.name} were wrong"
        )

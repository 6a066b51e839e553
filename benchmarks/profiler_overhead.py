"""What the profiler costs, beside other profilers on the same work: a hello request, a switch, and doing nothing.

    python -m benchmarks.profiler_overhead            five minutes
    python -m benchmarks.profiler_overhead --quick    to see that it works

hello    `tafe serve` with one worker, without any profiler, with ours (compiled and interpreted), and with each of the
         others at work in the worker (peers/observed.py), all by one interpreter and the same packages. Instructions
         by callgrind, of the main thread, since watchdogs work by the clock; CPU time of the whole server while wrk
         runs, the servers in turn (measure.py), its share more than without a profiler within a round, and of those
         the median. Under callgrind, which is fifty times slower, what works by the clock (samplers, heartbeat, our
         pulse and hand-overs) is told to wait fifty times longer. A profiler that noted fewer calls than there were
         requests is left out, with what it noted.
switch   Of greenlets, by callgrind (profiler_switch.py): our hook alone.
idle     CPU of the watchdog's thread, which is the busiest but the main one, in a worker that nobody asks; by the
         scheduler's own clock, /proc/PID/task/TID/schedstat.

A hello has two switches. The bounds are of instructions in user mode, which is where all of the hook's work is, and of
the idle watchdog's share of a core; CPU time is shown without one.
"""

from __future__ import annotations

import http.client
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from benchmarks import counters, environment, machine, measure, profiler_switch, serving
from benchmarks.contestants import Contestant, Launch
from benchmarks.measure import say
from benchmarks.peers import observed
from benchmarks.scenarios import HELLO
from tests.services.tafe_server import start_tafe

SWITCH = {"compiled": 1_200, "interpreted": 3_500}  # instructions at most
REQUEST = 1_700  # more, for beginning, ending and folding a request
SWITCHES = 2  # of a hello
IDLE_PERCENT = 0.5  # of a core
OFF, OURS, OURS_INTERPRETED = "no profiler", "ours", "ours, interpreted"
_REQUIREMENTS = Path(__file__).with_name("peers-profilers.txt")
_DIRECTORY = environment.ROOT / ".run" / "profilers-venv"
_APP = "benchmarks.peers.observed:app"
_INTERVAL_S = 0.001
_SLOWER = 50  # under callgrind
_SETTLE_S = 3.0  # a worker that has just been asked whether it is ready is not idle yet
QUICK: dict[str, Any] = {"rounds": 1, "seconds": 1, "samples": 1, "idle_s": 2.0}  # of `run`: to try it


def _serve(programs: Path, peer: str, *options: str) -> Callable[[Launch], list[str]]:
    def argv(launch: Launch) -> list[str]:
        slower = _SLOWER if launch.slowed_down else 1
        told = [f"{observed.PROFILER_VARIABLE}={peer}", f"{observed.INTERVAL_VARIABLE}={_INTERVAL_S * slower}"]
        told.append(f"{observed.SLOWER_VARIABLE}={slower}")
        if launch.slowed_down:  # which keys of an environ collide is some 300 instructions, by chance
            told.append("PYTHONHASHSEED=0")
        serve = [str(programs / "python"), "-m", "tafe", "serve", _APP, "--workers", "1"]
        return ["env", *told, *serve, "--bind", f"127.0.0.1:{launch.port}", *options]

    return argv


def _ours(programs: Path) -> Callable[[Launch], list[str]]:
    def argv(launch: Launch) -> list[str]:
        threshold = ["--slow-slice", "1s"] if launch.slowed_down else []
        profiled = ["--profile-dir", str(launch.directory / "profile"), *threshold]
        return _serve(programs, "nobody", *profiled)(launch)

    return argv


def all_of(programs: Path) -> list[Contestant]:
    """Every profiler, first none, then ours."""
    interpreted = (("PROFILER_COMPILED", "0"),)
    made = [
        (OFF, "", "--no-profile", _serve(programs, "nobody", "--no-profile"), ()),
        (OURS, "", "tafe serve as it is", _ours(programs), ()),
        (OURS_INTERPRETED, "", "where no C compiler is", _ours(programs), interpreted),
        (
            "gevent's monitor thread",
            "gevent",
            "GEVENT_MONITOR_THREAD_ENABLE; names a function that blocks, if at all",
            _serve(programs, "monitor", "--no-profile"),
            (("GEVENT_MONITOR_THREAD_ENABLE", "true"),),
        ),
    ]
    for package, name, note in (
        ("", "cProfile", "counts and times of functions; knows no greenlets"),
        ("yappi", "yappi", "the same by greenlet; wall clock"),
        ("pyinstrument", "pyinstrument", "a stack each millisecond"),
        ("viztracer", "viztracer", "every call and return"),
    ):
        made.append((name, package, note, _serve(programs, name, "--no-profile"), ()))
    return [
        Contestant(name, (package,) if package else (), note, argv, ours=True, environment=told)
        for name, package, note, argv, told in made
    ]


def run(
    cores: tuple[int, int], *, rounds: int = 5, seconds: int = 2, samples: int = 3, idle_s: float = 20.0
) -> dict[str, Any]:
    """Measure; `cores` are the server's and the load's, where this process must be already. Returns plain values."""
    programs = environment.ensure(_DIRECTORY, _REQUIREMENTS, None)
    plan = measure.Plan(rounds, seconds, cores[0], cores[1], (HELLO,), samples)
    chosen = all_of(programs)
    interpreted = environment.interpreted()["profiler"]
    if interpreted:
        chosen = [each for each in chosen if each.name != OURS]
    with tempfile.TemporaryDirectory(prefix="tafe-bench-") as folder:
        bursts, left_out = _bursts(chosen, plan, Path(folder), programs)
        counted = {
            each.name: _instructions(each, plan, Path(folder), programs)
            for each in chosen
            if each.name not in left_out and counters.callgrind_is_here()
        }
        idle = _idle(Path(folder), cores[0], idle_s)
    versions = environment.versions(programs / "python")
    return {
        "interpreted_because": interpreted,
        "profilers": [
            {"name": each.name, "note": each.note, "versions": {name: versions[name] for name in each.packages}}
            for each in chosen
        ],
        "left_out": left_out,
        "hello": [_figure(each.name, counted, bursts) for each in chosen if each.name not in left_out],
        "switch": _switch(interpreted),
        "idle": idle,
    }


def _bursts(
    chosen: Sequence[Contestant], plan: measure.Plan, folder: Path, programs: Path
) -> tuple[list[measure.Burst], dict[str, str]]:
    with ExitStack() as stack:
        up = []
        for number, each in enumerate(chosen):
            up.append(
                serving.Contender(
                    each, folder / f"open-{number}", plan.server_core, database_url=None, programs=programs
                )
            )
            stack.callback(up[-1].kill)
        bursts = list(measure.rounds(up, plan, folder))
        requests = {one.contestant: 0 for one in bursts}
        for one in bursts:
            requests[one.contestant] += one.load.requests
        left_out = {
            one.contestant.name: reason
            for one in up
            if (reason := _blind(one.contestant.name, _seen(one.port), requests[one.contestant.name]))
        }
    return [one for one in bursts if one.contestant not in left_out], left_out


def _blind(name: str, seen: int, requests: int) -> str:
    """Why its figures say nothing; empty if it did look."""
    # Samples are no calls; ours is judged by its report elsewhere; gevent's monitor says 1 if it runs.
    least = {OFF: 0, OURS: 0, OURS_INTERPRETED: 0, "gevent's monitor thread": 1, "pyinstrument": 1}.get(name, requests)
    # A ring keeps the last ones only.
    least = min(least, 10_000) if name == "viztracer" else least
    return "" if seen >= least else f"it noted {seen} calls of the application in {requests} requests"


def _seen(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60.0)
    try:
        connection.request("GET", "/seen")
        return int(connection.getresponse().read())
    finally:
        connection.close()


def _instructions(each: Contestant, plan: measure.Plan, folder: Path, programs: Path) -> list[float]:
    directory = folder / f"counted-{each.name.partition(' ')[0]}-{len(each.environment)}"
    (one,) = measure.callgrind(each, plan, directory, database_url=None, programs=programs)
    return list(one.instructions_user)


def _figure(name: str, counted: Mapping[str, Sequence[float]], bursts: Sequence[measure.Burst]) -> dict[str, Any]:
    cpu = {(one.contestant, one.round): one.cpu_user_us + one.cpu_system_us for one in bursts}
    rounds = sorted({one.round for one in bursts})
    mine = [one for one in bursts if one.contestant == name]
    figure: dict[str, Any] = {
        "name": name,
        "cpu_us": statistics.median(cpu[name, number] for number in rounds),
        "cpu_more_percent": statistics.median(100 * (cpu[name, n] / cpu[OFF, n] - 1) for n in rounds),
        "requests_per_s": statistics.median(one.load.requests_per_s for one in mine),
        "others_percent": max(one.others_percent for one in mine),
        "steal_percent": max(one.steal_percent for one in mine),
        "instructions": None,
        "instructions_more": None,
    }
    if counted:
        figure["instructions"] = round(statistics.median(counted[name]))
        figure["instructions_more"] = figure["instructions"] - round(statistics.median(counted[OFF]))
    return figure


def _switch(interpreted: str) -> dict[str, float]:
    """Instructions by kind; empty without valgrind."""
    if not counters.callgrind_is_here():
        return {}
    kinds = {"interpreted": False} if interpreted else {"compiled": True, "interpreted": False}
    made: dict[str, float] = {}
    for kind, compiled in kinds.items():
        bare, hooked = (profiler_switch.instructions(mode, compiled) for mode in ("bare", "switch"))
        made[kind] = round((hooked - bare) / 2)
        say(f"overhead, a switch, {kind}: {made[kind]}")
    return made


def _idle(folder: Path, core: int, seconds: float) -> dict[str, Any]:
    with machine.on_core(core):
        running = start_tafe(folder / "idle", "apps.hello:app", "--workers", "1")
    try:
        time.sleep(_SETTLE_S)
        (worker,) = running.worker_pids()
        before, before_s = _by_thread(worker), time.perf_counter()
        time.sleep(seconds)
        after, took_s = _by_thread(worker), time.perf_counter() - before_s
    finally:
        running.stop()
    used = {thread: (spent[0] - before[thread][0], spent[1] - before[thread][1]) for thread, spent in after.items()}
    main_s, _ = used.pop(worker)
    watchdog_s, wakes = max(used.values())
    made = {
        "seconds": round(took_s, 1),
        "watchdog_percent": round(100 * watchdog_s / took_s, 3),
        "wakes_per_s": round(wakes / took_s, 1),
        "main_thread_percent": round(100 * main_s / took_s, 3),
        "other_threads_percent": round(100 * (sum(spent for spent, _ in used.values()) - watchdog_s) / took_s, 3),
    }
    say(f"overhead, idle: {made}")
    return made


def _by_thread(pid: int) -> dict[int, tuple[float, int]]:
    """By thread: seconds on a CPU, and how often it got one."""
    made = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        cpu_ns, _, wakes = (task / "schedstat").read_text().split()
        made[int(task.name)] = int(cpu_ns) / 1e9, int(wakes)
    return made


def verdicts(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One for each bound: what, limit, figure, and whether it was kept; None where it was not measured."""
    hello = {each["name"]: each["instructions_more"] for each in result["hello"]}
    made: list[tuple[str, float, float | None]] = []
    for kind, name in (("compiled", OURS), ("interpreted", OURS_INTERPRETED)):
        made.append((f"instructions of a switch, {kind}", SWITCH[kind], result["switch"].get(kind)))
        made.append((f"instructions of a hello, {kind}", SWITCHES * SWITCH[kind] + REQUEST, hello.get(name)))
    made.append(("percent of a core, idle watchdog", IDLE_PERCENT, result["idle"]["watchdog_percent"]))
    return [
        {"bound": what, "limit": limit, "figure": figure, "kept": None if figure is None else figure <= limit}
        for what, limit, figure in made
    ]


def table(result: Mapping[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| hello under | instructions | more | | CPU us | more | req/s | others % | steal % |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += map(_row, result["hello"])
    lines += ["", "| bound | at most | figure | |", "| --- | ---: | ---: | --- |"]
    for each in verdicts(result):
        verdict = {None: "not measured", True: "kept", False: "**not kept**"}[each["kept"]]
        figure = "-" if each["figure"] is None else f"{each['figure']:,}"
        lines.append(f"| {each['bound']} | {each['limit']:,} | {figure} | {verdict} |")
    lines.append("")
    for each in result["profilers"]:
        version = "".join(f" {number}" for number in each["versions"].values())
        reason = result["left_out"].get(each["name"])
        lines.append(f"- {each['name']}{version}: {each['note']}." + (f" Left out: {reason}." if reason else ""))
    if result["interpreted_because"]:
        lines.append(f"- Ours is not compiled: {result['interpreted_because']}.")
    idle = result["idle"]
    lines.append(
        f"- An idle worker, {idle['seconds']:g} s: the watchdog woke {idle['wakes_per_s']:g} times a second; the main "
        f"thread used {idle['main_thread_percent']:g} % of a core, all others {idle['other_threads_percent']:g} %."
    )
    return "\n".join(lines)


def _row(figure: Mapping[str, Any]) -> str:
    counted = ["-", "-", "-"]
    if figure["instructions"] is not None:
        more = figure["instructions_more"]
        share = 100 * more / (figure["instructions"] - more)
        counted = [f"{figure['instructions']:,}", f"{more:,}", f"{share:.0f} %"]
    return (
        f"| {figure['name']} | {' | '.join(counted)} | {figure['cpu_us']:.1f} | {figure['cpu_more_percent']:+.0f} % "
        f"| {figure['requests_per_s']:,.0f} | {figure['others_percent']:.1f} | {figure['steal_percent']:.1f} |"
    )


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 50), help="Of all servers in turn.")
@click.option("--seconds", default=2, show_default=True, type=click.IntRange(1, 60), help="Of each one's load.")
@click.option("--quick", is_flag=True, help="A short form: to try it, not to publish it.")
def main(*, rounds: int, seconds: int, quick: bool) -> None:
    """Measure what profilers cost; exit status 1 if ours costs more than it may."""
    cores = machine.needed_cores()
    with machine.on_core(cores[1]):
        result = run(cores, **QUICK) if quick else run(cores, rounds=rounds, seconds=seconds)
    print(table(result))
    if any(each["kept"] is False for each in verdicts(result)):
        sys.exit(1)


if __name__ == "__main__":
    main()

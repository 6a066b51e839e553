"""The measuring of threads.py: capacities, bursts at fixed rates, the floor of the queries, the client's own limit."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pymysql

from benchmarks import client, closed_loop, contestants, disturbance, environment, loads, measure, open_loop, scenarios
from benchmarks import threads_verdicts as verdicts
from benchmarks.client import LoadError
from benchmarks.peers import contract, mix
from benchmarks.scenarios import Scenario
from benchmarks.serving import Contender, WrongAnswerError
from benchmarks.threads_servers import MOD_WSGI

_CAPACITY_SHARE = 1 / 3  # of a burst's length, once to warm up and once to measure: an average needs less than a p99
_WARM_UP_S = 0.5  # of an open loop: below its capacity a server's queue settles in a tenth of that
_FLOOR_TIMES = {verdicts.QUERY: 1000, verdicts.MIX: 200}  # a second or two each
_CLIENT_RATES = (20_000, 40_000, 60_000)
_CLIENT_S = 1.0
_CLIENT_KEEPS = 0.98  # of a rate, in answers: below that the client is what limits, since nginx could do more


class Ladders:
    """Bursts of all servers at shares of what each could do; `bursts` still have their latencies."""

    def __init__(
        self,
        up: Sequence[Contender],
        asked: Sequence[Scenario],
        cores: tuple[int, int],
        seconds: float,
        levels: Sequence[int],
    ) -> None:
        self._up, self._asked, self._cores, self._seconds, self._levels = up, asked, cores, seconds, levels
        self.capacities: list[dict[str, Any]] = []
        self.bursts: list[dict[str, Any]] = []
        self.slow: list[dict[str, Any]] = []  # of the mix, at the lowest rate at which mod_wsgi is slow

    def climb(self, number: int) -> None:
        """One round: every scenario, every server, every level."""
        for scenario in self._asked:
            for contender in self._up:
                capacity = self._capacity(contender, scenario)
                if "error" not in capacity:
                    capacity["cpu_us"] = self._cpu_us(contender, scenario, capacity["requests_per_s"])
                self.capacities.append({"round": number, **capacity})
            for contender in self._up:
                before = self._capacity(contender, scenario)
                if "error" in before:
                    continue
                found = False
                for percent in self._levels:
                    rate = before["requests_per_s"] * percent / 100
                    burst = self._burst(contender, scenario, rate)
                    self.bursts.append({"round": number, "percent": percent, **burst})
                    if not found and _of_threads(burst) and verdicts.is_slow(burst):
                        found = self._beside(scenario, rate)

    def _beside(self, scenario: Scenario, rate: float) -> bool:
        """Offer mod_wsgi's slow rate to it again, and to us; False if it is not slow again: that was an accident."""
        by_name = {contender.contestant.name: contender for contender in self._up}
        again = self._burst(by_name[MOD_WSGI], scenario, rate)
        if not verdicts.is_slow(again):
            return False
        ours = [self._burst(by_name[name], scenario, rate) for name in verdicts.SUBJECTS if name in by_name]
        self.slow += [again, *ours]
        return True

    def _capacity(self, contender: Contender, scenario: Scenario) -> dict[str, Any]:
        """What it can do in a closed loop; `error` if it cannot."""
        made: dict[str, Any] = {"scenario": scenario.name, "contestant": contender.contestant.name}
        length_s = self._seconds * _CAPACITY_SHARE
        try:
            load, disturbed = disturbance.during(
                contender,
                self._cores,
                lambda: closed_loop.run(
                    contender.port, scenario.exchanges, length_s, connections=loads.CONNECTIONS, warm_up_s=length_s
                ),
            )
        except (LoadError, OSError) as error:
            measure.say(f"{scenario.name:<6} {contender.contestant.name:<22} failed: {error}")
            return made | {"error": str(error)[:500]}
        made |= {
            "requests_per_s": round(load.requests_per_s, 1),
            "p50_ms": round(load.p50_ms, 3),
            "p99_ms": round(load.p99_ms, 3),
            "fairness": round(load.fairness, 3),
            **dataclasses.asdict(disturbed),
        }
        measure.say(f"{scenario.name:<6} {contender.contestant.name:<22} can do {load.requests_per_s:>8,.0f} req/s")
        return made

    def _cpu_us(self, contender: Contender, scenario: Scenario, rate: float) -> float:
        """CPU time a request, of an exact number of them: the closed loop's own counts leave out how it begins."""
        requests = max(loads.CONNECTIONS, round(rate * self._seconds * _CAPACITY_SHARE))
        with client.Client(contender.port, connections=loads.CONNECTIONS) as connections:
            wrong = connections.send(scenario.exchanges, loads.CONNECTIONS)
            before = contender.cpu_times()
            wrong += connections.send(scenario.exchanges, requests)
            used = contender.cpu_times() - before
        if wrong:
            raise WrongAnswerError(f"{contender.contestant.name}: {wrong} answers to {scenario.name} were wrong")
        return round((used.user_s + used.system_s) / requests * 1e6, 1)

    def _burst(self, contender: Contender, scenario: Scenario, rate: float) -> dict[str, Any]:
        """One burst in the open loop, latencies and all. A server that is gone has lost every request."""
        loaded, disturbed = disturbance.during(
            contender, self._cores, lambda: _offered(contender.port, scenario, rate, self._seconds)
        )
        burst = {
            "scenario": scenario.name,
            "contestant": contender.contestant.name,
            "rate": round(rate, 1),
            "offered": loaded.offered,
            "answers_per_s": round(loaded.answers_per_s, 1),
            "errors": loaded.errors,
            "late_p99_ms": round(loaded.late_p99_ms, 3),
            "most_waiting": loaded.most_waiting,
            "spoilt": disturbed.spoils,
            **dataclasses.asdict(disturbed),
            "latencies_ns": loaded.latencies_ns,
        }
        burst |= verdicts.percentiles([burst])
        p99 = "lost" if burst["p99_ms"] is None else f"{burst['p99_ms']:.1f} ms"
        measure.say(
            f"{scenario.name:<6} {contender.contestant.name:<22} {rate:>8,.0f} req/s  p99 {p99:>10}  "
            f"errors {sum(loaded.errors.values())}  client late {loaded.late_p99_ms:.1f} ms  "
            f"(steal {disturbed.steal_percent} %, others {disturbed.others_percent} %)"
        )
        return burst


def _of_threads(burst: Mapping[str, Any]) -> bool:
    return (burst["scenario"], burst["contestant"]) == (verdicts.MIX, MOD_WSGI)


def _offered(port: int, scenario: Scenario, rate: float, seconds: float) -> open_loop.Load:
    try:
        return open_loop.run(port, scenario.exchanges, rate, seconds, warm_up_s=_WARM_UP_S)
    except LoadError as error:
        measure.say(f"  {error}")
        lost = round(rate * seconds)
        return open_loop.Load(seconds, lost, array("q"), {"unreachable": lost}, 0.0, 0.0, 0)


def floor(database_url: str) -> dict[str, dict[str, float]]:
    """What the queries of each request take, asked by a single client with PyMySQL on this process's core."""
    target = contract.parsed(database_url)
    connection = pymysql.connect(
        host=target.host, port=target.port, user=target.user, password=target.password, database=target.db
    )
    statements: dict[str, list[tuple[str, tuple[int, ...]]]] = {
        verdicts.QUERY: [(contract.QUERY, (1,))],
        verdicts.MIX: [(contract.QUERY, (1,)), (mix.SLOW_QUERY, ()), (contract.QUERY, (2,))],
    }
    made = {}
    with contextlib.closing(connection), connection.cursor() as cursor:
        for name, asked in statements.items():
            times = []
            for _ in range(_FLOOR_TIMES[name]):
                started = time.perf_counter_ns()
                for statement, parameters in asked:
                    cursor.execute(statement, parameters)
                    cursor.fetchall()
                times.append(time.perf_counter_ns() - started)
            made[name] = {
                "p50_ms": round(statistics.median(times) / 1e6, 3),
                "p99_ms": round(sorted(times)[len(times) * 99 // 100] / 1e6, 3),
                "times": len(times),
            }
    return made


def client_limit(directory: Path, cores: tuple[int, int]) -> list[dict[str, Any]] | None:
    """What the open loop can offer nginx's fixed answer, up to the first rate it cannot keep; None without nginx."""
    if environment.found("nginx") is None:
        return None
    nginx = next(each for each in contestants.CONTESTANTS if each.program == "nginx")
    contender = Contender(nginx, directory / "nginx", cores[0], database_url=None)
    made = []
    try:
        for rate in _CLIENT_RATES:
            load = open_loop.run(contender.port, scenarios.HELLO.exchanges, rate, _CLIENT_S, warm_up_s=_WARM_UP_S)
            made.append(
                {
                    "rate": rate,
                    "answers_per_s": round(load.answers_per_s),
                    "late_p99_ms": round(load.late_p99_ms, 3),
                    **verdicts.percentiles([{"latencies_ns": load.latencies_ns, "offered": load.offered}]),
                }
            )
            measure.say(f"client alone, with nginx: {made[-1]}")
            if load.answers_per_s < _CLIENT_KEEPS * rate:
                break
    finally:
        contender.kill()
    return made

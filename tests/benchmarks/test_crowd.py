"""The short forms of fairness.py and crowd.py on a live server: counts and bytes, no times. What is made of pairs."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import bystanders, closed_loop, crowd, fairness, scenarios

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.services.tafe_server import Running

APP = "benchmarks.peers.plain_wsgi:app"
HELLO = scenarios.HELLO.exchanges


def test_connections_get_their_share_of_a_live_worker(tafe_serve: Callable[..., Running]) -> None:
    load = closed_loop.run(tafe_serve(APP, "--workers", "1").port, HELLO, 1.0, warm_up_s=0.2)
    assert len(load.answers) == 64
    assert min(load.answers) > 3  # even where eight other programs share the core
    assert load.fairness > 0.7


def test_idle_connections_stay_and_cost_a_worker_little(tafe_serve: Callable[..., Running]) -> None:
    count = 2000
    bystanders.need_descriptors(count)
    running = tafe_serve(APP, "--workers", "1")
    pids = running.worker_pids()
    closed_loop.run(running.port, HELLO, 0.2)  # whatever is made once
    before = crowd.Memory.of(pids)
    with bystanders.present("idle", running.port, count) as idle:
        there = crowd.Memory.of(pids)
        closed_loop.run(running.port, HELLO, 0.1, connections=4)
    assert idle.fate == {"opened": count, "closed_by_server": 0}
    assert 300 < (there.resident - before.resident) / count < 3 * 1024  # a socket and its watcher are 300 bytes alone


def test_those_who_come_and_go_take_no_memory_with_them(tafe_serve: Callable[..., Running]) -> None:
    count = 1000
    bystanders.need_descriptors(count)
    running = tafe_serve(APP, "--workers", "1")
    pids = running.worker_pids()
    with bystanders.present("idle", running.port, count):
        before = crowd.Memory.of(pids)
    for _ in range(4):
        with bystanders.present("idle", running.port, count):
            there = crowd.Memory.of(pids)
    assert there.resident - before.resident < count * 1024  # one crowd's worth; four would be kept for 75 s


def test_hello_is_answered_beside_more_slow_clients_than_requests_may_run(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP, "--workers", "1", "--max-in-flight", "16")
    with bystanders.present("slow", running.port, 100, 100) as slow:
        load = closed_loop.run(running.port, HELLO, 0.5, connections=8, warm_up_s=0.3)
    assert min(load.answers) > 0
    assert slow.fate["steps"] > 0
    assert not any(end.endswith("reset") for end in slow.fate)


def test_a_slow_client_is_told_what_became_of_it(tafe_serve: Callable[..., Running]) -> None:
    running = tafe_serve(APP, "--workers", "1", "--head-timeout", "1s")
    with bystanders.present("slow", running.port, 4, 0) as slow:
        closed_loop.run(running.port, HELLO, 1.5, connections=1, warm_up_s=0)
    assert slow.fate["head answered 408"] >= 1


def half(p99_ms: float, *, spoilt: bool = False) -> dict[str, Any]:
    return {"p99_ms": p99_ms, "spoilt": spoilt, "others_percent": 0.0, "steal_percent": 3.0 if spoilt else 0.0}


def pair(with_ms: float, without_ms: float, *, spoilt: bool = False) -> dict[str, Any]:
    made = {"with": half(with_ms, spoilt=spoilt), "without": half(without_ms)}
    return {**made, "bytes_each": 1000, "proportional_bytes_each": 900}


def test_a_pair_with_steal_is_measured_again_and_shown_but_not_counted() -> None:
    pairs = iter([pair(1.1, 1.0), pair(9.0, 1.0, spoilt=True), pair(1.3, 1.0), pair(1.2, 1.0), pair(7.0, 1.0)])
    made = list(crowd.counted_pairs(lambda: next(pairs), 3))
    assert [each["counts"] for each in made] == [True, False, True, True]
    assert crowd.figures(made)["ratio"] == 1.2


def test_a_machine_that_is_never_quiet_gives_no_figure_and_an_end() -> None:
    made = list(crowd.counted_pairs(lambda: pair(1.0, 1.0, spoilt=True), 3))
    assert len(made) == 6
    assert crowd.figures(made)["ratio"] is None


def test_the_tables_show_failures_beside_figures() -> None:
    made = list(crowd.counted_pairs(lambda: pair(1.2, 1.0), 1))
    kinds = [{"name": "idle", "counts": [10_000], "bound": 1.2, "bound_bytes": 3072}]
    rows = [
        {"crowd": "idle", "contestant": "tafe", **crowd.figures(made), "pairs": made},
        {"crowd": "idle", "contestant": "other", "error": "no answer"},
    ]
    text = crowd.table({"active": 32, "crowds": kinds, "rows": rows})
    assert "| tafe | 1,000 | 900 | 1.200 | 1.000 | 1.200 | 1 of 1 | 0 | 0.0 |" in text
    assert "| other | failed: no answer |" in text

    burst = {"fairness": 0.9, "fewest": 90, "most": 100, "requests_per_s": 5, "others_percent": 0, "steal_percent": 0}
    rows = [
        {"scenario": "hello", "contestant": "tafe", "fairness": 0.9, "bursts": [burst]},
        {"scenario": "hello", "contestant": "other", "fairness": None, "bursts": [{"error": "no answer"}]},
    ]
    text = fairness.table(
        {"connections": 64, "seconds": 5.0, "rounds": 1, "bounds": fairness.BOUNDS, "rows": rows, "left_out": {}}
    )
    assert "| hello | tafe | 0.900 | 0.900 | 90 | 100 | 5 | 0 | 0.0 |" in text
    assert "| hello | other | failed: no answer |" in text


def test_too_few_descriptors_are_an_error_that_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(which: int, limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    with pytest.raises(bystanders.DescriptorError, match=r"10200 open files .* 4096 .*prlimit .*--nofile=10200"):
        bystanders.need_descriptors(10_000)

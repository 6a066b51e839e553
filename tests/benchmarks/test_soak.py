"""The soak: its verdicts on invented samples, and a short run, judged by counts."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks import machine, soak
from tests.services.requirements import program

STEADY = [
    soak.Sample(requests=n * 250_000, seconds=n * 10.0, resident_kib=40_000 + 10 * (n % 3), descriptors=22,
                greenlets=80, objects=4000)
    for n in range(13)
]  # fmt: skip


def test_memory_that_wavers_is_flat() -> None:
    assert soak.judged(STEADY)["memory_flat"]


def test_memory_that_rises_while_the_worker_warms_up_is_flat_afterwards() -> None:
    warming = [dataclasses.replace(each, resident_kib=20_000 + 5_000 * n) for n, each in enumerate(STEADY[:3])]
    assert soak.judged([*warming, *STEADY[3:]])["memory_flat"]


@pytest.mark.parametrize("kib_an_interval", [100, 1000])
def test_memory_that_rises_with_the_requests_is_not_flat(kib_an_interval: int) -> None:
    leaking = [dataclasses.replace(each, resident_kib=40_000 + kib_an_interval * n) for n, each in enumerate(STEADY)]
    assert not soak.judged(leaking)["memory_flat"]


def test_a_step_that_is_too_high_is_not_flat_even_where_a_slope_says_nothing() -> None:
    few = [dataclasses.replace(each, requests=each.requests // 100) for each in STEADY]
    assert soak.judged(few)["memory_flat"]
    assert soak.judged(few)["slope_kib_per_100k"] is None
    stepped = dataclasses.replace(few[-1], resident_kib=few[-1].resident_kib + soak.MOST_GROWTH_KIB)
    assert not soak.judged([*few[:-1], stepped])["memory_flat"]


def test_one_descriptor_that_did_not_come_back_is_a_leak() -> None:
    kept = dataclasses.replace(STEADY[5], descriptors=23)
    assert soak.judged(STEADY)["descriptors_back"]
    assert not soak.judged([*STEADY[:5], kept, *STEADY[6:]])["descriptors_back"]


def test_more_greenlets_than_clients_are_a_leak() -> None:
    more = dataclasses.replace(STEADY[-1], greenlets=300)
    assert soak.judged(STEADY)["greenlets_bounded"]
    assert not soak.judged([*STEADY, more])["greenlets_bounded"]


@pytest.mark.real
@pytest.mark.slow
def test_a_short_soak_loses_no_descriptor_and_keeps_its_memory() -> None:
    program("wrk")
    result = soak.run(machine.two_cores(), requests=20_000, interval_s=1)
    assert result["descriptors_back"], result["samples"]
    assert result["greenlets_bounded"], result["samples"]
    assert result["memory_flat"], result["samples"]
    assert result["faults"] == {}
    assert result["wrong"] == 0
    assert result["samples"][-1]["requests"] >= 20_000

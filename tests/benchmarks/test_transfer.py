"""Large transfers beside nginx: what is counted, what is judged, and one short run of the real thing."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks import machine, transfer
from benchmarks.transfer_servers import NGINX, OURS
from tests.services.requirements import program

GOOD = [
    transfer.Transfer(scenario.name, name, number, counted=True, gib_per_s=speed, cpu_s_per_gib=0.5, grown_mib=1.0,
                      steal_percent=0.0)
    for scenario in transfer.SCENARIOS
    for number, (nginx, ours) in enumerate([(2.0, 1.2), (1.0, 0.7), (4.0, 2.0)], 1)
    for name, speed in ((NGINX, nginx), (OURS, ours))
]  # fmt: skip


def test_a_ratio_is_taken_within_a_round_and_its_median_counts() -> None:
    judged = transfer.judged(GOOD)
    ours = [figure for figure in judged["figures"] if figure["contestant"] == OURS]
    assert [figure["of_nginx"] for figure in ours] == [pytest.approx(0.6)] * len(transfer.SCENARIOS)
    assert judged["fast_enough"]
    assert judged["small_enough"]


@pytest.mark.parametrize(
    ("change", "promise"),
    [({"gib_per_s": 0.4}, "fast_enough"), ({"grown_mib": 16.0}, "small_enough"), ({"counted": False}, "fast_enough")],
    ids=["slow", "large", "all spoilt"],
)
def test_one_scenario_is_enough_to_break_a_promise(change: dict[str, float | bool], promise: str) -> None:
    last = transfer.SCENARIOS[-1].name
    changed = [
        dataclasses.replace(each, **change) if (each.scenario, each.contestant) == (last, OURS) else each
        for each in GOOD
    ]
    assert not transfer.judged(changed)[promise]


def test_a_round_that_was_stolen_from_is_not_counted() -> None:
    spoilt = [dataclasses.replace(each, round=9, gib_per_s=0.01, counted=False) for each in GOOD if each.round == 1]
    assert transfer.judged([*GOOD, *spoilt]) == transfer.judged(GOOD)


@pytest.mark.real
@pytest.mark.slow
def test_a_short_run_moves_verified_bytes_in_every_way_and_little_memory() -> None:
    program("nginx")
    cores = machine.two_cores()
    if cores is None:
        pytest.skip("two cores are needed")
    result = transfer.run(cores, size_bytes=32 * 1024 * 1024, rounds=1, peers=False)
    made = {(each["scenario"], each["contestant"]): each for each in result["transfers"]}
    assert set(made) == {(scenario.name, name) for scenario in transfer.SCENARIOS for name in (NGINX, OURS)}
    for key, each in made.items():
        assert each["gib_per_s"] > 0.02, key  # a body that went through Python byte by byte is slower than that
        assert each["grown_mib"] < transfer.MOST_GROWTH_MIB, key  # half of what was moved: nothing holds it whole
    assert "| **tafe** |" in transfer.table(result)

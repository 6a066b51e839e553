"""Verdicts from evidence, each as it was seen on a real machine, in ms."""

from __future__ import annotations

import pytest

from profiler.causes import Kind, Shares, Verdict, judge, parts, shares
from profiler.usage import Usage

THRESHOLD_MS = 10


def split(
    length: float,
    *,
    cpu: float = 0.0,
    starved: float = 0.0,
    blocked: float = 0.0,
    overload: float = 0.0,
    gc: float = 0.0,
    others: float = 0.0,
    gil: tuple[float, float] = (0.0, 0.0),
    shut_out: float = 0.0,
    alone: bool = True,
    faults: int = 0,
    gap: float = 0.0,
    absent: float = 0.0,
) -> Shares:
    """`gil`: the hub waited for it at least and at most so long."""
    return Shares(
        length_s=length / 1000,
        cpu_least_s=cpu / 1000,
        cpu_most_s=cpu / 1000,
        starved_s=starved / 1000,
        blocked_s=blocked / 1000,
        overload_s=max(overload, starved) / 1000,
        gc_s=gc / 1000,
        others_s=others / 1000,
        gil_least_s=gil[0] / 1000,
        gil_most_s=gil[1] / 1000,
        shut_out_s=shut_out / 1000,
        alone=alone,
        faults=faults,
        gap_s=gap / 1000,
        absent_s=absent / 1000,
    )


def judged(share: Shares, samples_ms: dict[str, float], **options: bool) -> Verdict:
    weights = {kind: samples_ms.get(kind.name.lower(), 0.0) / 1000 for kind in Kind}
    return judge(share, weights, threshold_s=THRESHOLD_MS / 1000, **{"sees_waits": True, **options})


def verdict(share: Shares, samples_ms: dict[str, float], **options: bool) -> str:
    found = judged(share, samples_ms, **options)
    assert found.innocent == (found.cause in ("starved", "gil"))
    return found.cause


@pytest.mark.parametrize(
    ("share", "samples", "cause"),
    [
        (split(30, blocked=30), {"free": 30}, "blocking"),  # unpatched sleep
        (split(30, cpu=30), {"asked": 28}, "python"),  # a loop
        (split(30, cpu=30), {"free": 30}, "native"),  # zlib: it let go of the GIL
        (split(60, cpu=60), {"held": 58}, "native"),  # a regular expression: it did not
        (split(60, cpu=60), {"inside": 58}, "native"),  # json.loads, collecting as it goes
        (split(75, cpu=74, gc=70), {"inside": 74}, "gc"),
        (split(60, cpu=22, gc=20, gil=(30, 45), others=38), {"inside": 58}, "gc"),  # slow enough by itself
        (split(40, cpu=8, gc=7, gil=(25, 35), others=32), {"inside": 38}, "gil"),
        (split(60, cpu=20, gc=18, starved=40), {"inside": 58}, "gc"),
        (split(30, cpu=30), {}, "unknown"),
        (split(30, cpu=30), {"asked": 15, "held": 15}, "unknown"),  # samples that do not agree
        (split(35, cpu=15, blocked=20), {"free": 20, "asked": 15}, "blocking"),  # a sleep, and a shorter loop
        (split(35, cpu=20, blocked=15), {"free": 15, "asked": 20}, "python"),  # a loop, and a shorter sleep
        (split(90, cpu=30, starved=40), {"crowded": 70, "asked": 15}, "unknown"),  # bytecode, or C code, without a CPU
        (split(30, cpu=1, faults=3), {"held": 28}, "starved"),  # pages came from the disk
        (split(30, cpu=1, blocked=28, faults=3), {"free": 28}, "blocking"),  # so they did, but the call let go
        (split(30, cpu=1, gil=(0, 10)), {"held": 28}, "blocking"),  # a sleep with the GIL
        (split(30, cpu=1, gil=(0, 10), alone=False), {"held": 28}, "blocking"),
        (split(30, cpu=1, gil=(0, 30), alone=False), {"held": 28}, "unknown"),  # another thread may sleep with the GIL
        (split(30, cpu=1, gil=(20, 30)), {"held": 28}, "unknown"),  # it waited for the GIL, but whose?
        (split(30, cpu=1, overload=4), {"held": 28}, "unknown"),  # or for somebody without a CPU
        (split(30, cpu=1, gil=(20, 30), others=29), {"held": 28}, "gil"),
        (split(30, cpu=1, gil=(20, 30), others=29), {}, "gil"),
        (split(30, cpu=1, gil=(20, 30), shut_out=28, alone=False), {"held": 28}, "gil"),  # another sleeps with it
        (split(30, cpu=1, gil=(0, 5), others=29), {"asked": 28}, "unknown"),
        (split(30, cpu=1, gil=(0, 5), others=29, blocked=28), {"free": 29}, "blocking"),  # meanwhile others work
        (split(12, cpu=1, gil=(0, 5), blocked=8), {"let_go": 11}, "blocking"),
        (split(11, cpu=1, gil=(11, 11), others=11, alone=False), {"free": 5}, "unknown"),  # seen once, just after that
        (split(11, cpu=1, gil=(11, 11), others=11, blocked=5), {"free": 5}, "blocking"),
        (split(12, cpu=1, gil=(0, 10), others=11), {"let_go": 11}, "unknown"),  # it waited for the GIL to go on
        (split(12, cpu=1, gil=(0, 10), alone=False), {"let_go": 11}, "unknown"),
        (split(45, cpu=15, gil=(25, 35), others=30), {"asked": 44}, "python"),  # slow enough by itself
        (split(30, cpu=1), {"frozen": 29}, "starved"),  # the process was stopped
        (split(30, cpu=15, gc=16, starved=22), {"inside": 16}, "starved"),
        (split(30, cpu=1, starved=28), {"free": 30}, "starved"),
        (split(60, cpu=30, starved=30), {"asked": 55}, "python"),  # starved, but slow without that too
        (split(65, cpu=1, starved=37), {"asked": 9}, "starved"),  # waited for a thread that had no CPU
        (split(23, cpu=0, overload=20), {}, "starved"),
        (split(40, cpu=0, starved=10, blocked=30), {"free": 38}, "blocking"),  # a sleep on a busy machine
        (split(12, cpu=8, starved=4), {"asked": 12}, "starved"),
        (split(30, cpu=30), {"slow": 28}, "unknown"),  # bytecode, or C code, or the CPU was away
        (split(341, cpu=30, starved=248, overload=425), {"free": 190, "asked": 93}, "unknown"),  # nobody saw it asleep
        (split(12, cpu=12, gap=11.8), {"asked": 11.8}, "unknown"),  # seen once, at its end
        (split(12, cpu=12, gap=8), {"asked": 8}, "python"),
        (split(30, cpu=30, gap=29, absent=11), {"held": 28}, "unknown"),  # the machine took as much lately
        (split(30, cpu=30, gap=29, absent=5), {"held": 28}, "native"),
        (split(30, gc=29, gap=29, absent=11), {"inside": 28}, "unknown"),
    ],
)
def test_evidence_decides_the_cause(share: Shares, samples: dict[str, float], cause: str) -> None:
    assert verdict(share, samples) == cause


@pytest.mark.parametrize(
    ("share", "samples", "split_ms"),
    [
        (split(35, cpu=15, blocked=20), {"free": 20, "asked": 15}, {"python": 15, "blocking": 20}),
        (split(50, cpu=30, starved=20), {"asked": 10, "held": 20}, {"starved": 20, "python": 10, "native": 20}),
        (split(40, cpu=36, gc=30), {"inside": 38}, {"gc": 30, "native": 6, "blocking": 0, "unknown": 4}),
        (split(30, cpu=1, gil=(20, 30), others=29), {"held": 28}, {"gil": 29, "native": 1}),
        (split(30, cpu=1), {"frozen": 29}, {"starved": 29, "unknown": 1}),
        (split(30, cpu=30), {}, {"unknown": 30}),
    ],
)
def test_a_slice_divides_into_parts_that_add_up(
    share: Shares, samples: dict[str, float], split_ms: dict[str, float]
) -> None:
    weights = {kind: samples.get(kind.name.lower(), 0.0) / 1000 for kind in Kind}
    found = parts(share, weights, sees_waits=True)
    assert {name: seconds * 1000 for name, seconds in found.items()} == pytest.approx(
        {name: ms for name, ms in split_ms.items() if ms}
    )
    assert sum(found.values()) == pytest.approx(share.length_s)


def test_without_the_kernels_figures_what_is_off_the_cpu_stays_unknown() -> None:
    assert verdict(split(30), {"free": 30}, sees_waits=False) == "unknown"
    assert verdict(split(30, cpu=30), {"asked": 30}, sees_waits=False) == "python"


def test_a_hub_that_could_not_go_on_after_a_poll_waited_for_the_gil_if_anybody_else_felt_it() -> None:
    assert judged(split(30, others=28), {}, polled=True) == Verdict("gil", innocent=True, on_cpu=False)
    assert judged(split(30, shut_out=20), {}, polled=True).cause == "gil"
    assert judged(split(30, starved=28), {}, polled=True).cause == "starved"
    assert judged(split(30), {}, polled=True) == Verdict("unknown", innocent=True, on_cpu=False), "a clock was set"


def test_a_convoy_is_one_unless_the_machine_or_another_thread_made_it_long() -> None:
    assert judged(split(30, cpu=29), {"asked": 29}, convoy=True).cause == "convoy"
    assert judged(split(30, cpu=8, starved=21), {"asked": 29}, convoy=True).cause == "starved"
    assert judged(split(30, cpu=1, gil=(20, 30), others=29), {"held": 28}, convoy=True).cause == "gil"


def test_a_convoy_that_nothing_was_seen_of_for_most_of_its_time_names_no_line() -> None:
    assert not judged(split(22, cpu=22, gap=18), {"asked": 18}, convoy=True).accuses
    assert not judged(split(40, cpu=8, overload=7, gap=15), {"asked": 40}, convoy=True).accuses, "nor a starved one"
    waited = split(28, cpu=2, gil=(28, 28), others=26, alone=False, gap=16)
    assert not judged(waited, {"let_go": 11}, convoy=True).accuses, "nor one that waited for the GIL"
    assert judged(split(22, cpu=22, gap=12), {"asked": 18}, convoy=True).accuses


def test_what_is_unknown_names_a_line_only_if_it_was_seen_at_work_on_the_cpu() -> None:
    assert judged(split(30, cpu=30, gap=15), {"asked": 15, "held": 15}).accuses, "bytecode, and C code"
    assert not judged(split(30, cpu=30, gap=15), {"asked": 5, "crowded": 20}).accuses
    assert not judged(split(30, cpu=30, gap=29.9), {"asked": 15, "held": 15}).accuses
    assert not judged(split(30, cpu=1, gil=(20, 30)), {"held": 28}).accuses, "it may have waited for somebody"


def test_time_in_which_the_watchdog_had_the_gil_but_no_cpu_is_nobodys_fault() -> None:
    share = split_of(1000, usage(1000, 0, 0), None, usage(1030, 2, 0), kept=25)
    assert verdict(share, {"free": 28}) == "starved"
    assert verdict(split_of(1000, usage(1000, 0, 0), None, usage(1030, 30, 0), kept=25), {"asked": 28}) == "python"


def usage(at_ms: float, cpu_ms: float, wait_ms: float, *, wakes: int = 0, turns: int = 0) -> Usage:
    return Usage(at_ms / 1000, cpu_ms / 1000, wait_ms / 1000, wakes=wakes, turns=turns)


def split_of(start_ms: float, before: Usage, first: Usage | None, end: Usage, **more: float) -> Shares:
    turn = (more.get("turn_at", start_ms) / 1000, more.get("turn_cpu", before.cpu_s * 1000) / 1000)
    blocked_s, own_wait_s = more.get("blocked", 0.0) / 1000, more.get("own_wait", 0.0) / 1000
    return shares(
        start_s=start_ms / 1000,
        end=end,
        before=before,
        first=first,
        turn=turn,
        own_wait_s=own_wait_s,
        blocked_s=blocked_s,
        gc_s=0.0,
        stolen_s=more.get("stolen", 0.0) / 1000,
        kept_s=more.get("kept", 0.0) / 1000,
    )


def test_what_was_used_before_the_slice_may_or_may_not_be_the_slices() -> None:
    share = split_of(1005, usage(1000, 500, 0), None, usage(1035, 533, 0), turn_at=1000)
    assert share.cpu_least_s == pytest.approx(0.028)
    assert share.cpu_most_s == pytest.approx(0.030), "not more than it lasted"


def test_the_turns_reading_is_closer_than_the_watchdogs() -> None:
    share = split_of(1005, usage(900, 400, 0), None, usage(1035, 530, 0), turn_at=1004, turn_cpu=502)
    assert share.cpu_least_s == pytest.approx(0.027)
    assert share.cpu_most_s == pytest.approx(0.028)


def test_a_reading_inside_the_slice_bounds_what_came_before_it() -> None:
    share = split_of(1000, usage(990, 400, 0), usage(1004, 410, 3), usage(1030, 412, 23), turn_at=990, turn_cpu=400)
    assert share.cpu_most_s == pytest.approx(0.006)
    assert share.cpu_least_s == pytest.approx(0.002)
    assert share.starved_s == pytest.approx(0.023)


def test_time_seen_blocked_was_not_spent_in_the_run_queue_whatever_the_kernel_says() -> None:
    share = split_of(1000, usage(1000, 0, 0), usage(1004, 0, 0), usage(1030, 0, 30), blocked=28)
    assert share.starved_s == pytest.approx(0.002)


def test_who_woke_up_in_each_switch_interval_may_have_waited_for_the_gil_all_the_time() -> None:
    waited = split_of(1000, usage(998, 0, 0, wakes=50, turns=40), None, usage(1030, 0, 0, wakes=58, turns=42))
    assert waited.gil_most_s == pytest.approx(0.030), "no longer than the slice"
    assert waited.gil_least_s == pytest.approx(0.015), "two may be those of two turns, three the watchdog's doing"
    slept = split_of(1000, usage(998, 0, 0, wakes=50, turns=40), None, usage(1030, 0, 0, wakes=53, turns=42))
    assert slept.gil_least_s == 0.0


def test_time_that_a_hypervisor_took_is_nobodys_fault() -> None:
    share = split_of(1000, usage(1000, 0, 0), None, usage(1030, 2, 0), stolen=25)
    assert share.starved_s == pytest.approx(0.025)
    assert verdict(share, {"held": 28}) == "starved"


def test_cpu_time_that_a_hypervisor_may_have_taken_is_not_held_against_the_code() -> None:
    share = split_of(1000, usage(1000, 0, 0), None, usage(1030, 30, 0), stolen=30)
    assert share.cpu_least_s == 0.0
    assert verdict(share, {"held": 28}) == "starved"


def test_wake_ups_after_the_watchdogs_reading_are_no_more_naps_than_there_was_time_for() -> None:
    first = usage(1029, 0, 0, wakes=53, turns=41)
    share = split_of(1000, usage(998, 0, 0, wakes=50, turns=40), first, usage(1030, 0, 0, wakes=59, turns=41))
    assert share.gil_least_s == 0.0

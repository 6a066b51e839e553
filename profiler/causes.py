"""Why was this slice long? A pure verdict from what the kernel, the collector and the watchdog measured.

| cause | evidence |
| --- | --- |
| gc | on the CPU, and the collector ran there for half of what the machine and other threads leave of it |
| starved | without the time its thread had no CPU, or its process was stopped, it would not have been slow (innocent) |
| starved, too | off the CPU with the GIL, while pages were read from the disk (innocent) |
| python | on the CPU, and the watchdog got the GIL as bytecode gives it up: after the switch interval |
| native | on the CPU, and the GIL was either free (the C code had released it) or held for several intervals |
| blocking | off the CPU, not waiting for one or for another thread, and the GIL was free: a system call that waits |
| blocking, too | off the CPU, the GIL was held, and no other thread can have held it: a call that waits with it |
| gil | without its waiting for the GIL, which another thread had, it would not have been slow (innocent) |
| convoy | many short slices of one turn (convoy.py) that were on the CPU, or whose waiting is no other thread's |
| unknown | anything else: no samples, or evidence that does not agree |

Who waits for the GIL wakes up once in each switch interval, to ask for it: so the hub's thread waited for it at most as
long as it woke up often, and at least as long as it woke up more often than its loop turned.

A slice of several causes goes to the one with most of its time, if that is clear; `parts` tells how it divides.

No line is accused that one absence of the machine explains (`Verdict.accuses`): a hypervisor may have the CPU for some
time, and the kernel takes that for work. So bytecode must have been seen at work, apart from the longest time in which
nothing was seen; and what the machine took lately without a word (`Shares.absent_s`) is taken off that time.

Every figure that was read before or after the slice, not at its edge, is a bound; the one that favours the
code is used.
Knows no lines and reads no clock.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from profiler.usage import Usage

_MAJORITY = 0.6  # of the samples' weight: under that they disagree
_CROWDED = 0.1  # the same, where nothing but the GIL speaks against the code: who had that may have had no CPU
_LEAST_PART_S = 1e-6  # less is a rounding error
_HANDOVERS = 3  # wake-ups of the hub while the watchdog takes the GIL and gives it back: up to three were seen
_SLEPT = 0.25  # of what is left was seen asleep, where it may have waited for a CPU: in long waits it is 0.3 and more
_SEEN = 0.1  # of the threshold, outside the longest gap: a piece of cooperative code is as long
_LONGER = 2.0  # than the longest absence of late may the next one be
_STRANGER_S = 10e-6  # to wake up, take the GIL and go to sleep with it takes 25 us, in C; readings differ by 5
_OVERLOADED = 0.2  # of the slice one of our threads was without a CPU: this machine had too much to do


class Kind(enum.Enum):
    """How the watchdog came to a sample, which tells what held the GIL until then."""

    FREE = "on time: nobody held it"
    LET_GO = "late, but before it could ask: the code let go of it, by a call that does"
    ASKED = "late by the switch interval: bytecode gave it up when asked"
    SLOW = "late by more than one, but not by several: C code, or bytecode whose CPU was away"
    HELD = "late by several intervals: C code held it"
    CROWDED = "late by several, in which the hub had no CPU: whoever held it could not let go"
    PASSED = "late by several, in which the hub let go of it again and again, and was the first to have it back"
    FROZEN = "late by several, without waking up to ask: the process was stopped, or its processor taken away"
    INSIDE = "in the collector, which bytecode seldom is when asked: called from C code"


class Shares(NamedTuple):
    """What became of one slice, in seconds, each as good for the code as the readings allow."""

    length_s: float
    cpu_least_s: float
    cpu_most_s: float
    starved_s: float  # at most
    blocked_s: float  # at least
    overload_s: float  # the hub's and the watchdog's thread were without a CPU, taken together
    gc_s: float  # the collector was on the CPU
    others_s: float = 0.0  # other threads were on a CPU: at most
    gil_least_s: float = 0.0  # the hub's thread waited for the GIL
    gil_most_s: float = 0.0
    shut_out_s: float = 0.0  # the watchdog did
    alone: bool = True  # no other thread was in code of the application, or ran for long enough to take the GIL
    faults: int = 0  # pages that the process waited for the disk to bring
    gap_s: float = 0.0  # the longest time between two moments at which it was seen to go on
    absent_s: float = 0.0  # so long a CPU was away lately, of which no figure told
    agreed_s: float = 0.0  # between looks that came late, but saw it in one function each time


class Verdict(NamedTuple):
    """The cause; whether the code is innocent of it; whether it was on the CPU; whether a line may be named for it."""

    cause: str
    innocent: bool
    on_cpu: bool
    accuses: bool = True


def shares(
    *,
    start_s: float,
    end: Usage,
    before: Usage,
    first: Usage | None,
    turn: tuple[float, float],
    own_wait_s: float,
    blocked_s: float,
    gc_s: float,
    stolen_s: float = 0.0,
    interval_s: float = 0.005,
    alone: bool = True,
    shut_out_s: float = 0.0,
    kept_s: float = 0.0,
    gap_s: float = 0.0,
    absent_s: float = 0.0,
    agreed_s: float = 0.0,
) -> Shares:
    """Split a slice.

    `before` was read before its start, `first` some time inside it, `end` at its end; `turn` is when its turn
    of the loop began, and the hub's CPU time then. For `own_wait_s` the watchdog had no CPU; for `blocked_s`
    samples saw the hub in a system call that waits; for `shut_out_s` the watchdog waited for the GIL, and for
    `kept_s` it had that itself, but no CPU. For `stolen_s` a hypervisor ran other machines, on any of this one's
    CPUs. `alone`: nobody else was seen in code of the application. `interval_s` is the interpreter's switch interval;
    `gap_s`, `absent_s` and `agreed_s` are as in Shares.
    """
    length_s = end.at_s - start_s
    cpu_least_s, cpu_most_s = 0.0, length_s
    for at_s, cpu_s in ((before.at_s, before.cpu_s), turn):
        since_s = end.cpu_s - cpu_s
        # What was used before the start is at most the time until then.
        cpu_least_s = max(cpu_least_s, since_s - max(0.0, start_s - at_s))
        cpu_most_s = min(cpu_most_s, since_s)
    starved_s = end.wait_s - before.wait_s
    if first is not None:
        cpu_least_s = max(cpu_least_s, end.cpu_s - first.cpu_s)
        cpu_most_s = min(cpu_most_s, end.cpu_s - first.cpu_s + first.at_s - start_s)
        starved_s = min(starved_s, end.wait_s - first.wait_s + first.at_s - start_s)
    starved_s += stolen_s
    cpu_least_s = max(0.0, cpu_least_s - stolen_s)  # the kernel may have taken it for work of the thread
    overload_s = starved_s + own_wait_s
    starved_s += kept_s  # whoever wanted it had to wait for somebody without a CPU
    starved_s = min(starved_s, max(0.0, length_s - cpu_least_s - blocked_s))
    wakes = naps = end.wakes - before.wakes
    if first is not None:  # since when it cannot have napped more often than there was time to
        naps = min(naps, first.wakes - before.wakes + int((end.at_s - first.at_s) / interval_s))
    return Shares(
        length_s,
        cpu_least_s,
        cpu_most_s,
        starved_s,
        blocked_s,
        overload_s,
        gc_s,
        others_s=end.others_s - before.others_s,
        gil_least_s=min(length_s, max(0, naps - (end.turns - before.turns) - _HANDOVERS) * interval_s),
        gil_most_s=min(length_s, wakes * interval_s),
        shut_out_s=shut_out_s,
        alone=alone and end.strangers_s - before.strangers_s < _STRANGER_S,
        faults=end.faults - before.faults,
        gap_s=min(gap_s, length_s),
        absent_s=absent_s,
        agreed_s=agreed_s,
    )


def judge(
    share: Shares,
    weights: dict[Kind, float],
    *,
    threshold_s: float,
    sees_waits: bool,
    convoy: bool = False,
    polled: bool = False,
) -> Verdict:
    """The verdict; `weights` are the seconds that samples of each kind stand for.

    `sees_waits` False: the kernel does not say who was starved, so what is off the CPU stays unknown.
    `convoy`: it is one. `polled`: it is no slice, but what the hub took to go on after a poll.
    """
    machine_s = _machine_s(share, weights)
    left_s = share.length_s - machine_s
    on_cpu = share.cpu_most_s >= left_s / 2
    doubt_s = min(_LONGER * share.absent_s, share.gap_s)
    gil_s = _gil_s(share, weights, machine_s, polled=polled) if sees_waits else 0.0
    own_s = left_s - gil_s
    if own_s < threshold_s and gil_s > machine_s:
        return Verdict("gil", innocent=True, on_cpu=False)
    if own_s < threshold_s or _waited_for_somebody_starved(share, threshold_s):
        return Verdict("starved", innocent=True, on_cpu=on_cpu)
    if polled:
        return Verdict("unknown", innocent=True, on_cpu=False)
    if own_s - doubt_s < threshold_s:
        return Verdict("unknown", innocent=False, on_cpu=on_cpu, accuses=False)
    if share.gc_s >= own_s / 2:
        return Verdict("gc", innocent=False, on_cpu=on_cpu)
    seen_s = share.length_s - share.gap_s
    if convoy:
        waited = is_crowded(share) or _may_be_hogged(share, own_s)
        sure = seen_s >= threshold_s / 2 and (share.cpu_least_s >= threshold_s or not waited)
        return Verdict("convoy" if sure else "unknown", innocent=False, on_cpu=True, accuses=sure)
    cause = _own_cause(share, own_s, weights, sees_waits)
    if cause == "python" and seen_s < _SEEN * threshold_s:
        cause = "unknown"
    # What is off the CPU may have waited for somebody else, and what was seen late may have been done before.
    worked_s = min(share.cpu_least_s, sum(_on_cpu(share, weights)) + share.agreed_s)
    accuses = cause != "unknown" or (worked_s >= threshold_s and seen_s >= _SEEN * threshold_s)
    return Verdict(cause, innocent=False, on_cpu=on_cpu, accuses=accuses)


def _gil_s(share: Shares, weights: dict[Kind, float], machine_s: float, *, polled: bool) -> float:
    """For how long the hub waited for the GIL while another thread had it; 0 where that is not certain enough."""
    rest_s = share.length_s - machine_s - share.cpu_most_s - share.blocked_s
    enough_s = rest_s / 2
    if polled:
        # What else could it have waited for? But the clocks may be wrong, so somebody else must have felt it.
        return rest_s if max(share.others_s, share.shut_out_s) >= enough_s else 0.0
    free_s = weights[Kind.FREE] + weights[Kind.LET_GO]
    if rest_s <= 0.0 or share.gil_most_s < enough_s or free_s >= sum(weights.values()) / 2 > 0.0:
        return 0.0
    if share.others_s >= enough_s:
        return rest_s
    # Another thread that sleeps with the GIL.
    return rest_s if not share.alone and min(share.gil_least_s, share.shut_out_s) >= enough_s else 0.0


def _waited_for_somebody_starved(share: Shares, threshold_s: float) -> bool:
    """Neither the CPU it used nor the waiting that was seen is enough, and the machine had no CPU for it for a while.

    Then it probably waited for the GIL, and whoever had that had no CPU either: between two callbacks of the
    loop gevent lets go of the GIL, and the watchdog may have been interrupted with it.
    """
    return (
        share.cpu_most_s < threshold_s
        and share.blocked_s < threshold_s
        and share.overload_s >= _OVERLOADED * share.length_s
    )


def _own_cause(share: Shares, own_s: float, weights: dict[Kind, float], sees_waits: bool) -> str:
    python_s, native_s = _on_cpu(share, weights)
    if share.cpu_least_s >= own_s / 2:
        late_s = weights[Kind.CROWDED] + weights[Kind.SLOW] + weights[Kind.PASSED]
        enough_s = _MAJORITY * (python_s + native_s + late_s)
        if not enough_s or max(python_s, native_s) < enough_s:
            return "unknown"
        return "python" if python_s > native_s else "native"
    if share.cpu_most_s >= own_s / 2 or not sees_waits:
        return "unknown"
    hogged = _may_be_hogged(share, own_s)
    # That the GIL was free when it was looked at does not tell of the time before, but to be asleep then does.
    slept = share.blocked_s >= _SLEPT * own_s or not (hogged or is_crowded(share))
    free_s = weights[Kind.FREE] + (0.0 if hogged else weights[Kind.LET_GO]) if slept else 0.0
    # With the GIL, unless it was waiting for that.
    waited = hogged or share.gil_least_s >= own_s / 2 or is_crowded(share)
    with_it_s = 0.0 if waited else weights[Kind.HELD]
    # Who gave the GIL up when asked was on the CPU.
    enough_s = _MAJORITY * (sum(weights.values()) - weights[Kind.ASKED])
    return "blocking" if enough_s and max(free_s, with_it_s) >= enough_s else "unknown"


def _may_be_hogged(share: Shares, own_s: float) -> bool:
    """Whether it may have waited for the GIL for half of that, and another thread have had it."""
    return share.gil_most_s >= own_s / 2 and (not share.alone or share.others_s >= own_s / 2)


def is_crowded(share: Shares) -> bool:
    """Whether the machine had too much to do for conclusions from how long somebody took."""
    return share.overload_s >= _CROWDED * share.length_s


def _on_cpu(share: Shares, weights: dict[Kind, float]) -> tuple[float, float]:
    """What samples of code on the CPU stand for: in bytecode, in C."""
    in_c_s = weights[Kind.FREE] + weights[Kind.HELD] + weights[Kind.INSIDE]
    return weights[Kind.ASKED], max(0.0, in_c_s - share.blocked_s)


def _machine_s(share: Shares, weights: dict[Kind, float]) -> float:
    machine_s = share.starved_s + weights[Kind.FROZEN]
    if share.faults:
        # Who waits for a page keeps the GIL if they had it; without it the call waits as for any other file.
        machine_s += min(weights[Kind.HELD], max(0.0, share.length_s - share.cpu_most_s - machine_s))
    return machine_s


def parts(share: Shares, weights: dict[Kind, float], *, sees_waits: bool, polled: bool = False) -> dict[str, float]:
    """How a slice divides by cause, in seconds that add up to its length; parts of nothing are left out."""
    left_s = share.length_s
    split: dict[str, float] = {}

    def take(cause: str, seconds: float) -> None:
        nonlocal left_s
        seconds = min(left_s, seconds)
        if seconds > _LEAST_PART_S:
            split[cause] = split.get(cause, 0.0) + seconds
            left_s -= seconds

    machine_s = _machine_s(share, weights)
    take("starved", machine_s)
    take("gc", share.gc_s)
    if sees_waits:
        take("gil", _gil_s(share, weights, machine_s, polled=polled))
    cpu_s = min(left_s, max(0.0, share.cpu_most_s - share.gc_s))
    python_s, native_s = _on_cpu(share, weights)
    either_s = weights[Kind.SLOW] + weights[Kind.PASSED]
    if python_s + native_s:
        share_s = cpu_s / (python_s + native_s + either_s)
        take("python", share_s * python_s)
        take("native", share_s * native_s)
        take("unknown", share_s * either_s)
    else:
        take("unknown", cpu_s)
    if weights[Kind.FREE] + weights[Kind.LET_GO] + weights[Kind.HELD]:
        take("blocking", left_s)
    take("unknown", left_s)
    return split

"""Why was this slice long? A pure verdict from what the kernel, the collector and the watchdog measured.

| cause | evidence |
| --- | --- |
| gc | the collector ran in the hub's thread for half of it |
| starved | without the time its thread had no CPU it would not have been slow (innocent) |
| python | on the CPU, and the watchdog got the GIL as bytecode gives it up: after the switch interval |
| native | on the CPU, and the GIL was either free (the C code had released it) or held for several intervals |
| blocking | off the CPU, not waiting for one, and the GIL was free: a system call that waits |
| unknown | anything else: no samples, or evidence that does not agree |

Every figure that was read before or after the slice, not at its edge, is a bound; the one that favours the
code is used.
Knows no lines and reads no clock. `gil` and `convoy` of the contract are never given here.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from profiler.usage import Usage

_MAJORITY = 0.6  # of the samples' weight: under that they disagree


_OVERLOADED = 0.2  # of the slice one of our threads was without a CPU: this machine had too much to do


class Kind(enum.Enum):
    """How the watchdog came to a sample, which tells what held the GIL until then."""

    FREE = "on time: nobody held it"
    LET_GO = "late, but before it could ask: the code let go of it, by a call that does"
    ASKED = "late by the switch interval: bytecode gave it up when asked"
    HELD = "late by several intervals: C code held it"
    INSIDE = "in the collector, which bytecode seldom is when asked: called from C code"


class Shares(NamedTuple):
    """What became of one slice, in seconds, each as good for the code as the readings allow."""

    length_s: float
    cpu_least_s: float
    cpu_most_s: float
    starved_s: float  # at most
    blocked_s: float  # at least
    overload_s: float  # the hub's and the watchdog's thread were without a CPU, taken together
    gc_s: float


class Verdict(NamedTuple):
    """The cause; whether the code is innocent of it; whether it was on the CPU."""

    cause: str
    innocent: bool
    on_cpu: bool


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
) -> Shares:
    """Split a slice.

    `before` was read before its start, `first` some time inside it, `end` at its end; `turn` is when its turn
    of the loop began, and the hub's CPU time then. For `own_wait_s` the watchdog had no CPU; for `blocked_s`
    samples saw the hub in a system call that waits.
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
    overload_s = starved_s + own_wait_s
    starved_s = min(starved_s, max(0.0, length_s - cpu_least_s - blocked_s))
    return Shares(length_s, cpu_least_s, cpu_most_s, starved_s, blocked_s, overload_s, gc_s)


def judge(share: Shares, weights: dict[Kind, float], *, threshold_s: float, sees_waits: bool) -> Verdict:
    """The verdict; `weights` are the seconds that samples of each kind stand for.

    `sees_waits` False: the kernel does not say who was starved, so what is off the CPU stays unknown.
    """
    own_s = share.length_s - share.starved_s
    on_cpu = share.cpu_most_s >= own_s / 2
    if share.gc_s >= share.length_s / 2:
        return Verdict("gc", innocent=False, on_cpu=on_cpu)
    if own_s < threshold_s or _waited_for_somebody_starved(share, threshold_s):
        return Verdict("starved", innocent=True, on_cpu=on_cpu)
    return Verdict(_own_cause(share, own_s, weights, sees_waits), innocent=False, on_cpu=on_cpu)


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
    enough_s = _MAJORITY * sum(weights.values())
    if not enough_s:
        return "unknown"
    if share.cpu_least_s >= own_s / 2:
        if weights[Kind.ASKED] >= enough_s:
            return "python"
        in_c_s = weights[Kind.FREE] + weights[Kind.HELD] + weights[Kind.INSIDE]
        return "native" if in_c_s >= enough_s else "unknown"
    free_s = weights[Kind.FREE] + weights[Kind.LET_GO]
    if share.cpu_most_s < own_s / 2 and sees_waits and free_s >= enough_s:
        return "blocking"
    return "unknown"

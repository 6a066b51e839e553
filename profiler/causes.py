"""Why was this slice long? A pure verdict from what the kernel, the collector and the watchdog measured.

| cause | evidence |
| --- | --- |
| gc | the collector ran in the hub's thread for half of it |
| starved | without the time its thread was ready but had no CPU, it would not have reached the threshold (innocent) |
| python | on the CPU, and the watchdog got the GIL as bytecode gives it up: after the switch interval |
| native | on the CPU, and the GIL was either free (the C code had released it) or held for several intervals |
| blocking | off the CPU, not waiting for one, and the GIL was free: a system call that waits |
| unknown | anything else: no samples, or evidence that does not agree |

Every figure that was read before or after the slice, not at its edge, is a bound; the one that favours the
code is used.
Knows no lines and reads no clock. `gil` and `convoy` of the contract are never given here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from profiler.usage import Usage

_MAJORITY = 0.6  # of the samples' weight: under that they disagree


class Sight(NamedTuple):
    """How the watchdog came to one sample: `weight_s` is the time it stands for, `late_s` how long it had to wait."""

    weight_s: float
    late_s: float


class Shares(NamedTuple):
    """What became of one slice, in seconds, each as good for the code as the readings allow."""

    length_s: float
    cpu_least_s: float
    cpu_most_s: float
    starved_s: float
    gc_s: float


class Verdict(NamedTuple):
    """The cause; whether the code is innocent of it; whether it was on the CPU."""

    cause: str
    innocent: bool
    on_cpu: bool


def shares(
    *, start_s: float, end: Usage, before: Usage, first: Usage | None, held_by_us_s: float, gc_s: float
) -> Shares:
    """Split a slice. `before` was read before its start, `first` some time inside it, `end` at its end."""
    length_s = end.at_s - start_s
    inner = before if first is None else first
    # From `before` to `inner` only the part after the start belongs to the slice.
    inside_s = max(0.0, inner.at_s - start_s) if first is not None else 0.0
    outside_s = max(0.0, start_s - before.at_s)
    if first is None:
        total_s = end.cpu_s - before.cpu_s
        most_s, least_s = min(total_s, length_s), max(0.0, total_s - outside_s)
        waited_s = min(end.wait_s - before.wait_s, length_s)
    else:
        edge_s = first.cpu_s - before.cpu_s
        rest_s = end.cpu_s - first.cpu_s
        most_s, least_s = rest_s + min(edge_s, inside_s), rest_s + max(0.0, edge_s - outside_s)
        waited_s = end.wait_s - first.wait_s + min(first.wait_s - before.wait_s, inside_s)
    return Shares(length_s, least_s, most_s, waited_s + held_by_us_s, gc_s)


def judge(
    share: Shares, sights: list[Sight], *, threshold_s: float, switch_interval_s: float, sees_waits: bool
) -> Verdict:
    """The verdict. `sees_waits` False: the kernel does not say who was starved; what is off the CPU stays unknown."""
    own_s = share.length_s - share.starved_s
    on_cpu = share.cpu_most_s >= own_s / 2
    if share.gc_s >= share.length_s / 2:
        return Verdict("gc", innocent=False, on_cpu=on_cpu)
    if own_s < threshold_s:
        return Verdict("starved", innocent=True, on_cpu=on_cpu)
    return Verdict(_own_cause(share, own_s, sights, switch_interval_s, sees_waits), innocent=False, on_cpu=on_cpu)


def _own_cause(share: Shares, own_s: float, sights: list[Sight], switch_interval_s: float, sees_waits: bool) -> str:
    weight_s = sum(sight.weight_s for sight in sights)
    if not weight_s:
        return "unknown"
    # The interpreter gives the GIL up after the interval; nearer to nothing than to it means that it was free.
    free_s = sum(sight.weight_s for sight in sights if sight.late_s < 0.4 * switch_interval_s)
    held_s = sum(sight.weight_s for sight in sights if sight.late_s > 2.5 * switch_interval_s)
    yielded_s = weight_s - free_s - held_s
    if share.cpu_least_s >= own_s / 2:
        if yielded_s >= _MAJORITY * weight_s:
            return "python"
        return "native" if free_s + held_s >= _MAJORITY * weight_s else "unknown"
    if share.cpu_most_s < own_s / 2 and sees_waits and free_s >= _MAJORITY * weight_s:
        return "blocking"
    return "unknown"

"""Which workers to start, to drain and to let take over: the arbiter's decisions, without its acts.

A generation is one application and configuration. One generation serves; during a reload a candidate stands beside
it and takes over when every one of its workers is ready (or is waiting for the same thing that all the old ones lack).
A worker that asks to be replaced goes on serving until its replacement is ready, one worker at a time.
Pure: `decide` sees a table of workers and returns a `Plan`; `Backoff` is told the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tafe.lifecycle import State

FIRST_DELAY_S = 0.1  # the second failure in a row; the first is made good at once
LONGEST_DELAY_S = 5.0  # a repaired application is noticed within this time, and a broken one costs one start in it
STEADY_S = 5.0  # a worker that was up for this long did not fail at its start


@dataclass(frozen=True)
class Member:
    """What the arbiter knows of one living worker."""

    pid: int
    generation: int
    state: State
    retiring: bool  # has asked to be replaced
    told: bool  # has been told to stop


@dataclass(frozen=True)
class Plan:
    """What to do now; everything may be empty."""

    spawn: tuple[int, ...] = ()  # the generation of each worker to be started
    drain: tuple[int, ...] = ()  # process ids
    promote: bool = False  # the candidate serves from now on


def decide(members: Sequence[Member], *, serving: int, candidate: int | None, target: int) -> Plan:
    """The next step towards `target` ready workers of the right generation; `members` are in order of their start."""
    staying = [member for member in members if not member.told]
    old = [member for member in staying if member.generation == serving]
    stray = tuple(member.pid for member in staying if member.generation not in (serving, candidate))
    plan = _keep_up(old, serving, target)
    if candidate is None:
        return Plan(plan.spawn, stray + plan.drain)
    new = [member for member in staying if member.generation == candidate]
    someone_serves = any(member.state is State.READY for member in old)
    promote = len(new) >= target and all(_can_take_over(member, someone_serves) for member in new)
    return Plan((candidate,) * (target - len(new)) + plan.spawn, stray, promote)


def _can_take_over(member: Member, someone_serves: bool) -> bool:
    return member.state is State.READY or (member.state is State.WAITING and not someone_serves)


def _keep_up(staying: Sequence[Member], serving: int, target: int) -> Plan:
    """Cases: too few; too many; a retiring one, with or without its replacement; enough."""
    retiring = [member for member in staying if member.retiring]
    wanted = target + (1 if retiring else 0)
    if len(staying) < wanted:
        return Plan(spawn=(serving,) * (wanted - len(staying)))
    if len(staying) > wanted:
        expendable = sorted(staying, key=lambda member: (not member.retiring, member.state is State.READY))
        return Plan(drain=tuple(member.pid for member in expendable[: len(staying) - wanted]))
    if retiring and all(member.state is State.READY for member in staying if not member.retiring):
        return Plan(drain=(retiring[0].pid,))
    return Plan()


class Backoff:
    """When the next worker may be started, after workers that did not stay up."""

    def __init__(self) -> None:
        self.failures = 0  # in a row
        self.not_before_s = 0.0

    def failed(self, now_s: float, lived_s: float, was_ready: bool) -> None:
        """A worker ended unasked, `lived_s` after its start."""
        if was_ready and lived_s >= STEADY_S:
            self.failures = 0
            return
        self.failures += 1
        self.not_before_s = now_s + self._delay_s()

    def steady(self) -> None:
        """A worker has been ready for `STEADY_S`: what failed before is repaired."""
        self.failures = 0
        self.not_before_s = 0.0

    def allows(self, now_s: float) -> bool:
        """May a worker be started now?"""
        return now_s >= self.not_before_s

    def _delay_s(self) -> float:
        if self.failures <= 1:
            return 0.0
        return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(self.failures - 2, 16)))

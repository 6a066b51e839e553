"""Policies to ask, with connections in them."""

from __future__ import annotations

from tafe.db.policy import Fate, Limits, Policy


def policy(min_size: int = 1, max_size: int = 8, max_lifetime_s: float = 100.0, max_idle_s: float = 60.0) -> Policy:
    made = Policy(Limits(min_size, max_size, max_lifetime_s, max_idle_s))
    made.open()
    return made


def connected(made: Policy, count: int) -> Policy:
    """Connect `count` times and leave the connections idle."""
    made.connecting += count
    for _ in range(count):
        assert made.connected() is Fate.KEEP
    return made

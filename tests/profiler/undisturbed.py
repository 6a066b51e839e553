"""Tests of what is found if the machine lets it: whoever takes the CPU away at the wrong moment hides it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")
ATTEMPTS = 8  # a machine that is busy all the time disturbs one in ten


class Disturbed(AssertionError):
    """Less was found than there was. What is wrong, as more than there was, is no such error."""


def found(expected: object) -> None:
    """Expect what a disturbance may hide."""
    if not expected:
        raise Disturbed("less was found than there was, at every attempt")


def undisturbed(test: Callable[P, None]) -> Callable[P, None]:
    """Try again, with the same fixtures, while less is found than there was."""

    @functools.wraps(test)
    def attempts(*args: P.args, **options: P.kwargs) -> None:
        for attempt in range(ATTEMPTS):
            try:
                test(*args, **options)
            except Disturbed:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return

    return attempts

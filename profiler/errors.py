"""What the profiler raises on purpose. A leaf: imports nothing of the package."""

from __future__ import annotations


class ProfilerError(Exception):
    """A mistake in how the profiler was called: one line that says what is wrong, and what to do instead.

    Commands print it without a traceback and end with `exit_status`.
    """

    exit_status = 2

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem}; {remedy}" if remedy else problem)
        self.problem = problem
        self.remedy = remedy

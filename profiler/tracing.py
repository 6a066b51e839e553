"""A greenlet tracer that stays installed, and lets live whatever was there before it.

An earlier tracer is chained: called after ours. Who installs one later displaces ours; `recheck` finds out by a switch
made on purpose whether that one chains us, and leaves it alone, or else puts ours back, with the other chained.

Limits: one thread, since greenlet traces per thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from greenlet import gettrace, greenlet, settrace

if TYPE_CHECKING:
    from collections.abc import Callable

    Tracer = Callable[[Literal["switch", "throw"], tuple[greenlet, greenlet]], object]


def _nothing() -> None:
    """What a greenlet runs that is switched to only for the switch."""


class Tracing:
    """`trace`, installed; `slice_began` changes with each switch that `trace` is told of."""

    __slots__ = (
        "_chained",  # a tracer of somebody else's, called after ours
        "_failed",
        "_slice_began",
        "_trace",
        "displaced",  # how often ours had been removed
        "tracer",  # what gettrace should say: `trace`, or `_both`
    )

    def __init__(
        self, trace: Tracer, slice_began: Callable[[], float], failed: Callable[[BaseException], None]
    ) -> None:
        self._trace = trace  # raises nothing
        self._slice_began = slice_began
        self._failed = failed  # told of what a chained one has raised
        self._chained: Tracer | None = None
        self.tracer: Tracer | None = None
        self.displaced = 0

    def install(self) -> None:
        """Trace from now on; call it in the hub's thread."""
        self._chain(gettrace())

    def remove(self) -> None:
        """Trace no more."""
        if gettrace() is self.tracer:
            settrace(self._chained)
        self.tracer = None

    def recheck(self) -> None:
        """Another tracer was found in place of ours."""
        found: Any = gettrace()
        before = self._slice_began()
        greenlet(_nothing).switch()
        if self._slice_began() != before:  # the new one calls ours: leave it
            self.tracer = found
            return
        self.displaced += 1
        self._chain(found)

    def _chain(self, found: Tracer | None) -> None:
        self._chained = found
        self.tracer = self._trace if found is None else self._both
        settrace(self.tracer)

    def _both(self, event: Literal["switch", "throw"], args: tuple[greenlet, greenlet]) -> None:
        self._trace(event, args)
        try:
            if self._chained is not None:
                self._chained(event, args)
        except BaseException as error:  # noqa: BLE001 - greenlet would drop it, and ours with it
            self._chain(None)
            self._failed(error)

"""A greenlet tracer that stays installed, and lets live whatever was there before it.

An earlier tracer is chained: called after ours. Who installs one later displaces ours; `recheck` finds out by a switch
made on purpose whether that one chains us, and leaves it alone, or else puts ours back, with the other chained.
Once a class of greenlets compares them, `trace` is given stand-ins for these (identity.py).

Limits: one thread, since greenlet traces per thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from greenlet import gettrace, greenlet, settrace

from profiler.identity import is_compared, key_of, rekey

if TYPE_CHECKING:
    from collections.abc import Callable

    Tracer = Callable[[Literal["switch", "throw"], tuple[greenlet, greenlet]], object]


def _nothing() -> None:
    """What a greenlet runs that is switched to only for the switch."""


class Tracing:
    """`trace`, installed; `slice_began` changes with each switch that `trace` is told of."""

    __slots__ = (
        "_call",  # `trace`, or `_by_identity`
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
        self._trace = self._call = trace  # raises nothing
        self._slice_began = slice_began
        self._failed = failed  # told of what a chained one has raised
        self._chained: Tracer | None = None
        self.tracer: Tracer | None = None
        self.displaced = 0

    def install(self) -> None:
        """Trace from now on; call it in the hub's thread."""
        if is_compared():
            self._call = self._by_identity
        self._chain(gettrace())

    def remove(self) -> None:
        """Trace no more."""
        if gettrace() is self.tracer:
            settrace(self._chained)
        self.tracer = None

    def recheck(self) -> bool:
        """Another tracer was found in place of ours. Whether that had displaced it."""
        found: Any = gettrace()
        before = self._slice_began()
        greenlet(_nothing).switch()
        if self._slice_began() != before:  # the new one calls ours: leave it
            self.tracer = found
            return False
        self.displaced += 1
        self._chain(found)
        return True

    def heed(self, waiting: dict[Any, Any]) -> None:
        """Look for classes that compare greenlets, and use stand-ins from now on if there are; also as keys of this."""
        ours = self._chained is not None or self.tracer is self._trace  # else somebody calls `trace` itself
        if self._call is self._trace and ours and is_compared():
            self._call = self._by_identity
            rekey(waiting)
            if self.tracer is self._trace and gettrace() is self.tracer:
                self._chain(None)

    def _chain(self, found: Tracer | None) -> None:
        self._chained = found
        self.tracer = self._call if found is None else self._both
        settrace(self.tracer)

    def _by_identity(self, event: Literal["switch", "throw"], args: tuple[greenlet, greenlet]) -> None:
        try:
            args = key_of(args[0]), key_of(args[1])
        except BaseException as error:  # noqa: BLE001 - greenlet would drop ours
            self._failed(error)
        else:
            self._trace(event, args)

    def _both(self, event: Literal["switch", "throw"], args: tuple[greenlet, greenlet]) -> None:
        self._call(event, args)
        try:
            if self._chained is not None:
                self._chained(event, args)
        except BaseException as error:  # noqa: BLE001 - greenlet would drop it, and ours with it
            self._chain(None)
            self._failed(error)

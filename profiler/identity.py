"""Greenlets as keys of a dictionary, each by its identity, whatever its class says of `==` and `hash()`.

A class of greenlets may define both: then two of its greenlets may be one key, or looking one up raise. By `id()` each
switch would make numbers, so greenlets are keys themselves until a class is seen that compares them, and from
then on the greenlets of such a class have a stand-in.
Limits: of a class that is made and used between two looks at the classes (`is_compared`), greenlets count as it says.
"""

from __future__ import annotations

from typing import Any

from greenlet import greenlet

_USUAL: tuple[object, object] = object.__eq__, object.__hash__


class Same:
    """Stands for one greenlet, and is equal to whatever stands for the same; its attributes are the greenlet's."""

    __slots__ = ("_one",)

    def __init__(self, one: greenlet) -> None:
        object.__setattr__(self, "_one", one)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._one, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._one, name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self._one is other._one

    def __hash__(self) -> int:
        return id(self._one)


def key_of(one: Any) -> Any:
    """The greenlet, or if its class compares, what stands for it."""
    return Same(one) if _compares(type(one)) else one


def is_compared(kind: type[greenlet] = greenlet) -> bool:
    """Whether there is a class of greenlets that compares them. Takes some microseconds."""
    return any(_compares(one) or is_compared(one) for one in kind.__subclasses__())


def rekey(waiting: dict[Any, Any]) -> None:
    """Have all keys be `key_of` theirs; asks none for its hash that has one of its own."""
    present = list(waiting.items())
    waiting.clear()
    waiting.update((key_of(one), value) for one, value in present)


def _compares(kind: type) -> bool:
    return (kind.__eq__, kind.__hash__) != _USUAL

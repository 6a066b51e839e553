"""Reads JSON into typed objects, and names the exact place of what is wrong.

The shape is a dataclass: a field's annotation is its type and its bounds, a field without a default is
required. What a shape does not name is ignored, since exchanges add fields freely; `null` counts as absent,
since many exchanges write it for an object that they do not have. Everything that a shape names is checked
strictly: a quoted number is not a number, and `true` is not 1. A rule over several fields goes into
`__post_init__` and raises `Wrong`.

The path of an error is put together while the error travels outwards: a good request never pays for it.
Knows nothing of OpenRTB, and only the annotations in use there: str, int, float, dataclasses,
`tuple[X, ...]`, `X | None`, and `Annotated` with the bounds below.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable
from types import NoneType
from typing import Annotated, Any, TypeVar

from tafe.errors import BadRequest

T = TypeVar("T")
Check = Callable[[Any], Any]

_JSON_NAMES = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}
_REQUIRED: Any = object()


@dataclasses.dataclass(frozen=True, slots=True)
class Between:
    """Bounds of a number, both allowed."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True, slots=True)
class Length:
    """Bounds of the length of a string (characters) or an array (elements), both allowed."""

    low: int
    high: int


class Wrong(Exception):
    """A value breaks its shape; `path` is relative to where it was raised."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path

    def inside(self, outer: str) -> Wrong:
        """Make the path start further out."""
        joint = "" if not self.path or self.path.startswith("[") else "."
        self.path = f"{outer}{joint}{self.path}"
        return self


def read(shape: type[T], value: object, name: str) -> T:
    """Read `value`, as decoded from JSON, into a `shape`.

    Raises `BadRequest` whose `field` is the path of the first wrong value, or `name` when the whole is wrong.
    """
    try:
        result: T = nested(shape, value)
    except Wrong as wrong:
        field = wrong.path or name
        raise BadRequest(f"{field} {wrong.problem}", field=field) from None
    return result


def nested(shape: type[T], value: object) -> T:
    """Read `value` into a `shape` from within another shape's `__post_init__`; raises `Wrong`."""
    check: Check = _object_check(typing.cast("typing.Hashable", shape))
    result: T = check(value)
    return result


@functools.cache
def _object_check(shape: Any) -> Check:
    """The check of a dataclass, compiled once: a row (name, check, default) for each field."""
    hints = typing.get_type_hints(shape, include_extras=True)
    plan = [
        (
            field.name,
            _check(hints[field.name]),
            _REQUIRED if field.default is dataclasses.MISSING else field.default,
        )
        for field in dataclasses.fields(shape)
        if field.init
    ]

    def check(value: Any) -> Any:
        if type(value) is not dict:
            raise _mistyped("an object", value)
        arguments = []
        for name, check_field, default in plan:
            item = value.get(name)
            if item is not None:
                try:
                    arguments.append(check_field(item))
                except Wrong as wrong:
                    raise wrong.inside(name) from None
            elif default is _REQUIRED:
                raise Wrong("is required", name)
            else:
                arguments.append(default)
        return shape(*arguments)

    return check


def _check(annotation: Any, bounds: Between | Length | None = None) -> Check:
    """The check for one annotation."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _check(arguments[0], arguments[1])
    if NoneType in arguments:
        return _check(next(one for one in arguments if one is not NoneType), bounds)
    if origin is tuple:
        return _array_check(_check(arguments[0]), typing.cast("Length", bounds))
    if annotation is str:
        return _string_check(typing.cast("Length", bounds))
    if annotation in (int, float):
        return _number_check(annotation is int, typing.cast("Between", bounds))
    return _object_check(annotation)


def _array_check(check_item: Check, length: Length) -> Check:
    def check(value: Any) -> Any:
        if type(value) is not list:
            raise _mistyped("an array", value)
        if not length.low <= len(value) <= length.high:
            raise Wrong(f"must have {length.low} to {length.high} elements, not {len(value)}")
        items = []
        for index, item in enumerate(value):
            try:
                items.append(check_item(item))
            except Wrong as wrong:
                raise wrong.inside(f"[{index}]") from None
        return tuple(items)

    return check


def _string_check(length: Length) -> Check:
    def check(value: Any) -> Any:
        if type(value) is not str:
            raise _mistyped("a string", value)
        if not length.low <= len(value) <= length.high:
            raise Wrong(f"must have {length.low} to {length.high} characters, not {len(value)}")
        if not value.isascii():
            try:  # JSON can spell half of a surrogate pair, which no database and no hash takes
                value.encode()
            except UnicodeEncodeError:
                raise Wrong("must be valid Unicode") from None
        return value

    return check


def _number_check(whole: bool, bounds: Between) -> Check:
    kind = "a whole number" if whole else "a number"

    def check(value: Any) -> Any:
        if whole and type(value) is float and value.is_integer():
            value = int(value)  # JSON has one kind of number: 300.0 is 300
        if type(value) is not int and (whole or type(value) is not float):
            raise _mistyped(kind, value)
        if not bounds.low <= value <= bounds.high:  # false for NaN as well
            raise Wrong(f"must be {bounds.low:.12g} to {bounds.high:.12g}, not {str(value)[:30]}")
        return value

    return check


def _mistyped(wanted: str, value: object) -> Wrong:
    if isinstance(value, float) and wanted == "a whole number":
        return Wrong(f"must be a whole number, not {value!r}")
    return Wrong(f"must be {wanted}, not {_JSON_NAMES.get(type(value), 'null')}")

"""The reader of bid requests: what it checks, what it lets through, how it names what is wrong."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any

import pytest

from apps.bidder import openrtb
from apps.bidder.reader import Between, Length, Wrong, read
from tafe.errors import BadRequest
from tests.bidder import generator
from tests.bidder.checked import CHECKED, REQUIRED


@dataclass(slots=True)
class Inner:
    n: Annotated[int, Between(0, 10)]
    x: Annotated[float, Between(-1, 1)] = 0.5


@dataclass(slots=True)
class Outer:
    name: Annotated[str, Length(1, 3)]
    inner: Inner | None = None
    many: Annotated[tuple[Inner, ...], Length(0, 2)] = ()

    def __post_init__(self) -> None:
        if self.name == "bad":
            raise Wrong("is a bad name", "name")


def failure(value: Any) -> tuple[str | None, str]:
    with pytest.raises(BadRequest) as caught:
        read(Outer, value, "body")
    return caught.value.field, caught.value.message


def checked_paths(annotation: Any, path: str = "") -> Iterator[tuple[str, str, bool]]:
    """(path, JSON type, required) of everything that a shape checks."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        yield from checked_paths(arguments[0], path)
    elif NoneType in arguments:
        yield from checked_paths(next(one for one in arguments if one is not NoneType), path)
    elif origin is tuple:
        yield path, "array", False
        yield from checked_paths(arguments[0], f"{path}[]")
    elif dataclasses.is_dataclass(annotation):
        if path:
            yield path, "object", False
        hints = typing.get_type_hints(annotation, include_extras=True)
        for field in dataclasses.fields(annotation):
            if field.init:
                inner = f"{path}.{field.name}" if path else field.name
                required = field.default is dataclasses.MISSING
                for place, kind, needed in checked_paths(hints[field.name], inner):
                    yield place, kind, needed or (required and place == inner)
    else:
        yield path, {str: "string", int: "integer", float: "number"}[annotation], False


def test_the_reader_checks_exactly_what_the_tables_of_openrtb_say() -> None:
    found = list(checked_paths(openrtb.BidRequest))
    markup = "imp[].native.request"
    found += [(f"{markup}.{path}", kind, needed) for path, kind, needed in checked_paths(openrtb.NativeMarkup)]
    assert {path: kind for path, kind, _ in found} == CHECKED
    assert {path for path, _, required in found if required} == set(REQUIRED)


def test_a_complete_request_is_read_into_typed_objects() -> None:
    request = openrtb.parse(generator.complete())
    [imp] = request.imp
    assert imp.banner is not None
    assert imp.video is not None
    assert [(one.w, one.h) for one in imp.banner.format] == [(300, 250), (970, 250)]
    assert imp.video.protocols == (2, 3, 5)
    assert imp.native is not None
    assert [asset.id for asset in imp.native.assets] == [1, 2, 3, 4]
    assert request.regs is not None
    assert request.regs.gpp_sid == (-1,)


def test_null_counts_as_absent() -> None:
    assert read(Outer, {"name": "a", "inner": None, "many": None}, "body") == Outer("a")


def test_what_the_shape_does_not_name_is_ignored() -> None:
    assert read(Outer, {"name": "a", "inner": {"n": 1, "z": []}, "other": 1}, "body") == Outer("a", Inner(1))


def test_a_whole_number_may_be_written_with_a_decimal_point() -> None:
    read_back = read(Inner, {"n": 7.0}, "body")
    assert read_back.n == 7
    assert type(read_back.n) is int


def test_a_path_leads_through_objects_and_arrays() -> None:
    field, message = failure({"name": "a", "many": [{"n": 1}, {"n": "1"}]})
    assert field == "many[1].n"
    assert message == "many[1].n must be a whole number, not a string"


def test_the_first_wrong_value_in_the_shape_s_order_is_named() -> None:
    assert failure({"many": [1], "inner": 2, "name": 3})[0] == "name"


def test_a_boolean_is_not_a_number() -> None:
    assert failure({"name": "a", "inner": {"n": True}}) == ("inner.n", "inner.n must be a whole number, not a boolean")


def test_a_fraction_is_not_a_whole_number() -> None:
    assert failure({"name": "a", "inner": {"n": 1.5}})[1] == "inner.n must be a whole number, not 1.5"


def test_bounds_are_named() -> None:
    assert failure({"name": "a", "inner": {"n": 11}})[1] == "inner.n must be 0 to 10, not 11"
    assert failure({"name": "long", "inner": {"n": 1}})[1] == "name must have 1 to 3 characters, not 4"
    assert failure({"name": "a", "many": [{"n": 1}] * 3})[1] == "many must have 0 to 2 elements, not 3"


def test_not_a_number_is_out_of_bounds() -> None:
    assert failure({"name": "a", "inner": {"n": 1, "x": float("nan")}})[0] == "inner.x"


def test_half_a_surrogate_pair_is_refused() -> None:
    assert failure({"name": "\ud800"}) == ("name", "name must be valid Unicode")


def test_the_whole_value_has_the_name_that_the_caller_gives_it() -> None:
    assert failure([]) == ("body", "body must be an object, not an array")
    assert failure(None) == ("body", "body must be an object, not null")


def test_a_rule_over_several_fields_names_its_place() -> None:
    assert failure({"name": "bad"}) == ("name", "name is a bad name")


def test_a_missing_value_is_required_by_its_full_path() -> None:
    assert failure({"name": "a", "many": [{}]}) == ("many[0].n", "many[0].n is required")

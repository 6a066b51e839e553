"""Which instruction may have held the GIL, of code as CPython compiles it."""

from __future__ import annotations

import dis
import sys
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from profiler.bytecode import callees, held_at, returned_from


def power_then_call(n: int) -> int:
    number: int = 3**n  # + 1
    return number.bit_length()  # + 2


def cheap_then_call(rows: list[int], n: int) -> None:
    rest = n + 1  # + 1
    rows.sort(key=rest.__add__)  # + 2


def all_on_one_line(rows: list[int]) -> int:
    return rows.index(rows[0])  # + 1


def one_of_two_ways(rows: list[int], n: int) -> None:
    if n:  # + 1
        n = 7 in rows  # + 2
    print(n)  # + 3


def in_a_loop(rows: list[int]) -> None:
    for row in rows:
        print(row)  # + 2
        row in rows  # + 3  # noqa: B015


def enters(rows: list[int]) -> None:
    found = 7 in rows  # + 1
    power_then_call(found)  # + 2


def returns_either(rows: list[int]) -> bool:
    if rows:
        return 7 in rows  # + 2
    return False


def last_call(function: Callable[..., Any]) -> int:
    return [one.offset for one in dis.get_instructions(function) if one.opname in ("CALL", "CALL_KW")][-1]


def first(function: Callable[..., Any], opname: str) -> int:
    return next(one.offset for one in dis.get_instructions(function) if one.opname == opname)


def held(function: Callable[..., Any], offset: int) -> tuple[int, bool]:
    code = function.__code__
    found = held_at(((code, code.co_firstlineno + 99),), offset, -1)
    return found.line - code.co_firstlineno, found.certain


@pytest.mark.parametrize(
    ("function", "line", "certain"),
    [
        (power_then_call, 1, False),
        (cheap_then_call, 2, False),
        (all_on_one_line, 1, True),
        (one_of_two_ways, 2, False),
        (in_a_loop, 2, False),  # or the iterator, but that is less likely
    ],
)
def test_the_likeliest_since_the_last_look_up_is_named(function: Callable[..., Any], line: int, certain: bool) -> None:
    assert held(function, last_call(function)) == (line, certain)


def test_an_operator_in_a_loop_is_seen_at_its_end() -> None:
    assert held(in_a_loop, first(in_a_loop, "JUMP_BACKWARD")) == (3, True)


def test_a_call_is_certain_however_often_it_was_made_and_so_specialised() -> None:
    offsets: set[int] = set()

    def key(_: int) -> int:
        offsets.add(sys._getframe(1).f_lasti)
        return 0

    def sorts() -> None:
        sorted([2, 1], key=key)  # + 1

    for _ in range(100):
        sorts()
    assert {held(sorts, offset) for offset in offsets} == {(1, True)}


def test_a_function_just_entered_is_not_the_one_its_caller_is() -> None:
    callee, caller = power_then_call.__code__, enters.__code__
    stack = ((callee, callee.co_firstlineno + 1), (caller, caller.co_firstlineno + 2))
    found = held_at(stack, first(power_then_call, "RESUME"), last_call(enters))
    assert (found.entry, found.line, found.certain) == (1, caller.co_firstlineno + 1, True)


def test_a_function_that_ends_in_an_operator_may_have_held_it_until_it_returned() -> None:
    code = returns_either.__code__
    assert returned_from((power_then_call.__code__, code)) == (code, code.co_firstlineno + 2)
    assert returned_from((power_then_call.__code__,)) is None, "it ends in a call, where others get the GIL"


def test_two_that_may_have_is_as_good_as_none() -> None:
    def another(rows: list[int]) -> bool:
        return 7 in rows

    assert returned_from((returns_either.__code__, another.__code__)) is None


def test_functions_at_hand_are_those_of_variables_and_of_closures() -> None:
    method = Holder().run
    seen = []

    def calls() -> None:
        local = returns_either
        seen.append((local, method, callees(sys._getframe())))

    calls()
    assert set(seen[0][2]) == {returns_either.__code__, Holder.run.__code__}


class Holder:
    def run(self) -> None:
        """Nothing."""


class Body:
    """Whose end is seen."""


def test_what_the_function_deletes_is_not_kept_by_a_look_at_its_variables() -> None:
    body = Body()
    gone = weakref.ref(body)
    callees(sys._getframe())
    del body
    assert gone() is None


def test_the_dictionary_of_its_variables_that_a_function_has_asked_for_stays_as_it_is() -> None:
    body = Body()
    variables = locals()
    callees(sys._getframe())
    assert variables["body"] is body


def test_a_function_under_a_debugger_keeps_its_variables() -> None:
    """CPython before 3.13 copies them back from the dictionary after the debugger's call."""
    seen = []

    def traced() -> Body:
        body = Body()
        return body  # noqa: RET504 - a line for the debugger to stop at

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        if event == "line":
            seen.append(callees(frame))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        body = traced()
    finally:
        sys.settrace(before)
    assert isinstance(body, Body)
    assert len(seen) == 2

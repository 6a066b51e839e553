"""What bytecode may have run since the interpreter last looked up: who held the GIL, when nobody could look.

A thread that wants the GIL gets it where CPython looks up from a run of bytecode: after calls into C, at jumps back
and at the start of functions (3.11 and newer; not when a function returns). Between two such points operators (`in`,
`*`, `**`) may run C code for long, so what is seen at a point may have been an operator before it. If all that may
have been it is on one line, that line is certain. Where there are several the likeliest is named: `in` and `**` can
take any time, and other operators are seldom slower than a call.
Pure, and remembered by instruction: a stall repeats at the same one.
"""

from __future__ import annotations

import dis
import inspect
import sys
from functools import lru_cache
from types import CodeType, FrameType, FunctionType, MethodType
from typing import NamedTuple

_CALLS = frozenset({"CALL", "CALL_FUNCTION_EX", "CALL_KW", "PRECALL"})
_LOOKS_UP = _CALLS | {"RESUME", "JUMP_BACKWARD"}
# Instructions between such points that may run C code for long on their own.
_OPERATORS = (
    "BINARY_", "UNARY_", "COMPARE_OP", "CONTAINS_OP", "STORE_SUBSCR", "DELETE_", "LIST_EXTEND", "SET_UPDATE",
    "DICT_", "FORMAT_", "BUILD_STRING", "FOR_ITER", "UNPACK_", "CONVERT_VALUE",
)  # fmt: skip
# After these the next instruction is reached only by a jump.
_LEAVES = frozenset({"JUMP_FORWARD", "JUMP_BACKWARD", "RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE"})
_SHOW_LOCALS = frozenset({"locals", "vars", "dir", "eval", "exec", "f_locals"})
_ANY_TIME, _CALL, _SELDOM = 3, 2, 1  # how likely each is


class Suspect(NamedTuple):
    """An instruction that may have run C code for long."""

    likelihood: int
    offset: int
    line: int


class Held(NamedTuple):
    """Where the GIL was held: in which entry of a stack, at which line, and whether that is certain."""

    entry: int
    line: int
    certain: bool
    likely: bool  # what may have done it often takes long: a call, `in`, `**`; else it may have been nothing


@lru_cache(maxsize=1024)
def is_between_bytecodes(code: CodeType, offset: int) -> bool:
    """Whether a thread without the GIL is where bytecode gives it up, not in a call that lets go of it."""
    return _names(code).get(offset) in _LOOKS_UP - _CALLS


def held_at(stack: tuple[tuple[CodeType, int], ...], offset: int, caller_offset: int) -> Held:
    """Where a thread held the GIL that is seen at `offset` of the innermost entry, just after it held it for long.

    `caller_offset` is of the next entry: a function just entered is not the one that did it.
    """
    code, line = stack[0]
    if _names(code).get(offset) == "RESUME" and len(stack) > 1:
        found = _likeliest([one for one in _suspects(stack[1][0], caller_offset) if one.likelihood != _CALL])
        return Held(1, *found) if found else Held(0, line, certain=False, likely=False)
    found = _likeliest(_suspects(code, offset))
    return Held(0, *found) if found else Held(0, line, certain=False, likely=False)


def returned_from(callees: tuple[CodeType, ...]) -> tuple[CodeType, int] | None:
    """Which of these functions, and at which line, may have held the GIL in an operator just before it returned."""
    places = {(code, one.line) for code in callees for one in _tail(code) if one.likelihood == _ANY_TIME}
    return places.pop() if len(places) == 1 else None


def callees(frame: FrameType) -> tuple[CodeType, ...]:
    """The functions that a frame has at hand, one of which may just have returned to it.

    None of a frame whose locals others may see as the dictionary that CPython before 3.13 copies them to, as a debugger
    does. Else that is emptied again: it would keep what the function has deleted, as a request's body, until its end.
    """
    code = frame.f_code
    copied = sys.version_info < (3, 13) and code.co_flags & inspect.CO_OPTIMIZED
    if copied and (frame.f_trace is not None or not _SHOW_LOCALS.isdisjoint(code.co_names)):
        return ()
    found: dict[CodeType, None] = {}
    variables = frame.f_locals
    for value in list(variables.values()):
        function = value.__func__ if type(value) is MethodType else value
        if type(function) is FunctionType:
            found[function.__code__] = None
    if copied:
        variables.clear()
    return tuple(found)


def _likeliest(suspects: list[Suspect]) -> tuple[int, bool, bool] | None:
    if not suspects:
        return None
    likeliest = max(suspects)
    return likeliest.line, len({one.line for one in suspects}) == 1, likeliest.likelihood > _SELDOM


@lru_cache(maxsize=1024)
def _suspects(code: CodeType, offset: int) -> list[Suspect]:
    """What may have run since the interpreter last looked up before it came to `offset`, that included."""
    return sorted(_pending(code).get(offset, ()))


@lru_cache(maxsize=1024)
def _tail(code: CodeType) -> frozenset[Suspect]:
    """What may have run since the interpreter last looked up before the function returned."""
    return _pending(code).get(-1, frozenset())


@lru_cache(maxsize=256)
def _names(code: CodeType) -> dict[int, str]:
    return {instruction.offset: instruction.opname for instruction in dis.get_instructions(code)}


@lru_cache(maxsize=256)
def _pending(code: CodeType) -> dict[int, frozenset[Suspect]]:
    """By offset, what may have run since the last look-up on any way there, that instruction included.

    At -1 for returns. One pass is enough, for jumps back are look-ups themselves.
    """
    pending: dict[int, frozenset[Suspect]] = {}
    nothing: frozenset[Suspect] = frozenset()
    now = nothing
    arriving: dict[int, frozenset[Suspect]] = {}
    line = code.co_firstlineno
    for one in dis.get_instructions(code):
        line = one.positions.lineno or line if one.positions else line
        now = now | arriving.get(one.offset, nothing)
        likelihood = _likelihood(one)
        if likelihood:
            now = now | {Suspect(likelihood, one.offset, line)}
        pending[one.offset] = now
        if one.opname.startswith("RETURN_"):
            pending[-1] = pending.get(-1, nothing) | now
        if one.opname in _LOOKS_UP and one.opname != "PRECALL":  # which may have left the call to what follows
            now = nothing
        if one.opcode in dis.hasjrel or one.opcode in dis.hasjabs:
            arriving[one.argval] = arriving.get(one.argval, nothing) | now
        if one.opname in _LEAVES:
            now = nothing
    return pending


def _likelihood(one: dis.Instruction) -> int:
    if one.opname in _CALLS:  # 3.11's PRECALL makes the call itself once that has been specialised
        return _CALL
    if one.opname == "CONTAINS_OP" or (one.opname == "BINARY_OP" and one.argrepr.startswith("**")):
        return _ANY_TIME
    return _SELDOM if one.opname.startswith(_OPERATORS) else 0

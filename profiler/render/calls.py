"""A recording of functions as files for other programs: pstats, callgrind, speedscope.

pstats and callgrind say what was recorded: each function, and what its callers and callees had of it. speedscope wants
whole stacks, which were not recorded: they are estimated, and the profile's name says so.
"""

from __future__ import annotations

import json
import marshal
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from profiler.render.speedscope import SCHEMA

if TYPE_CHECKING:
    from profiler.functions import Function, Recording

_DEEPEST = 100  # calls in an estimated stack: frameworks and their middlewares are 30 to 50 deep
_LEAST = 0.0005  # of all time: a narrower box cannot be seen
_SAMPLES = 100_000  # more than a recording leads to, unless its functions call one another in every order
_ELSEWHERE = "(callers not told apart)"


def pstats(recording: Recording) -> bytes:
    """What `pstats.Stats(FILE)` and `python -m pstats FILE` read."""
    functions = recording.functions
    callers: list[dict[tuple[str, int, str], tuple[int, int, float, float]]] = [{} for _ in functions]
    for function in functions:
        for call in function.callees:
            # Here the number of all calls comes first, below that of the primitive ones: as cProfile has it.
            callers[call.callee][_key(function)] = (call.calls, call.primitive, call.own_s, call.total_s)
    table = {
        _key(one): (one.primitive, one.calls, one.own_s, one.total_s, by)
        for one, by in zip(functions, callers, strict=True)
    }
    return marshal.dumps(table)


def _key(function: Function) -> tuple[str, int, str]:
    return function.file, function.line, function.name


def callgrind(recording: Recording) -> bytes:
    """What `callgrind_annotate` and KCachegrind read (valgrind's manual, Callgrind Format Specification).

    Files below the working directory are named from there: callgrind_annotate does that with functions, but not with
    callees, and so shows them twice.
    """
    return "\n".join(_callgrind(recording)).encode("utf-8", "replace") + b"\n"


def _callgrind(recording: Recording) -> Iterator[str]:
    functions = recording.functions
    files = [_line(one.file.removeprefix(os.getcwd() + os.sep)) for one in functions]
    yield "# callgrind format"
    yield "version: 1"
    yield "creator: profiler.functions, by yappi"
    yield f"pid: {recording.pid}"
    yield f"desc: Trigger: {recording.length_s:.3f} s of {_clock(recording)}"
    yield "positions: line"
    yield f"events: {recording.clock}_ns"
    yield f"summary: {sum(_ns(one.own_s) for one in functions)}"
    for one, file in zip(functions, files, strict=True):
        yield ""
        yield f"fl={file}"
        yield f"fn={_line(one.name)}:{one.line}"  # methods of two classes may have one name
        yield f"{one.line} {_ns(one.own_s)}"
        for call in one.callees:
            callee = functions[call.callee]
            yield f"cfl={files[call.callee]}"
            yield f"cfn={_line(callee.name)}:{callee.line}"
            yield f"calls={call.calls} {callee.line}"
            yield f"{one.line} {_ns(call.total_s)}"


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _line(text: str) -> str:
    return text.replace("\n", "?").replace("\r", "?") or "?"


def speedscope(recording: Recording) -> bytes:
    """What speedscope reads: one sampled profile, its stacks estimated.

    A function with several callers is taken to do the same for each of them, in proportion to the time that it took for
    each: gprof's assumption. What that does not account for (recursion, callers that never returned, too little to be
    seen, more stacks than can be shown) stands apart, under a frame that says so: the own time of each function is in
    all what was recorded.
    """
    elsewhere = len(recording.functions)  # the frame after theirs
    samples = list(_stacks(recording.functions, elsewhere))
    profile = {
        "type": "sampled",
        "name": f"{_clock(recording)}: stacks ESTIMATED from callers and callees, times of functions as recorded",
        "unit": "seconds",
        "startValue": 0,
        "endValue": sum(own_s for _, own_s in samples),
        "samples": [stack for stack, _ in samples],
        "weights": [own_s for _, own_s in samples],
    }
    document = {
        "$schema": SCHEMA,
        "exporter": "profiler.functions, by yappi",
        "name": f"process {recording.pid}, {recording.length_s:.1f} s",
        "activeProfileIndex": 0,
        "profiles": [profile],
        "shared": {"frames": [*map(_frame, recording.functions), {"name": _ELSEWHERE}]},
    }
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _frame(one: Function) -> dict[str, str | int]:
    return {"name": f"{one.name} {os.path.basename(one.file)}:{one.line}", "file": one.file, "line": one.line}


def _clock(recording: Recording) -> str:
    return "CPU time" if recording.clock == "cpu" else "time on the clock, waiting included"


def _stacks(functions: list[Function], elsewhere: int) -> Iterator[tuple[list[int], float]]:
    """Stacks, outermost first, each with the own time of its innermost function."""
    least_s = _LEAST * sum(one.own_s for one in functions)
    # One that has not returned has no total of its own.
    total_s = [max(one.total_s, one.own_s + sum(call.total_s for call in one.callees)) for one in functions]
    called_s = [0.0] * len(functions)
    for one in functions:
        for call in one.callees:
            called_s[call.callee] += call.total_s
    left_s = [one.own_s for one in functions]
    # What no caller accounts for began here.
    to_do = [([place], total_s[place] - called_s[place]) for place in range(len(functions))]
    for _ in range(_SAMPLES):
        if not to_do:
            break
        stack, time_s = to_do.pop()
        place = stack[-1]
        if time_s < least_s or not total_s[place]:
            continue
        share = time_s / total_s[place]
        own_s = min(functions[place].own_s * share, left_s[place])
        left_s[place] -= own_s
        yield stack, own_s
        if len(stack) < _DEEPEST:
            calls = [call for call in functions[place].callees if call.callee not in stack]
            to_do += [([*stack, call.callee], call.total_s * share) for call in calls]
    for place, own_s in enumerate(left_s):
        if own_s > 1e-9:  # less is rounding
            yield [elsewhere, place], own_s


FORMATS: dict[str, Callable[[Recording], bytes]] = {"pstats": pstats, "callgrind": callgrind, "speedscope": speedscope}

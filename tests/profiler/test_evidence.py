"""Which line samples name, and how sure that is."""

from __future__ import annotations

import dis
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType

import gevent.backdoor
import pytest

from profiler.causes import Kind
from profiler.evidence import MAX_SAMPLES, Evidence, Judge, Sample
from profiler.frames import Application, Look, Stack
from profiler.model import Slice
from profiler.sites import Finding
from profiler.threads import Wait
from profiler.usage import Own, Usage

INTERVAL_MS = 5  # sys.getswitchinterval()


def handler(rows: list[int]) -> None:
    for row in rows:  # + 1
        helper(row)  # + 2
    rows.sort()  # + 3


HANDLER_LINE = handler.__code__.co_firstlineno


def helper(row: int) -> None:
    json.dumps(row)  # + 1


def searches(rows: list[int]) -> None:
    if 7 in rows:  # + 1
        print()  # + 2
    rows.sort()  # + 3


def ends_by_searching(rows: list[int]) -> bool:
    return 7 in rows  # + 1


def at(function: Callable[..., object], line: int, *outer: tuple[Callable[..., object], int]) -> Stack:
    return tuple((one.__code__, one.__code__.co_firstlineno + plus) for one, plus in ((function, line), *outer))


def sample(
    age_ms: float,
    stack: Stack,
    *,
    late_ms: float = 0.1,
    offset: int = -1,
    caller_offset: int = -1,
    own_wait_ms: float = 0.0,
    hub_wait_ms: float = 0.0,
    wakes: int = 10,
    callees: tuple[CodeType, ...] = (),
) -> Sample:
    look = Look(stack, offset, caller_offset, collecting=False, callees=callees)
    return Sample(
        age_ms / 1000, late_ms / 1000, own_wait_ms / 1000, hub_wait_ms / 1000, wakes, look, blocked=False, alone=True
    )


def find(
    samples: list[Sample],
    *,
    length_ms: float = 30,
    cpu_ms: float = 30,
    yielded: Stack = (),
    library_prefixes: Sequence[str] = (),
    gc_ms: float = 0.0,
    collected: Stack = (),
    others_ms: float = 0.0,
    strangers_ms: float = 0.0,
    wakes: int = 0,
    waits: Sequence[Wait] = (),
    threads: dict[int, Look] | None = None,
    absent_ms: float = 0.0,
    members: int = 1,
) -> Finding:
    start = Usage(100.0, 0.0, 0.0)
    end = Usage(100.0 + length_ms / 1000, cpu_ms / 1000, 0.0, others_ms / 1000, wakes, strangers_s=strangers_ms / 1000)
    record = Slice(100.0, end.at_s, None, gc_ms / 1000, end, (100.0, 0.0), yielded)
    record.collected = collected
    record.members = members
    record.threads = threads or {}
    evidence = Evidence(100.0, start, Own())
    for one in samples:
        evidence.add(one)
    return Judge(Application(library_prefixes), 0.01, sees_waits=True).find(
        record, evidence, 0.0, waits=waits, absent_s=absent_ms / 1000
    )


def test_the_line_of_the_application_is_named_not_that_of_the_library_it_called() -> None:
    found = find([sample(5, at(json.dumps, 50, (helper, 1), (handler, 2))), sample(25, at(helper, 1, (handler, 2)))])
    assert (found.place.function, found.place.line) == ("helper", helper.__code__.co_firstlineno + 1)
    assert found.place.file == __file__
    assert found.exact


def test_the_function_with_most_time_is_named_at_its_line_with_most_time() -> None:
    found = find(
        [
            sample(4, at(helper, 1, (handler, 2)), late_ms=INTERVAL_MS),
            sample(12, at(handler, 1), late_ms=INTERVAL_MS),
            sample(22, at(handler, 2), late_ms=INTERVAL_MS),
            sample(29, at(handler, 1), late_ms=INTERVAL_MS),
        ]
    )
    first = handler.__code__.co_firstlineno
    assert (found.place.function, found.place.line) == ("handler", first + 1)
    assert found.lines == {first + 1: pytest.approx(0.015), first + 2: pytest.approx(0.010)}
    assert found.by_function
    assert found.verdict.cause == "python"


def test_a_line_is_not_exact_when_most_of_the_slice_came_after_the_last_sample() -> None:
    assert not find([sample(10, at(handler, 3))], length_ms=30).exact
    assert find([sample(20, at(handler, 3))], length_ms=30).exact


def offset_of(code: CodeType, line: int, opname: str) -> int:
    return next(
        one.offset
        for one in dis.get_instructions(code)
        if one.opname == opname and one.positions is not None and one.positions.lineno == line
    )


def test_c_code_that_held_the_gil_is_exact_if_only_the_call_seen_can_have_done_it() -> None:
    code = helper.__code__
    offset = offset_of(code, code.co_firstlineno + 1, "CALL")
    found = find([sample(28, at(helper, 1), late_ms=25, offset=offset)])
    assert found.exact
    assert found.verdict.cause == "native"


def test_code_that_lets_go_of_the_gil_again_and_again_is_no_c_code_that_holds_it() -> None:
    call = offset_of(helper.__code__, helper.__code__.co_firstlineno + 1, "CALL")
    brief = sample(44, at(helper, 1), late_ms=40, offset=call, wakes=500)  # as in a loop with os.stat in it
    found = find([brief], length_ms=45, cpu_ms=45)
    assert (found.verdict.cause, found.place.file) == ("unknown", ""), "it may have come there at the end"
    assert found.parts == {"unknown": pytest.approx(0.045)}
    earlier = sample(4, at(helper, 1), offset=call)
    found = find([earlier, brief], length_ms=45, cpu_ms=45)
    assert (found.verdict.cause, found.place.function, found.exact) == ("unknown", "helper", False)
    elsewhere = sample(4, at(handler, 1), offset=call)
    assert find([elsewhere, brief], length_ms=45, cpu_ms=45).place.file == ""


def test_late_looks_that_agree_name_the_function_they_agree_on_but_not_exactly() -> None:
    call = offset_of(helper.__code__, helper.__code__.co_firstlineno + 1, "CALL")
    late = [sample(age, at(helper, 1), late_ms=2, offset=call) for age in (5, 10, 15, 20, 25, 29)]
    found = find(late)  # as of a loop that logs a line each 2 ms
    assert (found.verdict.cause, found.place.function, found.exact) == ("unknown", "helper", False)
    three = [sample(age, at(helper, 1), late_ms=2, offset=call) for age in (5, 11, 17)]
    assert find(three, length_ms=18, cpu_ms=18).place.file == "", "one absence may have made the longer of two"
    moved = [one._replace(look=one.look._replace(stack=at(handler, 1))) if n % 2 else one for n, one in enumerate(late)]
    assert find(moved).place.file == ""


def test_of_a_convoy_it_is_not_told_where_a_greenlet_went_on() -> None:
    call = offset_of(helper.__code__, helper.__code__.co_firstlineno + 1, "CALL")
    waited = ((json.dumps.__code__, json.dumps.__code__.co_firstlineno), *at(handler, 2))  # in a library's call
    begun = sample(12, waited, late_ms=5.1)._replace(slice_s=0.00002)
    shut_out = sample(28, at(helper, 1), late_ms=15, offset=call)
    for slice_ms, named in ((0.02, ""), (1.5, ""), (16, "helper")):  # of the slice that was seen
        found = find([begun, shut_out._replace(slice_s=slice_ms / 1000)], members=10)
        assert (found.verdict.cause, found.place.function) == ("convoy", named)
    for stack, slice_ms, named in ((waited, 0.02, ""), (waited, 1.5, "handler"), (at(handler, 2), 0.02, "handler")):
        asked = [sample(age, stack, late_ms=5.1)._replace(slice_s=slice_ms / 1000) for age in (10, 20, 29)]
        assert find(asked, members=10).place.function == named


def test_a_greenlet_that_had_just_gone_on_counts_for_what_its_function_was_seen_to_do_then() -> None:
    waited = ((json.dumps.__code__, json.dumps.__code__.co_firstlineno), *at(handler, 1))
    begun = sample(20, waited, late_ms=5.1)._replace(slice_s=0.00002)
    seen = sample(28, at(handler, 2), late_ms=5.1)._replace(slice_s=0.0015)
    found = find([begun, seen], members=10)
    assert (found.place.function, found.place.line) == ("handler", handler.__code__.co_firstlineno + 2)
    assert found.exact
    elsewhere = find([begun, seen._replace(look=sample(28, at(helper, 1)).look)], members=10)
    assert elsewhere.place.function == ""  # most of the time nobody knows


def test_an_operator_before_the_call_that_is_seen_is_named_but_not_exactly() -> None:
    code = searches.__code__
    offset = offset_of(code, code.co_firstlineno + 3, "CALL")
    found = find([sample(28, at(searches, 3), late_ms=25, offset=offset)])
    assert (found.place.function, found.place.line) == ("searches", code.co_firstlineno + 1)
    assert not found.exact


def test_an_operator_at_the_end_of_a_function_is_found_when_only_its_caller_is_seen() -> None:
    stack = at(json.dumps, 50)
    found = find([sample(28, stack, late_ms=25, callees=(json.loads.__code__, ends_by_searching.__code__))])
    assert (found.place.function, found.place.line) == (
        "ends_by_searching",
        ends_by_searching.__code__.co_firstlineno + 1,
    )
    assert (found.exact, found.library, found.verdict.cause) == (False, False, "native")


def test_a_watchdog_that_did_not_wake_up_to_ask_for_the_gil_was_stopped_with_everybody() -> None:
    found = find([sample(28, at(helper, 1), late_ms=25, wakes=1)], cpu_ms=1)
    assert (found.verdict.cause, found.verdict.innocent) == ("starved", True)


def test_a_long_collection_is_where_the_collector_was_called() -> None:
    found = find([sample(28, at(handler, 1), late_ms=25)], gc_ms=28, collected=at(helper, 1, (handler, 2)))
    assert (found.place.function, found.exact, found.verdict.cause) == ("helper", True, "gc")


def test_the_thread_that_had_the_gil_is_named_and_the_hub_is_not() -> None:
    hog = Look(at(helper, 1), offset_of(helper.__code__, helper.__code__.co_firstlineno + 1, "CALL"), -1, False, ())
    waits = [Wait(100.001, 100.029, 0.028, hog), Wait(99.0, 99.9, 0.9, Look(at(handler, 1), -1, -1, False, ()))]
    found = find([sample(28, at(handler, 1), late_ms=27)], cpu_ms=1, others_ms=28, wakes=8, waits=waits)
    assert (found.place.function, found.exact) == ("helper", True)
    assert (found.verdict.cause, found.verdict.innocent) == ("gil", True)


def test_a_thread_that_had_gone_on_when_the_hub_got_the_gil_is_where_the_watchdog_saw_it() -> None:
    hog = Look(at(helper, 1), offset_of(helper.__code__, helper.__code__.co_firstlineno + 1, "CALL"), -1, False, ())
    gone_on = Look(at(json.dumps, 50), -1, -1, False, ())
    found = find(
        [], cpu_ms=1, others_ms=28, wakes=8, waits=[Wait(100.001, 100.029, 0.028, hog, 7)], threads={7: gone_on}
    )
    assert found.place.function == "helper"


def test_a_holder_of_the_gil_that_nobody_saw_accuses_nobody() -> None:
    found = find([sample(28, at(handler, 1), late_ms=27)], cpu_ms=1, others_ms=28, wakes=8)
    assert (found.place.file, found.verdict.cause) == ("", "gil")


def test_what_may_have_waited_for_a_thread_that_nobody_sees_accuses_nobody() -> None:
    asleep = [sample(28, at(handler, 3), late_ms=25, offset=offset_of(handler.__code__, HANDLER_LINE + 3, "CALL"))]
    found = find(asleep, length_ms=29, cpu_ms=1, wakes=5)
    assert (found.place.line, found.verdict.cause) == (HANDLER_LINE + 3, "blocking")
    found = find(asleep, length_ms=29, cpu_ms=1, wakes=5, strangers_ms=0.02)
    assert (found.place.file, found.verdict.cause) == ("", "unknown")
    found = find(asleep, length_ms=29, cpu_ms=1, wakes=2, strangers_ms=0.02)
    assert found.verdict.cause == "blocking", "who waits for the GIL wakes up more often"


def test_what_was_seen_of_a_turn_before_its_convoy_began_is_left_out() -> None:
    turn = Evidence(100.0, Usage(99.9, 0.0, 0.0), Own())
    for age_ms in (5, 15, 25):
        turn.add(sample(age_ms, at(handler, 1)))
    assert [one.age_s for one in turn.since(100.01).samples] == pytest.approx([0.005, 0.015])


def test_a_library_is_not_named_for_what_may_have_happened_before_it_was_called() -> None:
    in_library = at(json.dumps, 50)
    found = find([sample(28, in_library, late_ms=3)])
    assert (found.place.file, found.place.line, found.exact) == ("", 0, False)


def test_a_watchdog_without_a_cpu_asked_too_late_to_be_certain() -> None:
    code = helper.__code__
    offset = offset_of(code, code.co_firstlineno + 1, "CALL")
    assert not find([sample(28, at(helper, 1), late_ms=25, offset=offset, own_wait_ms=4)]).exact


@pytest.mark.parametrize("cpu_ms", [1, 30])
def test_an_unseen_slice_accuses_nobody(cpu_ms: float) -> None:
    found = find([], cpu_ms=cpu_ms, yielded=at(json.dumps, 50, (handler, 2)))
    assert found.place.file == ""


def test_bytecode_that_gives_the_gil_up_too_late_may_have_lost_its_cpu_and_is_not_accused() -> None:
    code = handler.__code__
    back = next(one.offset for one in dis.get_instructions(code) if one.opname == "JUMP_BACKWARD")
    for late_ms in (9.0, 25.0):
        found = find([sample(28, at(handler, 1), late_ms=late_ms, offset=back)])
        assert (found.verdict.cause, found.place.file) == ("unknown", "")
    assert find([sample(28, at(handler, 1), late_ms=5.5, offset=back)]).verdict.cause == "python"


def test_one_absence_of_the_machine_may_explain_a_slice_that_was_seen_once() -> None:
    seen_once = [sample(11.8, at(handler, 1), late_ms=5.5)]
    assert find(seen_once, length_ms=12, cpu_ms=12).place.file == ""
    assert find(seen_once, length_ms=14, cpu_ms=14).place.function == "handler"
    several = [sample(age, at(handler, 1), late_ms=5.5) for age in (8, 16, 24)]
    assert find(several, absent_ms=20).place.function == "handler", "it went on in between"
    call = offset_of(helper.__code__, helper.__code__.co_firstlineno + 1, "CALL")
    held = [sample(28, at(helper, 1), late_ms=25, offset=call)]
    assert find(held, absent_ms=4).verdict.cause == "native"
    found = find(held, absent_ms=11)
    assert (found.verdict.cause, found.place.file) == ("unknown", "")


def test_under_a_long_switch_interval_a_late_look_does_not_tell_who_had_the_gil() -> None:
    call = offset_of(helper.__code__, helper.__code__.co_firstlineno + 1, "CALL")
    for late_ms, kind in ((0.5, Kind.FREE), (4, Kind.LET_GO), (40, Kind.SLOW), (150, Kind.SLOW)):
        assert sample(160, at(helper, 1), late_ms=late_ms, offset=call).kind(0.2) is kind


def test_while_the_watchdog_itself_kept_the_gil_nobody_else_is_to_blame() -> None:
    kept = Wait(100.002, 100.028, 0.0, ours=True)
    found = find([sample(29, at(handler, 1), late_ms=1)], cpu_ms=1, waits=[kept])
    assert (found.verdict.cause, found.verdict.innocent) == ("starved", True)


def test_a_library_without_an_application_above_it_is_named_itself() -> None:
    found = find([sample(5, at(re.compile, 1)), sample(25, at(re.compile, 1))])
    assert found.place.function == "compile"


def test_without_the_application_the_server_is_named_not_the_library_it_called() -> None:
    # `json` stands for the server: its innermost line, whatever it called and whatever runs greenlets.
    stack = at(
        re.compile, 1, (json.dumps, 5), (json.JSONEncoder().encode, 1), (gevent.backdoor.BackdoorServer.__init__, 3)
    )
    server = str(Path(json.__file__).parent)
    named = find([sample(5, stack), sample(25, stack)], library_prefixes=[server])
    assert (named.place.function, named.library) == ("dumps", True)
    assert named.stack == stack


def test_without_application_and_server_the_library_function_that_was_called_is_named() -> None:
    stack = at(re._compile, 9, (re.compile, 1), (gevent.backdoor.BackdoorServer.__init__, 3))  # type: ignore[attr-defined]
    named = find([sample(5, stack), sample(25, stack)])
    assert (named.place.function, named.library) == ("compile", True)


def test_with_the_application_on_the_stack_nothing_else_is_named() -> None:
    assert not find([sample(25, at(json.dumps, 50, (handler, 2)))]).library


def test_a_long_slice_keeps_a_bounded_number_of_samples_and_all_of_its_time() -> None:
    found = find(
        [sample(age, at(handler, 1 + age % 2)) for age in range(1, 20 * MAX_SAMPLES)], length_ms=1400, cpu_ms=1400
    )
    evidence = Evidence(0.0, Usage(0.0, 0.0, 0.0), Own())
    for age in range(1, 20 * MAX_SAMPLES):
        evidence.add(sample(age, at(handler, 1)))
    assert len(evidence.samples) < MAX_SAMPLES
    assert sum(found.lines.values()) == pytest.approx(evidence.samples[-1].age_s, abs=0.1)


def test_a_line_that_waited_for_a_reason_unknown_is_not_named() -> None:
    found = find([sample(28, at(handler, 1), late_ms=27)], cpu_ms=1, wakes=9)
    assert (found.verdict.cause, found.place.file) == ("unknown", "")


def test_a_hub_without_a_cpu_may_have_been_in_bytecode_or_in_c_code() -> None:
    found = find([sample(28, at(helper, 1), late_ms=25, hub_wait_ms=20)])
    assert (found.verdict.cause, found.place.file) == ("unknown", "")


def test_where_a_watchdog_without_a_cpu_found_the_hub_is_not_where_it_was_until_then() -> None:
    # `json` stands for the server, which goes on after the handler.
    seen_too_late = [sample(4, at(handler, 3)), sample(28, at(json.dumps, 50), own_wait_ms=20)]
    found = find(seen_too_late, library_prefixes=[str(Path(json.__file__).parent)])
    assert (found.place.file, found.exact) == ("", False)
    still_there = find([sample(4, at(handler, 3)), sample(28, at(handler, 3), own_wait_ms=20)])
    assert (still_there.place.function, still_there.exact) == ("handler", True)


def test_the_parts_of_a_slice_are_kept_beside_its_cause() -> None:
    parts = find([sample(28, at(handler, 1), late_ms=INTERVAL_MS)], length_ms=30, cpu_ms=20).parts
    assert parts == pytest.approx({"python": 0.02, "unknown": 0.01})

"""What the hub's side keeps, and that it keeps no more than that."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

import profiler
from profiler.flight import Flight
from profiler.frames import Application
from profiler.histogram import Histogram
from profiler.model import OTHER_ROUTES, Counts, Span
from profiler.recorder import MAX_CROWDED_OUT, MAX_ROUTES, SLOWEST, SLOWEST_EPOCH_S, Delta, Recorder

NOTHING = Counts(0, 0, 0.0, 0, 0, 0, 0)


def finished(
    route: str = "GET /",
    running_ms: float = 1.0,
    waiting_ms: float = 0.0,
    queued_ms: float = 0.0,
    request_id: str = "r",
) -> Span:
    span = Span()
    span.route, span.request_id = route, request_id
    span.error, span.outcome, span.blamed = False, 0, None
    span.started_s = 1.0
    span._running_s = span._longest_s = running_ms / 1000
    span.queued_s = queued_ms / 1000
    span._out_s = 1.5 if waiting_ms else 0.0
    span.total_s = (running_ms + waiting_ms + queued_ms) / 1000
    return span


def record(*spans: Span, unusual: tuple[Span, ...] = ()) -> Delta:
    recorder = Recorder()
    recorder.batch += [span for span in spans if not span._out_s]
    recorder.waited += [span for span in spans if span._out_s]
    recorder.unusual += unusual
    recorder.fold()
    return recorder.take(NOTHING, NOTHING, 1.0, 0.0)


def lines(delta: Delta, kind: str) -> list[dict[str, Any]]:
    return [line for line in delta.lines() if line["type"] == kind]


def test_requests_with_and_without_waits_are_one_route() -> None:
    delta = record(finished(), finished(running_ms=2, waiting_ms=5, queued_ms=1))
    (route,) = lines(delta, "route")
    assert (route["route"], route["requests"], route["errors"]) == ("GET /", 2, 0)
    for name, slowest_ms in (("total", 8), ("running", 2), ("waiting", 5), ("queued", 1), ("longest_slice", 2)):
        histogram = Histogram.of_packed(route[name])
        assert histogram.count == 2
        assert histogram.quantile(1.0) * 1000 == pytest.approx(slowest_ms, rel=0.02), name


def test_the_longest_slices_of_requests_that_never_wait_are_their_running_times_and_stored_once() -> None:
    (route,) = lines(record(finished(), finished(running_ms=2)), "route")
    assert "longest_slice" not in route


def test_a_route_named_late_is_the_one_that_counts() -> None:
    span = finished("GET /users/17")
    span.route = "GET /users/{id}"
    (route,) = lines(record(span), "route")
    assert route["route"] == "GET /users/{id}"


class NoKey(str):
    """A text that cannot be counted by."""

    __slots__ = ()

    def __hash__(self) -> int:
        raise RuntimeError("wanted")


def test_a_route_that_is_no_text_becomes_one_or_is_counted_with_the_others() -> None:
    spans = [finished(), *(finished(route) for route in (b"GET /\xff", ["GET /"], None, 404))]  # type: ignore[arg-type]
    delta = record(*spans, unusual=(spans[2],))
    routes = {line["route"]: line["requests"] for line in lines(delta, "route")}
    assert routes == {"GET /": 1, "GET /\ufffd": 1, OTHER_ROUTES: 2, "404": 1}
    (slowest,) = lines(delta, "slowest")
    assert sorted(one["route"] for one in slowest["requests"]) == sorted([*routes, OTHER_ROUTES])
    assert delta.hub["dropped"] == 0


def test_requests_that_cannot_be_counted_are_dropped_once_and_the_next_are_counted() -> None:
    recorder = Recorder()
    recorder.batch += [finished(), finished(NoKey("GET /odd"))]
    recorder.unusual.append(finished(NoKey("GET /odd")))
    recorder.fold()
    assert (recorder.batch, recorder.unusual, recorder.dropped) == ([], [], 3)
    recorder.batch.append(finished())
    recorder.fold()
    delta = recorder.take(NOTHING, NOTHING, 1.0, 0.0)
    assert ([line["requests"] for line in lines(delta, "route")], delta.hub["dropped"]) == ([1], 3)
    assert recorder.take(NOTHING, NOTHING, 1.0, 0.0).hub["dropped"] == 0


def test_a_route_that_cannot_be_judged_costs_no_other_route_its_requests() -> None:
    class Broken(Flight):
        def limit_s(self, route: str) -> float:
            if route == "GET /odd":
                raise RuntimeError("wanted")
            return super().limit_s(route)

    recorder = Recorder(Broken({"*": 0.001}, Application(), 0.01))
    recorder.batch += [finished("GET /odd", running_ms=2), finished("GET /a", running_ms=3)]
    recorder.fold()
    delta = recorder.take(NOTHING, NOTHING, 1.0, 0.0)
    assert [one["route"] for line in lines(delta, "slowest") for one in line["requests"]] == ["GET /a"]
    assert (recorder.batch, delta.hub["dropped"]) == ([], 1)


def test_errors_are_counted_with_their_route() -> None:
    failed = finished("GET /b")
    failed.error = True
    delta = record(finished("GET /a"), failed, unusual=(failed,))
    assert {line["route"]: line["errors"] for line in lines(delta, "route")} == {"GET /a": 0, "GET /b": 1}


def test_routes_beyond_the_bound_are_kept_together_and_counted() -> None:
    delta = record(*(finished(f"GET /{number}") for number in range(MAX_ROUTES + 50)))
    routes = lines(delta, "route")
    assert len(routes) == MAX_ROUTES + 1
    assert next(line for line in routes if line["route"] == OTHER_ROUTES)["requests"] == 50
    assert delta.hub["dropped"] == 0, "they are counted, there"


def hand_over(recorder: Recorder, *spans: Span) -> dict[str, int]:
    """Requests by route, as the next delta has them."""
    for start in range(0, len(spans), 100):
        recorder.batch += spans[start : start + 100]
        recorder.fold()
    delta = recorder.take(NOTHING, NOTHING, 1.0, 0.0)
    return {line["route"]: line["requests"] for line in lines(delta, "route")}


def test_a_route_in_use_has_room_whatever_paths_strangers_make_up() -> None:
    recorder = Recorder()

    def crowd(number: int) -> list[Span]:
        made_up = [finished(f"GET /{number}/{path}") for path in range(5 * MAX_ROUTES)]
        return [*made_up, *(finished("POST /order") for _ in made_up)]

    first = hand_over(recorder, *crowd(1))
    assert "POST /order" not in first, "it came when there was no room any more"
    for number in (2, 3):
        routes = hand_over(recorder, *crowd(number))
        assert routes["POST /order"] == 5 * MAX_ROUTES
        assert len(routes) <= MAX_ROUTES + 1
        assert sum(routes.values()) == 10 * MAX_ROUTES, "none is lost"


def test_a_route_that_had_room_and_was_busy_keeps_it() -> None:
    recorder = Recorder()
    busy = [finished(f"GET /busy/{number % 100}") for number in range(1000)]
    once = [finished(f"GET /{path}") for path in range(5 * MAX_ROUTES)]
    hand_over(recorder, *busy, *once)
    routes = hand_over(recorder, *once, *busy)
    assert [routes.get(f"GET /busy/{number}") for number in range(100)] == [10] * 100


def test_counting_those_without_room_takes_bounded_memory() -> None:
    recorder = Recorder()
    hand_over(recorder)
    recorder.batch += [finished(f"GET /{path}") for path in range(20 * MAX_ROUTES)]
    recorder.fold()
    if profiler.why_interpreted:  # compiled, its attributes are C's
        assert len(recorder._crowded_out) <= MAX_CROWDED_OUT


def test_a_span_serves_another_request_only_if_nobody_has_it() -> None:
    recorder = Recorder()
    recorder.batch += [finished(running_ms=10) for _ in range(SLOWEST)]  # which are kept
    recorder.fold()
    recorder.spare.clear()
    held = finished(request_id="held", running_ms=0.001)
    failed = finished(request_id="failed", running_ms=0.001)
    failed.error = True
    recorder.batch += [finished(request_id="free", running_ms=0.001), held, failed]
    recorder.unusual.append(failed)
    del failed
    recorder.fold()
    assert [span.request_id for span in recorder.spare] == ["free"]


def test_the_slowest_requests_are_kept_whatever_their_order() -> None:
    recorder = Recorder()
    for number in (3, 1, 2, *range(4, 30), 0):
        recorder.batch.append(finished(running_ms=number, request_id=str(number)))
        recorder.fold()
    (line,) = lines(recorder.take(NOTHING, NOTHING, 1.0, 0.0), "slowest")
    assert sorted(int(one["request_id"]) for one in line["requests"]) == list(range(30 - SLOWEST, 30))


def test_a_slow_request_is_stored_once_and_one_less_slow_than_those_before_only_in_another_epoch() -> None:
    recorder = Recorder()

    def ids(*running_ms: int, wall_s: float = 10.0) -> list[str]:
        recorder.batch += [finished(running_ms=ms, request_id=str(ms)) for ms in running_ms]
        recorder.fold()
        stored = lines(recorder.take(NOTHING, NOTHING, wall_s, 0.0), "slowest")
        return [one["request_id"] for line in stored for one in line["requests"]]

    assert len(ids(*range(100, 100 + SLOWEST))) == SLOWEST
    assert ids(50) == []
    assert ids(500, 60) == ["500"]
    assert ids(70, wall_s=SLOWEST_EPOCH_S) == []
    assert ids(80) == ["80"]


def test_a_delta_begins_anew() -> None:
    recorder = Recorder()
    recorder.batch.append(finished())
    recorder.fold()
    recorder.take(NOTHING, NOTHING, 1.0, 0.0)
    assert lines(recorder.take(NOTHING, NOTHING, 1.0, 0.0), "route") == []
    assert recorder.requests == 1


def test_what_the_hook_counted_is_stored_as_the_difference() -> None:
    then, now = Counts(10, 1, 0.5, 2, 0, 0, 0), Counts(30, 2, 0.7, 5, 1, 1, 0)
    hub = Recorder().take(now, then, 1.0, 0.01).hub
    assert (hub["switches"], hub["slices_over"], hub["dropped"], hub["displaced"]) == (20, 3, 1, 1)
    assert hub["idle_s"] == pytest.approx(0.2)


def test_a_second_with_far_too_many_routes_stays_small() -> None:
    recorder = Recorder()
    tracemalloc.start()
    try:
        for number in range(5_000):
            recorder.batch.append(finished(f"GET /{number}", running_ms=number / 100))
            if len(recorder.batch) == 100:
                recorder.fold()
        assert tracemalloc.get_traced_memory()[0] < 5 << 20
    finally:
        tracemalloc.stop()

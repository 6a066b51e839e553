"""Moments: what the hub did while a request was too slow."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.monkey import get_original

import profiler
from profiler.flight import EVERY_S, MAX_SLICES, MAX_WAITED, RING, SETTLE_S, Flight
from profiler.frames import Application
from profiler.model import Span
from profiler.render import perfetto, text
from profiler.report.profile import MOMENTS
from tests.profiler.contract import CONTRACT, check, report_on
from tests.profiler.test_hook import run_in_request

really_sleep = get_original("time", "sleep")
INFINITY = float("inf")


def span_of(request_id: str, started_s: float, total_s: float, queued_s: float = 0.0) -> Span:
    span = Span()
    span.route, span.request_id, span.error, span.blamed = "GET /", request_id, False, None
    span.started_s, span.total_s, span.queued_s, span._out_s = started_s, total_s, queued_s, 0.0
    return span


def recorder_of_flight(objectives_s: dict[str, float] | None = None) -> Flight:
    return Flight(objectives_s or {}, Application(), 0.01)


def told(lines: list[dict[str, Any]]) -> list[Any]:
    return [line["request"]["request_id"] if line["type"] == "moment" else line["count"] for line in lines]


def stall() -> None:
    really_sleep(0.03)  # stalls


def stall_others(session: profiler.Session) -> None:
    """A request that stalls while two others are ready."""
    go = Event()

    def waits(before_s: float) -> None:
        really_sleep(before_s)  # so that the two are told apart by their times
        go.wait()

    def culprit() -> None:
        go.set()
        stall()

    waiting = [gevent.spawn(run_in_request, session, lambda s=s: waits(s)) for s in (0.0001, 0.0003)]
    gevent.sleep(0.005)
    run_in_request(session, culprit)
    gevent.joinall(waiting, raise_error=True, timeout=5)


def test_the_moment_of_a_request_over_its_objective_tells_who_had_the_hub_and_who_waited(
    tmp_path: Path, install: Callable[..., profiler.Session]
) -> None:
    session = install(tmp_path, objectives={"GET /": 25, "*": 10_000})
    stall_others(session)
    session.close()
    report = report_on(tmp_path)
    check(report, CONTRACT)
    (moment,) = report["moments"]
    assert moment["objective_ms"] == 25
    assert 30 <= moment["request"]["total_ms"] == moment["length_ms"]
    assert 0 <= moment["idle_ms"] < moment["length_ms"] - 30, "before the stall"
    culprit = max(moment["slices"], key=lambda ran: float(ran["length_ms"]))
    assert (culprit["kind"], culprit["route"], culprit["file"], culprit["yielded"]) == (
        "request",
        "GET /",
        __file__,
        False,
    )
    assert culprit["line"] == stall.__code__.co_firstlineno + 1
    assert len(moment["waited"]) + 1 == 2 + (moment["request"]["queued_ms"] < 25)
    others = [one for one in (moment["request"], *moment["waited"]) if one["queued_ms"] > 25]
    assert len(others) == 2
    for one in others:
        assert max(one["blamed"], key=lambda by: float(by["ms"]))["line"] == culprit["line"]
    assert report["left_out"]["moments"] == 2, "the others that took too long, in the same moment"
    parts_ms = moment["idle_ms"] + moment["short_ms"] + sum(ran["length_ms"] for ran in moment["slices"])
    assert parts_ms == pytest.approx(moment["length_ms"], rel=0.2), "the slices at its ends may reach over them"


def test_a_moment_is_shown_as_text_and_drawn_with_arrows_to_those_who_waited(
    tmp_path: Path, install: Callable[..., profiler.Session]
) -> None:
    session = install(tmp_path, objectives={"*": 25})
    stall_others(session)
    session.close()
    report = report_on(tmp_path)
    shown = text.render(report, everything=True)
    assert re.search(r"MOMENTS .*\n  \S+ ms, 25.0 ms allowed, queued \S+ ms   GET /   id r\n", shown)
    assert re.search(
        rf"\n      \d\S+ ms GET / r, \S*test_flight.py:{stall.__code__.co_firstlineno + 1}(, which had no CPU)?\n",
        shown,
    )
    assert "2 more requests too slow" in shown
    report["slowest"] = []  # the moment alone is enough
    events = json.loads(perfetto.render(report))["traceEvents"]
    arrows = [event for event in events if event["ph"] in "sf"]
    assert len({event["tid"] for event in arrows if event["ph"] == "f"}) == 2
    on_the_hub = [event for event in events if event["ph"] == "X" and event["tid"] == 1]
    for arrow in (event for event in arrows if event["ph"] == "s"):
        assert any(ran["ts"] <= arrow["ts"] <= ran["ts"] + ran["dur"] for ran in on_the_hub)
    assert len(on_the_hub) == len(report["moments"][0]["slices"])


def test_kinds_of_greenlets_and_where_they_yielded_are_told(
    tmp_path: Path, install: Callable[..., profiler.Session]
) -> None:
    session = install(tmp_path, slow_slice_ms=40, objectives={"*": 1})

    def short() -> None:
        really_sleep(0.005)
        gevent.sleep(0.001)  # yields

    def work() -> None:
        gevent.spawn(short).join()
        gevent.spawn_raw(lambda: None)
        gevent.get_hub().loop.run_callback(really_sleep, 0.006)
        gevent.sleep(0.002)
        short()

    run_in_request(session, work)
    session.close()
    (moment,) = report_on(tmp_path)["moments"]
    slices = [ran for ran in moment["slices"] if ran["length_ms"] >= 5]
    kinds = [ran["kind"] for ran in slices]
    assert kinds.count("spawned") >= 1
    assert kinds.count("request") >= 1
    assert kinds.count("hub") >= 1
    for kind in ("spawned", "request"):
        (ran, *_) = [ran for ran in slices if ran["kind"] == kind]
        assert (ran["function"], ran["line"], ran["yielded"]) == ("short", short.__code__.co_firstlineno + 2, True)
        assert (ran["route"], ran["request_id"]) == ("GET /", "r")


def test_without_objectives_a_request_that_was_queued_for_long_has_a_moment_and_a_slow_one_has_none() -> None:
    flight = recorder_of_flight()
    assert flight.limit_s("GET /") == 0.1
    flight.ended(span_of("polls", 0.0, 60.0, queued_s=0.09))
    assert flight.take(INFINITY) == []
    flight.ended(span_of("victim", 60.0, 0.2, queued_s=0.11))
    (moment,) = flight.take(INFINITY)
    assert (moment["request"]["request_id"], moment["objective_s"]) == ("victim", None)


def test_a_route_has_its_own_objective_or_that_of_any_route() -> None:
    flight = recorder_of_flight({"GET /": 0.05, "*": 0.02})
    assert (flight.limit_s("GET /"), flight.limit_s("GET /other")) == (0.05, 0.02)
    flight.ended(span_of("in time", 0.0, 0.05))
    assert flight.take(INFINITY) == []
    flight.ended(span_of("late", 0.0, 0.051))
    assert told(flight.take(INFINITY)) == ["late"]


def test_a_moment_is_of_the_worst_request_of_its_time_and_the_others_are_counted() -> None:
    flight = recorder_of_flight({"*": 0.01})
    flight.ended(span_of("first", 1.0, 0.02))
    flight.ended(span_of("worst", 1.0, 0.05))
    flight.ended(span_of("third", 1.1, 0.03))
    assert flight.take(1.02 + SETTLE_S - 0.01) == [{"type": "exceeded", "count": 2}]
    assert told(flight.take(1.02 + SETTLE_S)) == ["worst"]
    assert flight.take(INFINITY) == []


def test_moments_are_some_time_apart_and_requests_between_them_are_counted() -> None:
    flight = recorder_of_flight({"*": 0.01})
    flight.ended(span_of("first", 1.0, 0.02))
    assert told(flight.take(2.0)) == ["first"]
    for number in range(3):
        flight.ended(span_of("between", 2.0 + number, 0.02))
    assert told(flight.take(9.0)) == [3]
    flight.ended(span_of("second", 2.0 + EVERY_S, 0.02))
    assert told(flight.take(13.0)) == ["second"]


def test_a_moment_has_a_bounded_size_and_counts_what_it_leaves_out() -> None:
    flight = recorder_of_flight({"*": 0.01})
    for number in range(2 * RING):
        flight.slice(number * 0.001, number * 0.001 + (0.0009 if number % 2 else 0.0005), "hub", None, None, None)
    ended_s = 2 * RING * 0.001
    for number in range(2 * MAX_WAITED):
        flight.delayed(span_of(f"victim {number}", ended_s - 0.5, 0.3, queued_s=0.01))
    flight.ended(span_of("slow", ended_s - 0.4, 0.4))
    (moment,) = flight.take(INFINITY)
    assert len(moment["slices"]) == MAX_SLICES
    assert {round(ran["length_s"], 4) for ran in moment["slices"]} == {0.0009}, "the longest"
    assert moment["more_slices"] == [400 - MAX_SLICES, pytest.approx(0.1 * 0.9 + 0.2 * 0.5, abs=0.002)]
    assert len(moment["waited"]) == MAX_WAITED
    assert moment["more_waited"] == [MAX_WAITED, pytest.approx(0.1)]
    assert len(json.dumps(moment)) < 30_000


def test_who_waits_still_is_not_among_those_who_waited() -> None:
    flight = recorder_of_flight({"*": 0.01})
    flight.delayed(span_of("goes on", 1.0, 0.0, queued_s=0.01))
    flight.delayed(span_of("ended", 1.0, 0.5, queued_s=0.01))
    flight.ended(span_of("slow", 0.5, 2.0))
    (moment,) = flight.take(INFINITY)
    assert [one["request_id"] for one in moment["waited"]] == ["ended"]


def test_a_moment_that_cannot_be_told_is_not_tried_again() -> None:
    flight = recorder_of_flight({"*": 0.01})
    slow = span_of("slow", 1.0, 2.0)
    slow.blamed = [None]  # type: ignore[list-item]
    flight.ended(slow)
    with pytest.raises(TypeError):
        flight.take(INFINITY)
    assert flight.take(INFINITY) == []


def test_what_is_not_in_the_ring_any_more_is_not_in_the_moment() -> None:
    flight = recorder_of_flight({"*": 0.01})
    for number in range(2 * RING):
        flight.slice(number * 0.001, number * 0.001 + 0.0009, "hub", None, None, None)
    flight.ended(span_of("slow", 2 * RING * 0.001 - 4.0, 4.0))
    (moment,) = flight.take(INFINITY)
    assert moment["length_s"] == pytest.approx(RING * 0.001)


def test_of_a_request_longer_than_the_window_the_end_is_told() -> None:
    flight = recorder_of_flight({"*": 0.01})
    flight.idle(50.0, 98.0)
    flight.ended(span_of("long", 0.0, 100.0))
    (moment,) = flight.take(INFINITY)
    assert (moment["length_s"], moment["idle_s"]) == (5.0, 3.0)


@pytest.mark.parametrize("objective_ms", [0, -1, INFINITY, float("nan")])
def test_an_objective_that_is_no_length_is_refused(objective_ms: float) -> None:
    with pytest.raises(profiler.ProfilerError, match=r"objective of 'GET /' is .*; give each route a length in ms"):
        profiler.install(objectives={"GET /": objective_ms})


def test_a_report_has_the_worst_moments_and_counts_the_others(
    tmp_path: Path, install: Callable[..., profiler.Session]
) -> None:
    session = install(tmp_path, objectives={"*": 25})
    stall_others(session)
    session.close()
    (path,) = tmp_path.glob("*.jsonl")
    (line,) = [line for line in path.read_text().splitlines() if '"type":"moment"' in line]
    worse = json.loads(line)
    worse["request"]["total_s"] = 1000.0
    odd = [{**worse, "slices": [{**worse["slices"][0], "kind": "stranger"}]}, {**worse, "more_slices": 1}]
    with path.open("a") as file:
        for one in (*[json.loads(line)] * MOMENTS, worse, *odd):
            file.write(json.dumps(one) + "\n")
    report = report_on(tmp_path)
    assert len(report["moments"]) == MOMENTS
    assert report["moments"][0]["request"]["total_ms"] == 1_000_000
    assert report["left_out"]["moments"] == 2 + 2
    assert report["left_out"]["unreadable_lines"] == 2


def test_moments_reach_the_file_while_the_worker_lives(
    tmp_path: Path, install: Callable[..., profiler.Session]
) -> None:
    session = install(tmp_path, objectives={"*": 25})
    began_s = time.monotonic()
    stall_others(session)
    (path,) = tmp_path.glob("*.jsonl")
    while '"type":"moment"' not in path.read_text():
        assert time.monotonic() < began_s + 10
        gevent.sleep(0.05)
    assert session.path == str(path)

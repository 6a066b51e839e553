"""The hook in a real loop: where a request's time went, and that the program under it never notices."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import gevent
import greenlet
import pytest
from gevent.event import Event

import profiler
from profiler.recorder import SLOWEST

# What a busy machine may add between two lines of a test.
SLACK_S = 0.1


def run_in_request(session: profiler.Session, work: Callable[[], object], **begin: Any) -> profiler.Span:
    """Do `work` as a request in a greenlet of its own, started by the hub as a server would."""
    done: list[profiler.Span] = []

    def serve() -> None:
        span = session.begin("GET /", "r", **begin)
        work()
        session.end(span)
        done.append(span)

    hub = gevent.get_hub()
    hub.loop.run_callback(greenlet.greenlet(serve, hub).switch)
    with gevent.Timeout(5):
        while not done:
            gevent.sleep(0.001)
    return done[0]


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def test_time_on_the_hub_is_running_and_time_off_it_is_waiting(session: profiler.Session) -> None:
    def work() -> None:
        spin(0.01)
        gevent.sleep(0.03)
        spin(0.02)

    span = run_in_request(session, work)
    assert 0.03 <= span.running_s < 0.03 + SLACK_S
    assert 0.02 <= span.longest_slice_s < span.running_s
    assert 0.025 <= span.waiting_s < 0.03 + SLACK_S
    assert span.total_s == pytest.approx(span.running_s + span.waiting_s + span.queued_s, abs=1e-9)


def test_a_request_that_never_waits_is_all_running(session: profiler.Session) -> None:
    span = run_in_request(session, lambda: spin(0.005))
    assert span.running_s == pytest.approx(span.total_s, abs=1e-9)
    assert span.longest_slice_s == span.running_s
    assert span.queued_s == 0.0


def test_a_request_is_queued_from_when_it_became_readable(session: profiler.Session) -> None:
    span = run_in_request(session, lambda: None, ready_ns=time.perf_counter_ns() - 50_000_000)
    assert 0.05 <= span.queued_s < 0.05 + SLACK_S
    assert span.total_s == pytest.approx(span.queued_s + span.running_s, abs=1e-9)


def test_a_request_that_came_while_the_loop_could_not_poll_was_queued_behind_what_kept_it(
    session: profiler.Session,
) -> None:
    came_ns: list[int] = []

    def stalls() -> None:
        came_ns.append(time.perf_counter_ns() + 10_000_000)  # as the kernel's stamp would say
        spin(0.05)

    culprit = run_in_request(session, stalls)
    span = run_in_request(session, lambda: None, ready_ns=came_ns[0])
    assert span.queued_s >= 0.04
    assert span.total_s == pytest.approx(span.queued_s + span.running_s, abs=1e-9)
    blamed = [(record, cost_s) for record, cost_s in span.blamed or () if record.span is culprit]
    assert len(blamed) == 1
    record, cost_s = blamed[0]
    assert cost_s == pytest.approx(record.end_s - came_ns[0] * 1e-9, abs=1e-6)
    assert (record.victims, record.harm_s) == (1, cost_s)


def test_a_moment_in_the_future_is_no_queue(session: profiler.Session) -> None:
    span = run_in_request(session, lambda: None, ready_ns=time.perf_counter_ns() + 10**12)
    assert span.queued_s == 0.0
    assert span.total_s < SLACK_S


def test_who_is_ready_but_behind_another_is_queued_and_the_other_is_blamed(session: profiler.Session) -> None:
    both_wait, go = Event(), Event()

    def culprit() -> None:
        both_wait.set()
        go.wait()
        spin(0.05)

    def victim() -> None:
        go.wait()

    spans: list[profiler.Span] = []
    culprit_runs = gevent.spawn(lambda: spans.append(run_in_request(session, culprit)))
    both_wait.wait(1)
    victim_runs = gevent.spawn(lambda: spans.append(run_in_request(session, victim)))
    gevent.sleep(0.01)
    go.set()
    gevent.joinall([culprit_runs, victim_runs], raise_error=True, timeout=5)
    stalled, delayed = sorted(spans, key=lambda span: -span.running_s)
    assert delayed.queued_s >= 0.045
    assert delayed.running_s < 0.01 + SLACK_S
    assert delayed.blamed is not None
    (record, cost_s), *_ = delayed.blamed
    assert record.span is stalled
    assert cost_s == pytest.approx(0.05, abs=0.01 + SLACK_S)
    assert record.victims == 1
    assert record.harm_s == pytest.approx(cost_s)


def test_a_yield_is_queued_while_others_run_not_waiting(session: profiler.Session) -> None:
    hub = gevent.get_hub()

    def work() -> None:
        hub.loop.run_callback(greenlet.greenlet(spin, hub).switch, 0.03)
        gevent.sleep(0)

    span = run_in_request(session, work)
    assert span.queued_s >= 0.03
    assert span.waiting_s < 0.01


def test_waiting_for_ones_own_child_is_not_being_queued(session: profiler.Session) -> None:
    span = run_in_request(session, lambda: gevent.spawn(spin, 0.03).join())
    assert span.waiting_s >= 0.03
    assert span.queued_s < 0.01


def test_a_reused_greenlet_serves_one_request_after_the_other(session: profiler.Session) -> None:
    spans: list[profiler.Span] = []
    hub = gevent.get_hub()

    def serve() -> None:
        for _ in range(2):
            span = session.begin("GET /", "r")
            spin(0.01)
            session.end(span)
            spans.append(span)
            hub.switch()

    worker = greenlet.greenlet(serve, hub)
    for _ in range(2):
        hub.loop.run_callback(worker.switch)
        gevent.sleep(0.01)
    assert len(spans) == 2
    for span in spans:
        assert 0.01 <= span.total_s < 0.01 + SLACK_S


def test_a_request_in_a_used_span_has_no_time_of_the_one_before(session: profiler.Session) -> None:
    def requests() -> list[float]:
        for _ in range(3 * SLOWEST):  # of which some are kept
            session.end(session.begin("GET /before", "r"))
        session._recorder.fold()
        assert session._recorder.spare
        return [session.begin("GET /", "r").total_s for _ in range(2)]

    assert max(gevent.spawn(requests).get()) <= 0.0, "negative: it goes on"


def test_requests_in_one_slice_share_no_time(session: profiler.Session) -> None:
    spans: list[profiler.Span] = []

    def pipelined() -> None:
        for _ in range(3):
            span = session.begin("GET /", "r")
            spin(0.005)
            session.end(span)
            spans.append(span)

    gevent.spawn(pipelined).join()
    for span in spans:
        assert 0.005 <= span.running_s < 0.005 + SLACK_S
    assert spans[0].started_s + spans[0].total_s == pytest.approx(spans[1].started_s, abs=1e-6)


def test_a_request_ended_twice_counts_once(session: profiler.Session) -> None:
    span = run_in_request(session, lambda: None)
    total_s = span.total_s
    session.end(span)
    assert span.total_s == total_s
    session._recorder.fold()
    assert session._recorder.requests == 1


def test_a_request_may_be_ended_by_another_greenlet(session: profiler.Session) -> None:
    spans: list[profiler.Span] = []

    def serve() -> None:
        spans.append(session.begin("GET /", "r"))
        gevent.sleep(10)

    stuck = gevent.spawn(serve)
    gevent.sleep(0.01)
    session.end(spans[0], True)
    assert spans[0].error
    assert 0.005 < spans[0].total_s < 0.01 + SLACK_S
    stuck.kill()
    session._recorder.fold()
    assert session._recorder.requests == 1


def test_requests_that_were_never_ended_are_forgotten_and_counted(session: profiler.Session) -> None:
    def forgetful() -> None:
        session.begin("GET /", "first")
        session.begin("GET /", "second")  # abandons the first

    gevent.spawn(forgetful).join()
    session._hook.sweep()
    assert session._hook.counts().dropped == 2


def test_slow_work_of_a_spawned_greenlet_is_the_requests(session: profiler.Session) -> None:
    span = run_in_request(session, lambda: gevent.spawn(lambda: gevent.spawn(spin, 0.02).join()).join())
    assert span.blamed is not None
    assert [record.span for record, _ in span.blamed] == [span]
    assert span.running_s < 0.015, "the child's time is the child's"


def test_a_slice_that_reaches_the_threshold_is_counted_once(install: Callable[..., profiler.Session]) -> None:
    session = install(slow_slice_ms=100)
    run_in_request(session, lambda: spin(0.11))
    run_in_request(session, lambda: spin(0.0005))
    counts = session._hook.counts()
    assert counts.slices_over == 1
    assert counts.switches > 4
    assert counts.turns > 1


def test_collections_in_a_slice_are_timed(install: Callable[..., profiler.Session]) -> None:
    session = install(slow_slice_ms=1)
    used_s: list[float] = []

    def collect() -> None:
        began_s = time.thread_time()
        for _ in range(3):
            gc.collect()
        used_s.append(time.thread_time() - began_s)

    span = run_in_request(session, collect)
    assert span.blamed is not None
    record = span.blamed[0][0]
    assert 0.5 * used_s[0] < record.gc_s <= record.length_s


def test_time_in_the_poll_is_idle(session: profiler.Session) -> None:
    before = session._hook.counts()
    gevent.sleep(0.05)
    after = session._hook.counts()
    assert 0.045 <= after.idle_s - before.idle_s < 0.05 + SLACK_S


def test_the_turns_stamp_is_when_the_poll_returned(session: profiler.Session) -> None:
    gevent.sleep(0.01)
    stamp_ns, now_ns = session.turn.ready_ns, time.perf_counter_ns()
    assert 0 < now_ns - stamp_ns < SLACK_S * 1e9


def test_a_tracer_of_somebody_else_is_called_and_comes_back_at_the_end(
    install: Callable[..., profiler.Session],
) -> None:
    seen: list[str] = []
    greenlet.settrace(lambda event, _args: seen.append(event))
    theirs = greenlet.gettrace()
    session = install()
    gevent.sleep(0)
    assert "switch" in seen
    session.close()
    assert greenlet.gettrace() is theirs


def test_a_chained_tracer_that_raises_is_dropped_and_nobody_is_hurt(install: Callable[..., profiler.Session]) -> None:
    def raises(_event: str, _args: object) -> None:
        raise RuntimeError("a bug in a tracer")

    greenlet.settrace(raises)
    session = install()
    gevent.sleep(0)
    before = session._hook.counts().switches
    gevent.sleep(0)
    assert session._hook.counts().switches > before
    assert session._hook.counts().failures == 1


@pytest.mark.parametrize("intruder", [None, lambda _event, _args: None])
def test_a_displaced_tracer_is_put_back_and_counted(session: profiler.Session, intruder: Any) -> None:
    greenlet.settrace(intruder)
    gevent.sleep(0.001)
    gevent.sleep(0.001)
    assert session._hook.counts().displaced == 1
    span = run_in_request(session, lambda: gevent.sleep(0.005))
    assert span.waiting_s > 0.003


def test_a_tracer_that_calls_ours_is_left_in_place(session: profiler.Session) -> None:
    ours = greenlet.gettrace()
    assert ours is not None

    def polite(event: Any, args: Any) -> None:
        ours(event, args)

    greenlet.settrace(polite)
    for _ in range(3):
        gevent.sleep(0.001)
    assert greenlet.gettrace() is polite
    assert session._hook.counts().displaced == 0
    greenlet.settrace(ours)


def test_the_tracer_is_gone_after_close(session: profiler.Session) -> None:
    assert greenlet.gettrace() is not None
    session.close()
    assert greenlet.gettrace() is None
    gevent.sleep(0)


def test_ctrl_c_during_a_switch_reaches_the_main_greenlet(install: Callable[..., profiler.Session]) -> None:
    once = [KeyboardInterrupt()]

    def interrupted(_event: str, _args: object) -> None:
        if once:
            raise once.pop()

    greenlet.settrace(interrupted)
    session = install()
    with pytest.raises(KeyboardInterrupt):
        gevent.sleep(0.01)
    assert session._hook.counts().failures == 0

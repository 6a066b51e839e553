"""The client that offers a fixed rate: it counts from the intended moment and forgives no lost request."""

from __future__ import annotations

import itertools
import socket
import time

import pytest

from benchmarks import open_loop
from benchmarks.client import LoadError
from tests.benchmarks.peer import ANSWER, BODY, HELLO

ms = 1_000_000


def _run(port: int, rate: float, seconds: float, connections: int = 8) -> open_loop.Load:
    return open_loop.run(port, HELLO, rate, seconds, connections=connections, warm_up_s=0.1)


def test_arrivals_are_as_many_as_the_rate_says_and_come_in_bunches() -> None:
    moments = open_loop.arrivals_ns(1000, 20, warm_up_s=1)
    assert moments[0] == -(10**9)
    assert moments == sorted(moments)
    assert sum(moment >= 0 for moment in moments) == pytest.approx(20_000, rel=0.03)
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    # Of an exponential distribution's gaps 1 - 1/e are shorter than the mean; of even ones none or all.
    assert sum(gap < ms for gap in gaps) / len(gaps) == pytest.approx(0.632, abs=0.02)


def test_every_server_meets_the_same_bunches() -> None:
    half, whole = (open_loop.arrivals_ns(rate, 10, warm_up_s=0) for rate in (500, 1000))
    assert half[100] == pytest.approx(2 * whole[100], rel=1e-6)


def test_a_percentile_counts_lost_requests_as_slower_than_all_others() -> None:
    latencies = [number * ms for number in range(1, 100)]  # of 100 requests: one is lost
    assert open_loop.percentile_ms(latencies, 100, 50) == 50
    assert open_loop.percentile_ms(latencies, 100, 99) == 99
    assert open_loop.percentile_ms(latencies, 100, 99.9) is None
    assert open_loop.percentile_ms(latencies[:40], 100, 50) is None
    assert open_loop.percentile_ms([], 0, 99) is None


def test_a_server_that_keeps_up_gets_the_whole_rate(peer) -> None:
    load = _run(peer(lambda *_: [ANSWER]).port, 500, 0.5)
    assert load.offered == len(load.latencies_ns) == pytest.approx(250, rel=0.2)
    assert load.errors == {}
    assert load.answers_per_s == pytest.approx(load.offered / 0.5, rel=0.1)
    assert list(load.latencies_ns) == sorted(load.latencies_ns)


def test_requests_that_wait_for_a_slow_server_count_from_the_moment_they_were_due(peer) -> None:
    """It stops once for 0.3 s; what was due meanwhile waited for it, though it was not sent before."""

    def stop_once(number: int, request: int) -> list[bytes]:
        if request == 60:
            time.sleep(0.3)  # a server that hangs is what is tested
        return [ANSWER]

    load = _run(peer(stop_once).port, 200, 0.6, connections=1)
    assert load.errors == {}
    slow = sum(latency > 100 * ms for latency in load.latencies_ns)
    assert slow > 20, "0.2 s of requests waited for more than 0.1 s"
    assert load.most_waiting > 40
    assert load.latencies_ns[-1] > 250 * ms


def test_answers_in_pieces_are_right_and_others_are_errors(peer) -> None:
    pieces = _run(peer(lambda *_: [ANSWER[:20], ANSWER[20:]]).port, 300, 0.3)
    assert pieces.errors == {}
    assert len(pieces.latencies_ns) == pieces.offered
    wrong = _run(peer(lambda *_: [ANSWER.replace(BODY, b"HELLO")]).port, 300, 0.3)
    assert wrong.errors == {"wrong": wrong.offered}
    refused = _run(peer(lambda *_: [ANSWER.replace(b"200 OK", b"503 No")]).port, 300, 0.3)
    assert refused.errors == {"wrong": refused.offered}
    assert len(refused.latencies_ns) == 0


def test_a_server_that_hangs_up_owes_an_answer_and_gets_a_new_connection(peer) -> None:
    def every_tenth(number: int, request: int) -> list[bytes]:
        if request == 9:
            raise OSError
        return [ANSWER]

    load = _run(peer(every_tenth).port, 400, 0.5, connections=4)
    assert load.errors["closed"] == pytest.approx(load.offered / 10, rel=0.3)
    assert len(load.latencies_ns) + load.errors["closed"] == load.offered


def test_what_is_never_answered_is_counted_and_the_rest_given_up(peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_loop, "PATIENCE_S", 0.2)
    load = _run(peer(lambda *_: []).port, 200, 0.4, connections=2)
    assert sum(load.errors.values()) == load.offered > 50
    assert load.errors["given up"] > load.offered - 3
    assert load.most_waiting < 75, "0.2 s of the rate, and no more, may wait"


def test_a_server_that_is_not_there_is_an_error_that_names_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(LoadError, match=f"127.0.0.1:{port} cannot be reached"):
        _run(port, 100, 0.1)

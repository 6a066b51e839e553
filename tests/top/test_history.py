"""Rates and times from two answers, and lines of a screen from those."""

from __future__ import annotations

from typing import Any

import pytest

from profiler.render.words import columns as columns_of
from tafe.top.history import WINDOW_S, History, Now, Site, Worker, quantile
from tafe.top.screen import draw

BOUNDS = [0.001, 0.01, 0.1]


def worker(at_s: float, requests: int, **more: Any) -> dict[str, Any]:
    """A worker that was busy for half of its time, with all requests in the second bucket."""
    told = {
        "worker": 1, "pid": 71, "state": "ready", "in_flight": 2, "requests": requests, "beat_s": at_s,
        "connections": 5, "hub_s": at_s, "busy_s": at_s / 2, "delay": [20 * at_s, 0, 0, 0],
        "duration": [0, requests, 0, 0],
    }  # fmt: skip
    return {**told, **more}


def answer(*workers: dict[str, Any], sites: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"bounds_s": BOUNDS, "workers": list(workers), "sites": sites or []}


def site(name: str, harm_s: float, stalls: int = 1, stall_s: float = 0.1) -> dict[str, Any]:
    return {"site": name, "cause": "python", "harm_s": harm_s, "stalls": stalls, "stall_s": stall_s, "victims": 3}


def test_rates_are_over_the_time_between_two_publications_whenever_they_are_asked_for() -> None:
    history = History()
    first = history.add(answer(worker(10.0, 1000)), 100.0)
    assert not first.is_complete
    assert first.workers[0].requests_per_s is None
    now = history.add(answer(worker(12.0, 1500)), 100.3)
    assert now.is_complete
    (row,) = now.workers
    assert (row.requests_per_s, row.busy, row.in_flight, row.connections) == (250.0, 0.5, 2, 5)
    assert row.p50_s == pytest.approx(0.0055)
    assert row.delay_s == pytest.approx(0.00099)
    assert now.total.requests_per_s == 250.0
    again = history.add(answer(worker(12.0, 1500)), 100.6)
    assert again.workers == now.workers, "it has not published since"


def test_the_sum_of_workers_is_of_their_counts_not_of_their_percentiles() -> None:
    history = History()
    quick, slow = worker(10.0, 0), worker(10.0, 0, pid=72, worker=2)
    history.add(answer(quick, slow), 0.0)
    later = worker(11.0, 30), worker(11.0, 10, pid=72, worker=2, duration=[0, 0, 10, 0])
    now = history.add(answer(*later), 1.0)
    assert [one.requests_per_s for one in now.workers] == [30.0, 10.0]
    assert now.total.requests_per_s == 40.0
    assert now.total.p50_s == pytest.approx(0.001 + 0.009 * 20 / 30)
    assert now.total.p99_s == pytest.approx(0.01 + 0.09 * 9.6 / 10)
    assert (now.total.busy, now.total.in_flight, now.total.connections) == (0.5, 4, 10)


def test_a_worker_that_is_replaced_is_forgotten_and_its_successor_counts_from_its_own_start() -> None:
    history = History()
    history.add(answer(worker(10.0, 1000)), 0.0)
    history.add(answer(worker(11.0, 1100)), 1.0)
    now = history.add(answer(worker(0.5, 3, pid=99)), 2.0)
    assert now.workers[0].requests_per_s is None
    assert not now.is_complete
    assert history.add(answer(worker(1.5, 13, pid=99)), 3.0).workers[0].requests_per_s == 10.0


def test_without_the_profiler_there_is_a_rate_and_nothing_of_the_hub() -> None:
    history = History()
    bare = {"worker": 1, "pid": 71, "state": "ready", "in_flight": 0, "generation": 1}
    history.add(answer({**bare, "requests": 0, "beat_s": 1.0}), 0.0)
    now = history.add(answer({**bare, "requests": 7, "beat_s": 2.0}), 1.0)
    assert now.is_complete
    assert now.workers[0][3:] == (7.0, None, None, None, None, 0, None, "")


def test_the_worst_lines_are_those_of_the_last_ten_seconds_by_harm() -> None:
    history = History()
    history.add(answer(worker(1, 0), sites=[site("old.py:1 f", 9.0)]), 0.0)
    now = history.add(answer(worker(2, 0), sites=[site("old.py:1 f", 9.0), site("a.py:1 f", 1.0, 2)]), 5.0)
    assert now.sites == [Site("a.py:1 f", "python", 1.0, 2, 3)]
    sites = [site("old.py:1 f", 9.5, 2), site("a.py:1 f", 1.0, 2), site("b.py:2 g", 2.0)]
    now = history.add(answer(worker(3, 0), sites=sites), 9.0)
    assert [one.site for one in now.sites] == ["b.py:2 g", "a.py:1 f", "old.py:1 f"]
    now = history.add(answer(worker(4, 0), sites=sites), 9.0 + WINDOW_S)
    assert now.sites == []
    assert now.window_s == WINDOW_S


def test_a_line_that_harms_more_is_above_one_that_keeps_the_hub_for_longer() -> None:
    history = History()
    history.add(answer(worker(1, 0)), 0.0)
    harmless, harmful = site("z.py:1 f", 0.5, stall_s=9.0), site("a.py:1 f", 2.0, stall_s=0.1)
    equal = site("y.py:1 f", 0.5, stall_s=10.0)
    now = history.add(answer(worker(2, 0), sites=[harmless, harmful, equal]), 1.0)
    assert [one.site for one in now.sites] == ["a.py:1 f", "y.py:1 f", "z.py:1 f"]


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([0, 0, 0, 0], 0.5, None),
        ([10, 0, 0, 0], 0.5, 0.0005),
        ([0, 0, 0, 4], 0.99, 0.1),
        ([5, 5, 0, 0], 0.5, 0.001),
        ([1, 0, 1, 0], 0.99, 0.01 + 0.09 * 0.98),
    ],
)
def test_a_quantile_lies_in_its_bucket(counts: list[float], share: float, expected: float | None) -> None:
    found = quantile(BOUNDS, counts, share)
    assert found == (None if expected is None else pytest.approx(expected))


# -- the screen


def row(number: int, busy: float = 0.5, stuck: str = "") -> Worker:
    return Worker(str(number), 1000 + number, "ready", 936.4, 0.0005, 0.0019, 0.0004, busy, 2, 8, stuck)


def now_of(workers: list[Worker], sites: int = 0) -> Now:
    lines = [Site(f"shop/a.py:{n} f", "blocking", 1.5, 3, 9) for n in range(sites)]
    return Now(workers, row(0)._replace(name="all", pid=0, state=""), lines, 10.0, is_complete=True)


def test_a_screen_has_a_row_a_worker_their_sum_and_the_worst_lines() -> None:
    lines = draw(
        "http://127.0.0.1:9102", now_of([row(1), row(2, stuck="stuck for 3.0 s at a.py:7 f")], 2), "12:00:00", 100, 40
    )
    assert lines[0] == "tafe top   http://127.0.0.1:9102   2 workers   12:00:00"
    assert lines[2].split()[:6] == ["worker", "pid", "state", "req/s", "p50", "ms"]
    assert lines[3].split() == ["1", "1001", "ready", "936", "0.5", "1.9", "0.4", "50%", "2", "8"]
    assert lines[5].strip() == "stuck for 3.0 s at a.py:7 f"
    assert lines[6].startswith("all ")
    assert lines[8].split(None, 3) == ["harm", "ms", "stalls", "delays   lines that kept a hub in the last 10 s"]
    assert lines[9].split(None, 3) == ["1500.0", "3", "9", "shop/a.py:0 f   [blocking]"]


@pytest.mark.parametrize(("columns", "rows"), [(20, 5), (80, 24), (1, 1), (200, 1000)])
def test_it_fits_any_size(columns: int, rows: int) -> None:
    lines = draw("http://127.0.0.1:9102", now_of([row(n) for n in range(1, 51)], 30), "12:00:00", columns, rows)
    assert len(lines) <= rows
    assert max(map(len, lines)) <= columns


HOSTILE = "stuck for 9.0 s at a.py:7 f (GET /\x1b[2J\x1b]0;pwn\x07\n\r\x9b31m\u202e" + "漢字" * 20 + ")"


@pytest.mark.parametrize("columns", [1, 2, 3, 40, 61, 200])
def test_what_a_client_sends_moves_no_cursor_and_takes_no_more_columns_than_there_are(columns: int) -> None:
    now = now_of([row(1, stuck=HOSTILE)._replace(state="\x1b[7m")])
    now = now._replace(sites=[Site("\x1b[2Jb.py:1 漢字漢字", "\x07", 1.0, 1, 1)])
    lines = draw("http://\x1b[2J", now, "12:00:00", columns, 40)
    assert len(lines) == 9
    assert all(line.isprintable() for line in lines)
    assert max(map(columns_of, lines)) <= columns
    assert columns < 200 or "GET /?[2J?]0;pwn????31m?漢字" in lines[4]


@pytest.mark.parametrize("rows", range(5, 14))
def test_a_worker_that_is_stuck_takes_two_lines_and_the_sum_is_shown_all_the_same(rows: int) -> None:
    lines = draw("x", now_of([row(n, stuck="stuck" if n < 4 else "") for n in range(1, 6)]), "", 100, rows)
    assert len(lines) <= rows
    assert any(line.startswith("all ") for line in lines)
    shown = sum(line[:1].isdigit() for line in lines)
    assert shown == {5: 0, 6: 0, 7: 1, 8: 1, 9: 2, 10: 2, 11: 3, 12: 5, 13: 5}[rows]
    assert (f"and {5 - shown} more" in "\n".join(lines)) == (shown < 5)


def test_where_workers_do_not_fit_the_worst_are_shown_and_the_rest_counted() -> None:
    workers = [row(n, busy=n / 100) for n in range(1, 51)]
    lines = draw("x", now_of(workers), "", 100, 12)
    assert lines[3].split()[0] == "50"
    assert "and 43 more" in "\n".join(lines)
    assert any(line.startswith("all ") for line in lines)


def test_a_worker_that_is_stuck_or_busy_is_marked_where_there_are_colours() -> None:
    style = {"bold": "<b>", "alarm": "<a>", "end": "</>"}
    lines = draw("x", now_of([row(1), row(2, busy=0.9), row(3, stuck="stuck")]), "", 100, 40, style)
    assert [line.startswith("<a>") for line in lines[3:6]] == [False, True, True]
    assert all(line.endswith("</>") for line in lines[4:6])

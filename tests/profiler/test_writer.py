"""The writer's thread goes on whatever it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

import profiler
from profiler.report.build import build
from profiler.report.reader import read
from profiler.sites import SiteTable
from profiler.writer import Writer
from tests.profiler.test_retention import Lines, open_writer


class NoJson:
    """A hand-over with a value that is no JSON, between two that are."""

    records = 3

    def lines(self) -> Iterator[dict[str, Any]]:
        yield from Lines().lines()
        yield {"type": "other", "value": object()}
        yield from Lines().lines()


class Raises:
    """A hand-over that raises after a request."""

    records = 2

    def lines(self) -> Iterator[dict[str, Any]]:
        yield from Lines().lines()
        raise RuntimeError("wanted")


def requests_and_dropped(directory: Path) -> tuple[int, int]:
    (worker,) = build(read([str(directory)]))["workers"]
    return worker["requests"], worker["dropped"]


def test_a_line_that_cannot_be_made_is_counted_and_all_others_are_written(tmp_path: Path) -> None:
    opened = open_writer(tmp_path)
    opened.start()
    for source in (NoJson(), Raises(), Lines()):
        opened.hand_over(source)
    opened.stop()
    assert opened.unwritten == 2
    assert requests_and_dropped(tmp_path) == (4, 2)


class BrokenTable(SiteTable):
    def take(self) -> list[dict[str, Any]]:
        raise RuntimeError("wanted")


def _fail() -> None:
    raise RuntimeError("wanted")


@pytest.mark.parametrize(("table", "glance"), [(BrokenTable(), lambda: None), (SiteTable(), _fail)])
def test_another_part_that_fails_each_time_keeps_no_request_from_the_file(
    tmp_path: Path, table: SiteTable, glance: Callable[[], None]
) -> None:
    opened = Writer(str(tmp_path), "w", 0.01, table)
    opened.start(glance)
    opened.hand_over(Lines())
    opened.stop()
    requests, dropped = requests_and_dropped(tmp_path)
    assert requests == 1
    assert dropped >= 1


def test_what_a_span_is_called_is_stored_as_text(tmp_path: Path, install: Callable[..., profiler.Session]) -> None:
    session = install(tmp_path, objectives={"*": 1})

    def request(route: Any, request_id: Any) -> None:
        span = session.begin("GET /", request_id)
        span.route = route
        gevent.sleep(0.003)
        session.end(span)

    names: list[tuple[Any, Any]] = [(b"GET /a", b"a"), (["GET /"], None), ("GET /c", 17)]
    gevent.joinall([gevent.spawn(request, *name) for name in names], raise_error=True)
    session.close()
    report = build(read([str(tmp_path)]))
    stored = {(one["route"], one["request_id"]) for one in report["slowest"]}
    assert stored == {("GET /a", "a"), ("(other routes)", ""), ("GET /c", "17")}
    assert len(report["moments"]) == 1
    assert (report["workers"][0]["dropped"], report["left_out"]["unreadable_lines"]) == (0, 0)

"""A pytest plugin: a test fails when it blocks gevent's hub, with the line, the cause and for how long.

    @pytest.mark.no_stall(ms=10)        this test; its own body is held to it too, as if it were a request
    pytest --no-stall=10ms              every test that uses gevent: what runs in greenlets and in the hub's callbacks
    pytest --no-stall-allow=FILE        but for what FILE allows (allow.py)

A watched test has a profiler session of its own from after its fixtures' setup to before their teardown, and is judged
by the report that session gives. No signals, no greenlet around the test: it runs where it would have run.
Without mark and option nothing is imported but this module, and gevent never; with the option alone a test is left
alone until something has imported gevent.

What does not fail a test: what the machine did (starved, gil), a slice whose line was never seen, and the garbage
collector, since the heap of a test run is not production's. A test that fails for a reason of its own keeps that, and
its stalls stand in a section below. With each stall stands the entry of FILE that would accept it, but for the reason.

Limits: one session a process, so a test that opens one itself cannot be watched. A callback on the hub itself is not
seen before the loop's first turn in the test. A greenlet that an earlier test has left behind stalls the test in which
it goes on. With the option alone, a line that both the test's own body and a
greenlet stalled at may count as the body's.
"""

from __future__ import annotations

import os
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from profiler.allow import AllowList

DEFAULT_MS, SHORTEST_MS, LONGEST_MS = 10.0, 1.0, 60_000.0  # as profiler.install's
_DURATION = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)(ms|s)")
# On the stack of what runs in the test's own greenlet.
_RUNNER = f"{os.sep}_pytest{os.sep}runner.py:"


class _Settings(NamedTuple):
    ms: float | None  # of --no-stall
    allowed: AllowList | None


class _Limit(NamedTuple):
    ms: float
    own_body: bool  # whether the test's own greenlet is judged


_SETTINGS = pytest.StashKey[_Settings]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("no_stall", "code that does not yield to gevent's hub")
    group.addoption(
        "--no-stall",
        metavar="DURATION",
        help="fail a test in which a greenlet holds the hub for so long (10ms, 0.5s; from 1ms to 60s)",
    )
    group.addoption(
        "--no-stall-allow",
        metavar="FILE",
        help="a TOML file of stalls that are accepted, each with a reason and the day on which that ends",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Read the options; raises pytest.UsageError for what they cannot be."""
    config.addinivalue_line(
        "markers", f"no_stall(ms={DEFAULT_MS:g}): fail the test if it blocks gevent's hub for so many milliseconds"
    )
    config.stash[_SETTINGS] = _Settings(_duration_ms(config.option.no_stall), _allowed(config.option.no_stall_allow))


def _duration_ms(given: str | None) -> float | None:
    if given is None:
        return None
    found = _DURATION.fullmatch(given)
    if found is None:
        raise pytest.UsageError(f"--no-stall: {given!r} is not a duration; use --no-stall=10ms or --no-stall=0.5s")
    ms = float(found[1]) * (1000 if found[2] == "s" else 1)
    if not SHORTEST_MS <= ms <= LONGEST_MS:
        raise pytest.UsageError(f"--no-stall: {given!r} is out of range; use 1ms to 60s")
    return ms


def _allowed(path: str | None) -> AllowList | None:
    if path is None:
        return None
    from profiler.allow import load
    from profiler.errors import ProfilerError

    try:
        return load(path)
    except ProfilerError as error:
        raise pytest.UsageError(f"--no-stall-allow: {error}") from error


@pytest.hookimpl(wrapper=True, trylast=True)  # as near to the test as can be
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Watch the test if it is to be."""
    settings = item.config.stash[_SETTINGS]
    limit = _limit_of(item, settings)
    if limit is None:
        return (yield)
    watch = _Watch(limit)
    try:
        result = yield
    except BaseException:
        if found := _told(watch.end(), limit, settings.allowed):
            item.add_report_section("call", "no_stall", found)
        raise
    if found := _told(watch.end(), limit, settings.allowed):
        pytest.fail(found, pytrace=False)
    return result


def _limit_of(item: pytest.Item, settings: _Settings) -> _Limit | None:
    marker = item.get_closest_marker("no_stall")
    if marker is None:
        watched = settings.ms is not None and "gevent" in sys.modules
        return _Limit(settings.ms, own_body=False) if watched and settings.ms is not None else None
    ms = marker.kwargs.get("ms", DEFAULT_MS)
    if (
        marker.args
        or marker.kwargs.keys() - {"ms"}
        or type(ms) not in (int, float)
        or not SHORTEST_MS <= ms <= LONGEST_MS
    ):
        pytest.fail("no_stall takes ms= alone, from 1 to 60000: @pytest.mark.no_stall(ms=10)", pytrace=False)
    return _Limit(float(ms), own_body=True)


class _Watch:
    """A session for one test."""

    def __init__(self, limit: _Limit) -> None:
        from tempfile import TemporaryDirectory

        import profiler

        self._directory = TemporaryDirectory(prefix="no-stall-")
        problem: profiler.ProfilerError | None = None
        try:
            self._session = profiler.install(self._directory.name, slow_slice_ms=limit.ms)
        except profiler.ProfilerError as error:
            problem = error
        if problem is not None:  # here, or pytest would show it twice
            self._directory.cleanup()
            pytest.fail(f"no_stall cannot watch this test: {problem}", pytrace=False)
        _begin_slice()  # starting threads may have taken a while

    def end(self) -> list[dict[str, Any]]:
        """Stop watching; the sites of its report."""
        _begin_slice()  # a slice is known when it ends
        self._session.close()
        from profiler.report.build import build
        from profiler.report.reader import read

        with self._directory as directory:
            sites: list[dict[str, Any]] = build(read([directory]))["sites"]
        return sites


def _begin_slice() -> None:
    """Switch to a greenlet that returns at once."""
    from greenlet import greenlet

    greenlet(int).switch()


def _told(sites: list[dict[str, Any]], limit: _Limit, allowed: AllowList | None) -> str:
    """What to say of those sites that the test answers for; "" if there are none."""
    from profiler.allow import AllowList, suggestion

    mine = [site for site in sites if _counts(site, limit)]
    now = datetime.now(UTC).astimezone()
    (allowed or AllowList()).mark(mine, now.date())
    lines = [line for site in mine if not site["allowed"] or site["allowed"]["expired"] for line in _site(site)]
    if not lines:
        return ""
    entries = [f"\n{suggestion(site, now.isoformat())}" for site in mine if not site["allowed"]]
    if entries:
        entries.insert(0, "or accept it for a time, with a reason, in the file of --no-stall-allow=FILE:")
    return "\n".join([f"gevent's hub was blocked for {limit.ms:g} ms or more by", *lines, *entries])


def _counts(site: dict[str, Any], limit: _Limit) -> bool:
    if site["innocent"] or not site["file"] or site["cause"] == "gc":
        return False
    in_body = any(_RUNNER in frame for frame in site["stack"])
    return not in_body or (limit.own_body and not site["library"])


def _site(site: dict[str, Any]) -> list[str]:
    from profiler.render.words import accepted, short_path

    longest, times = f"{site['busy_ms']['max']:.1f} ms", site["count"]
    lasted = longest if times == 1 else f"{times} times, at most {longest}"
    about = "" if site["exact"] else "about "
    lines = [f"  {about}{short_path(site['file'])}:{site['line']} in {site['function']}   [{site['cause']}]   {lasted}"]
    if site["source"]:
        lines.append(f"      {site['source']}")
    lines.append(f"    -> {site['advice']}")
    if site["allowed"]:
        lines.append(f"    {accepted(site['allowed'])}")
    return lines

"""The pytest plugin, in runs of pytest that found it by its entry point."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest

from profiler import options, pytest_plugin

pytest_plugins = ("pytester",)
pytestmark = pytest.mark.real  # each run is a process of its own

ROOT = Path(__file__).resolve().parents[2]
TODAY = date.today()
Run = Callable[..., pytest.RunResult]

APPLICATION = """
import gevent
from gevent import monkey
real_sleep = monkey.get_original("time", "sleep")

def stall(seconds=0.05):
    real_sleep(seconds)  # stalls

def cooperate():
    gevent.sleep(0.05)
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run pytest on these modules, with the plugin as installing this project would make it known."""
    entry_points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    installed = pytester.mkdir("installed") / "tafe-0.0.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: tafe\nVersion: 0.0.0\n")
    listed = "\n".join(f"{name} = {module}" for name, module in entry_points.items())
    (installed / "entry_points.txt").write_text(f"[pytest11]\n{listed}\n")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{installed.parent}")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(*options: str, **modules: str) -> pytest.RunResult:
        for name, source in modules.items():
            pytester.makepyfile(**{name: source})
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", "--strict-markers", "-W", "error", *options)

    return run


def test_a_marked_test_fails_by_the_line_that_blocks_the_hub(run: Run) -> None:
    result = run(
        application=APPLICATION,
        test_it="""
            import gevent, pytest
            import application

            @pytest.mark.no_stall(ms=10)
            def test_in_a_greenlet():
                gevent.joinall([gevent.spawn(application.stall), gevent.spawn(application.cooperate)])

            @pytest.mark.no_stall
            def test_in_its_own_body():
                application.stall()

            @pytest.mark.no_stall(ms=10)
            def test_that_cooperates():
                gevent.joinall([gevent.spawn(application.cooperate) for _ in range(3)], raise_error=True)
                application.cooperate()

            @pytest.mark.no_stall(ms=2000)
            def test_within_its_limit():
                application.stall()

            def test_not_marked():
                gevent.spawn(application.stall).join()
        """,
    )
    result.assert_outcomes(failed=2, passed=3)
    stalled = [
        "gevent's hub was blocked for 10 ms or more by",
        "  application.py:6 in stall   [[]blocking[]]   * ms",
        "      real_sleep(seconds)  # stalls",
        "    -> unpatched: gevent.sleep(seconds), or *",
    ]
    result.stdout.fnmatch_lines(["*test_in_a_greenlet*", *stalled, "*test_in_its_own_body*", *stalled])
    assert result.stdout.str().count("was blocked") == 2 + 2  # and in the summary's two lines


def test_by_the_option_a_test_answers_for_greenlets_and_not_for_its_own_body(run: Run) -> None:
    result = run(
        "--no-stall=10ms",
        application=APPLICATION,
        test_it="""
            import gevent, pytest
            import application

            def test_greenlet():
                gevent.spawn(application.stall).join()

            def test_hub():
                gevent.sleep(0.001)
                gevent.get_hub().loop.run_callback(application.stall)
                gevent.sleep(0.001)

            def test_own_body():
                gevent.sleep(0)
                application.stall()
                gevent.sleep(0)

            @pytest.mark.no_stall(ms=500)
            def test_with_a_limit_of_its_own():
                gevent.spawn(application.stall).join()
        """,
    )
    result.assert_outcomes(failed=2, passed=2)
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_greenlet*", "FAILED test_it.py::test_hub*"])


def test_nothing_of_gevent_is_imported_for_tests_that_do_not_use_it(run: Run) -> None:
    test = """
        import sys, threading

        def test_without():
            found = [name for name in sys.modules if name.partition(".")[0] in ("gevent", "greenlet")]
            assert found == []
            ours = {name for name in sys.modules if name.startswith("profiler.")}
            assert ours - {"profiler._compiled"} == {"profiler.pytest_plugin"}
    """
    run(test_it=test).assert_outcomes(passed=1)
    run("--no-stall=10ms").assert_outcomes(passed=1)


def test_a_failure_of_its_own_is_kept_and_the_stall_told_below(run: Run) -> None:
    result = run(
        application=APPLICATION,
        test_it="""
            import pytest
            import application
            pytestmark = pytest.mark.no_stall(ms=10)

            def test_fails():
                application.stall()
                assert 1 == 2

            def test_is_skipped():
                pytest.skip("not today")

            @pytest.mark.xfail(strict=True, reason="known")
            def test_is_expected_to_stall():
                application.stall()
        """,
    )
    result.assert_outcomes(failed=1, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines(["E*assert 1 == 2", "*- Captured no_stall call -*", "  application.py:6 in stall*"])


def test_the_collector_is_not_the_tests_fault(run: Run) -> None:
    result = run(
        "-rP",
        test_it="""
            import gc, gevent, pytest, time

            class Node:
                def __init__(self):
                    self.me = self

            def collect():
                began_s = time.perf_counter()
                gc.collect()
                print("took", time.perf_counter() - began_s > 0.01)
                sum(range(1000))

            @pytest.mark.no_stall(ms=10)
            def test_it(heap=[Node() for _ in range(300_000)]):
                for _ in range(3):
                    gevent.spawn(collect).join()
        """,
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["took True"])


def test_an_allow_list_allows_what_it_names_until_its_day(run: Run, pytester: pytest.Pytester) -> None:
    modules = {
        "application": APPLICATION,
        "test_it": """
            import gevent
            import application

            def test_greenlet():
                gevent.spawn(application.stall).join()
        """,
    }

    def outcome(entry: str, *, expires: date = TODAY) -> pytest.RunResult:
        (pytester.path / "stalls.toml").write_text(f'[[allow]]\n{entry}\nreason = "a test"\nexpires = {expires}\n')
        return run("--no-stall=10ms", "--no-stall-allow=stalls.toml", **modules)

    named = 'file = "application.py"\nfunction = "stall"'
    outcome(named).assert_outcomes(passed=1)
    outcome(f'{named}\ncause = "python"').assert_outcomes(failed=1)
    yesterday = TODAY - timedelta(days=1)
    late = outcome(named, expires=yesterday)
    late.assert_outcomes(failed=1)
    late.stdout.fnmatch_lines([f"    it was allowed until {yesterday}, which is over: a test"])


def test_the_plugin_takes_what_a_session_takes() -> None:
    assert pytest_plugin.SHORTEST_MS == options.SHORTEST_SLOW_SLICE_MS
    assert pytest_plugin.LONGEST_MS == options.LONGEST_SLOW_SLICE_MS


def test_a_stall_is_told_with_the_entry_that_allows_it_but_for_the_reason(run: Run, pytester: pytest.Pytester) -> None:
    test = """
        import gevent
        import application

        def test_greenlet():
            gevent.spawn(application.stall).join()
    """
    told = run("--no-stall=10ms", application=APPLICATION, test_it=test).stdout.str()
    start = told.index("[[allow]]")
    entry = told[start : told.index("\n", told.index("expires = ", start))]
    path = pytester.path / "stalls.toml"
    path.write_text(entry)
    refused = run("--no-stall=10ms", "--no-stall-allow=stalls.toml")
    refused.stderr.fnmatch_lines(["ERROR: --no-stall-allow: *reason = '' does not fit; *"])
    length = re.compile(r"up_to_ms = \d+")  # of the first run, which may be shorter
    path.write_text(length.sub("up_to_ms = 5000", entry).replace('reason = ""', 'reason = "a test"'))
    run("--no-stall=10ms", "--no-stall-allow=stalls.toml").assert_outcomes(passed=1)
    assert length.search(entry)


def test_what_the_options_and_the_mark_cannot_be_is_said(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="def test_it():\n    pass\n")
    result = run("--no-stall=10")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --no-stall: '10' is not a duration; use --no-stall=10ms or --no-stall=0.5s"])
    for duration in ("0.5ms", "0s", "61s"):
        result = run(f"--no-stall={duration}")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: --no-stall: '{duration}' is out of range; use 1ms to 60s"])
    result = run("--no-stall-allow=missing.toml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --no-stall-allow: cannot read the allow list 'missing.toml': *"])
    result = run(
        test_it="""
            import pytest
            import profiler

            @pytest.mark.no_stall(10)
            def test_argument():
                pass

            @pytest.mark.no_stall(ms=0.1)
            def test_too_short():
                pass

            @pytest.fixture
            def opened():
                session = profiler.install()
                yield
                session.close()

            @pytest.mark.no_stall
            def test_with_a_session_of_its_own(opened):
                pass
        """
    )
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        [
            "no_stall takes ms= alone, from 1 to 60000: @pytest.mark.no_stall(ms=10)",
            "no_stall takes ms= alone, from 1 to 60000: @pytest.mark.no_stall(ms=10)",
            "no_stall cannot watch this test: the profiler is installed already in this process; *",
        ]
    )
    result.stdout.no_fnmatch_line("*During handling*")

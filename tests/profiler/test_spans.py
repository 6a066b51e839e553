"""Blocks as requests: only in the thread of the session's hub."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gevent
import pytest

import profiler
from profiler.native import Signal, start_thread

ROOT = Path(__file__).resolve().parents[2]


def in_native_thread(job: Any) -> None:
    done = start_thread(job)
    while not done.wait(0):
        gevent.sleep(0.001)


@pytest.mark.parametrize("run", [in_native_thread, lambda job: gevent.get_hub().threadpool.apply(job)])
def test_a_block_in_a_thread_is_no_request_and_changes_none(session: profiler.Session, run: Any) -> None:
    yielded: list[Any] = []
    begun = Signal()

    def job() -> None:
        with profiler.span("in a thread") as span:
            yielded.append(span)
            begun.announce()

    def request() -> None:
        with profiler.span("GET /") as span:
            run(job)
            assert session.peek()[2] is span

    gevent.spawn(request).get()
    assert begun.wait(0)
    assert yielded == [None]
    figures = session.figures()
    assert {route: of.requests for route, of in figures.routes.items()} == {"GET /": 1}
    assert figures.dropped == 0


def test_a_block_in_a_thread_does_not_take_over_the_request_that_has_the_hub(session: profiler.Session) -> None:
    yielded: list[Any] = []

    def job() -> None:
        with profiler.span("in a thread") as span:
            yielded.append(span)

    def request() -> None:
        with profiler.span("GET /"):
            assert start_thread(job).wait(5)  # it keeps the hub meanwhile, so that this request is the one that has it

    gevent.spawn(request).get()
    assert yielded == [None]
    assert start_thread(job).wait(5)
    assert yielded == [None, None]
    assert session.peek()[2] is None


PATCHED = """
from gevent import monkey
monkey.patch_all()
import threading, gevent, profiler
profiler.install()
def block():
    with profiler.span("job") as span:
        return span is not None
assert block(), "in the main greenlet"
assert gevent.spawn(block).get()
found = []
thread = threading.Thread(target=lambda: found.append(block()))
thread.start()
thread.join()
assert found == [True], "which is a greenlet"
assert not gevent.get_hub().threadpool.apply(block)
profiler.session.current().close()
"""


def test_in_a_patched_process_every_greenlet_of_the_hub_may_have_blocks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PATCHED], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_block_of_another_hub_in_the_same_thread_is_no_request() -> None:
    program = """
import gevent, profiler
session = profiler.install()
gevent.get_hub().destroy()
gevent.sleep(0)
with profiler.span("job") as span:
    assert span is None
session.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")

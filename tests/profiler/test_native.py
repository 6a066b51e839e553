"""Native threads in which nothing is collected, and when collections are allowed again."""

from __future__ import annotations

import gc
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import gevent
import pytest

import profiler
from profiler import native, writer
from profiler.arrivals import Sightings
from profiler.native import Undisturbed

COLLECTIONS = 100


class Interleaving:
    """The module `gc`, in whose functions the GIL goes to another thread: `then[name]` runs in one after that call."""

    def __init__(self) -> None:
        self.then: dict[str, list[Callable[[], object]]] = {}

    def __getattr__(self, name: str) -> Callable[[], object]:
        def call() -> object:
            result = getattr(gc, name)()
            pending = self.then.pop(name, [])
            for other in pending:
                in_another_thread(other)
            return result

        return call


def in_another_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def look(undisturbed: Undisturbed) -> None:
    with undisturbed:
        assert not gc.isenabled()


@pytest.fixture
def collecting() -> Iterator[None]:
    assert gc.isenabled()
    yield
    gc.enable()


@pytest.mark.usefixtures("collecting")
def test_collections_are_allowed_again_when_the_last_of_two_threads_has_looked() -> None:
    undisturbed = Undisturbed()
    with undisturbed:
        in_another_thread(partial(look, undisturbed))
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.usefixtures("collecting")
def test_collections_stay_forbidden_if_they_were() -> None:
    undisturbed = Undisturbed()
    gc.disable()
    with undisturbed:
        in_another_thread(partial(look, undisturbed))
    assert not gc.isenabled()


@pytest.mark.usefixtures("collecting")
@pytest.mark.parametrize("name", ["isenabled", "disable"])
def test_collections_are_allowed_again_though_another_thread_ceases_to_look_when_one_begins(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A thread was told that nobody collects, because of the other, and left it at that for good."""
    undisturbed = Undisturbed()
    inside, over = threading.Event(), threading.Event()

    def other() -> None:
        with undisturbed:
            inside.set()
            assert over.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(60)
    between = Interleaving()
    monkeypatch.setattr(native, "gc", between)
    between.then[name] = [over.set, thread.join]
    with undisturbed:
        over.set()
        thread.join()
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.usefixtures("collecting")
@pytest.mark.parametrize("name", ["isenabled", "disable", "enable"])
def test_collections_are_allowed_again_whenever_another_thread_looks_too(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    undisturbed = Undisturbed()
    between = Interleaving()
    monkeypatch.setattr(native, "gc", between)
    between.then[name] = [partial(look, undisturbed)]
    with undisturbed:
        assert not gc.isenabled()
    assert not between.then
    assert gc.isenabled()


@pytest.mark.usefixtures("collecting")
@pytest.mark.parametrize("name", ["isenabled", "disable"])
def test_collections_are_allowed_again_by_leave_when_a_signal_kept_a_look_from_beginning(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    undisturbed = Undisturbed()

    class Interrupted:
        def __getattr__(self, called: str) -> Callable[[], object]:
            def call() -> object:
                result = getattr(gc, called)()
                if called == name:
                    raise KeyboardInterrupt
                return result

            return call

    with monkeypatch.context() as patched:
        patched.setattr(native, "gc", Interrupted())
        with pytest.raises(KeyboardInterrupt):
            undisturbed.__enter__()
    undisturbed.leave()
    assert gc.isenabled()


@pytest.mark.usefixtures("collecting")
def test_a_worker_collects_again_though_a_signal_kept_a_look_from_ending() -> None:
    native.undisturbed.__enter__()  # whose end never came
    session = profiler.install()
    try:
        for _ in range(200):
            span = session.begin("route", "id")
            gevent.sleep(0.001)
            session.end(span)
            if gc.isenabled():
                break
        assert gc.isenabled()
    finally:
        session.close()


def test_a_child_collects_though_a_thread_of_its_parent_was_looking_when_it_was_forked() -> None:
    undisturbed = Undisturbed()
    undisturbed.__enter__()
    undisturbed.leave_in_child()
    assert gc.isenabled()
    with undisturbed:
        pass
    assert gc.isenabled()
    undisturbed.leave_in_child()
    assert gc.isenabled()


@pytest.mark.usefixtures("collecting")
def test_who_has_entered_twice_stays_inside_until_it_has_left_twice() -> None:
    undisturbed = Undisturbed()
    with undisturbed:
        with undisturbed:
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.usefixtures("collecting")
def test_what_gives_the_gil_up_does_so_with_collections_allowed() -> None:
    undisturbed = Undisturbed()
    assert undisturbed.outside(gc.isenabled)
    assert gc.isenabled()
    with undisturbed:
        with undisturbed:
            assert undisturbed.outside(gc.isenabled)
            assert not gc.isenabled()
        with pytest.raises(ZeroDivisionError):
            undisturbed.outside(divmod, 1, 0)
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.usefixtures("collecting")
def test_nothing_is_collected_in_a_thread_of_the_profiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most collections of a worker with little to do began there, and called the application's finalizers."""
    where: Counter[int] = Counter()

    def collected(phase: str, _info: dict[str, int]) -> None:
        caller = sys._getframe(1).f_back
        if caller is None or caller.f_code is not Sightings.seen_before.__code__:  # whose poll makes a list
            where[threading.get_ident()] += phase == "start"

    pruned = threading.Event()  # before that the disk is given time, in which anything may be collected
    monkeypatch.setattr(writer, "prune", lambda *_: pruned.set())
    session = profiler.install(tmp_path, slow_slice_ms=1)
    assert pruned.wait(60)
    thresholds = gc.get_threshold()
    gc.callbacks.append(collected)
    gc.set_threshold(20)
    try:
        while where.total() < COLLECTIONS:
            span = session.begin("route", "id")
            gevent.sleep(0.002)
            session.end(span)
            for _ in range(5):
                garbage: list[object] = []
                garbage.append(garbage)
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(collected)
        session.close()
    assert set(where) == {threading.get_ident()}

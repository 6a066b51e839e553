"""Whose code a file is, and what a function is called."""

from __future__ import annotations

import gc
import json
import linecache
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent.hub
import pytest

from profiler import hook, wsgi
from profiler.frames import (
    MAX_DEPTH,
    NOTHING,
    Application,
    Stack,
    capture,
    capture_running,
    describe,
    of_threads,
)


def here() -> Stack:
    return capture(sys._getframe(1))


@pytest.mark.parametrize(
    "file", [json.__file__, gevent.hub.__file__, hook.__file__, "<string>", "<frozen importlib._bootstrap>"]
)
def test_libraries_generated_code_and_the_profiler_are_not_the_application(file: str) -> None:
    assert not Application().owns(file)


def test_everything_else_is() -> None:
    assert Application().owns(__file__)


def test_a_server_can_have_its_own_directory_left_out(tmp_path: Path) -> None:
    server = tmp_path / "server"
    application = Application([str(server)])
    assert not application.owns(str(server / "wsgi.py"))
    assert application.owns(str(tmp_path / "server_of_mine.py"))


def test_a_virtual_environment_inside_the_project_is_not_the_project(tmp_path: Path) -> None:
    assert not Application().owns(str(tmp_path / ".venv" / "lib" / "python3.11" / "site-packages" / "flask" / "app.py"))


def test_a_comprehension_is_the_function_around_it() -> None:
    (stack,) = [here() for _ in range(1)]
    place = Application().innermost(stack)
    assert place is not None
    assert place.function == "test_a_comprehension_is_the_function_around_it"
    assert place.line == place.first_line + 1


def test_a_generator_is_itself() -> None:
    def rows() -> Iterator[Stack]:
        yield here()

    place = Application().innermost(next(rows()))
    assert place is not None
    assert place.function == "rows"


def test_a_function_just_entered_is_at_its_first_statement() -> None:
    stacks = []

    def tracer(frame: object, event: str, _arg: object) -> None:
        stacks.append(capture(frame))  # type: ignore[arg-type]

    def entered() -> None:
        stacks.clear()

    sys.setprofile(tracer)
    entered()
    sys.setprofile(None)
    line = {code.co_name: line for code, line in stacks[0]}["entered"]
    assert line in (entered.__code__.co_firstlineno, entered.__code__.co_firstlineno + 1)


def test_a_deep_recursion_is_cut() -> None:
    def recurse(depth: int) -> Stack:
        return recurse(depth - 1) if depth else here()

    assert len(recurse(MAX_DEPTH * 2)) == MAX_DEPTH


def test_a_stack_reads_like_a_traceback() -> None:
    last = describe(here())[-1]
    assert last == f"{__file__}:{sys._getframe().f_lineno - 1} test_a_stack_reads_like_a_traceback"


def test_a_command_that_a_package_installs_is_not_the_application() -> None:
    assert not Application().owns(os.path.join(sysconfig.get_path("scripts"), "gunicorn"))


def test_without_a_line_of_the_application_the_middleware_is_not_named() -> None:
    outermost = compile("pass", wsgi.__file__, "exec")
    server = compile("pass", os.path.join(sysconfig.get_path("purelib"), "framework", "app.py"), "exec")
    stack = ((server, 1), (outermost, 1))
    assert Application().in_library(stack).file == server.co_filename


def test_a_named_tuple_that_the_profiler_makes_is_the_profiler_at_work() -> None:
    namespace: dict[str, Any] = {"look": lambda: capture_running(sys._getframe(1))}
    exec(compile("def made(): return look()", "<string>", "exec"), namespace)
    assert namespace["made"]() != NOTHING
    exec(compile("def calls(made): return made()", hook.__file__, "exec"), namespace)
    assert namespace["calls"](namespace["made"]) == NOTHING


@pytest.fixture
def collects_at_once() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(1)
    yield
    gc.set_threshold(*before)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="later releases collect between bytecodes alone")
@pytest.mark.usefixtures("collects_at_once")
def test_no_collection_begins_while_the_stack_of_another_thread_is_walked() -> None:
    go_on, deep = threading.Event(), threading.Event()
    collections: list[str] = []

    def recurse(depth: int) -> None:
        if depth:
            recurse(depth - 1)
        else:
            deep.set()
            go_on.wait()

    thread = threading.Thread(target=recurse, args=(50,))
    thread.start()
    deep.wait()

    def collected(phase: str, _info: dict[str, int]) -> None:
        walking = sys._getframe(1)  # whoever's allocation that was
        line = linecache.getline(walking.f_code.co_filename, walking.f_lineno)
        if phase == "start" and ("f_back" in line or "_current_frames" in line):
            collections.append(line)

    gc.callbacks.append(collected)
    try:
        frame = of_threads()[thread.ident or 0]
        look = capture_running(frame)
        Application([str(Path(__file__).parent)]).is_on(frame)
    finally:
        gc.callbacks.remove(collected)
        del frame
        go_on.set()
        thread.join()
    assert len(look.stack) > 50
    assert collections == []
    assert gc.isenabled()

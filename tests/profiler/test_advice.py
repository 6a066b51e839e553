"""Each kind of stall has advice that names its own remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.zoo import ZOO
from profiler.report.advice import advise

# Of each stall of the zoo: a word of what is to be done about it, and what is on its stack besides the line.
REMEDIES: dict[str, tuple[str, str]] = {
    "sleep": ("gevent.sleep", ""),
    "socket": ("socket", ""),
    "select": ("select", ""),
    "lock": ("gevent.lock", ""),
    "dns": ("resolver", "socket.py:962 getaddrinfo"),
    "usleep": ("PyDLL", ""),
    "usleep_with_gil": ("PyDLL", ""),
    "system": ("gevent.subprocess", ""),
    "subprocess": ("tp_read", ""),
    "pipe": ("tp_read", ""),
    "flock": ("LOCK_NB", ""),
    "sqlite": ("tafe.Database", ""),
    "fsync": ("sync less often", ""),
    "open": ("a file does not yield", ""),
    "logging": ("QueueHandler", "lib/python3.11/logging/__init__.py:978 handle"),
    "regex": ("nested repeats", ""),
    "in_list": ("a set or a dictionary", ""),
    "power": ("another process", ""),
    "sort": ("sort", ""),
    "pickle": ("by parts", ""),
    "json_parse": ("by parts", ""),
    "zlib": ("releases the GIL", ""),
    "pbkdf2": ("slow on purpose", ""),
    "cpu_loop": ("a loop in Python", ""),
    "comprehension": ("a loop in Python", ""),
    "recursion": ("gevent.sleep(0)", ""),
    "deepcopy": ("copy only what is changed", ""),
    "json_indent": ("leave indent out", ""),
    "callback": ("C code at work", ""),
    "sort_key": ("a loop in Python", ""),
    "import": ("import it at the top", "<frozen importlib._bootstrap>:241 _call_with_frames_removed"),
    "gc_collect": ("by hand", ""),
    "gc_automatic": ("gc.freeze()", ""),
    "finalizer": ("gevent.sleep", ""),
    "gil": ("another thread", ""),
    "child": ("a loop in Python", ""),
    "hub_callback": ("a loop in Python", ""),
    "convoy": ("fewer at a time", ""),
    "sleep_zero": ("fewer at a time", ""),
    "stream": ("gevent.sleep", ""),
    "before_hook": ("gevent.sleep", ""),
    "after_hook": ("gevent.sleep", ""),
    "deferred": ("gevent.sleep", ""),
}


@pytest.mark.parametrize("name", ZOO)
def test_advice_names_the_remedy_for_this_very_case(name: str) -> None:
    exhibit = ZOO[name]
    remedy, caller = REMEDIES[name]
    source = Path(exhibit.file).read_text().splitlines()
    line = exhibit.lines.start
    # A loop's samples fall on its body, as that of the one that looks names up does.
    if name in ("dns", "fsync"):
        line = exhibit.lines.stop - 1
    stack = [f"{exhibit.file}:{line} {exhibit.function}"]
    assert remedy in advise(exhibit.cause, source[line - 1].strip(), [caller, *stack] if caller else stack)


def test_a_path_on_the_stack_is_no_call() -> None:
    stack = ["/srv/core.py:10 handler", "/srv/store.py:3 compute"]
    assert "regular expression" not in advise("native", "compute(rows)", stack)

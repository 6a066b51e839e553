"""On what occasions a function of the application is called, as far as its modules show it.

A function is not called while its worker serves if every place that names it calls it while a module is loaded, gives
it to a start or stop hook, hands it to a native thread, or calls it in another such function. A function that is named
nowhere, or by a decorator, may be called by anybody.

Which calls hand over what to a native thread is told by their names (`_HAND_OVER`), but not where the object shows
that gevent made a greenlet of it: `gevent.spawn`, `gevent.pool`, and the patched pools of the standard library.
"""

from __future__ import annotations

import _thread
import ast
import builtins
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from multiprocessing.pool import ThreadPool
from typing import Any, NamedTuple

import gevent.pool
import gevent.threadpool
from gevent import monkey

from tafe.doctor.names import NOTHING, Key, Names

# A function that takes another one, and perhaps runs it in a native thread.
_HAND_OVER = frozenset({
    "offload", "submit", "spawn", "apply", "apply_async", "map", "map_async", "imap", "imap_unordered", "starmap",
    "starmap_async", "start_new_thread", "run_in_executor", "to_thread",
})  # fmt: skip
_HOOKS = frozenset({"on_start", "on_stop"})  # before the worker accepts, and after its last request
# Of decorators: they call what they decorate when it is called, and tell nobody of it.
_QUIET = frozenset({"staticmethod", "classmethod", "property", "cached_property", "cache", "lru_cache",
                    "contextmanager", "wraps", "override"})  # fmt: skip
_GREENLETS = (gevent.pool.Group, gevent.Greenlet, ThreadPoolExecutor, ThreadPool)
_NATIVE = (gevent.threadpool.ThreadPoolExecutor, gevent.threadpool.ThreadPool)

LOADING = Key("", "<loading>")  # the top of a module
IN_THREAD = Key("", "<thread>")
LAMBDA = Key("", "<lambda>")


class How(Enum):
    """What a place does with a function that it names."""

    CALLS = auto()
    HANDS_OVER = auto()  # to a native thread, or to a hook for when nothing is served
    MENTIONS = auto()  # whoever gets it may call it


class _Place(NamedTuple):
    how: How
    within: Key


class Occasions:
    """Of the functions of all modules."""

    def __init__(self) -> None:
        self._places: dict[Key, set[_Place]] = defaultdict(set)

    def add(self, function: Key, how: How, within: Key) -> None:
        """`within` is a place that names `function`."""
        if function != within:  # that it calls itself says nothing
            self._places[function].add(_Place(how, within))

    def never_serving(self) -> set[Key]:
        """The functions that are not called, in the hub's thread, while the worker serves."""
        found = {LOADING, IN_THREAD}
        while True:
            more = {
                function
                for function, places in self._places.items()
                if function not in found
                and all(one.how is How.HANDS_OVER or (one.how is How.CALLS and one.within in found) for one in places)
            }
            if not more:
                return found
            found |= more


def by_decorator(node: ast.expr) -> How | None:
    """What a decorator does with the function; None: nothing that matters."""
    name = _name(node.func if isinstance(node, ast.Call) else node)
    if name in _QUIET:
        return None
    return How.HANDS_OVER if name in _HOOKS else How.MENTIONS


def hands_over(node: ast.Call, names: Names) -> bool:
    """Whether a call gives its arguments to a native thread, or to a hook."""
    found = names.meaning(node.func)
    if found is not NOTHING and found is monkey.get_original("_thread", "start_new_thread"):
        return True
    name = _name(node.func)
    return name in _HOOKS or (name in _HAND_OVER and not _is_greenlet(node.func, found, names))


def given(node: ast.expr) -> list[ast.expr]:
    """What an argument may have of functions: itself, or what a `partial` is of."""
    if isinstance(node, ast.Call) and _name(node.func) == "partial":
        return [inner for one in arguments(node) for inner in given(one)]
    return [node]


def arguments(node: ast.Call) -> list[ast.expr]:
    """Those with a keyword too."""
    return [*node.args, *(keyword.value for keyword in node.keywords)]


def _is_greenlet(node: ast.expr, found: Any, names: Names) -> bool:
    """Whether the function is known to run what it is given in the hub's thread."""
    if found is builtins.map or found is _thread.start_new_thread:
        return True
    kind = names.class_of(node.value) if isinstance(node, ast.Attribute) else NOTHING
    holder = names.meaning(node.value) if isinstance(node, ast.Attribute) else NOTHING
    for one in (kind, holder):
        if isinstance(one, type) and issubclass(one, _GREENLETS):
            return not issubclass(one, _NATIVE)
    module = getattr(found, "__module__", "") if issubclass(type(found), type(_name) | type) else ""
    return str(module).startswith("gevent.") or holder is gevent


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")

"""Is busy in Python: bytecode of our own, or of the standard library on our behalf."""

from __future__ import annotations

import copy
import ctypes
import importlib
import json
import sys
import time
from typing import Any

from apps.zoo import slow_import
from apps.zoo.table import DEFAULT_MS, stall, twin
from apps.zoo.tools import Sized, breathe, gently
from tafe import offload


@stall("cpu_loop", "python")
def stall_cpu_loop(ms: int = DEFAULT_MS) -> int:
    count, until_s = 0, time.perf_counter() + ms / 1000
    while time.perf_counter() < until_s:  # stalls
        count += 1
    return count


@twin("cpu_loop")
def yield_cpu_loop(ms: int = DEFAULT_MS) -> int:
    count, until_s = 0, time.perf_counter() + ms / 1000
    for _ in gently(iter(lambda: time.perf_counter() < until_s, False)):
        count += 1
    return count


_squares = Sized(lambda size: [n * n % 7 for n in range(size)], lambda size: size, 20_000)


@stall("comprehension", "python")
def stall_comprehension(ms: int = DEFAULT_MS) -> int:
    size = _squares.size(ms)
    return sum([n * n % 7 for n in range(size)])  # stalls


@twin("comprehension")
def yield_comprehension(ms: int = DEFAULT_MS) -> int:
    return sum(n * n % 7 for n in gently(range(_squares.size(ms))))


def _fibonacci(n: int) -> int:
    return n if n < 2 else _fibonacci(n - 1) + _fibonacci(n - 2)  # stalls


_rabbits = Sized(_fibonacci, lambda n: n, 16, factor=1.618)


@stall("recursion", "python", at=_fibonacci)
def stall_recursion(ms: int = DEFAULT_MS) -> int:
    return _fibonacci(_rabbits.size(ms))


@twin("recursion")
def yield_recursion(ms: int = DEFAULT_MS) -> int:
    return _polite_fibonacci(_rabbits.size(ms))


def _polite_fibonacci(n: int) -> int:
    if n == 20:  # about a millisecond's worth
        breathe()
    return n if n < 2 else _polite_fibonacci(n - 1) + _polite_fibonacci(n - 2)


def _records(count: int) -> list[dict[str, Any]]:
    """Something with the shape of business data."""
    return [{"id": n, "name": "a name", "tags": ["x", "y"], "price": n / 7} for n in gently(range(count))]


_copied = Sized(copy.deepcopy, _records, 100)


@stall("deepcopy", "python")
def stall_deepcopy(ms: int = DEFAULT_MS) -> int:
    records = _records(_copied.size(ms))
    return len(copy.deepcopy(records))  # stalls


@twin("deepcopy")
def yield_deepcopy(ms: int = DEFAULT_MS) -> int:
    records = _records(_copied.size(ms))
    return sum(len(copy.deepcopy(record)) for record in gently(records))


_indented = Sized(lambda records: json.dumps(records, indent=2), _records, 100)


@stall("json_indent", "python")
def stall_json_indent(ms: int = DEFAULT_MS) -> int:
    """With `indent`, the standard library's encoder is the one in Python."""
    records = _records(_indented.size(ms))
    return len(json.dumps(records, indent=2))  # stalls


@twin("json_indent")
def yield_json_indent(ms: int = DEFAULT_MS) -> int:
    records = _records(_indented.size(ms))
    return sum(len(part) for part in gently(json.JSONEncoder(indent=2).iterencode(records)))


_libc = ctypes.CDLL(None)
_Compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))


def _compare(one: Any, other: Any) -> int:
    return int(one[0] - other[0])


def _c_sort(size: int) -> None:
    numbers = (ctypes.c_int * size)(*(n * 7919 % 10_007 for n in gently(range(size))))
    _libc.qsort(numbers, size, ctypes.sizeof(ctypes.c_int), _Compare(_compare))  # stalls


_c_sorted = Sized(_c_sort, lambda size: size, 100, power=1.1)


@stall("callback", "native", at=_c_sort)
def stall_callback(ms: int = DEFAULT_MS) -> None:
    """C that calls back into Python, thousands of times: most of it is C's, which makes each call and converts."""
    _c_sort(_c_sorted.size(ms))


@twin("callback")
def yield_callback(ms: int = DEFAULT_MS) -> None:
    """In a thread: between two callbacks it gives the GIL up to whoever asks for it."""
    offload(_plain_c_sort, _c_sorted.size(ms))


def _plain_c_sort(size: int) -> None:
    numbers = (ctypes.c_int * size)(*(n * 7919 % 10_007 for n in range(size)))
    _libc.qsort(numbers, size, ctypes.sizeof(ctypes.c_int), _Compare(_compare))


def _key(number: int) -> int:
    return sum([number * n % 7 for n in range(50)])  # stalls


_keyed = Sized(lambda size: sorted(range(size), key=_key), lambda size: size, 300)


@stall("sort_key", "python", at=_key)
def stall_sort_key(ms: int = DEFAULT_MS) -> int:
    """C that calls back too, but nearly all of it is the key's."""
    return sorted(range(_keyed.size(ms)), key=_key)[0]


@twin("sort_key")
def yield_sort_key(ms: int = DEFAULT_MS) -> int:
    keys = {number: _key(number) for number in gently(range(_keyed.size(ms)))}
    return sorted(keys, key=keys.__getitem__)[0]


@stall("import", "python", at=slow_import)
def stall_import(ms: int = DEFAULT_MS) -> None:
    """An import inside a function, of a module that does much when it is loaded."""
    sys.modules.pop(slow_import.__name__, None)
    slow_import.take_ms(ms)
    importlib.import_module(slow_import.__name__)


@twin("import")
def yield_import() -> None:
    """The module was loaded with the application, so there is nothing left to last `ms`."""
    importlib.import_module(slow_import.__name__)

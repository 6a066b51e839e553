"""Is busy in C: one call or operator that takes long. The first ones keep the GIL, the last two give it up.

What cannot be cut into pieces goes elsewhere in the twins: to a thread where C gives the GIL up, to another
process where it does not.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import pickle
import random
import re
import sys
import zlib
from functools import lru_cache

from gevent import subprocess

from apps.zoo.table import DEFAULT_MS, stall, twin
from apps.zoo.tools import Sized, gently
from tafe import offload

# A classic: the nested repeat tries every way to divide the text.
_backtracked = Sized(lambda text: re.fullmatch("(a+)+b", text), lambda size: "a" * size, 14, factor=2)


@stall("regex", "native")
def stall_regex(ms: int = DEFAULT_MS) -> bool:
    text = "a" * _backtracked.size(ms)
    return re.fullmatch("(a+)+b", text) is not None  # stalls


@twin("regex")
def yield_regex(ms: int = DEFAULT_MS) -> bool:
    return re.fullmatch("a+b", "a" * _backtracked.size(ms)) is not None


# Long texts that differ only at their ends, so that each comparison is worth something.
_STRAW = "x" * 4096
_NEEDLE = "x" * 4095 + "y"
_searched = Sized(lambda haystack: _NEEDLE in haystack, lambda size: [_STRAW] * size, 5_000)


@stall("in_list", "native")
def stall_in_list(ms: int = DEFAULT_MS) -> bool:
    haystack = [_STRAW] * _searched.size(ms)
    return _NEEDLE in haystack  # stalls


@twin("in_list")
def yield_in_list(ms: int = DEFAULT_MS) -> bool:
    haystack = [_STRAW] * _searched.size(ms)
    return any(_NEEDLE in haystack[start : start + 1000] for start in gently(range(0, len(haystack), 1000)))


_raised = Sized(lambda exponent: 3**exponent, lambda size: size, 40_000, power=1.58)  # Karatsuba's exponent


@stall("power", "native")
def stall_power(ms: int = DEFAULT_MS) -> int:
    exponent = _raised.size(ms)
    number: int = 3**exponent  # stalls
    return number.bit_length()


@twin("power")
def yield_power(ms: int = DEFAULT_MS) -> int:
    program = f"print((3 ** {_raised.size(ms)}).bit_length())"
    return int(subprocess.check_output([sys.executable, "-I", "-S", "-c", program]))


@lru_cache(2)  # drawing the numbers takes longer than sorting them; one size is usually asked for again and again
def _numbers(size: int) -> list[float]:
    draw = random.Random(1).random
    return [draw() for _ in gently(range(size))]


_sorted = Sized(sorted, _numbers, 5_000, power=1.2)


@stall("sort", "native")
def stall_sort(ms: int = DEFAULT_MS) -> float:
    numbers = _numbers(_sorted.size(ms))
    return sorted(numbers)[0]  # stalls


@twin("sort")
def yield_sort(ms: int = DEFAULT_MS) -> float:
    numbers = _numbers(_sorted.size(ms))
    runs = [sorted(numbers[start : start + 2000]) for start in gently(range(0, len(numbers), 2000))]
    return next(iter([*gently(heapq.merge(*runs))]))


@lru_cache(2)
def _records(count: int) -> list[dict[str, object]]:
    return [{"id": n, "name": f"name {n}", "price": n / 7} for n in gently(range(count))]


_pickled = Sized(pickle.dumps, _records, 2_000, power=1.2)  # its memo of objects seen outgrows the caches


@stall("pickle", "native")
def stall_pickle(ms: int = DEFAULT_MS) -> int:
    records = _records(_pickled.size(ms))
    return len(pickle.dumps(records))  # stalls


@twin("pickle")
def yield_pickle(ms: int = DEFAULT_MS) -> int:
    return sum(len(pickle.dumps(record)) for record in gently(_records(_pickled.size(ms))))


@lru_cache(2)
def _lines(count: int) -> list[str]:
    return [f'{{"id": {n}, "tags": ["x", "y"], "price": {n / 7}}}' for n in gently(range(count))]


def _document(count: int) -> str:
    return f"[{','.join(_lines(count))}]"


_parsed = Sized(json.loads, _document, 500)


@stall("json_parse", "native")
def stall_json_parse(ms: int = DEFAULT_MS) -> int:
    document = _document(_parsed.size(ms))
    return len(json.loads(document))  # stalls


@twin("json_parse")
def yield_json_parse(ms: int = DEFAULT_MS) -> int:
    return sum(len(json.loads(line)) for line in gently(_lines(_parsed.size(ms))))


_NOISE = random.Random(1).randbytes(65_536)  # does not compress, so every byte costs the same
_compressed = Sized(zlib.compress, lambda size: _NOISE * size, 1)


@stall("zlib", "native")
def stall_zlib(ms: int = DEFAULT_MS) -> int:
    data = _NOISE * _compressed.size(ms)
    return len(zlib.compress(data))  # stalls


@twin("zlib")
def yield_zlib(ms: int = DEFAULT_MS) -> int:
    return len(offload(zlib.compress, _NOISE * _compressed.size(ms)))


def _derive(rounds: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", b"password", b"salt", rounds)  # stalls


_derived = Sized(_derive, lambda size: size, 1_000)


@stall("pbkdf2", "native", at=_derive)
def stall_pbkdf2(ms: int = DEFAULT_MS) -> str:
    return _derive(_derived.size(ms)).hex()


@twin("pbkdf2")
def yield_pbkdf2(ms: int = DEFAULT_MS) -> str:
    return offload(_derive, _derived.size(ms)).hex()

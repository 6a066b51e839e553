"""JSON in and out: ujson for speed, RFC 8259 for what is let through.

ujson alone reads `NaN`, `Infinity`, `1e400` (as infinity) and lone surrogates, and writes Decimal as a rounded float.
Each of these turns into an error far from its cause (in a database driver, in the client's parser), so `decode`
refuses them and `encode` writes Decimal as a string with all its digits. Both cost a walk over the value
(scanning.py).
What stays as ujson has it: `01` and `1.` are read as numbers, a raw line break inside a string is kept, and of two
equal keys the last one wins; keys that are not strings are written as their text.
"""

from __future__ import annotations

import datetime
import enum
import math
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import ujson

from tafe.app.scanning import MAX_DEPTH, check, holds_decimal

# MySQL's DECIMAL has 65 digits at most; Decimal("1E9999999") written out would be ten megabytes.
_MAX_SHOWN_EXPONENT = 100

# ujson's options by position: by name each costs a dictionary entry and a look-up, together more than the text itself.
# (types-ujson still lists `double_precision`, which ujson dropped; a test spells each option out.)
_dumps: Callable[..., str] = ujson.dumps


def decode(raw: bytes) -> Any:
    """The value of a JSON text; `ValueError` with a reason that may be shown to the client."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as exc:
        raise ValueError(f"byte {exc.start} is not UTF-8") from None
    try:
        value = ujson.loads(text)
    except ujson.JSONDecodeError as exc:
        raise ValueError(_lower_first(str(exc))) from None
    except ValueError:  # CPython's bound on digits; its message talks about sys.set_int_max_str_digits
        raise ValueError("a number has too many digits") from None
    check(value)
    if "\\u" in text:
        try:
            ujson.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a string holds half of a surrogate pair") from None
    return value


def encode(value: Any) -> bytes:
    """`value` as JSON in ASCII; `TypeError` or `ValueError` naming the place, as in `rows[3].price`."""
    try:
        if holds_decimal(value):
            value = _without_decimals(value)
        return _dumps(value, *_DUMPS_OPTIONS).encode()
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        problem = _find_problem(value)
        if problem is None:
            raise
        raise type(problem)(f"the answer cannot be written as JSON: {problem}") from exc


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _without_decimals(value: Any) -> Any:
    if isinstance(value, Decimal):
        if not value.is_finite():
            return float(value)  # refused later, with its place
        # Without an exponent, as a column shows it, unless that would be a line of zeros.
        return format(value, "f") if abs(value.adjusted()) <= _MAX_SHOWN_EXPONENT else str(value)
    if isinstance(value, dict):
        return {key: _without_decimals(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_decimals(item) for item in value]
    return value


def _default(value: Any) -> Any:
    """What ujson does not know: the types that database rows hold."""
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, datetime.timedelta):  # a TIME column
        return value.total_seconds()
    if isinstance(value, enum.Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} is not a JSON type")


_DUMPS_OPTIONS = (
    True,  # ensure_ascii
    False,  # encode_html_chars
    False,  # escape_forward_slashes: URLs stay readable
    False,  # sort_keys
    0,  # indent
    False,  # allow_nan: not JSON
    True,  # reject_bytes
    _default,  # default
)


def _find_problem(value: Any) -> TypeError | ValueError | None:
    """Walk an answer that ujson refused, to name the place; None if every part of it is fine by itself."""
    path: list[str] = []
    inside: set[int] = set()

    def walk(value: Any) -> TypeError | ValueError | None:
        place = "".join(path).lstrip(".") or "the value itself"
        if isinstance(value, float):
            return None if math.isfinite(value) else ValueError(f"{place} is {value}")
        if not isinstance(value, Mapping | list | tuple):
            return _unknown(value, place)
        # A value that deep cannot be written either; found before the walk runs out of stack itself.
        if id(value) in inside or len(path) > MAX_DEPTH * 2:
            return ValueError(f"{place[:80]} holds itself, or is nested too deeply")
        inside.add(id(value))
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            path.append(f".{key}" if isinstance(value, Mapping) else f"[{key}]")
            if (problem := walk(item)) is not None:
                return problem
            path.pop()
        inside.discard(id(value))
        return None

    return walk(value)


def _unknown(value: Any, place: str) -> TypeError | None:
    if isinstance(value, str | int | Decimal | datetime.date | datetime.time | datetime.timedelta | uuid.UUID):
        return None
    if isinstance(value, enum.Enum) or value is None or hasattr(value, "__json__") or hasattr(value, "toDict"):
        return None
    hint = ""
    if isinstance(value, bytes | bytearray | memoryview):
        hint = "; decode it, or write it as base64"
    elif isinstance(value, set | frozenset):
        hint = "; a set has no order, so use sorted(...)"
    return TypeError(f"{place} is {type(value).__name__}, which is not a JSON type{hint}")

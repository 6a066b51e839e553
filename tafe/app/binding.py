"""From a handler's signature to its arguments, by name.

Decided once, at registration: a name of the template gets the path's value, `request` the request, `body` the JSON
body, any other name a query value converted by its annotation. A request then runs a list of ready functions and
inspects nothing. What cannot work is a `UsageError` when the application is loaded, naming the handler's place.
"""

from __future__ import annotations

import inspect
import math
import re
import types
import typing
from collections.abc import Callable
from typing import Any

from tafe.app.deadline import Deadline
from tafe.app.routing import CONVERTERS, Parameter
from tafe.errors import BadRequest, RequestTimeout, UsageError

if typing.TYPE_CHECKING:
    from tafe.app.request import Request

Getter = Callable[["Request"], Any]

_INT = re.compile(r"-?[0-9]{1,19}")
_FLOAT = re.compile(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_BOOLS = {"true": True, "1": True, "false": False, "0": False}
# A wrong value is quoted in the answer up to this: enough to recognise it, too little to matter.
_SHOWN = 40


def _to_int(text: str) -> int:
    number = int(text) if _INT.fullmatch(text) else None
    if number is None or not -(2**63) <= number < 2**63:
        raise ValueError("a whole number that fits 64 bits")
    return number


def _to_float(text: str) -> float:
    number = float(text) if _FLOAT.fullmatch(text) else math.nan
    if not math.isfinite(number):
        raise ValueError("a finite number")
    return number


def _to_bool(text: str) -> bool:
    if text not in _BOOLS:
        raise ValueError("true, false, 1 or 0")
    return _BOOLS[text]


_QUERY_TYPES: dict[type, Callable[[str], Any]] = {int: _to_int, float: _to_float, bool: _to_bool, str: str}
_QUERY_ALLOWED = "int, float, bool, str, list[int], list[float], list[str], or one of these with | None"
_BODY_ALLOWED = "dict, list, Any or no annotation"
_JSON_NAMES = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}


def where(fn: Callable[..., Any]) -> str:
    """`file:line` of a function, through decorators; the type's name if it was not written in Python."""
    inner = inspect.unwrap(fn)
    while hasattr(inner, "func"):  # functools.partial
        inner = inner.func
    code = getattr(inner, "__code__", None) or getattr(type(inner).__call__, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else type(fn).__name__


def name_of(fn: Callable[..., Any]) -> str:
    """A function's qualified name; that of its type for a callable object."""
    return str(getattr(fn, "__qualname__", type(fn).__qualname__))


def compile_call(
    fn: Callable[..., Any], segments: tuple[str | Parameter, ...], set_by: str, timeout_s: float | None
) -> Callable[[Request], Any]:
    """A function that takes the request, finds the handler's arguments and calls it, in `timeout_s` if given."""
    _refuse_async(fn, set_by)
    plan = _plan(fn, segments, set_by)
    if timeout_s is not None:
        message = f"the handler took longer than timeout_s={timeout_s:g}"

        def call_in_time(request: Request) -> Any:
            # Reading and checking the request stays outside: a slow client is the server's business.
            arguments = {name: get(request) for name, get in plan}
            request.deadline = Deadline(timeout_s, RequestTimeout, message)
            return request.deadline.run(fn, **arguments)

        return call_in_time
    if not plan:
        return lambda _request: fn()
    return lambda request: fn(**{name: get(request) for name, get in plan})


def check_hook(fn: Any, count: int, takes: str) -> None:
    """Raise `UsageError` unless `fn` can be called with `count` arguments."""
    set_by = f"{name_of(fn)} ({where(fn)})" if callable(fn) else repr(fn)
    _refuse_async(fn, set_by)
    try:
        inspect.signature(fn).bind(*range(count))
    except TypeError as exc:
        raise UsageError(f"{takes}, this one does not: {exc}", set_by=set_by) from exc


def _refuse_async(fn: Any, set_by: str) -> None:
    if not callable(fn):
        raise UsageError(f"{fn!r} is not a function", set_by=set_by)
    if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        raise UsageError(
            "the function is `async def`; nothing here runs asyncio",
            set_by=set_by,
            allowed="a plain function: in a greenlet, blocking calls yield by themselves",
            try_=f"def {name_of(fn)}(...) without async and await",
        )


def _plan(fn: Callable[..., Any], segments: tuple[str | Parameter, ...], set_by: str) -> list[tuple[str, Getter]]:
    in_path = {part.name: part for part in segments if isinstance(part, Parameter)}
    plan: list[tuple[str, Getter]] = []
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError, NameError) as exc:
        raise UsageError(f"the handler's parameters cannot be read: {exc}", set_by=set_by) from exc
    for parameter in parameters:
        name = parameter.name
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise UsageError(
                f"the parameter {parameter} cannot be passed by name",
                set_by=set_by,
                allowed="parameters with names of their own; `request` gives access to everything",
            )
        if name in in_path:
            plan.append((name, _from_path(fn, parameter, in_path.pop(name), set_by)))
        elif name == "request":
            plan.append((name, lambda request: request))
        elif name == "body":
            plan.append((name, _from_body(_annotation(fn, parameter, set_by), set_by)))
        else:
            plan.append((name, _from_query(parameter, _annotation(fn, parameter, set_by), set_by)))
    for name, part in in_path.items():
        if all(known != "request" for known, _ in plan):
            raise UsageError(
                f"the path has {{{name}}} but the handler has no parameter of that name",
                set_by=set_by,
                try_=f"def {name_of(fn)}({name}: {CONVERTERS[part.type].type.__name__}, ...)",
            )
    return plan


def _annotation(fn: Callable[..., Any], parameter: inspect.Parameter, set_by: str) -> Any:
    """The annotation as an object, also where it is written as a string."""
    raw = parameter.annotation
    if raw is inspect.Parameter.empty or not isinstance(raw, str):
        return raw
    holder = types.SimpleNamespace(__annotations__={"it": raw})
    try:
        return typing.get_type_hints(holder, getattr(inspect.unwrap(fn), "__globals__", {}))["it"]
    except Exception as exc:
        raise UsageError(
            f"the annotation {raw!r} of {parameter.name!r} cannot be evaluated: {exc}",
            set_by=set_by,
            allowed="names that exist in the module when it runs (not only under TYPE_CHECKING)",
        ) from exc


def _from_path(fn: Callable[..., Any], parameter: inspect.Parameter, part: Parameter, set_by: str) -> Getter:
    name = part.name
    gives = CONVERTERS[part.type].type
    wanted = _annotation(fn, parameter, set_by)
    if wanted not in (inspect.Parameter.empty, Any, gives):
        kinds = [kind for kind, converter in CONVERTERS.items() if converter.type is wanted]
        raise UsageError(
            f"the parameter {name!r} is annotated {_spell(wanted)}, but {{{name}:{part.type}}} gives {_spell(gives)}",
            set_by=set_by,
            allowed=", ".join(CONVERTERS) + " as types in the path",
            try_=f"{{{name}:{kinds[0]}}}" if kinds else f"{name}: {_spell(gives)}",
        )
    return lambda request: request.path_params[name]


def _from_body(wanted: Any, set_by: str) -> Getter:
    if wanted in (inspect.Parameter.empty, Any):
        return lambda request: request.json()
    kind = typing.get_origin(wanted) or wanted
    if kind not in (dict, list):
        raise UsageError(f"`body` is annotated {_spell(wanted)}", set_by=set_by, allowed=_BODY_ALLOWED)

    def get(request: Request) -> Any:
        value = request.json()
        if type(value) is not kind:
            found = _JSON_NAMES.get(type(value), "a number")
            raise BadRequest(f"the body must be {_JSON_NAMES[kind]}, not {found}", field="body")
        return value

    return get


def _from_query(parameter: inspect.Parameter, wanted: Any, set_by: str) -> Getter:
    name, default = parameter.name, parameter.default
    wanted = str if wanted is inspect.Parameter.empty else wanted
    if typing.get_origin(wanted) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(wanted) if member is not type(None)]
        if len(members) == 1:  # X | None
            wanted = members[0]
            default = None if default is inspect.Parameter.empty else default
    is_list = typing.get_origin(wanted) is list
    convert = _QUERY_TYPES.get(typing.get_args(wanted)[0] if is_list else wanted)
    if convert is None:
        raise UsageError(
            f"the query parameter {name!r} is annotated {_spell(wanted)}", set_by=set_by, allowed=_QUERY_ALLOWED
        )

    def get(request: Request) -> Any:
        values = request.query.get(name)
        if values is None:
            if default is inspect.Parameter.empty:
                raise BadRequest(f"the query parameter {name!r} is required", field=name)
            return default
        if is_list:
            return [_convert(convert, value, name) for value in values]
        if len(values) > 1:
            raise BadRequest(f"the query parameter {name!r} is given {len(values)} times; allowed: once", field=name)
        return _convert(convert, values[0], name)

    return get


def _convert(convert: Callable[[str], Any], value: str, name: str) -> Any:
    try:
        return convert(value)
    except ValueError as exc:
        shown = value if len(value) <= _SHOWN else value[:_SHOWN] + "..."
        raise BadRequest(f"the query parameter {name!r} is {shown!r}; allowed: {exc}", field=name) from None


def _spell(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) and not typing.get_args(annotation) else str(annotation)

"""From a method and a path to a route.

A static path is one dictionary look-up. Templates form a tree with one segment a level: at each level a literal goes
before a typed parameter, and the types are tried in the order of `CONVERTERS`, so what a URL leads to never depends
on the order of registration. A path that exists without the method goes on to the next match that has it; only when
none has is the answer 405, with every method of every match in Allow.
A parameter is a whole segment. Nothing is added or removed at a trailing slash: `/a` and `/a/` are two paths.
Knows no environ and no handler's parameters; what a route does is a callable to it.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tafe.errors import BadRequest, HTTPError, MethodNotAllowed, NotFound, UsageError

if TYPE_CHECKING:
    from tafe.app.request import Request

# Requests that no route serves share one label, so that strangers' URLs never become report lines or counters.
NO_ROUTE = "(no route)"

_METHOD = re.compile(r"[A-Z]+(-[A-Z]+)*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INT = re.compile(r"-?[0-9]{1,19}")
_FLOAT = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _to_int(text: str) -> int | None:
    number = int(text) if _INT.fullmatch(text) else None
    # A database's BIGINT: beyond it a look-up fails with an error instead of finding nothing.
    return number if number is not None and -(2**63) <= number < 2**63 else None


def _to_float(text: str) -> float | None:
    number = float(text) if _FLOAT.fullmatch(text) else None
    return number if number is not None and math.isfinite(number) else None


class Converter(NamedTuple):
    """A parameter type of a template: the Python type it gives, and the conversion (None: no match)."""

    type: type
    convert: Callable[[str], Any]


# From the most specific to the most general: the order in which a segment is tried.
CONVERTERS: dict[str, Converter] = {
    "int": Converter(int, _to_int),
    "float": Converter(float, _to_float),
    "uuid": Converter(uuid.UUID, lambda text: uuid.UUID(text) if _UUID.fullmatch(text) else None),
    "str": Converter(str, lambda text: text or None),
    "path": Converter(str, lambda text: text or None),  # takes the rest of the path, slashes included
}


class Parameter(NamedTuple):
    """A segment `{name:type}` of a template."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a template with what serves them. `label` is the name in reports: `GET /users/{id}`."""

    method: str
    template: str
    label: str
    handler: str
    where: str
    call: Callable[[Request], Any]


class RouteInfo(NamedTuple):
    """A registered handler, for listings: its methods, template, name and `file:line`."""

    methods: tuple[str, ...]
    template: str
    handler: str
    where: str


def parse(template: object, set_by: str) -> tuple[str | Parameter, ...]:
    """The segments of a template after the leading slash; `UsageError` if it is not one."""

    def bad(problem: str, allowed: str = "", try_: str = "") -> UsageError:
        return UsageError(f"the path {template!r} {problem}", set_by=set_by, allowed=allowed, try_=try_)

    if not isinstance(template, str) or not template.startswith("/"):
        raise bad("does not start with a slash", try_=f"'/{str(template).lstrip('/')}'")
    if any(mark in template for mark in "?#%\\ \t\r\n"):
        raise bad("holds a character that no path has", "a path without query, fragment, escapes and white space")
    segments: list[str | Parameter] = []
    texts = template[1:].split("/")
    for position, text in enumerate(texts):
        if "{" not in text and "}" not in text:
            segments.append(text)
            continue
        name, colon, kind = text[1:-1].partition(":")
        if not (text.startswith("{") and text.endswith("}")) or _NAME.fullmatch(name) is None:
            raise bad(f"has the segment {text!r}", "a literal, {name} or {name:type} as a whole segment")
        kind = kind if colon else "str"
        if name in ("request", "body"):
            raise bad(f"names a parameter {name!r}, which a handler gets from elsewhere")
        if kind not in CONVERTERS:
            raise bad(f"has the unknown type {kind!r} for {name!r}", ", ".join(CONVERTERS))
        if any(isinstance(known, Parameter) and known.name == name for known in segments):
            raise bad(f"names {name!r} twice")
        if kind == "path" and position != len(texts) - 1:
            raise bad(f"has something after {text!r}", "a path parameter as the last segment")
        segments.append(Parameter(name, kind))
    return tuple(segments)


def label_of(method: str, segments: tuple[str | Parameter, ...]) -> str:
    """`GET /users/{id}`: the template without its types."""
    return f"{method} /" + "/".join(f"{{{part.name}}}" if isinstance(part, Parameter) else part for part in segments)


@dataclass(slots=True)
class _Node:
    """One level of the tree. `routes` maps a method to its route and the names of its parameters in order."""

    literals: dict[str, _Node] = field(default_factory=dict)
    typed: dict[str, _Node] = field(default_factory=dict)
    routes: dict[str, tuple[Route, tuple[str, ...]]] = field(default_factory=dict)


class Table:
    """All routes of an application. `static[path][method]` is the look-up for paths without parameters."""

    def __init__(self) -> None:
        # Keys are paths as WSGI gives them (bytes as Latin-1), so that a look-up needs no decoding.
        self.static: dict[str, dict[str, Route]] = {}
        self._root = _Node()
        self._listed: list[tuple[tuple[str, ...], Route]] = []

    def add(self, methods: tuple[str, ...], segments: tuple[str | Parameter, ...], routes: list[Route]) -> None:
        """Add one route a method; `UsageError` if a method of that path is taken."""
        names = tuple(part.name for part in segments if isinstance(part, Parameter))
        node = self._root
        for part in segments:
            branch, key = (node.typed, part.type) if isinstance(part, Parameter) else (node.literals, part)
            node = branch.setdefault(key, _Node())
        for route in routes:
            taken = node.routes.get(route.method)
            # The HEAD that a GET brings along gives way to one that is registered.
            if taken is not None and taken[0].method == route.method:
                raise UsageError(
                    f"{route.method} {route.template} is served already, by {taken[0].handler} "
                    f"({taken[0].where}, {taken[0].template})",
                    set_by=f"{route.handler} ({route.where})",
                    allowed="one handler for each method and path",
                )
        for route in routes:
            node.routes[route.method] = (route, names)
            if route.method == "GET":
                node.routes.setdefault("HEAD", (route, names))
        if not names:
            path = "/" + "/".join(str(part) for part in segments)
            self.static[path.encode().decode("latin-1")] = {m: route for m, (route, _) in node.routes.items()}
        self._listed.append((methods, routes[0]))

    def listing(self) -> list[RouteInfo]:
        """Every registered handler, in order of registration."""
        return [RouteInfo(methods, r.template, r.handler, r.where) for methods, r in self._listed]

    def find(self, method: str, raw_path: str) -> tuple[Route, dict[str, Any]]:
        """The route for a path as WSGI gives it, with its parameters; a route that refuses if there is none."""
        if method == "OPTIONS" and raw_path == "*":  # RFC 9110, 9.3.7: the server as a whole
            return _options({known for methods, _ in self._listed for known in methods}), {}
        if raw_path and not raw_path.startswith("/"):
            return NOT_FOUND, {}
        try:
            path = raw_path if raw_path.isascii() else raw_path.encode("latin-1").decode()
        except UnicodeDecodeError:
            return _refusal(BadRequest("the path is not UTF-8 after percent-decoding")), {}
        allowed: set[str] = set()
        values: list[Any] = []
        # PEP 3333: the path is empty when the URL ends at the application's root.
        found = _search(self._root, path.removeprefix("/").split("/"), 0, method, values, allowed)
        if found is not None:
            return found[0], dict(zip(found[1], values, strict=True))
        if not allowed:
            return NOT_FOUND, {}
        if method == "OPTIONS":
            return _options(allowed), {}
        return _refusal(MethodNotAllowed([*allowed, "OPTIONS"])), {}


def check_methods(methods: Any, set_by: str) -> tuple[str, ...]:
    """The methods as a tuple; `UsageError` unless each is a method as it is written in a request."""
    allowed = "a list of methods in upper case, as in ['GET', 'POST']"
    methods = tuple(methods) if isinstance(methods, Iterable) and not isinstance(methods, str) else methods
    if not isinstance(methods, tuple) or not methods:
        raise UsageError(f"methods={methods!r} is not a list of methods", set_by=set_by, allowed=allowed)
    for method in methods:
        if not isinstance(method, str) or _METHOD.fullmatch(method) is None:
            raise UsageError(f"{method!r} is not a method", set_by=set_by, allowed=allowed)
    return tuple(dict.fromkeys(methods))


def _search(
    node: _Node, segments: list[str], at: int, method: str, values: list[Any], allowed: set[str]
) -> tuple[Route, tuple[str, ...]] | None:
    """The most specific route for `method` that the segments from `at` on lead to, with its parameters' names.

    `values` gets what the parameters are; `allowed`, where the answer is None, every method there is.
    Depth is bounded by the templates', and each node of the tree is visited at most once a request. A generator of
    the nodes would read better, and cost a request 10,000 instructions more.
    """
    if at == len(segments):
        found = node.routes.get(method)
        if found is None:
            allowed.update(node.routes)
        return found
    text = segments[at]
    literal = node.literals.get(text)
    if literal is not None:
        found = _search(literal, segments, at + 1, method, values, allowed)
        if found is not None:
            return found
    if not node.typed:
        return None
    for kind, (_, convert) in CONVERTERS.items():
        child = node.typed.get(kind)
        if child is None:
            continue
        end = len(segments) if kind == "path" else at + 1
        value = convert("/".join(segments[at:]) if kind == "path" else text)
        if value is not None:
            values.append(value)
            found = _search(child, segments, end, method, values, allowed)
            if found is not None:
                return found
            values.pop()
    return None


def _refusal(error: HTTPError) -> Route:
    def refuse(_request: Request) -> Any:
        raise error

    return Route("", "", NO_ROUTE, "", "", refuse)


def _options(allowed: set[str]) -> Route:
    from tafe.app.response import Response

    allow = ", ".join(sorted({*allowed, "OPTIONS"} | ({"HEAD"} if "GET" in allowed else set())))
    return Route("OPTIONS", "", NO_ROUTE, "", "", lambda _request: Response(None, 204, {"Allow": allow}))


def _not_found(_request: Request) -> Any:
    raise NotFound


NOT_FOUND = Route("", "", NO_ROUTE, "", "", _not_found)

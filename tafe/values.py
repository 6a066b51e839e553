"""Setting values as people write them: "10ms", "64KiB", "127.0.0.1:8000", "yes".

A `Kind` turns the text of a flag or a variable, or the value of a TOML key, into a Python value, and back into TOML.
Pure: knows no setting's name and no bounds; a value that cannot be read raises ValueError saying what it is not.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_DURATION_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-z]*)\s*")
# Of an objective as typed. A route may hold commas, so they only part what follows a time.
_OBJECTIVE = re.compile(r"([^=]+)=([^=,]*)(?:,|$)")
_ROUTE = re.compile(r"\*|[A-Z]+ /.*")
_TYPE = re.compile(r"(?<={)(\w+):\w+(?=})")  # of a parameter in a template
# A millisecond is the shortest that a hub's slices are told apart by; longer than an hour is no objective.
_LEAST_OBJECTIVE_S, _MOST_OBJECTIVE_S = 0.001, 3600.0
_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Kind:
    """How the values of one type of setting are read and shown."""

    metavar: str  # what stands for the value in --help
    read: Callable[[Any], Any]  # ValueError: what the value is not
    show: Callable[[Any], str]  # as TOML
    plain: Callable[[Any], str]  # as one would type it after a flag
    allowed: str = ""  # in words, if bounds do not say it
    several: bool = False  # the flag may be repeated
    example: Any = None  # a value to show to somebody, where the default is none


def read_text(raw: Any) -> str:
    """Any text but the empty one."""
    if not isinstance(raw, str):
        raise ValueError("is not text")  # noqa: TRY004  every complaint about a value is a ValueError
    if not raw.strip():
        raise ValueError("is empty")
    return raw.strip()


def read_any_text(raw: Any) -> str:
    """Any text, the empty one among it."""
    return "" if raw == "" else read_text(raw)


def read_prefix(raw: Any) -> str:
    """The beginning of a URL's path, as in /-/ ; or nothing."""
    text = read_any_text(raw)
    if text and not (text.startswith("/") and text.endswith("/") and text.isascii()):
        raise ValueError("does not begin and end with a slash")
    return text


def read_output(raw: Any) -> str:
    """A path, `-` for standard output, fd:N; or nothing."""
    text = read_any_text(raw)
    if text.startswith("fd:") and not text.removeprefix("fd:").isdecimal():
        raise ValueError("names no descriptor's number after fd:")
    return text


def read_number(raw: Any) -> int:
    """A whole number."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and re.fullmatch(r"\s*[+-]?[0-9]+\s*", raw):
        return int(raw)
    raise ValueError("is not a whole number")


def read_duration(raw: Any) -> float:
    """Seconds, from "10ms", "1.5s", "2m", or a bare number of seconds."""
    return _scaled(raw, _DURATION_UNITS_S, "s", "is not a duration such as 10ms, 1.5s or 2m")


def read_size(raw: Any) -> int:
    """Bytes, from "64KiB", "1.5MiB", or a bare number of bytes."""
    return round(_scaled(raw, _SIZE_UNITS, "B", "is not a size such as 512B, 64KiB or 1GiB"))


def read_switch(raw: Any) -> bool:
    """True or False."""
    if isinstance(raw, bool):
        return raw
    value = _SWITCH.get(str(raw).strip().lower())
    if value is None:
        raise ValueError("is neither true nor false")
    return value


def read_addresses(raw: Any) -> tuple[str, ...]:
    """One address or several; in one text they are separated by commas."""
    addresses = _texts(raw)
    if not addresses:
        raise ValueError("is not an address")
    seen = set()
    for address in addresses:
        if parse_address(address) in seen:
            raise ValueError(f"names {address} twice")
        seen.add(parse_address(address))
    return addresses


def read_address(raw: Any) -> str:
    """One address, or nothing."""
    text = read_any_text(raw)
    if text:
        parse_address(text)
    return text


def read_peers(raw: Any) -> tuple[str, ...]:
    """IP addresses, or "unix"; none is allowed."""
    peers = () if raw == "" else _texts(raw)
    for peer in peers:
        try:
            ipaddress.ip_address(peer if peer != "unix" else "::")
        except ValueError:
            raise ValueError(f"holds {peer!r}, which is not an IP address") from None
    return peers


def read_objectives(raw: Any) -> tuple[tuple[str, float], ...]:
    """Routes with the longest that a request of each should take, in seconds; `*` is any other route. None is allowed.

    From a table of the file, or from texts as `GET /users/{id}=50ms`, several separated by commas.
    """
    found: dict[str, float] = {}
    for route, time in _objectives(raw):
        if not _ROUTE.fullmatch(route):
            raise ValueError(f"holds {route!r}, which is no route: METHOD /PATH as tafe report shows it, or *")
        called = _TYPE.sub(r"\1", route)
        if called != route:
            raise ValueError(f"holds {route!r}, which reports call {called!r}")
        if route in found:
            raise ValueError(f"names {route!r} twice")
        try:
            seconds = read_duration(time)
        except ValueError as error:
            raise ValueError(f"gives {route!r} {time!r}, which {error}") from None
        if not _LEAST_OBJECTIVE_S <= seconds <= _MOST_OBJECTIVE_S:
            raise ValueError(f"gives {route!r} {time!r}, which is not within 1ms to 1h")
        found[route] = seconds
    return tuple(found.items())


def _objectives(raw: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(raw, Mapping):
        yield from raw.items()
        return
    if not isinstance(raw, str | list | tuple):
        raise ValueError("is neither a table nor text")  # noqa: TRY004  as all complaints about a value
    for text in [raw] if isinstance(raw, str) else raw:
        rest = read_any_text(text)
        while rest:
            match = _OBJECTIVE.match(rest)
            if match is None:
                raise ValueError(f"holds {rest!r}, which is not ROUTE=TIME")
            yield match[1].strip(), match[2]
            rest = rest[match.end() :]


def _texts(raw: Any) -> tuple[str, ...]:
    if not isinstance(raw, str | list | tuple):
        raise ValueError("is neither text nor a list of texts")  # noqa: TRY004  as all complaints about a value
    texts = [part for text in ([raw] if isinstance(raw, str) else raw) for part in read_text(text).split(",")]
    return tuple(read_text(text) for text in texts)


@dataclass(frozen=True)
class Address:
    """Where to listen: a host and port, a path, or the number of an open descriptor."""

    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        if self.fd >= 0:
            return f"fd:{self.fd}"
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """HOST:PORT, [IPV6]:PORT, :PORT (all interfaces), unix:PATH or fd:N. ValueError says what is wrong."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = path[2:] if path.startswith("//") else path
        if not path:
            raise ValueError("names no path after unix:")
        return Address(path=path)
    if text.startswith("fd:"):
        number = text.removeprefix("fd:").removeprefix("//")
        if not number.isdecimal():
            raise ValueError("names no descriptor's number after fd:")
        return Address(fd=int(number))
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError("has no port from 0 to 65535 after a colon")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("is an IPv6 address without brackets")
    return Address(host=host or "0.0.0.0", port=int(port))  # noqa: S104  an empty host is typed to mean all


def show_duration(seconds: float) -> str:
    """The shortest way to write it: 0.01 -> 10ms, 75 -> 75s, 7200 -> 2h."""
    if seconds == 0:
        return "0s"
    for unit in ("h", "m"):
        if seconds % _DURATION_UNITS_S[unit] == 0:
            return f"{seconds / _DURATION_UNITS_S[unit]:.10g}{unit}"
    for unit in ("s", "ms", "us"):
        amount = seconds / _DURATION_UNITS_S[unit]
        if amount >= 1 and math.isclose(amount, round(amount, 1), rel_tol=1e-9):
            return f"{amount:.10g}{unit}"
    return f"{seconds:.10g}s"


def show_size(count: int) -> str:
    """The shortest exact way to write it: 65536 -> 64KiB."""
    for unit, scale in reversed(_SIZE_UNITS.items()):
        if count and count % scale == 0:
            return f"{count // scale}{unit}"
    return f"{count}B"


def _scaled(raw: Any, units: dict[str, float] | dict[str, int], bare: str, complaint: str) -> float:
    if isinstance(raw, int | float) and not isinstance(raw, bool) and math.isfinite(raw):
        return float(raw)
    match = _NUMBER_AND_UNIT.fullmatch(raw) if isinstance(raw, str) else None
    scale = units.get(match[2] or bare) if match else None
    if match is None or scale is None:
        raise ValueError(complaint)
    return float(match[1]) * scale


def _quote(text: str) -> str:
    # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _show_switch(value: bool) -> str:
    return "true" if value else "false"


def _show_list(texts: tuple[str, ...]) -> str:
    return "[" + ", ".join(_quote(text) for text in texts) + "]"


def _show_objectives(objectives: tuple[tuple[str, float], ...]) -> str:
    return "{" + ", ".join(f"{_quote(route)} = {_quote(show_duration(s))}" for route, s in objectives) + "}"


def _plain_objectives(objectives: tuple[tuple[str, float], ...]) -> str:
    return shlex.quote(",".join(f"{route}={show_duration(s)}" for route, s in objectives))


TEXT = Kind("TEXT", read_text, _quote, str)
PATH = Kind("PATH", read_any_text, _quote, str)
PREFIX = Kind("PREFIX", read_prefix, _quote, str, "/PATH/, or empty to switch it off")
OUTPUT = Kind("PATH", read_output, _quote, str, "a path, - for standard output, fd:N, or empty to switch it off")
NUMBER = Kind("N", read_number, str, str)
DURATION = Kind("TIME", read_duration, lambda value: _quote(show_duration(value)), show_duration)
SIZE = Kind("SIZE", read_size, lambda value: _quote(show_size(value)), show_size)
SWITCH = Kind("", read_switch, _show_switch, _show_switch, "true or false")
ADDRESSES = Kind(
    "ADDRESS", read_addresses, _show_list, ",".join, "HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N", several=True
)
ADDRESS = Kind(
    "ADDRESS", read_address, _quote, str, "HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N, or empty to switch it off"
)
OBJECTIVES = Kind(
    "ROUTE=TIME",
    read_objectives,
    _show_objectives,
    _plain_objectives,
    "METHOD /PATH=TIME as tafe report shows the route, *=TIME for any other, 1ms to 1h",
    several=True,
    example=(("GET /users/{id}", 0.05), ("*", 0.25)),
)
PEERS = Kind("PEER", read_peers, _show_list, ",".join, "IP addresses, or unix for unix sockets", several=True)


def one_of(words: tuple[str, ...]) -> Kind:
    """The kind of a setting that is one of `words`."""

    def read(raw: Any) -> str:
        if raw not in words:
            raise ValueError(f"is none of {', '.join(words)}")
        return str(raw)

    return Kind("WORD", read, _quote, str, ", ".join(words))

"""The allow list: stalls that are known and accepted for a time, in one file for tests and production.

    [[allow]]
    file = "app/legacy/export.py"     # the end of the path, or all of it
    function = "write_sheet"
    cause = "python"                  # optional: any cause
    up_to_ms = 80                     # optional: however long
    reason = "the sheet library has no streaming writer; replaced in the spring"
    expires = 2026-03-31              # the last day on which it allows

Functions, since lines move. Every entry has a reason and ends: an expired one allows nothing, and says so where it
would have. Pure but for `load`.
"""

from __future__ import annotations

import json
import math
import os
import posixpath
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import Any

from profiler.errors import ProfilerError

TERM_DAYS = 90  # of an entry that is suggested: a quarter is time enough to repair a line
_EXAMPLE = 'an entry has file = "app/x.py", function = "f", reason = "...", expires = 2026-12-31'


@dataclass(frozen=True)
class Entry:
    """One `[[allow]]`."""

    file: str
    function: str
    reason: str
    expires: date
    cause: str | None = None
    up_to_ms: float | None = None

    def covers(self, site: dict[str, Any]) -> bool:
        """Whether it is about this site of a report (`profiler.report/1`), expired or not."""
        path, end = site["file"].split(os.sep), self.file.split("/")
        return (
            path[-len(end) :] == end
            and self.function == site["function"]
            and self.cause in (None, site["cause"])
            and (self.up_to_ms is None or site["busy_ms"]["max"] <= self.up_to_ms)
        )

    def expired(self, today: date) -> bool:
        """Whether its last day is over."""
        return today > self.expires


@dataclass(frozen=True)
class AllowList:
    """The entries of a file."""

    entries: Sequence[Entry] = ()

    def covering(self, site: dict[str, Any]) -> Entry | None:
        """Of the entries about this site the one that ends last; None if there is none."""
        about = [entry for entry in self.entries if entry.covers(site)]
        return max(about, key=lambda entry: entry.expires, default=None)

    def mark(self, sites: Sequence[dict[str, Any]], today: date) -> None:
        """Give each site of a report its `allowed`: None, or until when, whether that is over, and why."""
        for site in sites:
            entry = self.covering(site)
            site["allowed"] = entry and {
                "until": entry.expires.isoformat(),
                "expired": entry.expired(today),
                "reason": entry.reason,
            }


def suggestion(site: dict[str, Any], today: str) -> str:
    """An entry that would accept a site of a report, but for the reason, which is for people to give. TOML.

    `today`: an ISO 8601 moment, from which on it would hold for `TERM_DAYS`.
    """
    end = datetime.fromisoformat(today).date() + timedelta(days=TERM_DAYS)
    values = {"file": _file_of(site["file"]), "function": site["function"], "cause": site["cause"]}
    return "\n".join(
        [
            "[[allow]]",
            *(f"{name} = {_quoted(value)}" for name, value in values.items()),
            f"up_to_ms = {math.ceil(site['busy_ms']['max'])}",
            'reason = ""  # needed',
            f"expires = {end.isoformat()}",
        ]
    )


def _file_of(path: str) -> str:
    """The end of a path that says which file it is: elsewhere the project is in another folder."""
    return "/".join(path.split(os.sep)[-2:])


def _quoted(text: str) -> str:
    """A basic string of TOML, which escapes as JSON does (but for what neither prints)."""
    return json.dumps("".join(c if c.isprintable() else "?" for c in text), ensure_ascii=False)


def load(path: str | os.PathLike[str]) -> AllowList:
    """Read a file; raises ProfilerError for one that cannot be read, or holds anything else than complete entries."""
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise ProfilerError(
            f"cannot read the allow list {os.fspath(path)!r}: {error.strerror}", "name a file that exists"
        ) from error
    except RecursionError as error:  # of tomllib, at a thousand or so brackets
        raise ProfilerError(f"the allow list {os.fspath(path)!r} is nested too deeply", _EXAMPLE) from error
    except ValueError as error:  # not TOML, not UTF-8
        raise ProfilerError(f"the allow list {os.fspath(path)!r} is no TOML: {error}", _EXAMPLE) from error
    listed = found.pop("allow", [])
    odd = "an allow that is no [[allow]]" if not isinstance(listed, list) else ", ".join(map(repr, found))
    if odd:
        raise ProfilerError(f"{os.fspath(path)!r} may hold [[allow]] entries alone, not {odd}", _EXAMPLE)
    return AllowList([_entry(one, f"{os.fspath(path)!r}, [[allow]] {n}") for n, one in enumerate(listed, 1)])


def _entry(given: Any, where: str) -> Entry:
    if not isinstance(given, dict):
        raise ProfilerError(f"{where} is no table", _EXAMPLE)
    names = [field.name for field in fields(Entry)]
    unknown = sorted(given.keys() - names)
    missing = [name for name in names[:4] if name not in given]
    if unknown or missing:
        odd = f"does not know {unknown[0]!r}" if unknown else f"lacks {missing[0]!r}"
        raise ProfilerError(f"{where} {odd}", _EXAMPLE)
    for name, value in given.items():
        if not _fits(name, value):
            raise ProfilerError(f"{where}: {name} = {value!r} does not fit", _EXAMPLE)
    return Entry(**{**given, "file": posixpath.normpath(given["file"])})  # ./app/x.py is app/x.py


def _fits(name: str, value: object) -> bool:
    match name:
        case "expires":  # a datetime is a date, too, but has a time zone to argue about
            return isinstance(value, date) and not isinstance(value, datetime)
        case "up_to_ms":
            return type(value) in (int, float) and value > 0  # type: ignore[operator]
        case _:
            return isinstance(value, str) and value.strip() != ""

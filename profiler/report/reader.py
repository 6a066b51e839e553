"""Reads the workers' files and adds them up, whoever wrote them and in whatever order.

Every line is complete in itself (writer.py), so a line that cannot be read costs only itself, and is counted. A file of
another schema is skipped and named. Lines of an unknown type are passed over: a newer writer. A file that goes away
between being listed and being read was pruned by a worker.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any, NoReturn

from profiler.errors import ProfilerError
from profiler.model import SCHEMA
from profiler.report.profile import MAX_WORKERS, Profile, Worker, add, add_header, add_site, moment, text

MAX_LINE_BYTES = 1 << 20  # a slow slice with the deepest stack and the longest paths takes half of it

PROFILE = "profile"  # below the directory of a server, where its workers' files are unless it was told otherwise
MAX_AHEAD_S = 86_400.0  # of a line to its file, or to now: another machine's clock may be off by an hour or a time zone

_ODD = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError)
_Sessions = dict[tuple[str, int, float], Worker]  # by host, pid and start


class _OtherSchema(Exception):
    """The file's first line names another schema."""


def read(directories: list[str], since_s: float = 0.0) -> Profile:
    """Read every worker's file in these directories; of them, what was written from `since_s` (Unix time) on.

    Raises ProfilerError when a directory does not exist, or none of them holds a profile that can be read.
    """
    profile = Profile(since_s=since_s)
    sessions: _Sessions = {}
    for path in _paths(directories, profile):
        profile.workers += _read_file(path, profile, sessions)
        if len(profile.workers) > 2 * MAX_WORKERS:
            _merge_workers(profile, sessions)
    for worker in profile.workers:
        _finish(worker, profile)
    seen = bool(profile.workers)
    profile.workers = [worker for worker in profile.workers if worker.end_s]
    profile.routes.shrink()
    profile.sites.shrink()
    profile.sites.entries = {key: site for key, site in profile.sites.entries.items() if site.count}
    if not profile.workers and not profile.merged_workers:
        _refuse(", ".join(repr(directory) for directory in directories), profile, seen=seen)
    return profile


def _finish(worker: Worker, profile: Profile) -> None:
    """Nothing more is to come of it."""
    if worker.still_open is not None:  # the worker did not live to see its end
        _add_open(worker.still_open, worker, profile)
    # The hub's figures are written less often than the sites: a killed worker has fewer of them.
    worker.slices_over = max(worker.slices_over, worker.sited)
    worker.start_s = max(worker.start_s, profile.since_s)


def _merge_workers(profile: Profile, sessions: _Sessions) -> None:
    """Keep rows for the sessions that were there last, and for the one that was read last, which may go on."""
    *earlier, last = profile.workers
    earlier.sort(key=lambda worker: worker.end_s, reverse=True)
    profile.workers = [*earlier[: MAX_WORKERS - 1], last]
    for worker in earlier[MAX_WORKERS - 1 :]:
        _finish(worker, profile)
        if worker.end_s:
            profile.merged_workers += 1
            profile.other_workers.merge(worker)
    kept = {id(worker) for worker in profile.workers}
    for session in [session for session, worker in sessions.items() if id(worker) not in kept]:
        del sessions[session]


def _paths(directories: list[str], profile: Profile) -> list[str]:
    """The files, each once, though a directory may be named twice."""
    paths: dict[str, str] = {}
    for directory in directories:
        found = _in_directory(directory)
        below = os.path.join(directory, PROFILE)
        if not found and os.path.isdir(below):
            found = _in_directory(below)
        if not found:
            profile.empty.append(directory)
        for path in found:
            paths.setdefault(os.path.realpath(path), path)
    return sorted(paths.values())


def _in_directory(directory: str) -> list[str]:
    named = "name the one the server was told to profile into"
    try:
        with os.scandir(directory) as entries:  # only files: to open a pipe would be to wait for whoever writes
            return [entry.path for entry in entries if fnmatch(entry.name, "worker-*.jsonl") and _is_file(entry)]
    except FileNotFoundError:
        raise ProfilerError(f"there is no directory {directory!r}", named) from None
    except NotADirectoryError:
        raise ProfilerError(f"{directory!r} is no directory", f"name {os.path.dirname(directory) or '.'!r}") from None
    except OSError as error:
        raise _unreadable(directory, error) from error


def _is_file(entry: os.DirEntry[str]) -> bool:
    """False for a link in a circle, too, which is no worker's."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _unreadable(path: str, error: OSError) -> ProfilerError:
    return ProfilerError(f"cannot read {path!r}: {error.strerror}", "run the report as the user of the server")


def _refuse(named: str, profile: Profile, *, seen: bool) -> NoReturn:
    if profile.skipped:
        path, schema = next(iter(profile.skipped.items()))
        raise ProfilerError(f"{path!r} is of schema {schema!r}, not {SCHEMA!r}", "use the profiler that wrote it")
    if seen:
        raise ProfilerError(f"nothing in {named} is that new", "go back further with --since, or leave it out")
    if profile.unreadable:
        raise ProfilerError(
            f"nothing in {named} can be read: its worker-*.jsonl files hold no line of a profile",
            "name the directory the server was told to profile into",
        )
    raise ProfilerError(f"there is no profile in {named}", "serve some requests with the profiler on, then ask again")


def _read_file(path: str, profile: Profile, sessions: _Sessions) -> list[Worker]:
    """Add a file; returns the worker it tells of, unless that is known already or there is none."""
    worker = Worker()
    found: list[Worker] = []
    unreadable = 0
    try:
        latest_s = max(os.stat(path).st_mtime, time.time()) + MAX_AHEAD_S  # a copy may have any time
        for raw in _lines(path):
            try:
                line = json.loads(raw, parse_constant=_no_number)
                at_s = moment(line["t"])
                if not 0 < at_s <= latest_s:
                    raise ValueError("no worker wrote a line then")
                if line["type"] == "worker":
                    worker, new = _session(line, sessions)
                    found += new
                else:
                    _add(line, at_s, worker, profile)
                    found = found or ([] if worker.host else [worker])
                    worker.start_s = worker.start_s or at_s
                if at_s >= profile.since_s:
                    worker.end_s = max(worker.end_s, at_s)
            except _ODD:
                unreadable += 1
    except _OtherSchema as other:
        profile.skipped[path] = str(other)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _unreadable(path, error) from error
    profile.unreadable += unreadable
    worker.dropped += unreadable
    return found


def _lines(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while raw := file.readline(MAX_LINE_BYTES):
            yield raw
            while len(raw) == MAX_LINE_BYTES and not raw.endswith(b"\n"):  # the rest of a line that is none of ours
                raw = file.readline(MAX_LINE_BYTES)


def _session(line: dict[str, Any], sessions: _Sessions) -> tuple[Worker, list[Worker]]:
    """The worker of a header, and again if it is new."""
    schema = text(line["schema"])
    if schema != SCHEMA:
        raise _OtherSchema(schema)
    worker = add_header(line)
    known = sessions.setdefault((worker.host, worker.pid, worker.start_s), worker)
    return known, [worker] if known is worker else []


def _add(line: dict[str, Any], at_s: float, worker: Worker, profile: Profile) -> None:
    if at_s < profile.since_s:
        if line["type"] == "site":
            add_site(line, worker, profile, only_texts=True)
    elif line["type"] == "open":
        worker.still_open = line
    else:
        worker.still_open = None  # the hub went on
        add(line, worker, profile)


def _add_open(line: dict[str, Any], worker: Worker, profile: Profile) -> None:
    try:
        site = add_site(line, worker, profile)
        site.stuck_s += line["busy_s"]
        worker.slices_over += 1
    except _ODD:
        profile.unreadable += 1
        worker.dropped += 1


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")

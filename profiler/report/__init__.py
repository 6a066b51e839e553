"""The report: read the workers' files (reader.py), build one object (build.py), show it (profiler/render/).

`run` is for a caller that has parsed its own command line, `main` is `python -m profiler report`.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import time
from datetime import UTC, datetime
from importlib import import_module
from typing import NoReturn

from profiler.allow import load
from profiler.errors import ProfilerError
from profiler.render.words import many
from profiler.report.build import SCHEMA, build
from profiler.report.profile import Profile
from profiler.report.reader import read
from profiler.report.since import moment_of

__all__ = ["FORMATS", "SCHEMA", "main", "run"]

FORMATS = ("text", "json", "html", "speedscope", "collapsed", "perfetto")
"""Each is a module in profiler/render, loaded when asked for: a server imports this package, and shows no report."""


def run(
    directories: list[str],
    format: str = "text",  # noqa: A002 - the option's name
    output: str | None = None,
    since: str | None = None,
    allow: str | None = None,
    *,
    everything: bool = False,
) -> int:
    """Print the report of these directories, or write it to the file `output` ("-": print); returns the exit status, 0.

    `since`: leave out what was written before, a duration (`15m`, `2h`, `7d`) or an ISO 8601 moment; figures are
    of up to ten seconds before they were written. `allow`: mark what this allow list (profiler/allow.py) accepts.
    `everything`: as text not only what fits one screen, as the other formats are in any case. Text on a terminal is as
    wide as that is, up to 100 columns.
    Raises ProfilerError for a directory that is missing or holds no profile (since then), an unknown format or
    `since`, an allow list that is none, a file that cannot be written, a standard output that is closed.
    """
    if format not in FORMATS:
        raise ProfilerError(f"{format!r} is not a format", f"use {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    output = None if output == "-" else output
    if output is None and sys.stdout is None:
        raise ProfilerError("standard output is closed", "redirect it, or write to a file with -o")
    allowed = None if allow is None else load(allow)
    profile = read(directories, 0.0 if since is None else moment_of(since, time.time()))
    for problem in _problems(profile, shown=format in ("text", "html")):
        print(f"profiler: {problem}", file=sys.stderr)  # noqa: T201 - a command
    report = build(profile)
    if allowed is not None:
        allowed.mark(report["sites"], datetime.now(UTC).astimezone().date())
    renderer = import_module(f"profiler.render.{format}")
    given = {"everything": everything, **_width(output)} if format == "text" else {}
    shown: str = renderer.render(report, **given)
    if output is None:
        _print(shown, "replace" if format == "text" else None)
        return 0
    try:
        with open(output, "w", encoding="utf-8") as file:
            file.write(shown)
    except OSError as error:
        raise ProfilerError(f"cannot write {output!r}: {error.strerror}", "name another file with -o") from error
    return 0


def _problems(profile: Profile, *, shown: bool) -> list[str]:
    """What of the directories could not be read; `shown`: the report tells of lines itself."""
    told = [f"there is no profile in {directory!r}" for directory in profile.empty]
    if profile.skipped:
        path, schema = next(iter(profile.skipped.items()))
        told.append(f"skipped {many(len(profile.skipped), 'file')} of another schema: {path!r} is of {schema!r}")
    if profile.unreadable and not shown:
        told.append(f"{many(profile.unreadable, 'line')} could not be read (a worker that was killed leaves one)")
    return told


def _width(output: str | None) -> dict[str, int]:
    """Of the terminal, if it is shown on one."""
    return {"width": shutil.get_terminal_size().columns} if output is None and sys.stdout.isatty() else {}


def _print(shown: str, errors: str | None) -> None:
    """`errors`: what to do about characters that a terminal has not; None: programs read it, and expect UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding=None if errors else "utf-8", errors=errors)
    try:
        sys.stdout.write(shown)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads it has seen enough, as `| head -1` has
        with open(os.devnull, "w") as nowhere:  # where the interpreter's own flush, at its end, is not noticed
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    except OSError as error:
        raise ProfilerError(f"cannot write the report: {error.strerror}", "write it to a file with -o") from error


def main(argv: list[str]) -> int:
    """`report DIR... [--since DURATION|MOMENT] [--allow FILE] [--format FORMAT] [--all] [-o FILE]`.

    Returns the exit status, 2 for what cannot be done.
    """
    parser = _Parser(prog="python -m profiler", description="Show what does not yield.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="report")
    report = commands.add_parser("report", help="show the profiles in these directories together")
    report.add_argument("directories", nargs="+", metavar="DIR")
    report.add_argument("--since", metavar="DURATION|MOMENT", help="leave out what is older: 15m, 2h, 7d, or ISO 8601")
    report.add_argument("--allow", metavar="FILE", help="mark what this allow list accepts, as tests do with it")
    report.add_argument("--format", default="text", metavar="|".join(FORMATS))
    report.add_argument("--all", action="store_true", help="as text: everything, not only what fits one screen")
    report.add_argument("-o", "--output", metavar="FILE", help="write to FILE instead of standard output")
    try:
        given = parser.parse_args(argv)
        return run(given.directories, given.format, given.output, given.since, given.allow, everything=given.all)
    except ProfilerError as error:
        print(f"profiler: {error}", file=sys.stderr)  # noqa: T201 - a command
        return error.exit_status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ProfilerError(message, f"try: {self.prog.removesuffix(' report')} report DIR")

"""The command `tafe`: serve, report, top, profile, doctor, routes, config.

Every failure is one message: what, where it was set, what is allowed, what to type instead. Exit status 2 is a
mistake in what was typed or set, 4 an application that raises while it is loaded, 3 one whose worker ends while
loading it (gunicorn's statuses); 130 is Ctrl-C. Of a traceback only the application's own frames are shown.
Options of `serve` and `config` are made from the settings table. Nothing heavy is imported before it is needed:
`tafe --help` loads neither gevent nor gunicorn.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from tafe import __version__, load, modules, values
from tafe.errors import UsageError
from tafe.resolve import Resolved, render, resolve
from tafe.settings import BY_NAME, TABLE, Setting, Settings

_WIDE = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def main() -> None:
    """Run the command line and exit."""
    try:
        status = cli.main(prog_name="tafe", standalone_mode=False)
    except click.exceptions.Abort:
        status = 130  # as a shell reports Ctrl-C
    except click.ClickException as error:
        status = _complain(_translate(error))
    except UsageError as error:
        status = _complain(error)
    except KeyboardInterrupt:
        status = 130
    sys.exit(status if isinstance(status, int) else 0)


@click.group(context_settings=_WIDE)
@click.version_option(__version__, message="tafe %(version)s")
def cli() -> None:
    """Serve WSGI applications with greenlets, and find the code that does not yield.

    \b
    tafe serve apps.hello:app --workers 2     serve on 127.0.0.1:8000
    tafe report .run/profile                  what the profiler has seen
    tafe top                                  what the workers do now (--admin)
    tafe profile -o worker.pstats             the functions of one worker
    tafe doctor apps.hello:app                what will block, before it is deployed
    tafe routes apps.hello:app                what would be served
    tafe config > tafe.toml                   a settings file to start from
    """


def _with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for every setting but the application."""
    for setting in reversed(TABLE):
        if setting.name != "app":
            command = _option(setting)(command)
    return command


def _option(setting: Setting) -> Callable[..., Any]:
    default = setting.kind.plain(setting.default) if setting.default not in ("", ()) else "none"
    notes = [part for part in (setting.allowed, f"default {default}", setting.env) if part]
    described = f"{setting.help} [{'; '.join(notes)}]"
    if setting.kind is values.SWITCH:
        flags = f"{setting.flag}/{setting.flag.replace('--', '--no-', 1)}"
        return click.option(flags, setting.name, default=None, help=described)
    return click.option(
        setting.flag,
        setting.name,
        metavar=setting.kind.metavar,
        multiple=setting.kind.several,
        default=None,
        help=described,
    )


def _settle(given: dict[str, Any]) -> Resolved:
    flags = {name: None if value == () else value for name, value in given.items()}
    return resolve(flags, os.environ)


@cli.command()
@click.argument("app", metavar="MODULE:APP", required=False)
@_with_settings
def serve(**given: Any) -> int:
    """Serve MODULE:APP, any WSGI application; APP may be left out if it is called app or application.

    SIGTERM finishes the requests in flight, Ctrl-C stops at once, SIGHUP reloads settings and application.
    """
    load.search_working_directory()
    resolved = _settle(given)
    if not resolved.settings.app:
        raise UsageError("no application was named", allowed="MODULE:APP", try_="tafe serve apps.hello:app")
    load.find(load.parse(resolved.settings.app))
    _make_writable(resolved)
    _try_access_log(resolved)
    _check_profiled(resolved)
    from tafe.master import Master

    return Master(resolved, lambda: _settle(given)).run()


@cli.command()
@click.argument("app", metavar="[MODULE:APP]", required=False)
@_with_settings
def config(**given: Any) -> int:
    """Print the settings in force as a TOML file, and where each was set."""
    resolved = _settle(given)
    for variable in resolved.ignored:
        click.echo(f"tafe: {variable} is not a setting and is ignored", err=True)
    click.echo(f"tafe: modules: {modules.describe(profiled=bool(resolved.settings.profile_path))}", err=True)
    click.echo(render(resolved), nl=False)
    return 0


@cli.command()
@click.argument("directories", metavar="DIR...", nargs=-1, required=True)
@click.option(
    "--format",
    "format_",
    metavar="text|json|html|speedscope|collapsed|perfetto",
    default="text",
    help="How to show it. [default text]",
)
@click.option("-o", "--output", metavar="FILE", help="Write to FILE instead of standard output.")
@click.option("--since", metavar="DURATION|MOMENT", help="Leave out what is older: 15m, 2h, 7d, or ISO 8601.")
@click.option("--allow", metavar="FILE", help="A list of stalls that are accepted for a time; see the README.")
@click.option("--all", "everything", is_flag=True, help="As text: everything, not only what fits one screen.")
def report(
    directories: tuple[str, ...],
    format_: str,
    output: str | None,
    since: str | None,
    allow: str | None,
    *,
    everything: bool,
) -> int:
    """Show what the profiler has recorded in DIR..., several workers and machines together."""
    for path in directories:
        if os.path.isfile(path):
            folder = os.path.dirname(path) or "."
            raise UsageError(f"{path!r} is a file", allowed="directories", try_=f"tafe report {folder}")
    from tafe import profiling

    run = partial(profiling.report, list(directories), format_, output, since, allow, everything=everything)
    return _printing(run) if output is None else run()


@cli.command()
@click.argument("app", metavar="MODULE:APP")
def routes(app: str) -> int:
    """List the routes of a tafe.App: methods, path, handler and where it is."""
    load.search_working_directory()
    target = load.parse(app, "routes")
    load.find(target)
    from gevent import monkey

    monkey.patch_all()  # as a worker does before it loads the application
    try:
        application = load.load(target)
    except (Exception, SystemExit) as error:  # noqa: BLE001  whatever the application raised is shown, not raised
        raise load.LoadFailed(f"{app} cannot be loaded\n{load.failure(error)}") from None
    listing = getattr(application, "routes", None)
    if listing is None:
        kind = type(application).__name__
        raise UsageError(f"{app!r} is of type {kind}, which does not list its routes", allowed="a tafe.App")
    rows = [(" ".join(route.methods), route.template, route.handler, route.where) for route in listing()]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


@cli.command()
@click.argument("app", metavar="MODULE:APP")
@click.option("--format", "format_", metavar="text|json", default="text", help="How to show it. [default text]")
@click.option("--allow", metavar="FILE", help="A list of stalls that are accepted for a time, as for tafe report.")
def doctor(app: str, format_: str, allow: str | None) -> int:
    """Say what in an application will keep a hub from everybody else, before it is deployed.

    It is loaded in a process of its own, patched first as in a worker. Exit status 0: nothing found, 1: something.
    """
    from tafe.doctor import examine

    return examine(app, format_, allow)


_WHERE = click.argument("where", metavar="[RUN-DIR|ADMIN-ADDRESS]", default=Settings.run_dir)


@cli.command()
@_WHERE
@click.option("--worker", metavar="PID", type=int, help="Which worker; /workers and tafe top show them. [default: one]")
@click.option("--seconds", metavar="S", type=float, default=5.0, help="For how long, 0.1 to 60. [default 5]")
@click.option("--clock", metavar="cpu|wall", default="cpu", help="CPU time, or waiting too. [default cpu]")
@click.option("--format", "format_", metavar="pstats|callgrind|speedscope", default="pstats", help="[default pstats]")
@click.option("-o", "--output", metavar="FILE", help="Write to FILE, for its owner alone, not to standard output.")
def profile(where: str, worker: int | None, seconds: float, clock: str, format_: str, output: str | None) -> int:
    """Record which functions one worker's time goes into, while it serves.

    The server needs --admin, and yappi (pip install tafe[functions]). That worker's requests take longer meanwhile; the
    others notice nothing.
    """
    from tafe import commands

    run = partial(commands.profile, where, worker, seconds, clock, format_, output)
    return _printing(run) if output is None else run()


@cli.command()
@_WHERE
@click.option("--once", is_flag=True, help="Print what is now, as plain text, and end.")
def top(where: str, once: bool) -> int:
    """Show what the workers of a server do, every second: rate, times, hub delay, and the worst lines.

    The server needs --admin. q ends it.
    """
    from tafe.top import run

    return _printing(partial(run, where, once=once))


class _NotPrinted(UsageError):
    exit_status = 1


def _printing(run: Callable[[], int]) -> int:
    """Its exit status; or say what keeps it from writing to standard output."""
    if sys.stdout is None:
        raise _NotPrinted("standard output is closed", try_="redirect it to a file or to a program")
    try:
        status = run()
        sys.stdout.flush()
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO, errno.EBADF, errno.EPIPE):
            raise
        with open(os.devnull, "w") as nowhere:  # where the interpreter's own flush, at its end, is not noticed
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if error.errno != errno.EPIPE:  # there, whoever reads has seen enough
            raise _NotPrinted(f"cannot write to standard output: {error.strerror}") from None
        return 0
    return status


def _make_writable(resolved: Resolved) -> None:
    """Make the profiler's directory, or say now that it cannot be written to."""
    path = resolved.settings.profile_path
    if path is None:
        return
    name = "profile_dir" if resolved.settings.profile_dir else "run_dir"
    try:
        os.makedirs(path, exist_ok=True)
        reason = "" if os.access(path, os.W_OK) else "not allowed"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise UsageError(
            f"--{name.replace('_', '-')}: cannot write to {path}: {reason}",
            set_by=resolved.origins[name],
            allowed="a directory that may be written to",
            try_=f"tafe serve --profile-dir DIR {resolved.settings.app}, or --no-profile",
        )


def _try_access_log(resolved: Resolved) -> None:
    """Say now if the access log cannot be written to."""
    target = resolved.settings.access_log
    if not target:
        return
    from tafe.log_writer import try_target

    try:
        try_target(target)
    except OSError as error:
        raise UsageError(
            f"--access-log: cannot write to {target}: {error.strerror}",
            set_by=resolved.origins["access_log"],
            allowed="a file that may be appended to, - for standard output, or fd:N",
            try_=f"tafe serve --access-log - {resolved.settings.app}",
        ) from None


def _check_profiled(resolved: Resolved) -> None:
    """Say now if what was asked for is the profiler's, and that is off."""
    settings = resolved.settings
    for name, asked in (("server_timing", settings.server_timing), ("objective", bool(settings.objective_s))):
        if asked and not settings.profile:
            flag = BY_NAME[name].flag
            raise UsageError(
                f"{flag}: the times are the profiler's, and it is off",
                set_by=resolved.origins[name],
                allowed="with --profile, which is the default",
                try_=f"leave out --no-profile, or {flag}",
            )


def _translate(error: click.ClickException) -> UsageError:
    """Click's complaints in the shape of ours."""
    command = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] in cli.commands else ""
    try_ = f"tafe {command} --help" if command else "tafe --help"
    if isinstance(error, click.NoSuchOption):
        return UsageError(f"{error.option_name} is not an option", try_=", ".join(error.possibilities or []) or try_)
    message = error.format_message().rstrip(".")
    return UsageError(message[:1].lower() + message[1:], try_=try_)


def _complain(error: UsageError) -> int:
    click.echo(f"tafe: {error}", err=True)
    return error.exit_status

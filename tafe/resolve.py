"""Where settings come from: flag over environment variable over file over default.

`resolve` reads the file, if one is named, and turns everything into a checked `Settings` that remembers where each
value was set. Whatever is wrong (a value, a bound, an unknown key, a misspelled variable) is a `UsageError` that says
where it was set, what is allowed and what to type instead. The example file in conf/ and `tafe config` are written
from the same table. TAFE_* variables may come from others: what is spelled like no setting is ignored, with a warning.
"""

from __future__ import annotations

import difflib
import re
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tafe import values
from tafe.errors import UsageError
from tafe.settings import BY_NAME, TABLE, Setting, Settings

_EXAMPLE_APP = "MODULE:APP"
_WIDTH = 100
# Kubernetes and Docker tell every container of each Service this way (of one called tafe, or tafe-something):
# TAFE_SERVICE_HOST, TAFE_SERVICE_PORT, TAFE_SERVICE_PORT_HTTP, TAFE_PORT=tcp://..., TAFE_PORT_80_TCP_ADDR.
_SERVICE = re.compile(
    r"TAFE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)


@dataclass(frozen=True)
class Resolved:
    """Settings, and for each name the flag, variable or file that set it ("default" if nobody did)."""

    settings: Settings
    origins: Mapping[str, str]
    ignored: tuple[str, ...] = ()  # TAFE_* variables that mean nothing to us


def resolve(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Resolved:
    """Settle every setting. `flags`: raw values by setting name, None where the flag was not given."""
    ignored = _unknown_variables(environ)
    chosen = {name: (value, BY_NAME[name].flag) for name, value in flags.items() if value is not None}
    for setting in TABLE:
        if setting.env in environ:
            chosen.setdefault(setting.name, (environ[setting.env], setting.env))
    app = str(chosen.get("app", ("",))[0])
    if "config" in chosen:
        path = str(chosen["config"][0])
        for name, raw in _read_file(path, chosen["config"][1]).items():
            chosen.setdefault(name, (raw, path))
    found = {name: _check(BY_NAME[name], raw, origin, app) for name, (raw, origin) in chosen.items()}
    settings = Settings(**{BY_NAME[name].attribute: value for name, value in found.items()})
    origins = {setting.name: "default" for setting in TABLE} | {name: chosen[name][1] for name in chosen}
    _check_together(settings, origins)
    return Resolved(settings, origins, ignored)


def render(resolved: Resolved) -> str:
    """The settings in force as TOML, with where each was set; itself a valid file."""
    lines = []
    for setting in TABLE:
        if setting.in_file:
            value = setting.kind.show(getattr(resolved.settings, setting.attribute))
            mark = "# " if setting.name == "app" and not resolved.settings.app else ""
            lines.append(f"{mark + setting.name + ' = ' + value:<40} # {resolved.origins[setting.name]}")
    return "\n".join(lines) + "\n"


def example() -> str:
    """The text of conf/tafe.toml: every setting with its default, bounds and reason, commented out."""
    lines = [
        "# Settings of `tafe serve --config FILE`, each with its default. Remove the # of a line to change it.",
        "# A flag (--drain-delay 5s) wins over an environment variable (TAFE_DRAIN_DELAY=5s), and that over this file.",
        "# Durations: 10ms, 1.5s, 2m. Sizes: 512B, 64KiB, 1GiB. `tafe config` shows what is in force, and why.",
    ]
    section = ""
    for setting in TABLE:
        if not setting.in_file:
            continue
        if setting.section != section:
            section = setting.section
            lines += ["", f"# ---- {section} ----"]
        lines += ["", *_comment(setting)]
        value = '"apps.hello:app"' if setting.name == "app" else setting.kind.show(setting.default)
        lines.append(f"#{setting.name} = {value}")
    return "\n".join(lines) + "\n"


def _comment(setting: Setting) -> Iterator[str]:
    yield from _wrapped(setting.help)
    if setting.allowed:
        yield from _wrapped(f"Allowed: {setting.allowed}.")
    yield from _wrapped(f"Why this default: {setting.why}.")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="#   ")


def _read_file(path: str, origin: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise UsageError(
            f"--config: cannot read {path}: {error.strerror}",
            set_by=origin,
            try_="tafe config > tafe.toml, then --config tafe.toml",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config: {path} is not valid TOML: {error}", set_by=origin) from None
    for name in found:
        if name not in BY_NAME or not BY_NAME[name].in_file:
            near = _nearest(name, [setting.name for setting in TABLE if setting.in_file])
            raise UsageError(
                f"{path}: {name!r} is not a setting",
                set_by=path,
                allowed="the keys that `tafe config` prints",
                try_=near,
            )
    return found


def _unknown_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Cases: a setting's; one that tells of a Service; one that was meant for a setting, refused; somebody else's."""
    unknown = []
    for name in sorted(environ):
        spelled = name.removeprefix("TAFE_").lower()
        ours = spelled in BY_NAME or name == "TAFE_COMPILED"  # which scripts/sidecar.py reads, before all settings
        if not name.startswith("TAFE_") or ours or _SERVICE.fullmatch(name):
            continue
        near = _nearest(spelled, list(BY_NAME))
        if near:
            raise UsageError(
                f"{name} is not a setting",
                set_by="the environment",
                allowed="the variables that `tafe serve --help` names",
                try_=BY_NAME[near].env,
            )
        unknown.append(name)
    return tuple(unknown)


def _nearest(name: str, known: list[str]) -> str:
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.6)), "")


def _check(setting: Setting, raw: Any, origin: str, app: str) -> Any:
    """The value, or a `UsageError`."""
    try:
        value = setting.kind.read(raw)
    except ValueError as error:
        instead = setting.default if setting.kind.example is None else setting.kind.example
        raise _wrong(setting, raw, str(error), origin, app, instead) from None
    if setting.low is not None and value < setting.low:
        raise _wrong(setting, raw, "is too small", origin, app, _as_value(setting, setting.low))
    if setting.high is not None and value > setting.high:
        raise _wrong(setting, raw, "is too large", origin, app, _as_value(setting, setting.high))
    return value


def _as_value(setting: Setting, bound: float) -> Any:
    return type(setting.default)(bound)


def _wrong(setting: Setting, raw: Any, complaint: str, origin: str, app: str, instead: Any) -> UsageError:
    shown = raw if isinstance(raw, str) else ", ".join(map(str, raw)) if isinstance(raw, tuple | list) else raw
    return UsageError(
        f"{setting.flag}: {shown!r} {complaint}",
        set_by=origin,
        allowed=setting.allowed,
        try_=_suggest(setting, instead, origin, app),
    )


def _suggest(setting: Setting, value: Any, origin: str, app: str) -> str:
    if setting.name == "app":
        return f"tafe serve {_EXAMPLE_APP}"
    if origin not in (setting.flag, setting.env):
        return f"{setting.name} = {setting.kind.show(value)}   in {origin}"
    if setting.kind is values.SWITCH:
        typed = setting.flag if value else setting.flag.replace("--", "--no-", 1)
    else:
        typed = f"{setting.flag} {setting.kind.plain(value) or '...'}"
    return f"tafe serve {typed} {app or _EXAMPLE_APP}"


def _check_together(settings: Settings, origins: Mapping[str, str]) -> None:
    """Settings that are right alone and wrong together."""
    if settings.drain_delay_s and settings.drain_delay_s >= settings.graceful_timeout_s:
        longer = values.show_duration(settings.drain_delay_s + 25.0)
        raise UsageError(
            f"--drain-delay: {values.show_duration(settings.drain_delay_s)} leaves no time for requests in flight",
            set_by=origins["drain_delay"],
            allowed=f"less than --graceful-timeout, which is {values.show_duration(settings.graceful_timeout_s)}",
            try_=f"tafe serve --graceful-timeout {longer} {settings.app or _EXAMPLE_APP}",
        )

"""`gunicorn -k tafe.worker.TafeWorker`: what becomes of each of gunicorn's settings.

Three classes. HONOURED: gunicorn's arbiter acts on it, or the worker does. REFUSED: the user would rely on something
that this worker does not do, so the start fails and says why. IRRELEVANT: it is about something that does not exist
here (threads, ASGI, HTTP/2); a value set for it is mentioned in the log and does nothing. The tables name every
setting of the gunicorn we are made for; a test compares them with gunicorn's own list.
What gunicorn has no setting for comes from the TAFE_* variables.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from gunicorn.config import KNOWN_SETTINGS

from tafe import values
from tafe.errors import UsageError
from tafe.resolve import resolve
from tafe.settings import TABLE, Settings

# Setting of gunicorn -> ours, for those that the worker itself obeys. Left at gunicorn's default, ours applies: its
# keep-alive of 2 s is shorter than any balancer's, so that requests are lost.
MAPPED: dict[str, str] = {
    "graceful_timeout": "graceful_timeout_s",
    "keepalive": "idle_timeout_s",
    "limit_request_line": "request_line_bytes",
    "limit_request_field_size": "header_field_bytes",
    "limit_request_fields": "header_count",
    "worker_connections": "connections",
    "forwarded_allow_ips": "trusted_proxies",
    "accesslog": "access_log",
}

# Obeyed by gunicorn's arbiter and its worker base class; nothing for us to do.
ARBITER: frozenset[str] = frozenset(
    {
        "config",
        "wsgi_app",
        "bind",
        "backlog",
        "workers",
        "worker_class",
        "timeout",
        "max_requests",
        "max_requests_jitter",
        "check_config",
        "print_config",
        "reuse_port",
        "chdir",
        "daemon",
        "raw_env",
        "pidfile",
        "worker_tmp_dir",
        "user",
        "group",
        "umask",
        "initgroups",
        "errorlog",
        "loglevel",
        "capture_output",
        "logger_class",
        "logconfig",
        "logconfig_dict",
        "logconfig_json",
        "syslog_addr",
        "syslog",
        "syslog_prefix",
        "syslog_facility",
        "enable_stdio_inheritance",
        "enable_backlog_metric",
        "proc_name",
        "default_proc_name",
        "pythonpath",
        "paste",
        "raw_paste_global_conf",
        "on_starting",
        "on_reload",
        "when_ready",
        "pre_fork",
        "post_fork",
        "post_worker_init",
        "worker_int",
        "pre_exec",
        "child_exit",
        "worker_exit",
        "nworkers_changed",
        "on_exit",
        "control_socket",
        "control_socket_mode",
        "control_socket_disable",
    }
)

REFUSED: dict[str, str] = {
    "preload_app": "the application would be loaded before sockets and threads are patched, and would block the hub",
    "reload": "it belongs to the arbiter: tafe serve --reload",
    "spew": "it traces every line and so hides what the profiler measures",
    "access_log_format": "the formats are combined and, with TAFE_ACCESS_LOG_FORMAT=json, JSON",
    "statsd_host": "gunicorn counts where it writes its access log, and ours is written elsewhere",
    "pre_request": "there is no gunicorn request object to give to it: use a WSGI middleware",
    "post_request": "there is no gunicorn request object to give to it: use a WSGI middleware",
    "worker_abort": "a worker that is aborted writes its stack and ends at once",
    "certfile": "TLS ends at the balancer in front",
    "keyfile": "TLS ends at the balancer in front",
    "ca_certs": "TLS ends at the balancer in front",
    "ssl_context": "TLS ends at the balancer in front",
    "proxy_protocol": "it is not understood: let the balancer send X-Forwarded-For",
    "protocol": "HTTP is the only one",
    "permit_obsolete_folding": "such a request is answered with 400, whatever is in front",
    "strip_header_spaces": "such a request is answered with 400, whatever is in front",
    "permit_unconventional_http_method": "methods are checked as RFC 9110 says",
    "permit_unconventional_http_version": "versions are checked as RFC 9112 says",
    "casefold_http_method": "methods are case-sensitive (RFC 9110, 9.1)",
    "header_map": "names with underscores are never passed on, since they could pass for others",
    "secure_scheme_headers": "only X-Forwarded-Proto: https counts, from the proxies in forwarded_allow_ips",
    "forwarder_headers": "no other header changes the environ: use a WSGI middleware such as Werkzeug's ProxyFix",
    "dirty_apps": "use tafe.offload for code that cannot yield",
    "dirty_workers": "use tafe.offload for code that cannot yield",
}

IRRELEVANT: frozenset[str] = frozenset(
    {
        # of settings refused above
        "reload_engine",
        "reload_extra_files",
        "disable_redirect_access_to_syslog",
        "dogstatsd_tags",
        "statsd_prefix",
        "ssl_version",
        "cert_reqs",
        "suppress_ragged_eofs",
        "do_handshake_on_connect",
        "ciphers",
        "proxy_allow_ips",
        "uwsgi_allow_ips",
        "dirty_timeout",
        "dirty_threads",
        "dirty_graceful_timeout",
        "on_dirty_starting",
        "dirty_post_fork",
        "dirty_worker_init",
        "dirty_worker_exit",
        # of other kinds of worker
        "threads",
        "sendfile",
        "tmp_upload_dir",
        "http_protocols",
        "http2_cleartext",
        "http2_max_concurrent_streams",
        "http2_initial_window_size",
        "http2_max_frame_size",
        "http2_max_header_list_size",
        "asgi_loop",
        "asgi_lifespan",
        "asgi_disconnect_grace_period",
        "websocket_max_message_size",
        "http_parser",
        "root_path",
    }
)


def check_settings(cfg: Any, log: Any) -> None:
    """Raise RuntimeError, which gunicorn prints as one line, for a refused setting; mention irrelevant ones."""
    try:
        ignored = resolve({}, os.environ).ignored
    except UsageError as error:
        raise RuntimeError(str(error)) from None
    for variable in ignored:
        log.warning("%s is not a setting and is ignored", variable)
    for setting in KNOWN_SETTINGS:
        value = cfg.settings[setting.name].get()
        if _is_default(setting, value):
            continue
        if setting.name in REFUSED:
            raise RuntimeError(f"{_spelled(setting)}: not with tafe.worker.TafeWorker: {REFUSED[setting.name]}")
        if setting.name == "forwarded_allow_ips":
            _trusted_proxies(value)
        if setting.name in IRRELEVANT:
            log.warning("%s has no effect with tafe.worker.TafeWorker", _spelled(setting))


def settings_of(cfg: Any) -> Settings:
    """Our settings under gunicorn's arbiter."""
    resolved = resolve({}, os.environ)
    changed: dict[str, Any] = {}
    for setting in KNOWN_SETTINGS:
        value = cfg.settings[setting.name].get()
        if setting.name == "forwarded_allow_ips":
            changed["trusted_proxies"] = _trusted_proxies(value)
        elif setting.name in MAPPED and not _is_default(setting, value):
            ours = next(row for row in TABLE if row.attribute == MAPPED[setting.name])
            # gunicorn's 0 lifts a limit; ours have a highest value instead
            changed[ours.attribute] = value if value or ours.low == 0 else int(ours.high or 0)
    if changed.get("access_log") and resolved.origins["access_log_format"] == "default":
        changed["access_log_format"] = "combined"  # what gunicorn's option gives everywhere else
    return dataclasses.replace(resolved.settings, **changed)


def _trusted_proxies(allowed: list[str]) -> tuple[str, ...]:
    """Single addresses are understood; clients on unix sockets are always trusted, as gunicorn does."""
    try:
        return (*values.read_peers(allowed), "unix")
    except ValueError as error:
        raise RuntimeError(f"--forwarded-allow-ips: not with tafe.worker.TafeWorker: it {error}") from None


def _is_default(setting: Any, value: Any) -> bool:
    """The value is what gunicorn itself starts with (it converts the default when it is set)."""
    fresh = setting()
    return bool(value == fresh.get())


def _spelled(setting: Any) -> str:
    return setting.cli[-1] if setting.cli else str(setting.name)

"""The settings: one table, from which flags, variables, file keys, help, checks and conf/tafe.toml all come.

A row is a field of `Settings`. Its name without the unit gives the flag (--drain-delay), the environment variable
(TAFE_DRAIN_DELAY) and the key in the file (drain_delay), so that the three cannot drift apart. Each default has its
reason in `why`. The rows about one request's size and time are the worker's `limits.Limits`, which owns their defaults.
Reading flags, environment and file is done by resolve.py; this module does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from tafe import values
from tafe.access_format import FORMATS
from tafe.limits import KIB, MIB, UNDERSCORES, Limits
from tafe.values import Kind

_LIMITS = Limits()
_GIB = 1024 * MIB
_DAY_S = 86_400.0


@dataclass(frozen=True)
class Setting:
    """One row: everything there is to say about a setting except its value."""

    attribute: str  # of Settings; ends with the unit of the value, if it has one
    name: str  # the key in the file; flag and variable come from it
    kind: Kind
    default: Any
    section: str
    help: str
    why: str  # the reason for the default
    low: float | None  # bounds in the unit of the value, both allowed; None: no bound
    high: float | None
    in_file: bool

    @property
    def flag(self) -> str:
        """As typed on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def env(self) -> str:
        """The environment variable."""
        return "TAFE_" + self.name.upper()

    @property
    def allowed(self) -> str:
        """The values that are accepted, in words; empty if there is nothing to say."""
        if self.kind.allowed:
            return self.kind.allowed
        if self.low is None or self.high is None:
            return ""
        low, high = (
            self.kind.plain(int(bound) if float(bound).is_integer() else bound) for bound in (self.low, self.high)
        )
        return f"{low} to {high}"


def _row(
    section: str,
    kind: Kind,
    default: Any,
    help_: str,
    why: str,
    *,
    name: str | None = None,
    low: float | None = None,
    high: float | None = None,
    in_file: bool = True,
) -> Any:
    described = {"section": section, "kind": kind, "help": help_, "why": why, "name": name}
    return field(default=default, metadata={**described, "low": low, "high": high, "in_file": in_file})


@dataclass(frozen=True)
class Settings:
    """The settings in force. Attributes carry their unit: `_s` seconds, `_bytes` bytes."""

    app: str = _row(
        "application", values.TEXT, "",
        "The WSGI application, as MODULE:NAME, or MODULE:NAME() for a factory.",
        "it has none; NAME may be left out if it is app or application",
    )  # fmt: skip
    config: str = _row(
        "application", values.PATH, "",
        "A TOML file with settings; flags and TAFE_* variables win over it.",
        "every setting has a default",
        in_file=False,
    )  # fmt: skip

    bind: tuple[str, ...] = _row(
        "listening", values.ADDRESSES, ("127.0.0.1:8000",),
        "Where to listen; may be given several times.",
        "this machine only, since a load balancer belongs in front; gunicorn's and uvicorn's default too",
    )  # fmt: skip
    backlog: int = _row(
        "listening", values.NUMBER, 2048,
        "Connections that the kernel holds until a worker accepts them (at most net.core.somaxconn).",
        "gunicorn's default: a second of 2,000 new connections",
        low=1, high=65_535,
    )  # fmt: skip
    health_path: str = _row(
        "listening", values.PREFIX, "/-/",
        "Where liveness and readiness are answered: PREFIXlive and PREFIXready; empty: nowhere.",
        "no application route begins with a dash",
    )  # fmt: skip

    admin: str = _row(
        "listening", values.ADDRESS, "",
        "Where /metrics (for Prometheus) and /workers are answered, by a process of its own and without a password.",
        "off; who wants it chooses who may reach it: 127.0.0.1:9102, or a port on a network of the operators",
    )  # fmt: skip
    trusted_proxies: tuple[str, ...] = _row(
        "listening",
        values.PEERS,
        ("127.0.0.1", "::1", "unix"),
        "Proxies whose X-Forwarded-Proto says whether the client came over TLS (wsgi.url_scheme).",
        "those on this machine, as with gunicorn; anybody else could claim it",
    )

    workers: int = _row(
        "workers", values.NUMBER, 2,
        "Worker processes. One a core uses the machine; each has a hub of its own.",
        "the least that goes on serving while one worker is replaced",
        low=1, high=512,
    )  # fmt: skip
    timeout_s: float = _row(
        "workers", values.DURATION, 30.0,
        "A worker whose hub has not turned for this long is stuck: its stack is logged and it is replaced.",
        "gunicorn's default",
        low=1, high=3600,
    )  # fmt: skip
    start_deadline_s: float = _row(
        "workers", values.DURATION, 60.0,
        "Time for a worker to load the application and, at a reload, to become ready.",
        "large applications import for 10 s to 20 s on a busy machine",
        low=1, high=3600,
    )  # fmt: skip
    max_requests: int = _row(
        "workers", values.NUMBER, 0,
        "Replace a worker after this many requests, once its replacement is ready; 0: never.",
        "a remedy for applications that leak memory, not a habit",
        low=0, high=1_000_000_000,
    )  # fmt: skip
    max_requests_jitter: int = _row(
        "workers", values.NUMBER, 0,
        "Add up to this many requests, at random, to max_requests, so that workers are not replaced together.",
        "workers are replaced one at a time anyway",
        low=0, high=1_000_000_000,
    )  # fmt: skip
    pid_file: str = _row(
        "workers", values.PATH, "",
        "Write the server's process id to this file.",
        "systemd and containers know the process id",
    )  # fmt: skip

    drain_delay_s: float = _row(
        "stopping", values.DURATION, 0.0,
        "After SIGTERM, go on accepting for this long while readiness fails, so that balancers look elsewhere.",
        "only a balancer that asks for readiness gains; then take three times its interval",
        low=0, high=600,
    )  # fmt: skip
    graceful_timeout_s: float = _row(
        "stopping", values.DURATION, 25.0,
        "From SIGTERM to the end: drain delay, then requests in flight. Workers that are left are killed.",
        "Kubernetes kills after 30 s",
        low=0, high=3600,
    )  # fmt: skip

    run_dir: str = _row(
        "files", values.PATH, ".run",
        "Directory for what the running server writes, made if missing.",
        "in the working directory, where the user of a first try looks",
    )  # fmt: skip
    profile: bool = _row(
        "files", values.SWITCH, True,
        "Record where requests spend their time and which code does not yield.",
        "it costs about 5 % of the smallest request",
    )  # fmt: skip
    profile_dir: str = _row(
        "files", values.PATH, "",
        "Directory of the profiler's files, for tafe report; if empty, RUN_DIR/profile.",
        "beside whatever else the server writes",
    )  # fmt: skip
    server_timing: bool = _row(
        "files", values.SWITCH, False,
        "Add Server-Timing to answers for trusted_proxies: running, waiting and queued time until the answer began. "
        "Needs the profiler.",
        "off: it is for looking into single requests, and a proxy may pass it on",
    )  # fmt: skip
    slow_slice_s: float = _row(
        "files", values.DURATION, 0.010,
        "Code that holds the hub for longer than this is reported.",
        "ten requests of a millisecond wait behind it",
        low=0.001, high=1,
    )  # fmt: skip
    objective_s: tuple[tuple[str, float], ...] = _row(
        "files", values.OBJECTIVES, (),
        "The longest that a request of this route should take: of those that take longer the report shows who had the "
        "hub meanwhile. May be given several times; * is any other route. Needs the profiler.",
        "none: then it is shown of requests that were queued for ten times slow_slice alone",
    )  # fmt: skip
    access_log: str = _row(
        "files", values.OUTPUT, "",
        "Write a line a request to this file; SIGUSR1 to the server has it opened anew.",
        "off: a balancer in front has the same lines",
    )  # fmt: skip
    access_log_format: str = _row(
        "files", values.one_of(FORMATS), "json",
        "How a request is written: a JSON object a line, or the combined format of other servers.",
        "programs read it, and it has the request's id and duration",
    )  # fmt: skip
    reload: bool = _row(
        "development", values.SWITCH, False,
        "Reload when a source file changes.",
        "it looks at every source file twice a second: for development only",
    )  # fmt: skip

    idle_timeout_s: float = _row(
        "time limits", values.DURATION, _LIMITS.idle_timeout_s,
        "Keep a connection open for this long between two requests; 0: no limit.",
        "longer than the 60 s of nginx and AWS, so that they are the ones who close",
        name="keep_alive", low=0, high=_DAY_S,
    )  # fmt: skip
    head_timeout_s: float = _row(
        "time limits", values.DURATION, _LIMITS.head_timeout_s,
        "From the first byte of a request to the end of its head; 0: no limit.",
        "a head fits into one packet; slow ones are attacks",
        low=0, high=_DAY_S,
    )  # fmt: skip
    body_timeout_s: float = _row(
        "time limits", values.DURATION, _LIMITS.body_timeout_s,
        "Without a further byte of a request's body; 0: no limit.",
        "shorter than the 60 s after which balancers give up",
        low=0, high=_DAY_S,
    )  # fmt: skip
    write_timeout_s: float = _row(
        "time limits", values.DURATION, _LIMITS.write_timeout_s,
        "Without the client taking a further byte of the answer; 0: no limit.",
        "the same as for a body",
        low=0, high=_DAY_S,
    )  # fmt: skip
    request_timeout_s: float = _row(
        "time limits", values.DURATION, _LIMITS.request_timeout_s,
        "For a whole request, then 504; 0: no limit.",
        "off: long polls and event streams are legitimate",
        low=0, high=_DAY_S,
    )  # fmt: skip

    request_line_bytes: int = _row(
        "size limits", values.SIZE, _LIMITS.request_line_bytes,
        "Longest request line.",
        "RFC 9112 asks for at least 8,000",
        name="max_request_line", low=64, high=MIB,
    )  # fmt: skip
    header_field_bytes: int = _row(
        "size limits", values.SIZE, _LIMITS.header_field_bytes,
        "Longest header field.",
        "gunicorn's and nginx's default",
        name="max_header_field", low=64, high=MIB,
    )  # fmt: skip
    header_count: int = _row(
        "size limits", values.NUMBER, _LIMITS.header_count,
        "Most header fields of a request.",
        "gunicorn's default; browsers behind two proxies send about 30",
        name="max_headers", low=1, high=10_000,
    )  # fmt: skip
    head_bytes: int = _row(
        "size limits", values.SIZE, _LIMITS.head_bytes,
        "Longest head: request line and all fields.",
        "nginx's total",
        name="max_head", low=KIB, high=16 * MIB,
    )  # fmt: skip
    body_bytes: int = _row(
        "size limits", values.SIZE, _LIMITS.body_bytes,
        "Longest body of a request; 0: no limit.",
        "larger uploads belong on object storage",
        name="max_body", low=0, high=1024 * _GIB,
    )  # fmt: skip
    chunk_extension_bytes: int = _row(
        "size limits", values.SIZE, _LIMITS.chunk_extension_bytes,
        "Most bytes of chunk extensions in one chunked body.",
        "nobody uses them",
        name="max_chunk_extensions", low=0, high=MIB,
    )  # fmt: skip
    trailer_bytes: int = _row(
        "size limits", values.SIZE, _LIMITS.trailer_bytes,
        "Most bytes of trailers after a chunked body; they are checked and dropped.",
        "as much as one header field",
        name="max_trailers", low=0, high=MIB,
    )  # fmt: skip
    pipelined_bytes: int = _row(
        "size limits", values.SIZE, _LIMITS.pipelined_bytes,
        "Most bytes of further requests read ahead while one runs; then the socket is left unread.",
        "hundreds of small requests; a client that sends more than it reads waits",
        name="max_pipelined", low=KIB, high=16 * MIB,
    )  # fmt: skip
    underscores: str = _row(
        "size limits", values.one_of(UNDERSCORES), _LIMITS.underscores,
        "Header fields with an underscore in their name: drop the field, refuse the request, or keep it. Fields that "
        "decide anything here are never kept.",
        "nginx's default; in CGI's names X_Forwarded_For would speak for X-Forwarded-For",
        name="header_underscores",
    )  # fmt: skip
    connections: int = _row(
        "size limits", values.NUMBER, _LIMITS.connections,
        "Most open connections of a worker.",
        "about 1 KiB each when idle",
        name="max_connections", low=1, high=1_000_000,
    )  # fmt: skip
    in_flight: int = _row(
        "size limits", values.NUMBER, _LIMITS.in_flight,
        "Most requests of a worker that run at once; others wait in order of arrival. Requests that wait for their own "
        "client, to send its body or to take its answer, do not count.",
        "a greenlet each; more than this only wait for one another",
        name="max_in_flight", low=1, high=100_000,
    )  # fmt: skip

    @property
    def limits(self) -> Limits:
        """What the server inside a worker enforces."""
        shared = {f.name for f in fields(Limits)} & {f.name for f in fields(self)}
        return Limits(**{name: getattr(self, name) for name in shared})

    @property
    def trusted_peers(self) -> frozenset[str]:
        """As the server wants them: a client on a unix socket has no address."""
        return frozenset(peer.replace("unix", "") for peer in self.trusted_proxies)

    @property
    def objectives_ms(self) -> dict[str, float]:
        """As the profiler wants them."""
        return {route: limit_s * 1000 for route, limit_s in self.objective_s}

    @property
    def profile_path(self) -> str | None:
        """Directory of the profiler's files, or None when it is off."""
        return (self.profile_dir or f"{self.run_dir}/profile") if self.profile else None


def _name(attribute: str) -> str:
    for unit in ("_s", "_bytes"):
        attribute = attribute.removesuffix(unit)
    return attribute


def _table() -> tuple[Setting, ...]:
    rows = []
    for f in fields(Settings):
        described = dict(f.metadata)
        described["name"] = described["name"] or _name(f.name)
        rows.append(Setting(attribute=f.name, default=f.default, **described))
    return tuple(rows)


TABLE: tuple[Setting, ...] = _table()
BY_NAME: dict[str, Setting] = {setting.name: setting for setting in TABLE}

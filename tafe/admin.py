"""The admin process: metrics and the state of the workers over HTTP, also while every worker is stuck.

The arbiter forks it beside the workers and forks it again when it ends. It reads shared memory and /proc only, loads no
application and waits for no worker, so that it answers whatever they do. Its listener is bound by the arbiter, for as
long as that lives. Who may reach the address may read, and may have one worker at a time record its functions, which
makes that worker slower meanwhile: there is no password, and nothing else to change.
A browser reaches it too, and shows pages of strangers. None of them may have anything recorded (a browser tells whose
page sends a POST), and none may read by having its own name resolved to this address: a request is for an address, for
the name that is configured, for this machine's, or for one that nobody can register.
`RUN_DIR/admin` holds the address while the server runs, for the commands that are given the directory.

    GET /metrics   for Prometheus: text or OpenMetrics, whichever the client prefers
    GET /workers   as JSON: each worker's process, state, load, when its hub last turned, and where it is stuck
    GET /figures   as JSON: the same, with what each worker has counted since its start, for tafe top
    GET /healthz   that this process answers
    POST /profile  the functions of one worker (function_profile.py): ?worker=PID&seconds=5&clock=cpu&format=pstats
"""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn
from urllib.parse import urlsplit

import gevent

from tafe import asking, function_profile, listeners
from tafe.errors import UsageError
from tafe.generations import Backoff
from tafe.limits import KIB, Limits
from tafe.metrics import read_stuck
from tafe.scoreboard import Scoreboard, Slot
from tafe.server import WSGIServer
from tafe.values import parse_address

_WSGIApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

# A few scrapers and a few people; whoever opens more waits. Requests have no body.
_LIMITS = Limits(connections=64, in_flight=16, body_bytes=KIB, request_timeout_s=function_profile.LONGEST_ANSWER_S + 10)
_BACKLOG = 64
_LOOK_S = 0.5  # between two looks at whether the arbiter is still there
_OTHERS_ANSWER_S = 1.0  # for the server of an address that was noted before; it takes milliseconds
_NOBODYS = frozenset({"localhost", "local", "internal"})  # RFC 6761, RFC 6762, ICANN's resolution of 2024-07-29


class Admin:
    """The arbiter's side of it. `UsageError` if the address cannot be had."""

    def __init__(self, address: str, set_by: str, run_dir: str, log: Any) -> None:
        self.listener = listeners.listen(address, _BACKLOG, set_by, flag="--admin")
        self.name = listeners.name(self.listener)
        self._address = address
        self._note = os.path.join(os.path.abspath(run_dir), asking.NOTE)
        self._log = log
        self._backoff = Backoff()
        self._pid = 0
        self._started_s = 0.0

    def announce(self) -> None:
        """Say where it is, and who can read it."""
        self._warn_of_another()
        try:
            os.makedirs(os.path.dirname(self._note), exist_ok=True)
            self._write_note()
        except OSError as error:
            self._log.warning("%s cannot be written: %s", self._note, error.strerror)
        self._log.info("admin: %s/metrics and %s/workers", self.name, self.name)
        if not _is_of_this_machine(self.listener):
            self._log.warning("%s can be read by whoever reaches this machine: there is no password", self.name)

    def _noted(self) -> str:
        """What the file holds."""
        path = self.name.removeprefix("unix:")
        return self.name if path == self.name else f"unix:{os.path.abspath(path)}"

    def _write_note(self) -> None:
        """As a whole, and in the place of a link, not where that leads."""
        new = f"{self._note}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        with open(new, "x", encoding="utf-8") as file:
            file.write(self._noted())
        os.replace(new, self._note)

    def _warn_of_another(self) -> None:
        """Of a server that has the same run directory, and is found there no more."""
        try:
            other = asking.noted(self._note)
            if other == self._noted():  # our own, which does not answer yet
                return
            asking.Admin(other).ask("GET", "/healthz", _OTHERS_ANSWER_S)
        except (OSError, ValueError, UsageError):
            return
        self._log.warning("another server, whose admin address is %s, has the same run directory", other)

    def keep(self, board: Scoreboard, close: Callable[[], None]) -> None:
        """Fork it if it does not run and may. `close()`: in the child, lets go of what the arbiter has open."""
        now = time.monotonic()
        if self._pid or not self._backoff.allows(now):
            return
        self._started_s = now
        # As with a worker: a signal before the child has handlers of its own would go to the arbiter's, and be lost.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._pid = os.fork()
        if self._pid == 0:
            self._be(board, close)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def has_ended(self, pid: int, status: int) -> bool:
        """True if it was this process that ended, which is remembered and told."""
        if pid != self._pid:
            return False
        self._pid = 0
        now = time.monotonic()
        self._backoff.failed(now, now - self._started_s, was_ready=True)
        code = os.waitstatus_to_exitcode(status)
        how = f"exited with status {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
        self._log.error("the admin process %d %s and is started again", pid, how)
        return True

    def stop(self) -> None:
        """End it, and let go of the address."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)  # it has nothing to lose
            os.waitpid(self._pid, 0)
            self._pid = 0
        self.listener.close()
        listeners.unlink([self._address])
        with contextlib.suppress(OSError, ValueError):
            if asking.noted(self._note) == self._noted():  # else it is another server's
                os.unlink(self._note)

    def _names(self) -> frozenset[str] | None:
        """What a request may call this server besides its address; None on a unix socket: anything."""
        if self.listener.family == socket.AF_UNIX:
            return None
        return frozenset({parse_address(self._address).host.lower(), socket.gethostname().lower()})

    def _be(self, board: Scoreboard, close: Callable[[], None]) -> NoReturn:
        """The child's side of the fork."""
        try:
            arbiter = os.getppid()
            _take_signals()
            close()
            gevent.reinit()
            server = WSGIServer(self.listener, application(board, self._names()), limits=_LIMITS)
            gc.freeze()
            server.start()
            while os.getppid() == arbiter:
                gevent.sleep(_LOOK_S)
        except BaseException:  # noqa: BLE001 - whatever it is, the arbiter's code above must not run here
            self._log.exception("the admin process failed")
            os._exit(1)
        os._exit(0)


def _take_signals() -> None:
    """What is sent to the whole group is for the arbiter, which ends this process last."""
    signal.set_wakeup_fd(-1)
    for name in ("TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "WINCH", "TTIN", "TTOU"):
        signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())


def application(board: Scoreboard, names: frozenset[str] | None) -> _WSGIApplication:
    """What the process serves; `names`: see `_is_meant`."""
    from prometheus_client import CollectorRegistry, make_wsgi_app  # here only: the workers do not need it

    from tafe import exposition
    from tafe.profiling import bounds_s

    registry = CollectorRegistry(auto_describe=False)
    registry.register(exposition.Collector(board, bounds_s()))
    metrics = make_wsgi_app(registry)

    def workers(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return _answer(start_response, "200 OK", {"workers": [_described(slot) for slot in board.used()]})

    def figures(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        told = [{**_described(slot), **exposition.figures(slot)} for slot in board.used()]
        sites = exposition.sites(board)
        return _answer(start_response, "200 OK", {"bounds_s": bounds_s(), "workers": told, "sites": sites})

    def healthz(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return _answer(start_response, "200 OK", {"live": True})

    def profile(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            found = function_profile.ask(board, environ["QUERY_STRING"], environ["tafe.client_gone"])
        except function_profile.Refused as refused:
            return _answer(start_response, refused.status, {"error": str(refused)})
        start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Cache-Control", "no-store")])
        return [found]

    served: dict[str, _WSGIApplication] = {
        "/metrics": metrics, "/workers": workers, "/figures": figures, "/healthz": healthz, "/profile": profile
    }  # fmt: skip

    def front(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "")
        if not _is_meant(host, names):
            reason = f"{host!r} is not a name of this server: use its address, or --admin NAME:PORT with that name"
            return _answer(start_response, "421 Misdirected Request", {"error": reason})
        found = served.get(environ["PATH_INFO"])
        if found is None:
            return _answer(start_response, "404 Not Found", {"paths": list(served)})
        allowed = "POST" if found is profile else "GET, HEAD"
        if environ["REQUEST_METHOD"] not in allowed.split(", "):
            return _answer(start_response, "405 Method Not Allowed", {"allowed": allowed}, ("Allow", allowed))
        if found is profile and _is_of_a_page(environ):
            return _answer(start_response, "403 Forbidden", {"error": "a page in a browser may not ask for that"})
        return found({**environ, "REQUEST_METHOD": "GET"}, start_response)  # the library does not know HEAD

    return front


def _is_meant(host: str, names: frozenset[str] | None) -> bool:
    """Whether a request with this Host is for us, and not for a name that somebody else lets lead here.

    A name without a dot is none that can be bought. Browsers always send a Host.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return False
    if names is None or name in names or "." not in name or name.rpartition(".")[2] in _NOBODYS:
        return True
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    return False


def _is_of_a_page(environ: dict[str, Any]) -> bool:
    """None of ours: we have no pages (Fetch, 3.2; Fetch Metadata Request Headers, 2.4)."""
    return "HTTP_ORIGIN" in environ or environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("none", "same-origin")


def _described(slot: Slot) -> dict[str, Any]:
    """One worker."""
    state = slot.state
    shown: dict[str, Any] = {
        "worker": slot.index,
        "pid": slot.pid,
        "state": state.name.lower(),
        "generation": slot.generation,
        "heartbeat_age_s": round(max(time.monotonic_ns() - slot.beat_ns, 0) / 1e9, 3),
        "in_flight": slot.in_flight,
        "requests": slot.requests,
    }
    stuck = None if slot.stuck is None else read_stuck(slot.stuck)
    if stuck is not None and slot.beat_ns / 1e9 <= stuck.since_s:  # else its hub has turned since
        for_s = round(time.monotonic() - stuck.since_s, 3)
        shown["stuck"] = {"for_s": for_s, "route": stuck.route, "line": stuck.site, "cause": stuck.cause}
    if slot.text and state.name == "WAITING":
        shown["reason"] = slot.text
    return shown


def _answer(
    start_response: Callable[..., Any], status: str, shown: dict[str, Any], *more: tuple[str, str]
) -> list[bytes]:
    body = json.dumps(shown, indent=1).encode() + b"\n"
    start_response(status, [("Content-Type", "application/json"), ("Cache-Control", "no-store"), *more])
    return [body]


def _is_of_this_machine(listener: socket.socket) -> bool:
    if listener.family == socket.AF_UNIX:
        return True
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback

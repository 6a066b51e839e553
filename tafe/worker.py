"""`TafeWorker`: one process, one hub, from the fork to the last answer.

In order: patch, load the application, start the profiler, run start hooks and open resources (readiness.py), accept,
serve; on SIGTERM drain; on SIGINT or SIGQUIT stop at once. It runs under our arbiter, with a slot of the scoreboard,
and under gunicorn's (`gunicorn -k tafe.worker.TafeWorker`), with gunicorn's settings and without a slot.

Draining. When the whole server stops: readiness fails, accept for the drain delay, then `Connection: close` on every
answer, the listeners closed after everybody in their queue was accepted, idle connections closed after a last call,
and the requests in flight have the rest of the graceful timeout. When only this worker is replaced, its siblings go
on accepting from the shared queue, so there is no delay.

Limits: a heartbeat proves that the hub turns, not that requests are answered.
"""

from __future__ import annotations

import faulthandler
import gc
import inspect
import logging
import os
import signal
import sys
import time
from typing import Any, NoReturn

import gevent
from gevent import monkey
from gevent.event import Event
from gevent.socket import socket as gevent_socket
from gunicorn.workers.base import Worker

from tafe import function_profile, health, lifecycle, load
from tafe.access_log import AccessLog
from tafe.balance import Balance
from tafe.errors import UsageError
from tafe.lifecycle import State
from tafe.listeners import refuse_newcomers
from tafe.metrics import Publisher
from tafe.readiness import Readiness
from tafe.scoreboard import QUICK_STOP_S, Scoreboard, Slot
from tafe.server import WSGIServer
from tafe.server_timing import with_timing
from tafe.settings import Settings
from tafe.stock import check_settings, settings_of

_APP_LOAD_ERROR = 4  # gunicorn's exit status for it
_TICK_S = 0.1  # heartbeat, and how soon a change in another worker or the arbiter's death is noticed
_LOOK_S = 0.01  # between two looks at whether the last connection is closed
_HANDSHAKE_S = 0.01  # for handshakes under way when the listeners close; many times the way through a data centre
# Before idle connections are closed: a request on its way still arrives. Several times the way across a continent.
_LAST_CALL_S = 0.25
# At the end of the graceful timeout, for what follows the last request; a short timeout gives `_LAST_SHARE` of itself,
# in which hooks and closing keep their proportion. The arbiter kills a worker that takes longer.
_HOOKS_S = 5.0  # the default deadline of a tafe.App's stop hook
_CLOSING_S = 2.0  # keepers of resources are waited for for a second; then pools close and the profiler writes
_LAST_SHARE = 0.3

_log = logging.getLogger("tafe.worker")


class TafeWorker(Worker):
    """See the module. `slot` and `board` are set by our arbiter before the fork."""

    slot: Slot | None = None
    board: Scoreboard | None = None
    sockets: list[Any]
    _profiling: Any = None  # the module, if it is on
    _access_log: AccessLog | None = None
    _publisher: Publisher | None = None

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Called by gunicorn's arbiter at its start: refuse settings that cannot be honoured."""
        check_settings(cfg, log)

    # -- start

    def init_process(self) -> None:
        """The first thing after the fork; returns when the worker ends."""
        self._take_signals_while_loading()
        monkey.patch_all()
        gevent.reinit()
        # gunicorn wraps its listeners, ours are plain sockets
        plain = [getattr(listener, "sock", listener) for listener in self.sockets]
        self.sockets = [gevent_socket(fileno=listener.detach()) for listener in plain]
        self.settings: Settings = getattr(self.app, "settings", None) or settings_of(self.cfg)
        if self.settings.reload:
            # A file saved twice within a second with the same length would otherwise be taken for its compiled version.
            sys.dont_write_bytecode = True
        # The package's own loggers write where the arbiter's does.
        own = logging.getLogger("tafe")
        own.handlers, own.level, own.propagate = self.log.error_log.handlers, self.log.error_log.level, False
        super().init_process()

    def init_signals(self) -> None:
        """Called by the base class before it loads the application; `_take_signals_while_loading` has done it."""

    def load_wsgi(self) -> None:
        """Import the application; a failure ends the worker with `_APP_LOAD_ERROR` and is shown by the arbiter."""
        self._loading_beat = _LoadingBeat(self)
        try:
            self.wsgi = self.app.wsgi()
        except (Exception, SystemExit) as error:  # noqa: BLE001  sys.exit() in an application is a failure to load
            self._fail(load.failure(error))
        _enable_loggers()
        gc.collect()
        gc.freeze()  # what was loaded lives for ever: never look at it again

    def run(self) -> None:
        """Serve until told to stop; called by the base class."""
        self._told, self._quick = Event(), Event()
        self._deadline_s = self._hooks_end_s = float("inf")
        self._readiness = Readiness(getattr(self.wsgi, "worker_start", None), lifecycle.resources())
        self._state = State.STARTING
        self._accepts = False
        self._take_signals_while_serving()
        observer = self._start_profiler()
        self._access_log = self._open_access_log()
        wsgi = self.wsgi
        if self.settings.server_timing and self._profiling is not None:
            wsgi = with_timing(wsgi, self.settings.trusted_peers, self._profiling.so_far)
        application = health.with_health(wsgi, self.settings.health_path, self._lacking)
        starting = health.with_health(health.unavailable, self.settings.health_path, self._lacking)
        environ = {"wsgi.multiprocess": self.cfg.workers > 1}
        self._servers = [
            WSGIServer(
                listener,
                application if self._readiness.started else starting,
                environ=environ,
                log=self._access_log,
                limits=self.settings.limits,
                trusted_peers=self.settings.trusted_peers,
                observer=observer,
            )
            for listener in self.sockets
        ]
        self._application = application
        balance = Balance(self.board, self.slot) if self.board and self.slot else None
        for server in self._servers:
            server.balance = balance
            server.start()
            server.stop_accepting()
            if self._profiling is not None:
                self._profiling.follow(server)
        if self.slot is not None and self.slot.mailbox is not None:
            self._publisher = Publisher(self.slot, self._servers, self._profiling, self._access_log)
        self._readiness.start()
        heart = gevent.spawn(self._beat_for_ever)
        self._loading_beat.stop()
        self._told.wait()
        self._drain()
        self._finish()
        gevent.kill(heart)

    def _start_profiler(self) -> Any:
        directory = self.settings.profile_path
        if directory is None:
            return None
        from tafe import profiling  # loads the profiler, which --no-profile does without

        self._profiling = profiling
        try:
            return profiling.start(directory, self.settings.slow_slice_s * 1000, self.settings.objectives_ms)
        except UsageError as error:
            self._fail(str(error))

    def _open_access_log(self) -> AccessLog | None:
        settings = self.settings
        if not settings.access_log:
            return None
        try:
            return AccessLog(settings.access_log, settings.access_log_format, settings.trusted_peers)
        except UsageError as error:
            self._fail(str(error))

    # -- while it serves

    def notify(self) -> None:
        """Show the arbiter that the hub turns."""
        if self.slot is None:
            super().notify()
        else:
            servers = getattr(self, "_servers", ())
            in_flight = sum(server.in_flight for server in servers)
            self.slot.beat(time.monotonic_ns(), in_flight, sum(server.requests for server in servers))

    def _beat_for_ever(self) -> None:
        while True:
            self.notify()
            if os.getppid() != self.ppid and not self._told.is_set():
                _log.error("the arbiter is gone; worker %d finishes its requests and ends", self.pid)
                self._told.set()
            if self._state < State.DRAINING:
                self._look()
            if self._publisher is not None:
                self._publisher.tick()
            if self.slot is not None:
                function_profile.answer(self.slot)
            self._readiness.changed.wait(_TICK_S)
            self._readiness.changed.clear()

    def _look(self) -> None:
        """Am I ready, may I accept, have I served enough?"""
        readiness = self._readiness
        if readiness.failure is not None:
            self._fail(load.failure(readiness.failure))
        if readiness.started:
            for server in self._servers:
                server.application = self._application
        if readiness.tried:
            lacking = readiness.lacking()
            self._go_on(State.WAITING if lacking else State.READY, lacking)
        self._accept(self._may_accept())
        if sum(server.requests for server in self._servers) >= self.max_requests:
            if self.slot is None:
                self.log.info("worker %d has served %d requests and ends", self.pid, self.max_requests)
                self._told.set()
            else:
                self.slot.retiring = True

    def _may_accept(self) -> bool:
        """A worker that lacks something leaves requests to those that can answer, or else says 503 soon."""
        if self._state is State.WAITING:
            return self.board is None or self.slot is None or not self.board.another_is_ready(self.slot)
        return self._state is State.READY

    def _accept(self, accepts: bool) -> None:
        if accepts != self._accepts:
            self._accepts = accepts
            for server in self._servers:
                if accepts:
                    server.start_accepting()
                else:
                    server.stop_accepting()

    def _go_on(self, state: State, lacking: list[str]) -> None:
        if state is self._state:
            return
        assert state in lifecycle.SUCCESSORS[self._state], f"{self._state.name} -> {state.name}"
        if state is State.WAITING:
            reason = self._readiness.why or ", ".join(lacking)
            _log.warning("worker %d is not ready: %s", self.pid, reason)
            if self.slot is not None:
                self.slot.text = reason
        elif self._state is State.WAITING and state is State.READY:
            _log.warning("worker %d is ready", self.pid)
        self._state = state
        if self.slot is not None:
            self.slot.state = state

    def _lacking(self) -> list[str]:
        """For the readiness answer. A worker that is merely replaced does not make the server unready."""
        if self._state is State.DRAINING and (self.board is None or self.board.stopping):
            return ["draining"]
        return self._readiness.lacking()

    # -- the end

    def _drain(self) -> None:
        """Stop accepting when it loses nothing, and let the requests in flight finish, but not for ever."""
        self._go_on(State.DRAINING, [])
        whole_server = self.board is None or self.board.stopping
        limit_s = self.settings.graceful_timeout_s
        now = time.monotonic()
        self._deadline_s = now + limit_s - min(_HOOKS_S + _CLOSING_S, _LAST_SHARE * limit_s)
        self._limit_hooks(now, limit_s)
        if whole_server and not self._quick.is_set():
            self._accept(True)
            self._quick.wait(self.settings.drain_delay_s)
        for server in self._servers:
            server.draining = True
        if self.board is not None and self.board.stopping and self.board.closes_for_good:
            for server in self._servers:
                refuse_newcomers(server.socket)
            self._quick.wait(_HANDSHAKE_S)
        for server in self._servers:
            if self._accepts:  # else it lacks something, and they are for those that do not
                server.accept_all()
            server.close()
        self._wait_for_connections(_LAST_CALL_S)
        for server in self._servers:
            server.begin_drain()
        self._wait_for_connections(float("inf"))

    def _wait_for_connections(self, limit_s: float) -> None:
        """Wait until all connections are closed, but not beyond the deadline or a signal to stop at once."""
        end_s = time.monotonic() + limit_s
        while not self._is_over() and time.monotonic() < end_s and any(server.connections for server in self._servers):
            self._quick.wait(_LOOK_S)

    def _limit_hooks(self, now: float, limit_s: float) -> None:
        """The worker has to be gone in `limit_s`: leave time to close the rest after the hooks."""
        closing_s = min(_CLOSING_S, _LAST_SHARE * limit_s * _CLOSING_S / (_HOOKS_S + _CLOSING_S))
        self._hooks_end_s = min(self._hooks_end_s, now + limit_s - closing_s)

    def _is_over(self) -> bool:
        return self._quick.is_set() or time.monotonic() > self._deadline_s

    def _finish(self) -> None:
        """Cut what is left, then stop hooks, resources, the access log and the profiler, in this order."""
        function_profile.end()
        for server in self._servers:
            if server.in_flight:
                _log.warning("worker %d stops with %d requests in flight", self.pid, server.in_flight)
            server.stop(timeout=0)
        stop_hooks = getattr(self.wsgi, "worker_stop", None)
        if stop_hooks is not None:
            left_s = max(self._hooks_end_s - time.monotonic(), 0.0)
            try:
                if "deadline_s" in inspect.signature(stop_hooks).parameters:
                    stop_hooks(deadline_s=left_s)
                else:  # of an application that has such a method and is no tafe.App
                    stop_hooks()
            except Exception:  # noqa: BLE001  the rest has to be closed whatever the application does
                _log.exception("the stop hooks failed")
        self._readiness.stop()
        if self._publisher is not None:
            self._publisher.publish(last=True)
        if self._access_log is not None:
            self._access_log.close()
        if self._profiling is not None:
            self._profiling.stop()
        self._go_on(State.STOPPED, [])

    def _fail(self, reason: str) -> NoReturn:
        """End with the reason where the arbiter finds it; gunicorn's arbiter would not look, so it is logged there."""
        if self.slot is not None:
            self.slot.text = reason
        else:
            self.log.error("the application cannot be loaded\n%s", reason)
        sys.exit(_APP_LOAD_ERROR)

    # -- signals

    def _take_signals_while_loading(self) -> None:
        """Nothing is in flight yet, so the signals to stop simply end the process; the others mean nothing here."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(number, signal.SIG_IGN)
        # SIGABRT is how an arbiter ends a stuck worker: the C handler writes where it is stuck, even if no Python
        # code can run.
        faulthandler.enable(sys.stderr if self.slot is None else self.tmp.fileno(), all_threads=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(signal.Signals))

    def _take_signals_while_serving(self) -> None:
        """Through the hub's loop, which wakes for them; a Python handler would run in the midst of any greenlet."""
        self._signals = [
            gevent.signal_handler(signal.SIGTERM, self._told.set),
            gevent.signal_handler(signal.SIGINT, self._stop_quickly),
            gevent.signal_handler(signal.SIGQUIT, self._stop_quickly),
            gevent.signal_handler(signal.SIGUSR1, self._reopen_logs),
        ]

    def _reopen_logs(self) -> None:
        """The files were renamed."""
        self.log.reopen_files()
        if self._access_log is not None:
            self._access_log.reopen()

    def _stop_quickly(self) -> None:
        self.cfg.worker_int(self)  # gunicorn's hook
        self._limit_hooks(time.monotonic(), QUICK_STOP_S)
        self._quick.set()
        self._told.set()


def _enable_loggers() -> None:
    """Undo what `logging.config` does to loggers that an application's configuration does not name: it silences them,
    and with them every error that the server has to tell. Handlers and levels that it did set stay."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("tafe", "gunicorn"):
            logging.getLogger(name).disabled = False


class _LoadingBeat:
    """Heartbeats from a native thread while importing the application holds up the hub; for a bounded time."""

    def __init__(self, worker: TafeWorker) -> None:
        self._worker = worker
        self._goes_on = True
        self._deadline_s = time.monotonic() + worker.settings.start_deadline_s
        monkey.get_original("_thread", "start_new_thread")(self._run, ())

    def stop(self) -> None:
        """The hub takes over."""
        self._goes_on = False

    def _run(self) -> None:
        sleep = monkey.get_original("time", "sleep")
        while self._goes_on and time.monotonic() < self._deadline_s:
            self._worker.notify()
            sleep(_TICK_S)

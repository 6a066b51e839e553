"""The arbiter: forks the workers, replaces them, reloads and stops them so that no request is lost.

A subclass of gunicorn's `Arbiter`, whose signal queue, logger and pid file it uses; the promises it adds:

- a reload forks the new generation beside the old one, which goes on serving until the new one is ready; an
  application or a configuration that cannot be loaded leaves the old generation serving, and the log says why;
- a worker that dies is replaced at once; one that dies again and again is replaced with growing delay;
- a server whose first workers cannot load the application ends with that error;
- SIGTERM lets the workers finish: the arbiter lets go of the listeners, which live until the last worker closes
  them, and removes the path of a unix socket last.

generations.py decides, this module acts. Limits: no upgrade in place (USR2), no daemon mode, no control socket.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from gunicorn import systemd
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.pidfile import Pidfile

from tafe import __version__, listeners, load
from tafe.errors import UsageError
from tafe.generations import STEADY_S, Backoff, Member, decide
from tafe.lifecycle import State
from tafe.reload import SourceWatcher
from tafe.resolve import Resolved
from tafe.scoreboard import Scoreboard, Slot
from tafe.settings import BY_NAME, Settings
from tafe.values import parse_address

_UNSETTLED_S = 0.05  # between two looks while a worker starts or stops
_SETTLED_S = 0.5  # else; also how soon a saved file is noticed with --reload
_QUICK_STOP_S = 3.0  # after SIGINT or SIGQUIT, until workers are killed
_ABORT_S = 2.0  # for a stuck worker to write its stack after SIGABRT, until it is killed
_SLOTS = 2 * 512 + 64  # two generations of the most workers there can be, and some that still drain


class StartFailed(UsageError):
    """No worker of the first generation could load the application."""

    def __init__(self, problem: str, exit_status: int) -> None:
        super().__init__(problem)
        self.exit_status = exit_status


class Application(BaseApplication):
    """Our settings as gunicorn's arbiter and workers want to see them."""

    def __init__(self, resolved: Resolved) -> None:
        self.settings: Settings = resolved.settings
        super().__init__()

    def load_config(self) -> None:
        """Called by the base class."""
        settings = self.settings
        values = {
            "worker_class": "tafe.worker.TafeWorker",
            "workers": settings.workers,
            "timeout": round(settings.timeout_s),
            "graceful_timeout": round(settings.graceful_timeout_s),
            "max_requests": settings.max_requests,
            "max_requests_jitter": settings.max_requests_jitter,
            "pidfile": settings.pid_file or None,
            "control_socket_disable": True,
        }
        for name, value in values.items():
            self.cfg.set(name, value)

    def load(self) -> load.WSGIApplication:
        """Import the application; called in the worker."""
        return load.load(load.parse(self.settings.app))


@dataclass
class Generation:
    """One application and configuration, and the sockets its workers accept from."""

    number: int
    application: Application
    listeners: dict[str, socket.socket]  # by address as configured
    started_s: float = field(default_factory=time.monotonic)

    @property
    def settings(self) -> Settings:
        return self.application.settings


@dataclass
class _Child:
    """What the arbiter remembers of a living worker beyond its slot."""

    worker: Any
    slot: Slot
    generation: int
    started_s: float
    ready_s: float | None = None  # when it was first seen ready
    told: bool = False  # it has been told to stop
    kill_s: float | None = None  # when it is killed, if it is still there


class Master(Arbiter):
    """Run with `run()`, which returns the exit status; a worker leaves it through SystemExit."""

    # What gunicorn's class sets and reads
    app: Application
    cfg: Any
    num_workers: int
    timeout: int
    pidfile: Pidfile | None

    def __init__(self, resolved: Resolved, settle: Callable[[], Resolved]) -> None:
        """`settle` reads the settings once more, for a reload."""
        super().__init__(Application(resolved))
        _share_handlers(self.log)
        self._settle = settle
        self._board = Scoreboard(_SLOTS)
        self._children: dict[int, _Child] = {}
        self._backoff = Backoff()
        self._candidate: Generation | None = None
        self._loaded = False  # some worker has loaded the application once
        self._announced = False
        self._waits_for_save = False  # with --reload: the application is broken and nothing serves
        self._ending = ""  # "graceful" or "quick" once a signal said so
        self._looked_s = time.monotonic()
        self._inherited = listeners.from_systemd()
        self._generations = 1
        self._serving = Generation(self._generations, self.app, self._listen(resolved, {}))
        self._sources = SourceWatcher(resolved.settings) if resolved.settings.reload else None

    # -- the main loop

    def run(self) -> int:
        """Serve until told to stop; returns the exit status."""
        self.start()
        try:
            while not self._ending:
                self._turn()
        except StartFailed:
            self.stop(graceful=False)
            self._forget_pid_file()
            raise
        self.stop(graceful=self._ending == "graceful")
        self._forget_pid_file()
        self.log.info("stopped")
        return 0

    def start(self) -> None:
        """Write the pid file, take the signals, say what is served where."""
        self.pid = os.getpid()
        if self.cfg.pidfile is not None:
            self.pidfile = Pidfile(self.cfg.pidfile)
            try:
                self.pidfile.create(self.pid)
            except (RuntimeError, OSError) as error:
                raise UsageError(f"--pid-file: {error}") from None
        self.init_signals()
        settings = self._serving.settings
        addresses = " and ".join(listeners.name(one) for one in self._serving.listeners.values())
        profile = settings.profile_path
        self.log.info(
            "tafe %s serves %s at %s with %d worker%s, %s",
            __version__, settings.app, addresses, settings.workers, "s" if settings.workers > 1 else "",
            f"profile in {profile} (tafe report {profile})" if profile else "not profiled",
        )  # fmt: skip

    def _turn(self) -> None:
        for number in self.wait_for_signals(timeout=self._pause_s()):
            name = self.SIG_NAMES.get(number, "")
            getattr(self, f"handle_{name}")()
            if self._ending:
                return
        self.reap_workers()
        self.murder_workers()
        self._look_at_sources()
        self.manage_workers()

    def _pause_s(self) -> float:
        settled = self._announced and self._candidate is None and not self._backoff.failures
        settled = settled and all(child.ready_s and not child.told for child in self._children.values())
        return _SETTLED_S if settled else _UNSETTLED_S

    # -- signals

    def handle_chld(self) -> None:
        """A worker ended; `_turn` reaps it."""

    handle_cld = handle_chld

    def handle_term(self) -> None:
        """Stop when the requests in flight are answered."""
        self._ending = "graceful"

    def handle_int(self) -> None:
        """Stop at once."""
        self._ending = "quick"

    handle_quit = handle_int

    def handle_hup(self) -> None:
        """Reload configuration and application."""
        self.reload()

    def handle_ttin(self) -> None:
        """One worker more."""
        self.num_workers = min(self.num_workers + 1, int(BY_NAME["workers"].high or 1))
        self.log.info("%d workers from now on", self.num_workers)

    def handle_ttou(self) -> None:
        """One worker less."""
        self.num_workers = max(self.num_workers - 1, 1)
        self.log.info("%d workers from now on", self.num_workers)

    def handle_usr1(self) -> None:
        """Nothing: the log goes to standard error, so there is no file to reopen."""

    def handle_usr2(self) -> None:
        """Refused: no upgrade in place."""
        self.log.warning("SIGUSR2 ignored: to upgrade, start the new server on systemd's socket, then stop this one")

    def handle_winch(self) -> None:
        """The terminal's size is nothing to a server."""

    # -- workers: start and end

    def manage_workers(self) -> None:
        """See how the workers are, and do what `decide` says."""
        now = time.monotonic()
        self._observe(now)
        if self._waits_for_save:
            return
        members = [
            Member(pid, child.generation, child.slot.state, child.slot.retiring, child.told)
            for pid, child in self._children.items()
        ]
        candidate = None if self._candidate is None else self._candidate.number
        target = self.num_workers if self._candidate is None else self._candidate.settings.workers
        plan = decide(members, serving=self._serving.number, candidate=candidate, target=target)
        if plan.promote:
            self._promote()
            return
        for number in plan.spawn:
            if number == candidate and self._candidate is not None:
                self._spawn(self._candidate)
            elif self._backoff.allows(now):
                self._spawn(self._serving)
        for pid in plan.drain:
            self._tell(pid, signal.SIGTERM, self.cfg.graceful_timeout)

    def _observe(self, now: float) -> None:
        """Note who is ready, and say so the first time; give up on a reload that takes too long."""
        serving = [child for child in self._children.values() if child.generation == self._serving.number]
        for child in self._children.values():
            if child.ready_s is None and child.slot.state is State.READY:
                child.ready_s = now
        if any(child.slot.state in {State.WAITING, State.READY} for child in serving):
            if not self._loaded:
                systemd.sd_notify(f"READY=1\nSTATUS=serving {self._serving.settings.app}", self.log)
            self._loaded = True
        if not self._announced and sum(child.ready_s is not None for child in serving) >= self.num_workers:
            self._announced = True
            self.log.info("ready after %.1f s", now - self._serving.started_s)
        steady = [child for child in serving if child.ready_s is not None and now - child.ready_s > STEADY_S]
        if self._backoff.failures and len(steady) >= self.num_workers:
            self._backoff.steady()
        candidate = self._candidate
        if candidate is not None and now - candidate.started_s > candidate.settings.start_deadline_s:
            late = [child.slot for child in self._children.values() if child.generation == candidate.number]
            reasons = {slot.text or "still loading" for slot in late if slot.state is not State.READY}
            self._abandon(f"not ready after {candidate.settings.start_deadline_s:g} s: {'; '.join(sorted(reasons))}")

    def _spawn(self, generation: Generation) -> None:
        slot = self._board.free_slot()
        if slot is None:
            self.log.error("no room for one more worker: %d are there or still draining", _SLOTS)
            return
        self.worker_age += 1
        cfg = generation.application.cfg
        sockets = list(generation.listeners.values())
        worker = self.worker_class(
            self.worker_age, self.pid, sockets, generation.application, cfg.timeout / 2, cfg, self.log
        )
        worker.board, worker.slot = self._board, slot
        slot.hand_out(generation.number, time.monotonic_ns())
        # A signal between the fork and the worker's own handlers would go to the arbiter's handler and be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, self.SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._be_worker(worker, sockets)
        slot.pid = pid
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.SIGNALS)
        self.WORKERS[pid] = worker
        self._children[pid] = _Child(worker, slot, generation.number, time.monotonic())

    def _be_worker(self, worker: Any, sockets: list[socket.socket]) -> NoReturn:
        """The child's side of the fork; ends the process through SystemExit, so that exit handlers run."""
        worker.pid = worker.slot.pid = os.getpid()
        for sibling in self._children.values():
            sibling.worker.tmp.close()
        for generation in (self._serving, self._candidate):
            for listener in generation.listeners.values() if generation is not None else ():
                if listener not in sockets:
                    listener.close()
        try:
            worker.init_process()
        except Exception:
            self.log.exception("worker %d failed", worker.pid)
            sys.exit(self.WORKER_BOOT_ERROR)
        sys.exit(0)

    def _tell(self, pid: int, number: signal.Signals, kill_after_s: float) -> None:
        """Tell a worker to stop, once; it is killed if it is still there after `kill_after_s`."""
        child = self._children[pid]
        child.told = True
        child.kill_s = min(child.kill_s or float("inf"), time.monotonic() + kill_after_s)
        self.kill_worker(pid, number)

    def reap_workers(self) -> None:
        """Collect the workers that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            child = self._children.pop(pid, None)
            if child is not None:  # as process 1 of a container we also inherit orphans
                self.WORKERS.pop(pid, None)
                child.worker.tmp.close()
                child.slot.pid = 0
                self._ended(pid, child, os.waitstatus_to_exitcode(status))

    def _ended(self, pid: int, child: _Child, code: int) -> None:
        """Cases: we asked for it; a candidate's; nobody ever loaded the application; a worker that served."""
        now = time.monotonic()
        if child.told or self._ending:
            self.log.debug("worker %d has stopped", pid)
            return
        reason = child.slot.text if child.slot.state is State.STARTING else ""
        how = _how_it_ended(code)
        if self._candidate is not None and child.generation == self._candidate.number:
            self._abandon(reason or f"worker {pid} {how}")
        elif not self._loaded and child.slot.state is State.STARTING:
            self._start_failed(reason or f"worker {pid} {how} while loading it", code)
        else:
            self._backoff.failed(now, now - child.started_s, child.ready_s is not None)
            delay_s = self._backoff.not_before_s - now
            when = f"in {delay_s:.1f} s" if delay_s > 0 else "now"
            self.log.error("worker %d %s; its replacement starts %s%s", pid, how, when, f"\n{reason}" if reason else "")

    def _start_failed(self, reason: str, code: int) -> None:
        problem = f"{self._serving.settings.app} cannot be loaded\n{reason}"
        if self._sources is None:
            raise StartFailed(problem, code if code == self.APP_LOAD_ERROR else self.WORKER_BOOT_ERROR)
        self.log.error("%s\nwaiting for a source file to be saved", problem)
        self._waits_for_save = True
        self._kill_all()

    def _kill_all(self) -> None:
        for pid in self._children:
            self._tell(pid, signal.SIGKILL, 0)

    def murder_workers(self) -> None:
        """Abort workers whose hub does not turn; kill those that did not stop in time."""
        now = time.monotonic()
        paused = now - self._looked_s > self.timeout / 2  # we did not run either, so nobody can be blamed
        self._looked_s = now
        for pid, child in list(self._children.items()):
            silent_s = now - child.slot.beat_ns / 1e9
            if child.kill_s is not None and now > child.kill_s:
                self.log.warning("worker %d did not stop in time and is killed", pid)
                self.kill_worker(pid, signal.SIGKILL)
            elif silent_s > self.timeout and not paused and not child.worker.aborted:
                self.log.critical("worker %d is stuck: its hub has not turned for %.1f s; where:", pid, silent_s)
                child.worker.aborted = True
                child.kill_s = now + _ABORT_S
                self.kill_worker(pid, signal.SIGABRT)

    # -- reload

    def reload(self) -> None:
        """Prepare the next generation; nothing changes for the serving one until the new one is ready."""
        importlib.invalidate_caches()  # a module that was just written is to be found
        try:
            resolved = self._settle()
            load.find(load.parse(resolved.settings.app))
            found = self._listen(resolved, self._serving.listeners)
        except UsageError as error:
            self.log.error("reload refused, the old workers go on: %s", error)
            return
        if self._candidate is not None:
            self._drop_candidate()
        self._generations += 1
        generation = Generation(self._generations, Application(resolved), found)
        self.log.info("reloading %s", resolved.settings.app)
        if self._loaded:
            self._candidate = generation
        else:  # nobody serves yet, so nobody has to be kept
            self._kill_all()
            self._adopt(generation)

    def _promote(self) -> None:
        assert self._candidate is not None
        generation, self._candidate = self._candidate, None
        self._adopt(generation)
        self.log.info("reloaded after %.1f s", time.monotonic() - generation.started_s)

    def _adopt(self, generation: Generation) -> None:
        """Have `generation` serve; `decide` drains the workers of the one before."""
        old, self._serving = self._serving, generation
        _close(old.listeners, keep=generation.listeners, unlink=not self._inherited)
        self.app = generation.application
        self.cfg = self.app.cfg
        self.timeout = self.cfg.timeout
        self.num_workers = generation.settings.workers
        self._waits_for_save = False

    def _abandon(self, reason: str) -> None:
        self._drop_candidate()
        self.log.error("reload failed, the old workers go on: %s", reason)

    def _drop_candidate(self) -> None:
        assert self._candidate is not None
        _close(self._candidate.listeners, keep=self._serving.listeners, unlink=True)
        self._candidate = None

    def _look_at_sources(self) -> None:
        changed = self._sources.changed() if self._sources is not None else None
        if changed is not None:
            self.log.info("%s has changed", changed)
            self.reload()

    def _listen(self, resolved: Resolved, known: dict[str, socket.socket]) -> dict[str, socket.socket]:
        """A listener for each address; those of `known` are kept. `UsageError`, and nothing bound, if one fails."""
        if self._inherited:
            return {listeners.name(one): one for one in self._inherited}
        found: dict[str, socket.socket] = {}
        for text in resolved.settings.bind:
            try:
                found[text] = known.get(text) or listeners.listen(
                    parse_address(text), resolved.settings.backlog, resolved.origins["bind"]
                )
            except UsageError:
                _close(found, keep=known, unlink=True)
                raise
        return found

    # -- the end

    def stop(self, graceful: bool = True) -> None:
        """Have the workers stop and wait for them; kill what is left when the time is up."""
        self._ending = self._ending or "quick"
        self._board.stopping = True
        systemd.sd_notify("STOPPING=1", self.log)
        self.log.info("stopping%s", ": requests in flight are finished" if graceful else "")
        if self._candidate is not None:
            self._drop_candidate()
        # The workers hold the listeners open as long as they accept; a second holder would keep connections waiting
        # that nobody will ever accept.
        for listener in self._serving.listeners.values():
            listener.close()
        self._tell_all(graceful)
        while self._children:
            for number in self.wait_for_signals(timeout=_UNSETTLED_S):
                if number in {signal.SIGINT, signal.SIGQUIT} and graceful:
                    graceful = False
                    self._tell_all(graceful)
            self.reap_workers()
            self.murder_workers()
        _unlink_paths(self._serving.listeners, set(), not self._inherited)

    def _tell_all(self, graceful: bool) -> None:
        number, limit_s = (signal.SIGTERM, self.cfg.graceful_timeout) if graceful else (signal.SIGQUIT, _QUICK_STOP_S)
        for pid in list(self._children):
            self._tell(pid, number, limit_s)

    def _forget_pid_file(self) -> None:
        if self.pidfile is not None:
            self.pidfile.unlink()


def _share_handlers(log: Any) -> None:
    """Have the package's own loggers write where gunicorn's does."""
    own = logging.getLogger("tafe")
    own.handlers = log.error_log.handlers
    own.setLevel(log.error_log.level)
    own.propagate = False


def _close(listening: dict[str, socket.socket], keep: dict[str, socket.socket], unlink: bool) -> None:
    """Close the arbiter's copies of those listeners that are not in `keep`."""
    for address, listener in listening.items():
        if address not in keep:
            listener.close()
    _unlink_paths(listening, set(keep), unlink)


def _unlink_paths(listening: dict[str, socket.socket], keep: set[str], unlink: bool) -> None:
    """Remove the paths of unix sockets; those that systemd or a parent process made are theirs."""
    for address in listening if unlink else ():
        path = parse_address(address).path if address not in keep else ""
        if path and os.path.exists(path):
            os.unlink(path)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"exited with status {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

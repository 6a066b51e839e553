"""The arbiter: keeps the workers alive, replaces them, reloads and stops them so that no request is lost.

A subclass of gunicorn's `Arbiter`, whose signal queue, logger and pid file it uses; the promises it adds:

- a reload forks the new generation beside the old one, which goes on serving until the new one is ready; an
  application or a configuration that cannot be loaded leaves the old generation serving, and the log says why;
- a worker that dies is replaced at once; one that dies again and again is replaced with growing delay;
- a server whose first workers cannot load the application ends with that error;
- SIGTERM lets the workers finish: the arbiter lets go of the listeners, which live until the last worker closes
  them, and removes the path of a unix socket last.

generations.py decides, children.py acts. Limits: no upgrade in place (USR2), no daemon mode, no control socket.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from gunicorn import systemd
from gunicorn.arbiter import Arbiter
from gunicorn.pidfile import Pidfile

from tafe import __version__, listeners, load, modules
from tafe.admin import Admin
from tafe.children import Application, Child, Children, Generation
from tafe.errors import UsageError
from tafe.generations import STEADY_S, Backoff, decide
from tafe.lifecycle import State
from tafe.reload import SourceWatcher
from tafe.resolve import Resolved
from tafe.scoreboard import QUICK_STOP_S
from tafe.settings import BY_NAME
from tafe.values import parse_address

_UNSETTLED_S = 0.05  # between two looks while a worker starts or stops
_SETTLED_S = 0.5  # else; also how soon a saved file is noticed with --reload


class StartFailed(UsageError):
    """No worker of the first generation could load the application."""

    def __init__(self, problem: str, exit_status: int) -> None:
        super().__init__(problem)
        self.exit_status = exit_status


class Master(Arbiter):
    """Run with `run()`, which returns the exit status; a worker leaves it through SystemExit."""

    # What gunicorn's class sets and reads
    app: Application
    cfg: Any
    log: Any
    num_workers: int
    pidfile: Pidfile | None

    def __init__(self, resolved: Resolved, settle: Callable[[], Resolved]) -> None:
        """`settle` reads the settings once more, for a reload. `UsageError` if an address cannot be had."""
        super().__init__(Application(resolved))
        for variable in resolved.ignored:
            self.log.warning("%s is not a setting and is ignored", variable)
        self._settle = settle
        address, run_dir = resolved.settings.admin, resolved.settings.run_dir
        self._admin = Admin(address, resolved.origins["admin"], run_dir, self.log) if address else None
        self._children = Children(self.log, self._admin)
        self._backoff = Backoff()
        self._inherited = listeners.from_systemd()
        self._generations = 1  # so far
        self._serving = Generation(self._generations, self.app, self._listen(resolved, {}))
        self._candidate: Generation | None = None
        self._sources = SourceWatcher(resolved.settings) if resolved.settings.reload else None
        self._loaded = False  # some worker has loaded the application once
        self._announced = False  # that all workers were ready
        self._waits_for_save = False  # with --reload: the application is broken and nothing serves
        self._ending = ""  # "graceful" or "quick" once a signal said so

    # -- the main loop

    def run(self) -> int:
        """Serve until told to stop; returns the exit status. `StartFailed` if the application cannot be loaded."""
        self.start()
        try:
            while not self._ending:
                self._turn()
        except StartFailed:
            self.stop(graceful=False)
            raise
        self.stop(graceful=self._ending == "graceful")
        self.log.info("stopped")
        return 0

    def start(self) -> None:
        """Write the pid file, take the signals, say what is started where."""
        self.pid = os.getpid()
        settings = self._serving.settings
        if settings.pid_file:
            self.pidfile = Pidfile(settings.pid_file)
            try:
                self.pidfile.create(self.pid)
            except (RuntimeError, OSError) as error:
                raise UsageError(f"--pid-file: {error}", try_="another file, or stop the other server") from None
        self.init_signals()
        workers = f"{settings.workers} worker{'s' if settings.workers > 1 else ''}"
        profile = settings.profile_path
        profiled = f"profile in {profile} (tafe report {profile})" if profile else "not profiled"
        where = self._serving.where
        self.log.info("tafe %s: starting %s at %s with %s, %s", __version__, settings.app, where, workers, profiled)
        self.log.info("modules: %s", modules.describe(profiled=bool(profile)))
        if self._admin is not None:
            self._admin.announce()

    def _turn(self) -> None:
        self._handle_signals(self._pause_s())
        self.reap_workers()
        if not self._ending:
            self.murder_workers()
            self._look_at_sources()
            self.manage_workers()
            self._children.keep_admin([one for one in (self._serving, self._candidate) if one is not None])

    def _handle_signals(self, timeout_s: float) -> None:
        for number in self.wait_for_signals(timeout=timeout_s):
            if not self._ending:
                getattr(self, f"handle_{self.SIG_NAMES[number]}")()

    def _pause_s(self) -> float:
        settled = self._announced and self._candidate is None and not self._backoff.failures
        return _SETTLED_S if settled and all(c.ready_s and not c.told for c in self._children) else _UNSETTLED_S

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
        self._change_workers(1)

    def handle_ttou(self) -> None:
        """One worker less."""
        self._change_workers(-1)

    def _change_workers(self, change: int) -> None:
        most = int(BY_NAME["workers"].high or 1)
        self.num_workers = min(max(self.num_workers + change, 1), most)
        self.log.info("%d workers from now on", self.num_workers)

    def handle_usr1(self) -> None:
        """Have the workers reopen the access log. The server's own goes to standard error, which is no file of ours."""
        self._children.pass_on(signal.SIGUSR1)

    def handle_usr2(self) -> None:
        """Refused: no upgrade in place."""
        self.log.warning("SIGUSR2 is ignored: to upgrade, let systemd hold the socket and restart the service")

    def handle_winch(self) -> None:
        """The terminal's size is nothing to a server."""

    # -- workers

    def manage_workers(self) -> None:
        """See how the workers are, and do what `decide` says."""
        now = time.monotonic()
        self._observe(now)
        if self._waits_for_save:
            return
        candidate = self._candidate
        plan = decide(
            self._children.members(),
            serving=self._serving.number,
            candidate=None if candidate is None else candidate.number,
            target=self.num_workers if candidate is None else candidate.settings.workers,
        )
        if plan.promote and candidate is not None:
            self._adopt(candidate)
            self.log.info("reloaded after %.1f s", now - candidate.started_s)
            return
        for number in plan.spawn:
            if candidate is not None and number == candidate.number:
                self._spawn(candidate)
            elif self._backoff.allows(now):
                self._spawn(self._serving)
        for child in self._children:
            if child.pid in plan.drain:
                if child.slot.retiring:
                    self.log.info("worker %d has served %d requests and is replaced", child.pid, child.slot.requests)
                self._children.tell(child, signal.SIGTERM, self._serving.settings.graceful_timeout_s)

    def _observe(self, now: float) -> None:
        """Note who is ready, and say so the first time; give up on a reload that takes too long."""
        for child in self._children:
            if child.ready_s is None and child.slot.state is State.READY:
                child.ready_s = now
        serving = self._children.of(self._serving)
        if not self._loaded and any(child.slot.state in {State.WAITING, State.READY} for child in serving):
            self._loaded = True
            systemd.sd_notify(f"READY=1\nSTATUS=serving {self._serving.settings.app}", self.log)
        if not self._announced and sum(child.ready_s is not None for child in serving) >= self.num_workers:
            self._announced = True
            app, where = self._serving.settings.app, self._serving.where
            self.log.info("ready after %.1f s: %s is served at %s", now - self._serving.started_s, app, where)
        steady = [child for child in serving if child.ready_s is not None and now - child.ready_s > STEADY_S]
        if self._backoff.failures and len(steady) >= self.num_workers:
            self._backoff.steady()
        if self._candidate is not None and now - self._candidate.started_s > self._candidate.settings.start_deadline_s:
            late = [c.slot for c in self._children.of(self._candidate) if c.slot.state is not State.READY]
            reasons = sorted({slot.text or "still loading" for slot in late})
            limit_s = self._candidate.settings.start_deadline_s
            self._abandon(f"not ready after {limit_s:g} s: {'; '.join(reasons)}")

    def _spawn(self, generation: Generation) -> None:
        self.worker_age += 1
        app, age = generation.application, self.worker_age
        others = [one for one in (self._serving, self._candidate) if one is not None]
        self._children.spawn(
            lambda sockets: self.worker_class(age, self.pid, sockets, app, app.cfg.timeout / 2, app.cfg, self.log),
            generation,
            others,
        )

    def reap_workers(self) -> None:
        """Collect the workers that have ended and see what that means."""
        ended = self._children.reap()
        if ended and not self._ending:
            self._handle_signals(0)  # Ctrl-C goes to them and to us: then it is no failure of theirs
        for child, code in ended:
            self._ended(child, code)

    def _ended(self, child: Child, code: int) -> None:
        """Cases: we asked for it; of a generation given up; a candidate's; nobody ever loaded it; one that served."""
        current = {one.number for one in (self._serving, self._candidate) if one is not None}
        if child.told or self._ending or self._waits_for_save or child.generation not in current:
            return
        now = time.monotonic()
        reason = child.slot.text if code in {self.APP_LOAD_ERROR, self.WORKER_BOOT_ERROR} else ""
        where = f"; its last stack:\n{child.last_stack}" if child.last_stack else ""
        how = f"worker {child.pid} {_how_it_ended(code)}"
        if self._candidate is not None and child.generation == self._candidate.number:
            self._abandon(reason or how + where)
        elif not self._loaded and child.slot.state is State.STARTING:
            self._start_failed(reason or f"{how} while loading it{where}", code)
        else:
            self._backoff.failed(now, now - child.started_s, child.ready_s is not None)
            delay_s = self._backoff.not_before_s - now
            when = f"in {delay_s:.1f} s" if delay_s > 0 else "now"
            self.log.error("%s; its replacement starts %s%s%s", how, when, where, reason and f"\n{reason}")

    def _start_failed(self, reason: str, code: int) -> None:
        problem = f"{self._serving.settings.app} cannot be served\n{reason}"
        if self._sources is None:
            raise StartFailed(problem, code if code == self.APP_LOAD_ERROR else self.WORKER_BOOT_ERROR)
        self.log.error("%s\nwaiting for a source file to be saved", problem)
        self._waits_for_save = True
        self._children.tell_all(signal.SIGKILL, 0)

    def murder_workers(self) -> None:
        """End the workers that are stuck."""
        self._children.end_the_stuck(self._serving.settings.timeout_s)

    # -- reload

    def reload(self) -> None:
        """Prepare the next generation; nothing changes for the serving one until the new one is ready."""
        importlib.invalidate_caches()  # a module that was just written is to be found
        self._observe(time.monotonic())
        try:
            resolved = self._settle()
            load.find(load.parse(resolved.settings.app))
            found = self._listen(resolved, self._serving.listeners)
        except UsageError as error:
            self.log.error("reload refused, the old workers go on:\n%s", error)
            return
        for name in ("pid_file", "reload", "admin"):
            if getattr(resolved.settings, name) != getattr(self._serving.settings, name):
                self.log.warning("%s has changed, which has an effect at the next start only", name)
        if self._candidate is not None:
            self._drop_candidate()
        self._generations += 1
        generation = Generation(self._generations, Application(resolved), found)
        self.log.info("reloading %s", resolved.settings.app)
        if self._loaded:
            self._candidate = generation
        else:  # nobody serves yet, so nobody has to be kept
            self._children.tell_all(signal.SIGKILL, 0)
            self._adopt(generation)

    def _adopt(self, generation: Generation) -> None:
        """Have `generation` serve from now on; `decide` drains the workers of the one before."""
        old, self._serving, self._candidate = self._serving, generation, None
        _close(old.listeners, keep=generation.listeners, unlink=not self._inherited)
        self.num_workers = generation.settings.workers
        self._waits_for_save = False

    def _abandon(self, reason: str) -> None:
        self._drop_candidate()
        self.log.error("reload failed, the old workers go on:\n%s", reason)

    def _drop_candidate(self) -> None:
        assert self._candidate is not None
        for child in self._children.of(self._candidate):
            self._children.tell(child, signal.SIGTERM, self._candidate.settings.graceful_timeout_s)
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
        backlog = resolved.settings.backlog
        for text in resolved.settings.bind:
            try:
                if text in known:
                    found[text] = known[text]
                    found[text].listen(backlog)  # on a socket that listens it changes the backlog
                else:
                    found[text] = listeners.listen(text, backlog, resolved.origins["bind"])
            except UsageError:
                _close(found, keep=known, unlink=True)
                raise
        return found

    # -- the end

    def stop(self, graceful: bool = True) -> None:
        """Have the workers stop and wait for them; kill what is left when the time is up."""
        self._ending = self._ending or "quick"
        addresses = [parse_address(text) for text in self._serving.settings.bind]
        self._children.board.closes_for_good = not self._inherited and all(one.fd < 0 for one in addresses)
        self._children.board.stopping = True
        systemd.sd_notify("STOPPING=1", self.log)
        self.log.info("stopping%s", ": requests in flight are finished" if graceful else "")
        if self._candidate is not None:
            self._drop_candidate()
        # The workers hold the listeners open as long as they accept; a second holder would keep connections waiting
        # that nobody will ever accept.
        for listener in self._serving.listeners.values():
            listener.close()
        limit_s = self._serving.settings.graceful_timeout_s if graceful else QUICK_STOP_S
        self._children.tell_all(signal.SIGTERM if graceful else signal.SIGQUIT, limit_s)
        while self._children:
            for number in self.wait_for_signals(timeout=_UNSETTLED_S):
                if number in {signal.SIGINT, signal.SIGQUIT}:
                    self._children.tell_all(signal.SIGQUIT, QUICK_STOP_S)
            self.reap_workers()
            self.murder_workers()
        self._children.stop_admin()
        if not self._inherited:
            listeners.unlink(self._serving.listeners)
        if self.pidfile is not None:
            self.pidfile.unlink()


def _close(listening: dict[str, socket.socket], keep: dict[str, socket.socket], unlink: bool) -> None:
    """Close the arbiter's copies of those listeners that are not in `keep`."""
    gone = [address for address in listening if address not in keep]
    for address in gone:
        listening[address].close()
    if unlink:
        listeners.unlink(gone)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"exited with status {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

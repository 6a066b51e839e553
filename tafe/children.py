"""The arbiter's worker processes: fork them, tell them to stop, reap them, end those that are stuck.

Acts only: whether a worker is to be started or stopped is decided in generations.py and said by master.py.
A worker that was told to stop has a time after which it is killed. One whose hub has not turned for the heartbeat
timeout gets SIGABRT first, so that it writes where it is stuck, and is killed shortly after. It writes into the
temporary file that gunicorn gives every worker, which the arbiter reads when the worker is gone: the log stays whole.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from gunicorn.app.base import BaseApplication

from tafe import listeners, load
from tafe.admin import Admin
from tafe.generations import Member
from tafe.metrics import MESSAGE_BYTES, STUCK_BYTES
from tafe.resolve import Resolved
from tafe.scoreboard import Scoreboard, Slot
from tafe.settings import Settings

_SLOTS = 2 * 512 + 64  # two generations of the most workers there can be, and some that still drain
_ABORT_S = 1.0  # for a stuck worker to write its stack after SIGABRT, until it is killed
_STACK_BYTES = 64 * 1024  # faulthandler writes at most 100 calls
_LATE_S = 1.0  # between two looks; the arbiter takes at most half of it when the machine is well
_BOOT_ERROR = 3  # gunicorn's exit status for a worker that failed before it served


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
            "max_requests": settings.max_requests,
            "max_requests_jitter": settings.max_requests_jitter,
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
        """What its workers obey."""
        return self.application.settings

    @property
    def where(self) -> str:
        """Its addresses, as a client would write them."""
        return " and ".join(listeners.name(one) for one in self.listeners.values())


@dataclass
class Child:
    """What the arbiter remembers of a living worker beyond its slot."""

    pid: int
    worker: Any
    slot: Slot
    generation: int
    started_s: float
    ready_s: float | None = None  # when it was first seen ready
    told: bool = False  # it has been told to stop
    aborted: bool = False  # it was stuck
    kill_s: float | None = None  # when it is killed, if it is still there
    last_stack: str = ""  # where it was when it crashed or was aborted


class Children:
    """The living workers, in order of their start, and the admin process beside them, if there is to be one."""

    def __init__(self, log: Any, admin: Admin | None = None) -> None:
        self.board = Scoreboard(_SLOTS) if admin is None else Scoreboard(_SLOTS, MESSAGE_BYTES, STUCK_BYTES)
        self._admin = admin
        self._log = log
        self._living: dict[int, Child] = {}
        self._looked_s = time.monotonic()

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._living.values()))

    def __len__(self) -> int:
        return len(self._living)

    def of(self, generation: Generation) -> list[Child]:
        """The workers of one generation, those that were told to stop among them."""
        return [child for child in self if child.generation == generation.number]

    def members(self) -> list[Member]:
        """As generations.py wants to see them."""
        return [Member(c.pid, c.generation, c.slot.state, c.slot.retiring, c.told) for c in self]

    def spawn(self, make: Any, generation: Generation, others: Iterable[Generation]) -> None:
        """Fork a worker of `generation`. `make(sockets)` is the worker; the listeners of `others` are not for it."""
        slot = self.board.free_slot()
        if slot is None:
            self._log.error("no room for one more worker: %d are there or still draining", _SLOTS)
            return
        sockets = list(generation.listeners.values())
        worker = make(sockets)
        worker.board, worker.slot = self.board, slot
        slot.hand_out(generation.number, time.monotonic_ns())
        self.board.starts += 1
        # A signal between the fork and the worker's own handlers would go to the arbiter's handler and be lost.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        pid = os.fork()
        if pid == 0:
            self._be(worker, sockets, others)
        slot.pid = pid
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self._living[pid] = Child(pid, worker, slot, generation.number, time.monotonic())

    def _be(self, worker: Any, sockets: list[socket.socket], others: Iterable[Generation]) -> NoReturn:
        """The child's side of the fork; ends the process through SystemExit, so that exit handlers run."""
        worker.pid = worker.slot.pid = os.getpid()
        self._close_siblings(others, sockets)
        if self._admin is not None:
            self._admin.listener.close()
        try:
            worker.init_process()
        except Exception:  # noqa: BLE001  the worker's last word, whatever it was
            self._log.exception("worker %d failed", worker.pid)
            worker.slot.text = "the traceback is above"
            sys.exit(_BOOT_ERROR)
        sys.exit(0)

    def _close_siblings(self, generations: Iterable[Generation], kept: Sequence[socket.socket] = ()) -> None:
        """In a child: let go of what the arbiter has open for others."""
        for sibling in self:
            sibling.worker.tmp.close()
        for generation in generations:
            for listener in generation.listeners.values():
                if listener not in kept:
                    listener.close()

    def keep_admin(self, generations: Iterable[Generation]) -> None:
        """See that the admin process runs, if there is to be one. It gets none of the listeners of `generations`."""
        if self._admin is not None:
            self._admin.keep(self.board, lambda: self._close_siblings(generations))

    def stop_admin(self) -> None:
        """The last to go: it shows how the workers end."""
        if self._admin is not None:
            self._admin.stop()

    def tell(self, child: Child, number: signal.Signals, kill_after_s: float) -> None:
        """Tell a worker to stop; it is killed if it is still there after `kill_after_s`, unless this is its death."""
        child.told = True
        if number is signal.SIGKILL:
            child.kill_s = None
        else:
            child.kill_s = min(child.kill_s or float("inf"), time.monotonic() + kill_after_s)
        os.kill(child.pid, number)  # it is ours until it is reaped, so the process id cannot be another's

    def pass_on(self, number: signal.Signals) -> None:
        """Send every worker a signal that does not end it."""
        for child in self:
            os.kill(child.pid, number)

    def tell_all(self, number: signal.Signals, kill_after_s: float) -> None:
        """Tell every worker."""
        for child in self:
            self.tell(child, number, kill_after_s)

    def reap(self) -> list[tuple[Child, int]]:
        """The workers that have ended, each with its exit status, or minus the signal that killed it."""
        ended: list[tuple[Child, int]] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if not pid:
                return ended
            child = self._living.pop(pid, None)
            if child is None and self._admin is not None and self._admin.has_ended(pid, status):
                continue
            if child is not None:  # as process 1 of a container we also inherit orphans
                child.last_stack = _stack_left_by(child.worker)
                child.worker.tmp.close()
                child.slot.pid = 0
                ended.append((child, os.waitstatus_to_exitcode(status)))

    def end_the_stuck(self, timeout_s: float) -> None:
        """Abort workers whose hub does not turn; kill those that did not stop in time."""
        now = time.monotonic()
        paused = now - self._looked_s > _LATE_S  # we did not run either, so no worker is to blame
        self._looked_s = now
        for child in self:
            silent_s = now - child.slot.beat_ns / 1e9
            if child.kill_s is not None and now > child.kill_s:
                if not child.aborted:
                    self._log.warning("worker %d did not stop in time and is killed", child.pid)
                child.kill_s = None
                os.kill(child.pid, signal.SIGKILL)
            elif silent_s > timeout_s and not paused and not child.aborted:
                self._log.critical("worker %d is stuck: its hub has not turned for %.1f s", child.pid, silent_s)
                child.aborted = True
                child.kill_s = now + _ABORT_S
                os.kill(child.pid, signal.SIGABRT)


def _stack_left_by(worker: Any) -> str:
    """What faulthandler wrote into the worker's temporary file, innermost call first, without the outer machinery."""
    written = os.pread(worker.tmp.fileno(), _STACK_BYTES, 0).decode("utf-8", "replace")
    lines = [line for line in written.splitlines() if line.startswith("  File ")]
    while lines and load.is_machinery(lines[-1].split('"')[1]):
        lines.pop()
    return "\n".join(lines)

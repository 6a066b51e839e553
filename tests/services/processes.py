"""Start, watch and end server processes; nothing outlives the test run.

A server runs in a session of its own, so that Ctrl-C at the terminal reaches pytest alone, which then ends
its servers in order; the session id also finds what a dead parent left behind (`session_members`).
`end_all` is the last resort of conftest.py for whatever a test forgot.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_POLL_S = 0.02
_running: list[Server] = []


class ServerError(Exception):
    """A server did not start, or did not end, as it should; carries the end of its log."""


class Server:
    """One process started by a test, with its output in `log_path`."""

    def __init__(
        self,
        argv: Sequence[str],
        log_path: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.argv = list(argv)
        self.log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self._process.pid
        _running.append(self)

    def log(self) -> str:
        """Everything that the process has written so far."""
        return self.log_path.read_text(errors="replace")

    @property
    def returncode(self) -> int | None:
        """The exit status, or None while it runs; negative is the number of the signal that ended it."""
        return self._process.poll()

    def wait_until(self, ready: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Poll until `ready()`; `ServerError` with the log's end when the process dies or the time is up."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self.returncode is not None:
                raise ServerError(f"{self.argv[0]} ended with {self.returncode} before {what}\n{self._log_end()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.argv[0]}: not {what} after {timeout_s} s\n{self._log_end()}")
            time.sleep(_POLL_S)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process; no error if it has ended."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float) -> int:
        """Wait for the end; return the exit status."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ServerError(f"{self.argv[0]} did not end within {timeout_s} s\n{self._log_end()}") from None

    def stop(self, timeout_s: float = 20.0) -> int:
        """SIGTERM and wait; SIGKILL and `ServerError` if that does not end it or leaves children behind."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)  # a frozen one ends too
        try:
            status = self.wait(timeout_s)
            left = self._leftovers_after(1.0)
        finally:
            self.kill()
        if left:
            raise ServerError(f"{self.argv[0]} ended but left {left} running\n{self._log_end()}")
        return status

    def kill(self) -> None:
        """SIGKILL to it and to every process of its session, and wait for its end."""
        if self.returncode is None:
            self._process.kill()
        self._process.wait()
        for pid in session_members(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._leftovers_after(5.0)  # they need a moment to be gone
        if self in _running:
            _running.remove(self)

    def _leftovers_after(self, timeout_s: float) -> list[int]:
        """Processes of the session that are still there; children may end a moment after their parent."""
        deadline = time.monotonic() + timeout_s
        while (left := session_members(self.pid)) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return left

    def _log_end(self) -> str:
        return "--- end of its log ---\n" + self.log()[-4000:]


def session_members(session: int) -> list[int]:
    """Ids of the live processes of a session (proc_pid_stat(5): state is field 3, session field 6)."""
    members = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            members.append(int(entry))
    return members


def end_all() -> list[str]:
    """Kill every server that is still running, newest first; return their command lines."""
    left = [" ".join(server.argv) for server in reversed(_running)]
    for server in reversed(list(_running)):
        server.kill()
    return left

"""`tafe serve` as a user starts it: a process of its own, its output in a file, polled until ready."""

from __future__ import annotations

import http.client
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services.ports import free_port
from tests.services.processes import Server, session_members

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).resolve().parents[2]


class Running:
    """A started `tafe serve`."""

    def __init__(self, server: Server, port: int, run_dir: Path) -> None:
        self._server = server
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.pid = server.pid
        self.run_dir = run_dir
        self.profile_dir = run_dir / "profile"

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Wait until the readiness route answers 200."""
        self._server.wait_until(self.is_ready, "ready", timeout_s)

    def wait_until(self, what: Callable[[], bool], description: str, timeout_s: float = 15.0) -> None:
        """Poll until `what()`; `ServerError` with the log's end when the server dies or the time is up."""
        self._server.wait_until(what, description, timeout_s)

    def wait_for_log(self, text: str, timeout_s: float = 15.0) -> None:
        """Wait until `text` stands in the log."""
        self.wait_until(lambda: text in self.log(), f"saying {text!r}", timeout_s)

    def wait_all_ready(self, timeout_s: float = 15.0) -> None:
        """Wait until each worker of the start has been ready once; one is enough for `wait_ready`."""
        self.wait_for_log(" ready after ", timeout_s)

    def is_ready(self) -> bool:
        """True if `/-/ready` is answered with 200 within a second."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1.0)
        try:
            connection.request("GET", "/-/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def worker_pids(self) -> list[int]:
        """Ids of the live worker processes: the master's children."""
        return sorted(pid for pid in session_members(self.pid) if _parent(pid) == self.pid)

    def log(self) -> str:
        """Everything written to stdout and stderr so far, by master and workers."""
        return self._server.log()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the master."""
        self._server.signal(number)

    def wait(self, timeout_s: float = 20.0) -> int:
        """Wait for the master's end and return its exit status."""
        return self._server.wait(timeout_s)

    def stop(self) -> int:
        """SIGTERM, wait, return the exit status; `ServerError` if a process of it is left."""
        if self._server.returncode is not None and not session_members(self.pid):
            self._server.kill()
            return self._server.returncode
        return self._server.stop()


def start_tafe(
    run_dir: Path,
    application: str,
    *options: str,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    port: int | None = None,
    wait_ready: bool = True,
    ready_timeout_s: float = 30.0,
) -> Running:
    """Start `tafe serve APPLICATION OPTIONS...` on a free port.

    `env` is added to the environment; options of the user's own shell (TAFE_*) are left out, so that a test
    means the same everywhere. `wait_ready=False` is for a server that cannot be ready yet.
    """
    port = free_port() if port is None else port
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TAFE_")}
    here = ["--bind", f"127.0.0.1:{port}", "--run-dir", str(run_dir)]
    server = Server(
        [sys.executable, "-m", "tafe", "serve", application, *here, *options],
        run_dir / "server.log",
        env={**clean, "PYTHONUNBUFFERED": "1", **(env or {})},
        cwd=cwd,
    )
    running = Running(server, port, run_dir)
    if wait_ready:
        running.wait_ready(ready_timeout_s)
    return running


def _parent(pid: int) -> int:
    """The parent's process id (proc_pid_stat(5), field 4); 0 if the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0

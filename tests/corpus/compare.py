"""Another server on the same cases: `python -m tests.corpus.compare [--server NAME] [--list]`.

Starts the server with the corpus's application, sends every case whole, and prints by folder how many come out as
this project wants them, and in what way the others do not; cases with settings of `tafe serve` are left out. A
difference is no proof of a fault: some cases ask for the strict side where an RFC leaves a choice, and the limits are
those of `tafe serve`. `--list` names each one.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import gevent
import gevent.pool
from gevent import socket

from tests.corpus import client
from tests.corpus.case import Case, all_cases
from tests.corpus.verdict import differences, ending_differs, statuses_differ
from tests.services.ports import free_port

_PYWSGI = """
import gevent.monkey; gevent.monkey.patch_all()
from gevent.pywsgi import WSGIServer; from tests.corpus.echo import app
WSGIServer(('127.0.0.1', {port}), app, log=None).serve_forever()
"""
SERVERS: dict[str, list[str]] = {
    "tafe": ["-m", "tafe", "serve", "--workers", "1", "--max-body", "256KiB", "--no-profile", "--run-dir", "{run_dir}",
             "--bind", "127.0.0.1:{port}", "tests.corpus.echo:app"],
    "gunicorn-gevent": ["-m", "gunicorn", "-k", "gevent", "--keep-alive", "75", "--no-control-socket",
                        "--bind", "127.0.0.1:{port}", "tests.corpus.echo:app"],
    "pywsgi": ["-c", _PYWSGI],
}  # fmt: skip
# A server that keeps silent would keep us waiting; the slowest right answer takes a few milliseconds.
TIMEOUT_S = 2.0
AT_ONCE = 64


@dataclass
class Result:
    """One case on one server."""

    case: Case
    outcome: client.Outcome

    @property
    def kind(self) -> str:
        """How it compares; the worst first."""
        if not differences(self.case, self.outcome):
            return "same"
        answered = [answer.status for answer in self.outcome.answers if answer.status >= 200]
        wanted = [answer.status for answer in self.case.answers if answer.status >= 200]
        if self.outcome.end == "silent" and len(answered) < len(wanted):
            return "hangs"
        if self.case.refused and not any(status >= 400 for status in answered) and answered:
            return "lets through"
        if not self.case.refused and any(400 <= status < 500 or status in (501, 505) for status in answered):
            return "refuses"
        if statuses_differ(self.case, self.outcome):
            return "other status"
        return "other end" if ending_differs(self.case, self.outcome) else "other content"


KINDS = ("same", "lets through", "refuses", "hangs", "other status", "other end", "other content")


def run_all(address: tuple[str, int]) -> list[Result]:
    """Every case, sent whole, some at a time."""
    pool = gevent.pool.Pool(AT_ONCE)

    def run(case: Case) -> Result:
        return Result(case, client.send(address, case, timeout_s=TIMEOUT_S))

    results: list[Result] = pool.map(run, [case for case in all_cases() if not case.settings])
    return results


def table(results: list[Result]) -> str:
    """Lines: a folder each, and the sum."""
    by_folder: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for result in results:
        by_folder[result.case.folder][result.kind] += 1
        by_folder["all"][result.kind] += 1
    lines = ["| rule | cases | " + " | ".join(KINDS) + " |", "| --- |" + " --- |" * (len(KINDS) + 1)]
    for folder in [*sorted(set(by_folder) - {"all"}), "all"]:
        counts = by_folder[folder]
        cells = [str(counts[kind] or "") for kind in KINDS]
        lines.append(f"| {folder} | {counts.total()} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def with_server(name: str, use: Callable[[tuple[str, int]], list[Result]]) -> list[Result]:
    """Start the server, wait until it accepts, use it, end it with all its processes."""
    port = free_port()
    run_dir = tempfile.mkdtemp(prefix="compare-")
    argv = [part.replace("{port}", str(port)).replace("{run_dir}", run_dir) for part in SERVERS[name]]
    process = subprocess.Popen(
        [sys.executable, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _wait_for(port, process)
        return use(("127.0.0.1", port))
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(run_dir, ignore_errors=True)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server does not start")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Another server on the cases of the corpus.")
    parser.add_argument("--server", choices=sorted(SERVERS), default="gunicorn-gevent")
    parser.add_argument("--list", action="store_true", help="name each case that comes out otherwise")
    parser.add_argument("--json", action="store_true", help="one object: cases and outcomes")
    arguments = parser.parse_args()
    results = with_server(arguments.server, run_all)
    if arguments.json:
        print(json.dumps({result.case.name: [result.kind, str(result.outcome)] for result in results}, indent=1))
        return
    print(f"{arguments.server}\n\n{table(results)}")
    if arguments.list:
        for result in sorted(results, key=lambda result: (KINDS.index(result.kind), result.case.name)):
            if result.kind != "same":
                wanted = " ".join(str(answer.status) for answer in result.case.answers) or "no answer"
                print(f"{result.kind}: {result.case.name}: {wanted}, {result.case.connection}; came {result.outcome}")


if __name__ == "__main__":
    main()

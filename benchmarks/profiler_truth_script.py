"""A scripted scenario: who keeps whom waiting is decided by events, so the report must name these pairs and no others.

Two culprits, `/first` and `/second`, keep the hub until the script lets them go. While one has the hub the script sends
requests, answers one that waits for it, and waits; each of them is a victim of that culprit, and must be blamed on its
line and route, and on nothing else. A culprit is blamed for its own time too. Requests that came before, after and
in between, and one that waits for the script all the time, are nobody's victims.

At last the second culprit and a victim are sent while the first has the hub. Which of them is served first is the
server's choice, and is looked up: an answer that is there when the second culprit says that it has the hub was not
delayed by it.

All is ordered by events but for one thing: nothing but the culprits may keep the hub for as long as the threshold, so
that is high (`THRESHOLD_MS`), and a culprit has the hub longer.
"""

from __future__ import annotations

import dataclasses
import json
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import profiler_truth_app
from benchmarks.client import Exchange, parse_answer
from tests.services.tafe_server import Running, start_tafe

THRESHOLD_MS = 100.0  # a machine that is busy with other work takes the CPU away for some ten at a time
HOLD_S = 0.25  # for which a culprit has the hub at least, after its victims were sent
_TIMEOUT_S = 20.0
_APP = Path(profiler_truth_app.__file__)
FIRST, SECOND = "GET /first", "GET /second"

Pairs = dict[str, list[str]]  # by the victim's request id: the routes of those it is blamed on, sorted


@dataclasses.dataclass(frozen=True)
class Played:
    """What was scripted, and what the report says."""

    expected: Pairs
    report: dict[str, Any]
    waited_ms: dict[str, float]  # by request id: from its sending to its answer, as the client saw it

    @property
    def reported(self) -> Pairs:
        """The pairs of the report's slowest requests; one that is not among them is nobody's victim.

        A line other than the culprit's is shown with its place.
        """
        blamed = {request["request_id"]: sorted(map(_culprit, request["blamed"])) for request in self.report["slowest"]}
        return {name: blamed.get(name, []) for name in self.expected} | {
            name: culprits for name, culprits in blamed.items() if culprits
        }

    @property
    def kept(self) -> bool:
        """Whether they are the same."""
        return self.reported == self.expected


def _culprit(blamed: Mapping[str, Any]) -> str:
    line = culprit_lines().get(blamed["route"])
    if (blamed["file"], blamed["line"]) == (str(_APP), line):
        return str(blamed["route"])
    return f"{blamed['route']} at {blamed['file']}:{blamed['line']}"


def culprit_lines() -> dict[str, int]:
    """By route, the line that blocks."""
    lines = _APP.read_text().splitlines()
    return {
        f"GET /{name}": next(n for n, line in enumerate(lines, 1) if line.endswith(f"# {name} holds the hub"))
        for name in ("first", "second")
    }


class _Script:
    """The clients of all requests, and the other end of the sockets that the application waits for."""

    def __init__(self, listener: socket.socket, port: int) -> None:
        self._port = port
        self._listener = listener
        self._connected: dict[str, socket.socket] = {}
        self._requests: dict[str, tuple[socket.socket, float]] = {}
        self.waited_ms: dict[str, float] = {}

    def close(self) -> None:
        """Hang up."""
        for connection, _ in self._requests.values():
            connection.close()
        for one in self._connected.values():
            one.close()

    def send(self, request_id: str, path: str, connection: socket.socket | None = None) -> socket.socket:
        """A request, on a connection of its own unless one is given."""
        if connection is None:
            connection = socket.create_connection(("127.0.0.1", self._port), timeout=_TIMEOUT_S)
        self._requests[request_id] = connection, time.perf_counter()
        connection.sendall(Exchange(path, b"", headers=(("X-Request-Id", request_id),)).request(self._port))
        return connection

    def is_answered(self, request_id: str) -> bool:
        """Whether its answer has come already."""
        return bool(select.select((self._requests[request_id][0],), (), (), 0)[0])

    def answered(self, *request_ids: str) -> None:
        """Wait for the answers of these."""
        for request_id in request_ids:
            connection, sent_s = self._requests[request_id]
            received = b""
            while (answer := parse_answer(received)) is None:
                received += connection.recv(4096) or b"HTTP/1.1 000\r\nContent-Length: 0\r\n\r\n"
            self.waited_ms[request_id] = (time.perf_counter() - sent_s) * 1000
            if answer[0] != 200:
                raise RuntimeError(f"{request_id} was answered {answer}")

    def wait_for(self, name: str) -> None:
        """Until the application says that it has come to this."""
        while name not in self._connected:
            one, _ = self._listener.accept()
            one.settimeout(_TIMEOUT_S)
            said = b""
            while not said.endswith(b"\n"):
                said += one.recv(1)
            self._connected[said.decode().strip()] = one

    def let_go(self, name: str) -> None:
        """What waits for the script goes on."""
        with self._connected.pop(name) as one:
            one.sendall(b"x")


def play(folder: Path) -> Played:
    """Serve, play, report. `folder` takes the server's files."""
    with _listening() as (path, listener):
        running = start_tafe(
            folder / "script",
            "benchmarks.profiler_truth_app:app",
            *("--workers", "1", "--slow-slice", f"{THRESHOLD_MS:g}ms"),
            env={profiler_truth_app.SCRIPT_VARIABLE: path},
        )
        script = _Script(listener, running.port)
        try:
            expected = _play(script)
        finally:
            script.close()
            running.stop()
    return Played(expected, report_of(running), script.waited_ms)


@contextmanager
def _listening() -> Iterator[tuple[str, socket.socket]]:
    # In a folder with a short name: a socket's path holds 107 bytes.
    with tempfile.TemporaryDirectory(prefix="tafe-") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = f"{folder}/script"
        listener.bind(path)
        listener.listen()
        listener.settimeout(_TIMEOUT_S)
        yield path, listener


def _play(script: _Script) -> Pairs:
    opened = script.send("before", "/answers")
    script.answered("before")
    for name in ("reply", "later"):  # two that wait for the script
        script.send(name, f"/waits/{name}")
        script.wait_for(name)
    script.send("event", "/waits/event")
    script.send("timer", "/waits/timer")
    script.send("settled", "/answers")
    script.answered("settled")  # so the two were begun
    script.send("culprit-1", "/first")
    script.wait_for("first")
    script.send("on-an-open-connection", "/answers", opened)
    script.send("on-a-new-connection", "/answers")
    script.let_go("reply")
    time.sleep(HOLD_S)
    script.let_go("first")
    victims = ("on-an-open-connection", "on-a-new-connection", "reply", "event", "timer")
    script.answered("culprit-1", *victims)
    script.let_go("later")
    script.answered("later")
    script.send("culprit-2", "/second")
    script.wait_for("second")
    script.send("of-the-second", "/answers", opened)
    time.sleep(HOLD_S)
    script.let_go("second")
    script.answered("culprit-2", "of-the-second")
    script.send("between", "/answers", opened)
    script.answered("between")
    script.send("culprit-3", "/first")
    script.wait_for("first")
    script.send("culprit-4", "/second")
    script.send("of-both", "/answers", opened)
    time.sleep(HOLD_S)
    script.let_go("first")
    script.wait_for("second")
    of_both = [FIRST] if script.is_answered("of-both") else [FIRST, SECOND]
    time.sleep(HOLD_S)
    script.let_go("second")
    script.answered("culprit-3", "culprit-4", "of-both")
    script.send("after", "/answers")
    script.answered("after")
    blamed = {
        (): ("before", "settled", "later", "between", "after"),
        (FIRST,): ("culprit-1", "culprit-3", *victims),
        (SECOND,): ("culprit-2", "of-the-second"),
        (FIRST, SECOND): ("culprit-4",),
    }
    pairs = {name: list(culprits) for culprits, names in blamed.items() for name in names}
    return {**pairs, "of-both": of_both}


def report_of(running: Running) -> dict[str, Any]:
    """The profiler's report on a server that was stopped."""
    command = [sys.executable, "-m", "profiler", "report", str(running.profile_dir), "--format", "json"]
    shown = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    report: dict[str, Any] = json.loads(shown.stdout)
    return report


def differences(played: Played) -> Sequence[str]:
    """A line for each request whose culprits are not those of the script."""
    reported, expected = played.reported, played.expected
    return [
        f"{name}: {', '.join(reported.get(name, ['not reported'])) or 'nobody'} "
        f"instead of {', '.join(expected.get(name, ['no request'])) or 'nobody'}"
        for name in sorted({*reported, *expected})
        if reported.get(name) != expected.get(name)
    ]

"""A contestant while it runs: started on the server's core, checked, counted, ended.

What is measured belongs to all processes of its session: a master that only watches costs next to nothing,
and leaving it out would flatter servers that put work there.
"""

from __future__ import annotations

import http.client
import os
from pathlib import Path

from benchmarks import contestants, environment, machine
from benchmarks.client import Exchange
from benchmarks.counters import Callgrind
from benchmarks.peers import contract
from tests.services.ports import free_port
from tests.services.processes import Server, session_members

_START_TIMEOUT_S = 60.0  # for the slowest start under valgrind; in the open each takes a second or two

HELLO = (Exchange("/hello", contract.HELLO_BYTES),)
USERS = tuple(Exchange(f"/users/{id_}", contract.user_bytes(id_)) for id_ in range(1, contract.USERS + 1))


class WrongAnswerError(Exception):
    """A contestant does not answer as the contract says; its speed would mean nothing."""


class Contender:
    """One running contestant, with a database if `database_url` is given."""

    def __init__(
        self,
        contestant: contestants.Contestant,
        directory: Path,
        core: int,
        *,
        database_url: str | None,
        programs: Path = Path(),
        callgrind: Callgrind | None = None,
    ) -> None:
        self.contestant = contestant
        self.port = free_port()
        argv = contestant.argv(contestants.Launch(programs, self.port, directory, callgrind is not None))
        if callgrind is not None:
            argv = callgrind.wrap(argv)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TAFE_")}
        # A fixed hash seed: which names collide in a dictionary is worth several percent of a request's instructions.
        env = {**kept, "PYTHONPATH": str(environment.ROOT), "PYTHONHASHSEED": "0"}
        if database_url is not None:
            env[contract.DATABASE_URL_VARIABLE] = database_url
        self._server = Server(
            ["taskset", "-c", str(core), *argv], directory / "server.log", env=env, cwd=environment.ROOT
        )
        self._examples = HELLO if database_url is None else (HELLO[0], USERS[0], USERS[-1])
        try:
            self._server.wait_until(self._answers, "answering", _START_TIMEOUT_S)
            self.check()
        except BaseException:
            self.kill()
            raise

    def check(self) -> None:
        """`WrongAnswerError` unless each route answers with 200, JSON, and the very bytes expected."""
        for exchange in self._examples:
            status, content_type, body = self._get(exchange.path)
            if (status, content_type.partition(";")[0], body) != (200, "application/json", exchange.body):
                raise WrongAnswerError(
                    f"{self.contestant.name}: {exchange.path}: {status} {content_type} {body[:200]!r}"
                )

    @property
    def pids(self) -> list[int]:
        """Every process of it."""
        return session_members(self._server.pid)

    def cpu_times(self) -> machine.CpuTimes:
        """The CPU that all its processes have used until now."""
        return machine.cpu_times(self.pids)

    def kill(self) -> None:
        """End it and all its processes at once; nothing it holds is worth an orderly end."""
        self._server.kill()

    def _answers(self) -> bool:
        try:
            return self._get("/hello")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def _get(self, path: str) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5.0)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read()
        finally:
            connection.close()

"""A contestant while it runs: started on the server's core, checked, counted, ended.

What is measured belongs to all processes of its session: a master that only watches costs next to nothing,
and leaving it out would flatter servers that put work there.
"""

from __future__ import annotations

import http.client
from pathlib import Path

from benchmarks import contestants, environment, machine, scenarios
from benchmarks.client import Exchange
from benchmarks.counters import Callgrind
from benchmarks.peers import contract
from tests.services.ports import free_port
from tests.services.processes import Server, session_members

_START_TIMEOUT_S = 60.0  # for the slowest start under valgrind; in the open each takes a second or two

HELLO = scenarios.HELLO.exchanges
USERS = scenarios.QUERY.exchanges


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
        directory.mkdir(parents=True, exist_ok=True)
        argv = contestant.argv(contestants.Launch(programs, self.port, directory, callgrind is not None))
        if callgrind is not None:
            argv = callgrind.wrap(argv)
        # A fixed hash seed: which names collide in a dictionary is worth several percent of a request's instructions.
        fixed = {"PYTHONPATH": str(environment.ROOT), "PYTHONHASHSEED": "0"}
        env = {**environment.clean_environment(), **fixed, **dict(contestant.environment)}
        if database_url is not None:
            env[contract.DATABASE_URL_VARIABLE] = database_url
        self._server = Server(
            ["taskset", "-c", str(core), *argv], directory / "server.log", env=env, cwd=environment.ROOT
        )
        served = [each for each in contestant.scenarios if each is not scenarios.QUERY or database_url is not None]
        self._examples = [exchange for each in served for exchange in (each.exchanges[0], each.exchanges[-1])]
        try:
            self._server.wait_until(self._answers, "answering", _START_TIMEOUT_S)
            self.check()
        except BaseException:
            self.kill()
            raise

    def check(self) -> None:
        """`WrongAnswerError` unless each route answers with 200, JSON, and the very bytes expected."""
        for exchange in self._examples:
            status, content_type, body = self._ask(exchange)
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
            return self._ask(scenarios.HELLO.exchanges[0])[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def _ask(self, exchange: Exchange) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5.0)
        try:
            connection.request(exchange.method, exchange.path, exchange.sent or None, dict(exchange.headers))
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read()
        finally:
            connection.close()

"""What chaos.py does to its load: KILL, restarts, frozen servers, exhausted pools, and requests killed in mid-query.

Small harm (KILL, cut connections, killed requests) comes at random intervals, all the time. Outages come at planned
counts of answered queries, so that a slow machine has as many of them as a fast one.
"""

from __future__ import annotations

import collections
import os
import random
import socket
from collections.abc import Callable
from typing import Any

import gevent
import pymysql
import pymysql.cursors
from gevent.monkey import get_original

from benchmarks import chaos_load
from benchmarks.chaos_load import Load
from tests.services.mariadb import MariaDB

# Means of the random intervals: at a hundred a second some 3 of 100 requests are killed, and as many statements end
# by KILL as there are connections, in a third of a second.
_KILL_REQUEST_EVERY_S = 0.010
_KILL_ON_SERVER_EVERY_S = 0.020
_CUT_EVERY_S = 0.040
# Of the database's clients, logins under way included.
_CLIENTS = (
    "SELECT id, command FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND user <> 'system user'"
)
_FREEZE_S = (0.1, 1.6)  # the longer ones outlast ping and read timeouts
_DOWN_S = (0.0, 1.0)
_LOCKED_S = 0.8  # longer than a request waits for a connection
_POLL_S = 0.01
_Socket = get_original("socket", "socket")


class Admin:
    """A connection to MariaDB of our own, which is made anew when the server has been away."""

    def __init__(self, mariadb: MariaDB) -> None:
        self._mariadb = mariadb
        self._connection: Any = None

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Run a statement. Raises `pymysql.MySQLError`."""
        try:
            if self._connection is None:
                self._connection = pymysql.connect(
                    host=self._mariadb.host,
                    port=self._mariadb.port,
                    user=self._mariadb.user,
                    password=self._mariadb.password,
                    autocommit=True,
                    cursorclass=pymysql.cursors.DictCursor,
                )
            with self._connection.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())
        except (pymysql.OperationalError, pymysql.InterfaceError):
            self.close()
            raise

    def clients(self) -> list[dict[str, Any]]:
        """Everybody else who is connected."""
        return self.query(_CLIENTS)

    def close(self) -> None:
        """Leave."""
        if self._connection is not None and self._connection.open:
            self._connection.close()
        self._connection = None


class Harm:
    """Does harm to a load between `start` and `stop`."""

    def __init__(self, load: Load, chance: random.Random, mariadb: MariaDB | None, plan: list[tuple[int, str]]) -> None:
        self.done: collections.Counter[str] = collections.Counter()
        self._load = load
        self._chance = chance
        self._mariadb = mariadb
        self._plan = plan  # (answered queries, the method's name), in order
        self._doing: list[Any] = []
        self._going = False

    def start(self) -> None:
        """Begin."""
        self._going = True
        self._doing = [gevent.spawn(self._kill_requests)]
        if self._mariadb is not None:
            tasks = (self._kill_on_server, self._cut)
            self._doing += [gevent.spawn(task, self._mariadb) for task in tasks] + [gevent.spawn(self._outages)]

    def stop(self) -> None:
        """Leave everything as it should be: the server is up again, and nobody is killed any more."""
        self._going = False
        gevent.joinall(self._doing, raise_error=True)
        self._doing = []

    def _kill_requests(self) -> None:
        chance, running = self._chance, self._load.running
        loop = gevent.get_hub().loop
        while self._going:
            gevent.sleep(chance.expovariate(1 / _KILL_REQUEST_EVERY_S))
            if running:
                kind = chance.choice(chaos_load.KILLS)
                self.done[f"requests killed by {kind.__name__}"] += 1
                loop.run_callback(self._load.strike, chance.choice(running), kind)

    def _kill_on_server(self, mariadb: MariaDB) -> None:
        chance = self._chance
        admin = Admin(mariadb)
        while self._going:
            gevent.sleep(chance.expovariate(1 / _KILL_ON_SERVER_EVERY_S))
            try:
                clients = admin.clients()
                busy = [client for client in clients if client["command"] == "Query"]
                victims = busy if busy and chance.random() < 0.7 else clients
                if victims:
                    what = chance.choice(("CONNECTION", "QUERY", "SOFT CONNECTION", "HARD QUERY"))
                    admin.query(f"KILL {what} {chance.choice(victims)['id']}")
                    self.done[f"KILL {what.split()[-1]}"] += 1
            except pymysql.MySQLError:
                pass  # the server is away, or the victim is
        admin.close()

    def _cut(self, mariadb: MariaDB) -> None:
        """End connections as a network does: the server goes on with the statement, and the answer is never read.

        That is when a statement which was repeated would be done twice; KILL hardly ever finds that moment.
        """
        chance = self._chance
        while self._going:
            gevent.sleep(chance.expovariate(1 / _CUT_EVERY_S))
            descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
            chance.shuffle(descriptors)
            self.done["connections cut"] += any(_shut_down(descriptor, mariadb.port) for descriptor in descriptors)

    def _outages(self) -> None:
        while self._plan:
            due, name = self._plan[0]
            if self._load.books.answered >= due:
                del self._plan[0]
                outage: Callable[[], None] = getattr(self, name)
                outage()
                self.done[name] += 1
            elif self._going:
                gevent.sleep(_POLL_S)
            else:
                return

    # Outages, by the names that `plan` gives them

    def stop_and_start(self) -> None:
        """An orderly restart."""
        self._server.stop()
        gevent.sleep(self._chance.uniform(*_DOWN_S))
        self._server.start()

    def kill_and_start(self) -> None:
        """A crash: SIGKILL."""
        self._server.kill()
        gevent.sleep(self._chance.uniform(*_DOWN_S))
        self._server.start()

    def freeze(self) -> None:
        """SIGSTOP, and SIGCONT after some 100 ms."""
        self._server.freeze()
        try:
            gevent.sleep(self._chance.uniform(*_FREEZE_S))
        finally:
            self._server.thaw()

    def exhaust(self) -> None:
        """Lock what is read, so that every connection waits, and then everybody for a connection."""
        admin = Admin(self._server)
        try:
            admin.query("LOCK TABLES chaos.items WRITE")
            gevent.sleep(_LOCKED_S)
        except pymysql.MySQLError:
            self.done["locks lost to a KILL"] += 1
        finally:
            admin.close()

    @property
    def _server(self) -> MariaDB:
        assert self._mariadb is not None
        return self._mariadb


def _shut_down(descriptor: int, port: int) -> bool:
    """Shut a connection to `port` down; False if this descriptor is something else."""
    try:
        if not os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
            return False
        with _Socket(fileno=os.dup(descriptor)) as duplicate:
            if duplicate.family != socket.AF_INET or duplicate.getpeername()[1] != port:
                return False
            duplicate.shutdown(socket.SHUT_RDWR)
            return True
    except OSError:  # closed meanwhile, or not connected
        return False


def plan(queries: int, chance: random.Random) -> list[tuple[int, str]]:
    """When to do which outage: spread over `queries`, in random order; each kind at least once."""
    some = max(1, queries // 100_000)
    names = ["stop_and_start", "kill_and_start", "exhaust"] * some + ["freeze"] * (2 * some)
    chance.shuffle(names)
    every = queries / len(names)
    return [(int(every * (n + 0.5)), name) for n, name in enumerate(names)]

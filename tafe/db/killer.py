"""Ending on the server what nobody waits for any more: KILL from a side connection, in the background.

A MySQL server does not notice that its client has closed the connection until it next writes to it, so a
statement that was given up runs on to its end, its locks held: under overload, work for nobody is what keeps a server
down. Only statements that the server will not soon end by itself come here (mysql.py).

Bounded: one side connection a database and process at a time, however many statements there are; one attempt, within
the connect timeout; what cannot be ended is forgotten. A connection's number means nothing on another server,
and behind a balancer the side connection may reach one. So a connection is killed only if the server's list of
processes shows that it comes from the port that ours came from (over a unix socket: from no port), and only while
it runs a statement. Behind a proxy that shows ports of its own nothing is killed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
import pymysql

from tafe.db.wire import TooLate, Wire
from tafe.errors import DatabaseUnavailable

log = logging.getLogger("tafe.db")

# More at once mean that the server is in trouble, not the statements.
_MOST = 100


class Killer:
    """For one database. `connect` makes a side connection or raises `DatabaseUnavailable`."""

    def __init__(self, connect: Callable[[], Wire], *, name: str, timeout_s: float) -> None:
        self._connect = connect
        self._name = name
        self._timeout_s = timeout_s  # of each question to the server
        self._doomed: dict[
            int, str
        ] = {}  # a connection's number on the server: the port that it comes from, "" if none
        self._working = False

    def kill(self, number: int, port: str) -> None:
        """End the statement of a connection, some time soon; for the hub's thread."""
        if len(self._doomed) >= _MOST:
            return
        self._doomed[number] = port
        if not self._working:
            self._working = True
            gevent.spawn(self._run)

    def _run(self) -> None:
        try:
            wire = self._connect()
            try:
                self._kill_all(wire)
            finally:
                if wire.open:
                    wire.close()
        except (DatabaseUnavailable, pymysql.MySQLError, TooLate) as error:
            log.info("database %s: statements that were given up may run on: %s", self._name, type(error).__name__)
        finally:
            self._doomed.clear()
            self._working = False

    def _kill_all(self, wire: Wire) -> None:
        while self._doomed:
            doomed, self._doomed = self._doomed, {}
            for row in self._ask(wire, b"SHOW PROCESSLIST"):
                number = row["Id"]
                if doomed.get(number) == _port(row["Host"]) and row["Command"] != "Sleep":
                    try:
                        self._ask(wire, b"KILL %d" % number)
                    except pymysql.MySQLError:
                        if not wire.open:
                            raise  # else it has ended by itself meanwhile
                    else:
                        log.info("database %s: ended a statement on the server that was given up here", self._name)

    def _ask(self, wire: Wire, text: bytes) -> list[dict[str, Any]]:
        wire.expires_s = monotonic() + self._timeout_s
        return wire.records(text)


def _port(host: str) -> str:
    """Of `127.0.0.1:4711`; "" of `localhost`, which is how a unix socket is shown."""
    return host.rpartition(":")[2] if ":" in host else ""

"""The PyMySQL connection under a `MySQLConnection`, and which class reads its results.

Two classes: PyMySQL's own (`stock`) and ours (`fast`, see fast.py), which relies on inner names of PyMySQL. So by
default (`auto`) ours is used with the releases of PyMySQL that it was tested with, and PyMySQL's with every other one,
which is said in the log once. The URL's option `reader` chooses.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
from collections.abc import Callable
from functools import lru_cache
from time import monotonic
from typing import Any

import pymysql
from gevent import monkey
from pymysql import connections, err
from pymysql.constants import CR

from tafe.db.server_limits import Dialect
from tafe.db.tls import unverified
from tafe.errors import UsageError

log = logging.getLogger("tafe.db")

# Each one ran the whole of tests/db, PyMySQL's own tests included. The first of them is the oldest one that escapes
# lists safely (its CHANGELOG, 1.2.4).
TESTED = frozenset({"1.2.4"})

# Ways to log in that a server may ask for, and in which PyMySQL would send the password as it is.
_CLEAR_TEXT = (b"mysql_clear_password", b"dialog")
# The kernel's poll, since the patched one would wait on the hub.
_poll = monkey.get_original("select", "poll")
_READABLE = select.POLLIN


class TooLate(Exception):
    """An answer was not complete in time. A class of its own, since applications throw their own time-outs."""


class Wire(connections.Connection):
    """PyMySQL's connection without its cursors."""

    # PyMySQL's own, which its type stubs leave out.
    server_status: int
    server_thread_id: tuple[int]
    server_version: str
    _sock: Any
    _result: Any
    _force_close: Callable[[], None]
    _secure: bool

    # When the answer to the statement under way has to be here, monotonic; None during login, where the `read_timeout`
    # and `write_timeout` that PyMySQL was given count, for each wait.
    expires_s: float | None = None
    # How the server was told to end statements by itself; None if it was not, or refused.
    dialect: Dialect | None = None
    _wait_s: float | None = None
    _write_wait_s: float | None = None

    def connect(self, sock: Any = None) -> None:
        """PyMySQL's, except that a unix socket that cannot connect is closed now, not when the collector runs.

        While the server is down there are two attempts a second.
        """
        if sock is None and self.unix_socket:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.settimeout(self.connect_timeout)
                sock.connect(self.unix_socket)
            except BaseException:
                sock.close()
                raise
            self.host_info = "unix socket"
            self._secure = True
        super().connect(sock)

    def _create_ssl_ctx(self, sslp: Any) -> ssl.SSLContext:
        if not sslp:
            return unverified()
        context: ssl.SSLContext = super()._create_ssl_ctx(sslp)  # type: ignore[misc]  # not in the stubs
        return context

    def _process_auth(self, plugin_name: bytes, auth_packet: Any, handler: Any = None) -> Any:
        if plugin_name in _CLEAR_TEXT and not self._secure:
            raise err.OperationalError(CR.CR_AUTH_PLUGIN_ERR, "the password would be sent in clear text")
        return super()._process_auth(plugin_name, auth_packet, handler)  # type: ignore[misc]  # not in the stubs

    def run(self, text: bytes) -> Any:
        """Send a statement, read all it answers, return the first result (`connections.MySQLResult` or its like)."""
        self.query(text)
        return self._rest()

    def records(self, text: bytes) -> list[dict[str, Any]]:
        """Send a statement, read all it answers, return the rows of the first result, if it has any, as dicts."""
        return _as_dicts(self.run(text))

    def _rest(self) -> Any:
        """Read the further results; return the first one."""
        result = self._result
        while self._result.has_next:
            self.next_result()
        return result

    @property
    def _read_timeout(self) -> float | None:
        """PyMySQL's attribute, which it looks at for each packet: within one, each piece may take as long."""
        return self._left_s(self._wait_s)

    @_read_timeout.setter
    def _read_timeout(self, seconds: float | None) -> None:
        self._wait_s = seconds

    @property
    def _write_timeout(self) -> float | None:
        """The same for what does not fit into the socket's buffer, of a long statement."""
        return self._left_s(self._write_wait_s)

    @_write_timeout.setter
    def _write_timeout(self, seconds: float | None) -> None:
        self._write_wait_s = seconds

    def _left_s(self, otherwise_s: float | None) -> float | None:
        if self.expires_s is None:
            return otherwise_s
        left_s = self.expires_s - monotonic()
        if left_s <= 0:
            raise TooLate
        return left_s

    def close(self) -> None:
        """PyMySQL's; the goodbye has nothing to do with when the last answer had to be here."""
        self.expires_s = None
        super().close()

    def local_port(self) -> str:
        """Ours, as the server sees it unless something between us changes it; "" of a unix socket."""
        name = self._sock.getsockname()
        return str(name[1]) if isinstance(name, tuple) else ""

    def peer_has_closed(self) -> bool:
        """True if there is something to read on an idle connection: end of file or a last error."""
        if self._sock is None:
            return True
        poll = _poll()
        poll.register(self._sock.fileno(), _READABLE)
        return bool(poll.poll(0))

    def inherited(self) -> Wire:
        """In a child of the process that connected: what stands in for this one there, and says that it is closed.

        This one is left as it is: what is sent and read here would be missing from the parent's side of it.
        """
        wire = type(self)(charset=self.charset, defer_connect=True)
        wire.server_status = self.server_status
        return wire

    def drop(self) -> None:
        """Close the socket without saying goodbye."""
        self._force_close()


def _as_dicts(result: Any) -> list[dict[str, Any]]:
    if result.description is None:
        return []
    names = [column[0] for column in result.description]
    return [dict(zip(names, row, strict=False)) for row in result.rows]


def wire_class(reader: str) -> type[Wire]:
    """The class that `reader`, one of url.py's `READERS`, stands for here. Raises `UsageError`."""
    if reader == "stock":
        return Wire
    if pymysql.VERSION_STRING in TESTED:
        return _fast_wire()
    tested = f"it was tested with PyMySQL {', '.join(sorted(TESTED))}; {pymysql.VERSION_STRING} is installed"
    if reader == "fast":
        raise UsageError(
            f"reader=fast cannot be used: {tested}",
            set_by="Database.from_url",
            allowed="auto, stock",
            try_=f"pip install PyMySQL=={max(TESTED)}, or reader=auto",
        )
    _say_once(f"results are read by PyMySQL's own connection, which is slower than ours: {tested}")
    return Wire


@lru_cache(1)
def _fast_wire() -> type[Wire]:
    from tafe.db import fast  # here, for with another PyMySQL this import may fail

    class FastWire(Wire, fast.Connection):
        """The same, reading as fast.py does."""

        def records(self, text: bytes) -> list[dict[str, Any]]:
            found = self.ask(text)
            if found is None:
                self.next_result()
                found = _as_dicts(self._rest())
            return found

        _read_timeout: Any = None  # an attribute again; fast.py looks at `expires_s`

        def peer_has_closed(self) -> bool:
            return self.unread or super().peer_has_closed()

    return FastWire


@lru_cache(1)
def _say_once(message: str) -> None:
    log.warning("%s", message)

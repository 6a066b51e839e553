"""The access log: a line for each request that was answered, refused or given up, at next to no cost for the hub.

What a line says, and why no client can forge one, is `access_format.py`'s; writing is `log_writer.py`'s. A line is made
on the hub when its request ends: a native thread would hold the interpreter for just as long, but at a moment that
nobody chose. The time of day is asked for once a millisecond.
Lines stand in the order in which the requests of a worker ended. Nothing here raises into a request: a line that cannot
be made (an application that empties its environ) is logged once and counted among the lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from time import monotonic
from typing import Any, Protocol

from tafe.access_format import Combined, Format, Json
from tafe.errors import UsageError
from tafe.log_writer import LogWriter

_log = logging.getLogger("tafe.server")


class Peer(Protocol):
    """A connection."""

    remote_addr: str


class Timed(Protocol):
    """What is asked of an exchange."""

    connection: Any  # a `Peer`
    environ: dict[str, Any]
    status: int  # 0: nothing was sent
    body_bytes: int
    begun_s: float  # by the monotonic clock: when the head was complete
    fault: str  # in words of our own; "": none


class AccessLog:
    """Writes to `target`: a path, `-` for standard output, or `fd:N`. Raises `UsageError` if it cannot be opened.

    `format_`: one of `access_format.FORMATS`. `trusted_peers`: proxies whose X-Forwarded-For names the client.
    Made, used and closed on one hub. Give it to a `WSGIServer` as `log`; several may share one.
    """

    def __init__(self, target: str, format_: str = "json", trusted_peers: Collection[str] = ()) -> None:
        trusted = frozenset(trusted_peers)
        self._format: Format = Json(trusted) if format_ == "json" else Combined(trusted)
        self._stamp = ""
        self._stamp_ends_s = 0.0  # by the monotonic clock: after a millisecond it is made anew
        self._told_of_fault = False
        try:
            self._writer = LogWriter(target, self._loss)
        except OSError as error:
            raise UsageError(
                f"the access log cannot be written to {target!r}: {error.strerror}",
                allowed="a file that this user can append to, - for standard output, or fd:N",
            ) from error

    def answered(self, exchange: Timed) -> None:
        """The request's answer was sent, or given up. Never raises."""
        try:
            now_s = monotonic()
            if now_s >= self._stamp_ends_s:
                self._stamp_ends_s = now_s + 0.001
                self._stamp = self._now()
            line = self._format.answered(
                self._stamp,
                exchange.environ,
                exchange.connection.remote_addr,
                exchange.status,
                exchange.body_bytes,
                now_s - exchange.begun_s,
                exchange.fault,
            )
            self._writer.write(line)
        except Exception:  # noqa: BLE001 - whatever the application has made of its environ, the others go on
            self._fail()

    def refused(self, connection: Peer, status: int, body_bytes: int, why: str) -> None:
        """A request that could not be read was refused, with a body of `body_bytes`. `why`: in words of our own."""
        self._writer.write(self._format.refused(self._now(), connection.remote_addr, status, body_bytes, why))

    def reopen(self) -> None:
        """The file was renamed: go on in a new one of its name."""
        self._writer.reopen()

    def close(self) -> None:
        """Write what is held, for a second at most."""
        self._writer.close()

    @property
    def lost(self) -> int:
        """Lines that were dropped so far."""
        return self._writer.lost

    def _now(self) -> str:
        return self._format.stamp(int(time.time() * 1000))

    def _loss(self, count: int) -> str:
        return self._format.lost(self._now(), count)

    def _fail(self) -> None:
        self._writer.lose()
        if not self._told_of_fault:
            self._told_of_fault = True
            _log.exception("a line of the access log could not be made, and is counted as lost; told once")

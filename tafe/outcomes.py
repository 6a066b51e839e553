"""What the access log is told of a request, whichever way it ended; nothing where there is no log.

Who calls, calls once a request: `finished` at its usual end, the others where the connection ends it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from tafe.connection import Connection
    from tafe.http1.refusal import Refusal
    from tafe.transport import Rest
    from tafe.wsgi import Exchange

# Faults that a status does not tell.
LEFT: Final = "the client left"
STOPPED: Final = "the server stopped"
BROKE_OFF: Final = "the answer broke off"


class AnswerLog(Protocol):
    """Told of every request that is over, whatever became of it. Never raises. Costs two tests when absent."""

    def answered(self, exchange: Exchange, /) -> None:
        """A request with a complete head; status 0: nothing was sent."""
        ...

    def refused(self, connection: Connection, status: int, body_bytes: int, why: str, /) -> None:
        """One that could not be read, and what was sent for it."""
        ...


def finished(log: AnswerLog, exchange: Exchange, rest: Rest | None) -> None:
    """The answer was sent, but for what a slow reader has yet to take."""
    if rest is not None:
        rest.ended = partial(_taken, log, exchange)
    elif not exchange.overdue:  # whose client was answered, and the log told, without it
        log.answered(exchange)


def _taken(log: AnswerLog, exchange: Exchange, left: int) -> None:
    """A slow reader has taken all but `left` bytes."""
    if left:
        exchange.fault = LEFT if exchange.connection.gone else BROKE_OFF
        exchange.body_bytes = max(exchange.body_bytes - left, 0)
    log.answered(exchange)


def refused(
    log: AnswerLog | None, connection: Connection, exchange: Exchange | None, refusal: Refusal, body_bytes: int
) -> None:
    """The server has answered in the application's place; without an `exchange`, what could not be read."""
    if log is not None and exchange is not None:
        exchange.status, exchange.body_bytes, exchange.fault = refusal.status, body_bytes, refusal.message
        log.answered(exchange)
    elif log is not None:
        log.refused(connection, refusal.status, body_bytes, refusal.message)


def ended(log: AnswerLog | None, exchange: Exchange, fault: str) -> None:
    """The connection has ended before the request."""
    if log is not None:
        exchange.fault = fault
        log.answered(exchange)

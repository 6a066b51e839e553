"""A request whose time is over: stopped by an exception or, if its code goes on regardless, answered without it.

The exception (`RequestTimeout`, or `ClientGone` for a client that takes and sends nothing) unwinds the application, so
that transactions roll back and connections are closed. Code that swallows even that keeps its greenlet and is counted
in `server.overdue` until it ends; its client is answered from here, and what it still writes goes nowhere.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from tafe.body import ClientGone
from tafe.errors import RequestTimeout
from tafe.http1.refusal import Refusal
from tafe.transport import Wait

if TYPE_CHECKING:
    from greenlet import greenlet

    from tafe.connection import Connection
    from tafe.wsgi import Exchange

GRACE_S: Final = 1.0  # from the exception to the answer without the application: time to roll back
_log = logging.getLogger("tafe.server")


def stop(connection: Connection, exchange: Exchange, runner: greenlet) -> None:
    """The deadline of a running request has passed. Called on the hub, a second time after `GRACE_S`."""
    if connection.waits is Wait.PROGRESS or (exchange.told_to_stop and connection.waits):
        connection.gone = True  # whoever swallows this cannot wait for that client again
        runner.throw(ClientGone("the client takes or sends nothing"))
    elif not exchange.told_to_stop:
        exchange.told_to_stop = True
        connection.expire_in(GRACE_S)
        runner.throw(RequestTimeout())
    else:
        exchange.overdue = True
        connection.server.overdue += 1
        _log.error("%s: goes on after its deadline; its client was answered without it", exchange)
        if exchange.status:
            connection.break_off(exchange)
        else:
            connection.refuse(Refusal(504, "the request took too long"))

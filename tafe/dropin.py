"""What the arguments of `gevent.pywsgi.WSGIServer` mean here, so that this server can take its place.

| argument | here |
| --- | --- |
| `spawn` | a number, or a `gevent.pool.Pool`: that many requests run at once, further ones wait their turn (pywsgi counts connections); `gevent.spawn` and `spawn_raw`: what is done anyway |
| `log` | an object with `write`, or a logger: a line a request, as pywsgi writes it; an `AccessLog`, which pywsgi has not, never blocks the hub; by default none |
| `error_log` | an object with `write`, `writelines` and `flush`, or a logger: `wsgi.errors` |
| `handler_class` | a subclass of `WSGIHandler` that overrides no method; there are no handlers here, so anything else is an error |
| TLS | see `tls.py` |

Whatever could not be honoured raises `UsageError`: nothing is ignored.
"""  # noqa: E501 - rows of a table

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

import gevent
from gevent.pool import Pool

from tafe.access_log import AccessLog
from tafe.errors import UsageError

if TYPE_CHECKING:
    from tafe.connection import Connection
    from tafe.outcomes import AnswerLog
    from tafe.wsgi import Exchange

_INFO: Final = 20  # logging's levels, as pywsgi uses them
_ERROR: Final = 40
# Ways to start a greenlet that do nothing beside it; None would run requests in the hub, where nothing may wait.
_PLAIN_SPAWNS: Final = ("default", gevent.spawn, gevent.spawn_raw, gevent.Greenlet.spawn)


class PywsgiLines:
    """A line a request for `server.log`, as pywsgi's `format_request` makes it; a log that fails is switched off."""

    def answered(self, exchange: Exchange) -> None:
        """A request that was read."""
        environ = exchange.environ
        took_s = time.monotonic() - exchange.begun_s
        # An application may have taken anything out.
        asked = " ".join([str(environ.get(key, "-")) for key in ("REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL")])
        self._write(exchange.connection, asked, exchange.status, exchange.body_bytes, took_s)

    def refused(self, connection: Connection, status: int, body_bytes: int, why: str) -> None:  # noqa: ARG002
        """One that could not be read."""
        self._write(connection, "", status, body_bytes, 0.0)

    def _write(self, connection: Connection, asked: str, status: int, size: int, took_s: float) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        line = f'{connection.remote_addr or "-"} - - [{now}] "{asked}" {status or "000"} {size or "-"} {took_s:.6f}\n'
        try:
            connection.server.log.write(line)
        except Exception:  # noqa: BLE001 - whatever the log raised, requests go on without it
            connection.server.drop_log()


def answer_log(log: Any) -> AnswerLog | None:
    """Who is told of every answer by a server with this `log`."""
    return log if log is None or isinstance(log, AccessLog) else PywsgiLines()


def text_log(log: Any, *, errors: bool) -> Any:
    """`log` as something with `write`: itself, or a logger wrapped as pywsgi wraps it. An `AccessLog` is one itself."""
    if log == "default":
        return sys.stderr
    if isinstance(log, AccessLog) and not errors:
        return log
    if not hasattr(log, "write") and hasattr(log, "log"):
        from gevent.pywsgi import LoggingLogAdapter  # only who passes a logger pays for the import

        return LoggingLogAdapter(log, _ERROR if errors else _INFO)
    if not hasattr(log, "write"):
        raise UsageError(
            f"{'error_log' if errors else 'log'}: {log!r} has no write method",
            allowed="an object with a write method, or a logger",
        )
    return log


def in_flight_bound(spawn: Any) -> int | None:
    """How many requests `spawn` lets run at once; None: it sets no bound. Raises `UsageError`."""
    if any(spawn is plain or spawn == plain for plain in _PLAIN_SPAWNS):
        return None
    if type(spawn) is int and spawn > 0:
        return spawn
    if type(spawn) is Pool:
        return spawn.size if isinstance(spawn.size, int) else None
    raise UsageError(
        f"spawn: {spawn!r} cannot be used; a request's greenlet is the server's own",
        allowed="a positive number, a plain gevent.pool.Pool, gevent.spawn or gevent.spawn_raw",
        try_="limits=Limits(in_flight=N) to bound the requests that run at once",
    )


def check_handler_class(handler_class: Any) -> None:
    """Raise `UsageError` if `handler_class` would change how requests are handled."""
    if handler_class is None:
        return
    from gevent.pywsgi import WSGIHandler

    if not (isinstance(handler_class, type) and issubclass(handler_class, WSGIHandler)):
        raise UsageError(
            f"handler_class: requests are not handled by objects like {handler_class!r} here",
            try_="a WSGI middleware around the application",
        )
    between = handler_class.__mro__[: handler_class.__mro__.index(WSGIHandler)]
    overridden = sorted(name for base in between for name, value in vars(base).items() if _is_behaviour(value))
    if overridden:
        raise UsageError(
            f"handler_class: {handler_class.__name__} overrides {', '.join(overridden)}, which nothing calls here",
            try_="a WSGI middleware around the application",
        )


def _is_behaviour(value: object) -> bool:
    if isinstance(value, type):
        return False  # pywsgi's ApplicationError: an exception class
    return callable(value) or isinstance(value, property | staticmethod | classmethod)

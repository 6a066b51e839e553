"""Plain WSGI over PyMySQL, for gunicorn's gevent worker, gevent.pywsgi, granian and bjoern.

The pool is a `SimpleQueue`, filled while the module loads: in C under threads, and gevent's own once gevent
has patched. `python -m benchmarks.peers.plain_wsgi PORT` serves it with gevent.pywsgi, as gevent's
documentation shows.
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable, Iterable
from typing import Any

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

import pymysql
import pymysql.cursors
import ujson

from benchmarks.peers import contract

_pool: queue.SimpleQueue[pymysql.Connection[pymysql.cursors.DictCursor]] = queue.SimpleQueue()


_LARGE = bytes(contract.LARGE_BYTES)
_LARGE_LENGTH = ("Content-Length", str(contract.LARGE_BYTES))
_PIECES = 64
_PIECE = bytes(contract.LARGE_BYTES // _PIECES)


def _fill() -> None:
    target = contract.database()
    if target is None:
        return
    for _ in range(contract.POOL_SIZE):
        connection = pymysql.connect(
            host=target.host,
            port=target.port,
            user=target.user,
            password=target.password,
            database=target.db,
            autocommit=True,
            cursorclass=pymysql.cursors.DictCursor,
        )
        _pool.put(connection)


def _fetch_user(user_id: int) -> dict[str, Any] | None:
    connection = _pool.get()
    try:
        with connection.cursor() as cursor:
            cursor.execute(contract.QUERY, (user_id,))
            return cursor.fetchone()
    finally:
        _pool.put(connection)


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """The WSGI application."""
    path = environ["PATH_INFO"]
    if path == "/hello":
        body = ujson.dumps(contract.HELLO).encode()
    elif path == "/echo":
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    elif path.startswith("/users/"):
        body = ujson.dumps(_fetch_user(int(path[7:]))).encode()
    elif path in ("/large", "/pieces"):
        start_response("200 OK", [("Content-Type", "application/octet-stream"), _LARGE_LENGTH])
        return [_LARGE] if path == "/large" else (_PIECE for _ in range(_PIECES))
    else:
        start_response("404 Not Found", [("Content-Length", "0")])
        return [b""]
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


_fill()

if __name__ == "__main__":
    from gevent.pywsgi import WSGIServer

    WSGIServer(("127.0.0.1", int(sys.argv[1])), app, log=None).serve_forever()

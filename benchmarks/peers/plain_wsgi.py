"""Plain WSGI over PyMySQL, for gunicorn's gevent worker, gevent.pywsgi, granian and bjoern.

`python -m benchmarks.peers.plain_wsgi PORT` serves it with gevent.pywsgi, as gevent's
documentation shows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

import ujson

from benchmarks.peers import connections, contract

_pool = connections.pool(contract.POOL_SIZE)
_LARGE = bytes(contract.LARGE_BYTES)
_LARGE_LENGTH = ("Content-Length", str(contract.LARGE_BYTES))
_PIECES = 64
_PIECE = bytes(contract.LARGE_BYTES // _PIECES)


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """The WSGI application."""
    path = environ["PATH_INFO"]
    if path == "/hello":
        body = ujson.dumps(contract.HELLO).encode()
    elif path == "/echo":
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    elif path.startswith("/users/"):
        body = ujson.dumps(connections.fetch_user(_pool, int(path[7:]))).encode()
    elif path in ("/large", "/pieces"):
        start_response("200 OK", [("Content-Type", "application/octet-stream"), _LARGE_LENGTH])
        return [_LARGE] if path == "/large" else (_PIECE for _ in range(_PIECES))
    else:
        start_response("404 Not Found", [("Content-Length", "0")])
        return [b""]
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


if __name__ == "__main__":
    from gevent.pywsgi import WSGIServer

    WSGIServer(("127.0.0.1", int(sys.argv[1])), app, log=None).serve_forever()

"""Plain WSGI over PyMySQL with one connection a thread: the application of threads.py, the same file for every server.

Which class of connections it holds is told by the environment: PyMySQL's own unless it names another.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable
from typing import Any

import ujson

from benchmarks.peers import connections, contract, mix

_LOOPS = mix.loops()


def _kind() -> Callable[..., Any]:
    module, _, name = os.environ.get(mix.CONNECTION_VARIABLE, mix.STOCK_CONNECTION).partition(":")
    kind: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return kind


_pool = connections.pool(mix.POOL_SIZE, _kind())


def _mix(user_id: int) -> dict[str, Any]:
    connection = _pool.get()
    try:
        with connection.cursor() as cursor:
            cursor.execute(contract.QUERY, (user_id,))
            user = cursor.fetchone() or {}
            cursor.execute(mix.SLOW_QUERY)
            cursor.fetchone()
            cursor.execute(contract.QUERY, (mix.other_id(user_id),))
            other = cursor.fetchone() or {}
    finally:
        _pool.put(connection)
    return {**user, "other": other["name"], "work": mix.work(_LOOPS)}


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """The WSGI application."""
    path = environ["PATH_INFO"]
    if path.startswith("/users/"):
        body = ujson.dumps(connections.fetch_user(_pool, int(path[7:]))).encode()
    elif path.startswith("/mix/"):
        body = ujson.dumps(_mix(int(path[5:]))).encode()
    elif path == "/hello":
        body = contract.HELLO_BYTES
    else:
        start_response("404 Not Found", [("Content-Length", "0")])
        return [b""]
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]

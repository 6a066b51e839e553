"""Plain WSGI over PyMySQL with one connection a thread: the application of threads.py, the same file for every server.

The pool is a `SimpleQueue`, filled while the module loads: in C under threads, gevent's own once gevent has patched.
Which class of connections it holds is told by the environment: PyMySQL's own unless it names another.
"""

from __future__ import annotations

import importlib
import os
import queue
from collections.abc import Callable, Iterable
from typing import Any

import pymysql
import pymysql.cursors
import ujson

from benchmarks.peers import contract, mix

_pool: queue.SimpleQueue[pymysql.Connection[pymysql.cursors.DictCursor]] = queue.SimpleQueue()
_LOOPS = mix.loops()


def _fill() -> None:
    target = contract.database()
    if target is None:
        return
    module, _, name = os.environ.get(mix.CONNECTION_VARIABLE, mix.STOCK_CONNECTION).partition(":")
    connect = getattr(importlib.import_module(module), name)
    for _ in range(mix.POOL_SIZE):
        connection = connect(
            host=target.host,
            port=target.port,
            user=target.user,
            password=target.password,
            database=target.db,
            autocommit=True,
            cursorclass=pymysql.cursors.DictCursor,
        )
        _pool.put(connection)


def _user(user_id: int) -> dict[str, Any] | None:
    connection = _pool.get()
    try:
        with connection.cursor() as cursor:
            cursor.execute(contract.QUERY, (user_id,))
            return cursor.fetchone()
    finally:
        _pool.put(connection)


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
        body = ujson.dumps(_user(int(path[7:]))).encode()
    elif path.startswith("/mix/"):
        body = ujson.dumps(_mix(int(path[5:]))).encode()
    elif path == "/hello":
        body = contract.HELLO_BYTES
    else:
        start_response("404 Not Found", [("Content-Length", "0")])
        return [b""]
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


_fill()

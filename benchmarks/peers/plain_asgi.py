"""Plain ASGI over asyncmy, for uvicorn and granian on uvloop. The pool is filled at the lifespan's start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncmy
import asyncmy.cursors
import ujson

from benchmarks.peers import contract

_Receive = Callable[[], Awaitable[dict[str, Any]]]
_Send = Callable[[dict[str, Any]], Awaitable[None]]

_state: dict[str, Any] = {}


async def _lifespan(receive: _Receive, send: _Send) -> None:
    target = contract.database()
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            if target is not None:
                _state["pool"] = await asyncmy.create_pool(
                    host=target.host,
                    port=target.port,
                    user=target.user,
                    password=target.password,
                    db=target.db,
                    autocommit=True,
                    minsize=contract.POOL_SIZE,
                    maxsize=contract.POOL_SIZE,
                )
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _fetch_user(user_id: int) -> Any:
    async with (
        _state["pool"].acquire() as connection,
        connection.cursor(asyncmy.cursors.DictCursor) as cursor,
    ):
        await cursor.execute(contract.QUERY, (user_id,))
        return await cursor.fetchone()


async def _body(receive: _Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    return body


async def app(scope: dict[str, Any], receive: _Receive, send: _Send) -> None:
    """The ASGI application."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    path = scope["path"]
    status = 200
    if path == "/hello":
        body = ujson.dumps(contract.HELLO).encode()
    elif path == "/echo":
        body = await _body(receive)
    elif path.startswith("/users/"):
        body = ujson.dumps(await _fetch_user(int(path[7:]))).encode()
    else:
        status, body = 404, b""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

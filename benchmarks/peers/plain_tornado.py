"""Tornado over asyncmy: Tornado runs on asyncio, so an asyncio driver is its natural one (PyMySQL would need threads).

`python -m benchmarks.peers.plain_tornado PORT` serves it in one process, as Tornado's documentation shows.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import asyncmy
import asyncmy.cursors
import tornado.web
import ujson

from benchmarks.peers import contract


class _Json(tornado.web.RequestHandler):
    def answer(self, value: object) -> None:
        self.answer_bytes(ujson.dumps(value).encode())

    def answer_bytes(self, body: bytes) -> None:
        self.set_header("Content-Type", "application/json")
        self.write(body)

    def compute_etag(self) -> str | None:
        """No contestant hashes its answers; Tornado would by default."""
        return None


class _Hello(_Json):
    def get(self) -> None:
        self.answer(contract.HELLO)


class _Echo(_Json):
    def post(self) -> None:
        self.answer_bytes(self.request.body)


class _User(_Json):
    async def get(self, user_id: str) -> None:
        pool: Any = self.application.settings["pool"]
        async with pool.acquire() as connection, connection.cursor(asyncmy.cursors.DictCursor) as cursor:
            await cursor.execute(contract.QUERY, (int(user_id),))
            row = await cursor.fetchone()
        self.answer(row)


async def _serve(port: int) -> None:
    logging.getLogger("tornado.access").disabled = True
    target = contract.database()
    pool = None
    if target is not None:
        pool = await asyncmy.create_pool(
            host=target.host,
            port=target.port,
            user=target.user,
            password=target.password,
            db=target.db,
            autocommit=True,
            minsize=contract.POOL_SIZE,
            maxsize=contract.POOL_SIZE,
        )
    application = tornado.web.Application([(r"/hello", _Hello), (r"/echo", _Echo), (r"/users/(\d+)", _User)], pool=pool)
    application.listen(port, "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))

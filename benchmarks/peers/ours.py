"""The answers with tafe.App and tafe.Database, written as the README tells a user to."""

from __future__ import annotations

import os
from typing import Any

import tafe
from benchmarks.peers import contract

_JSON = {"Content-Type": "application/json"}

app = tafe.App()
_url = os.environ.get(contract.DATABASE_URL_VARIABLE)
_ACQUIRE_TIMEOUT_S = 60  # under callgrind everything takes fifty times as long, and nothing is to be given up
db = (
    tafe.Database.from_url(
        _url, min_size=contract.POOL_SIZE, max_size=contract.POOL_SIZE, acquire_timeout_s=_ACQUIRE_TIMEOUT_S
    )
    if _url
    else None
)


@app.get("/hello")
def hello() -> dict[str, Any]:
    """The 27-byte answer."""
    return contract.HELLO


@app.post("/echo")
def echo(request: tafe.Request) -> tafe.Response:
    """The JSON it was sent, unparsed."""
    return tafe.Response(request.body(), headers=_JSON)


if db is not None:
    _fetch_one = db.fetch_one

    @app.get("/users/{id:int}")
    def user(id: int) -> dict[str, Any]:  # noqa: A002  # the parameter is named as in the path
        """One row by primary key."""
        row = _fetch_one(contract.QUERY, (id,))
        if row is None:
            raise tafe.NotFound("no such user")
        return row

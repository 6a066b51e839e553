"""What soak.py serves: an application with some of everything, and a route that tells what the worker holds.

Mostly a `tafe.App` over SQLite. What needs the bare WSGI interface (a file, answers that break their promise) is
answered before it. `GET /held` collects garbage first, so that two of its answers differ by what is really kept.
"""

from __future__ import annotations

import collections
import gc
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import gevent
import greenlet

import tafe
from benchmarks.peers import contract

_PIECE = b"0123456789abcdef" * 256  # 4 KiB
_BIG_BYTES = 16 * 1024 * 1024  # of /big: more than two sockets hold, so that a client can stop in the middle

db = tafe.Database.from_url(os.environ[contract.DATABASE_URL_VARIABLE], min_size=4, max_size=4)


class _App(tafe.App):
    """With a few answers that only the bare interface can give."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/file":
            start_response("200 OK", [("Content-Type", "text/plain")])
            wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](open(__file__, "rb"))  # noqa: SIM115 - server closes
            return wrapped
        if path == "/short":
            start_response("200 OK", [("Content-Length", "1000")])
            return [b"less than that"]
        if path == "/broken":
            start_response("200 OK", [])
            return _breaks()
        if path == "/upload":
            read = environ["wsgi.input"].read
            size = sum(map(len, iter(lambda: read(65536), b"")))
            start_response("200 OK", [("Content-Type", "application/json")])
            return [b"%d" % size]
        return super().__call__(environ, start_response)


def _breaks() -> Iterator[bytes]:
    yield _PIECE
    raise RuntimeError("this stream breaks off")


app = _App()


@app.get("/hello")
def hello() -> dict[str, str]:
    """A small answer."""
    return {"message": "Hello, World!"}


@app.get("/users/{id:int}")
def user(id: int) -> dict[str, Any]:  # noqa: A002 - the parameter is named as in the path
    """One row by primary key."""
    row = db.fetch_one(contract.QUERY, (id,))
    if row is None:
        raise tafe.NotFound("no such user")
    return row


@app.post("/echo")
def echo(body: dict[str, Any]) -> dict[str, Any]:
    """The JSON body again."""
    return body


@app.get("/stream")
def stream(pieces: int) -> Iterator[bytes]:
    """That many pieces of 4 KiB, without a length."""
    return (_PIECE for _ in range(pieces))


@app.get("/big")
def big() -> tafe.Response:
    """More than a client's and a server's socket hold."""
    return tafe.Response(_PIECE for _ in range(_BIG_BYTES // len(_PIECE)))


@app.get("/slow")
def slow() -> str:
    """Waits a little, as for another service."""
    gevent.sleep(0.02)
    return "there it is"


@app.get("/late", timeout_s=0.05)
def late() -> str:
    """Too late for its own deadline: 504."""
    gevent.sleep(10)
    return "nobody waits any more"


@app.get("/endless")
def endless() -> str:
    """Too late for the server's deadline: 504."""
    gevent.sleep(60)
    return "nobody waits any more"


@app.get("/fails")
def fails() -> str:
    """A mistake: 500, and a traceback in the log."""
    raise RuntimeError("a mistake of the application's")


@app.get("/held")
def held() -> dict[str, Any]:
    """What this worker holds after a collection."""
    gc.collect()
    objects = gc.get_objects()
    kinds = collections.Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in objects)
    status = Path("/proc/self/status").read_text()
    resident = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert resident is not None
    return {
        "pid": os.getpid(),
        "resident_kib": int(resident[1]),
        "greenlets": sum(isinstance(each, greenlet.greenlet) for each in objects),
        "objects": len(objects),
        "kinds": dict(kinds),
    }

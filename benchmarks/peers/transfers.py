"""A WSGI application that sends one large file in three ways and throws uploads away, for transfer.py.

`GET /file` gives it to `wsgi.file_wrapper` where the server has one, as PEP 3333 leaves open; `GET /sized` and
`GET /chunked` read it in pieces of 64 KiB, with and without a Content-Length. `POST /discard` reads the body in pieces
of 64 KiB and answers with their number of bytes, `POST /checksum` with their sum, so that an upload can be verified.
`GET /hello` is the contract's. Standard library only: it runs in the peers' environment as well.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from benchmarks.peers import contract

_PIECE_BYTES = 64 * 1024  # as Werkzeug's form parser, which is Flask's, reads uploads

FILE_VARIABLE = "BENCH_FILE"
_FILE = os.environ.get(FILE_VARIABLE, "")  # the harness imports this module only for the name above


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """The WSGI application."""
    path = environ["PATH_INFO"]
    if path in ("/file", "/sized", "/chunked"):
        length = [] if path == "/chunked" else [("Content-Length", str(os.path.getsize(_FILE)))]
        start_response("200 OK", [("Content-Type", "application/octet-stream"), *length])
        return _wrapped(environ) if path == "/file" else _pieces()
    if path == "/hello":
        answer = contract.HELLO_BYTES
    elif path == "/discard":
        answer = b"%d" % sum(map(len, _read(environ["wsgi.input"])))
    elif path == "/checksum":
        crc = 0
        for piece in _read(environ["wsgi.input"]):
            crc = zlib.crc32(piece, crc)
        answer = b"%d" % crc
    else:
        start_response("404 Not Found", [("Content-Length", "0")])
        return [b""]
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]


def _wrapped(environ: dict[str, Any]) -> Iterable[bytes]:
    if "wsgi.file_wrapper" not in environ:
        return _pieces()
    file = open(_FILE, "rb")  # noqa: SIM115 - the server closes it with the iterable (PEP 3333)
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file, _PIECE_BYTES)
    return wrapped


def _pieces() -> Iterator[bytes]:
    with open(_FILE, "rb", buffering=0) as file:
        yield from iter(lambda: file.read(_PIECE_BYTES), b"")


def _read(body: Any) -> Iterator[bytes]:
    return iter(lambda: body.read(_PIECE_BYTES), b"")

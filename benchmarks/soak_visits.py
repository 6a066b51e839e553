"""What a worker meets beside good requests: bad ones, clients that leave, slow ones, timeouts. For soak.py.

A visit is one connection: bytes sent in pieces, perhaps with pauses, then either everything read to the end and the
statuses compared, or the client leaves. Each is one line of the tables below; what is not to be had by sending bytes
and counting answers is not here. Runs on gevent's loop, unpatched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import struct
import time
from collections.abc import Sequence

import gevent
from gevent import socket

TIMEOUT_S = 1.0  # of heads, bodies, writing and idle connections, as soak.py sets them
REQUEST_TIMEOUT_S = 1.5  # of whole requests; above the former, so that each is met
_PATIENCE_S = 20.0  # without a byte from the server: it hangs
_SMALL_BUFFER_BYTES = 64 * 1024  # so that a client which does not read is noticed after little
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 s: close sends a reset


@dataclasses.dataclass(frozen=True)
class Visit:
    """One connection and what must come of it."""

    name: str
    pieces: tuple[bytes, ...]
    statuses: tuple[int, ...] = ()  # of all answers, in order
    least_bytes: int = 0  # of all answers together
    pause_s: float = 0.0  # between pieces, and then between reads
    reads_bytes: int | None = None  # then leaves; None: stays until the server closes
    resets: bool = False  # leaves with a reset
    waits_s: float = 0.0  # before reading anything

    @property
    def requests(self) -> int:
        """How many requests it is; one that is not answered counts as well."""
        return max(1, len(self.statuses))


def _get(path: str, *fields: str, method: str = "GET", version: str = "1.1", last: bool = True) -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: a", *fields, *(["Connection: close"] if last else [])]
    return "\r\n".join([*lines, "\r\n"]).encode()


def _post(path: str, body: bytes, *fields: str) -> bytes:
    return _get(path, f"Content-Length: {len(body)}", "Content-Type: application/json", *fields, method="POST") + body


def _chunked(path: str, *chunks: bytes) -> bytes:
    coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return _get(path, "Transfer-Encoding: chunked", "Content-Type: application/json", method="POST") + coded


_JSON = b'{"list": [' + b"1.5, " * 200 + b"2]}"
_LARGE = b"x" * 300_000
_HALF_POST = _post("/echo", _JSON)[:-500]
_HALF_UPLOAD = _post("/upload", _LARGE)[:-100_000]

QUICK = (
    Visit("not found", (_get("/nowhere"),), (404,)),
    Visit("wrong method", (_get("/hello", method="DELETE"),), (405,)),
    Visit("HEAD", (_get("/hello", method="HEAD"),), (200,)),
    Visit("OPTIONS *", (_get("*", method="OPTIONS"),), (204,)),
    Visit("HTTP/1.0", (_get("/hello", version="1.0", last=False),), (200,)),
    Visit("HTTP/1.0, a stream", (_get("/stream?pieces=20", version="1.0", last=False),), (200,), 80_000),
    Visit("no host", (b"GET /hello HTTP/1.1\r\n\r\n",), (400,)),
    Visit("bare line feeds", (b"GET /hello HTTP/1.1\nHost: a\n\n",), (400,)),
    Visit("another version", (b"GET /hello HTTP/3.0\r\nHost: a\r\n\r\n",), (505,)),
    Visit("TLS", (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),), (400,)),
    Visit("two lengths", (_get("/echo", "Content-Length: 1", "Content-Length: 2", method="POST"),), (400,)),
    Visit("many headers", (_get("/hello", *(f"X-{n}: {n}" for n in range(200))),), (431,)),
    Visit("a long line", (_get("/hello?" + "x" * 20_000),), (414,)),
    Visit("a value that is no number", (_get("/stream?pieces=many"),), (400,)),
    Visit("no JSON", (_post("/echo", b"{"),), (400,)),
    Visit("a small body", (_post("/echo", _JSON),), (200,), len(_JSON) // 2),
    Visit("a small body in pieces", (_HALF_POST, _post("/echo", _JSON)[-500:]), (200,), pause_s=0.002),
    Visit("a large body", (_post("/upload", _LARGE),), (200,)),
    Visit("a chunked body", (_chunked("/upload", *[_LARGE[:5000]] * 20),), (200,)),
    Visit("a small chunked body", (_chunked("/echo", _JSON[:10], _JSON[10:]),), (200,)),
    Visit("a malformed chunk", (_chunked("/upload", b"good").replace(b"\r\ngood", b"\r\ngo"),), (400,)),
    Visit("a body that is not read", (_post("/hello", _LARGE),), (405,)),
    Visit("100-continue", (_post("/upload", _LARGE, "Expect: 100-continue"),), (100, 200)),
    Visit("pipelined", (_get("/hello", last=False) * 20 + _get("/users/7"),), (200,) * 21),
    Visit("pipelined in pieces", (_get("/users/7", last=False) * 3 + b"GET", _get("/")[3:]), (200, 200, 200, 404)),
    Visit("a stream", (_get("/stream?pieces=100"),), (200,), 400_000),
    Visit("a file", (_get("/file"),), (200,), 1000),
    Visit("a query for nobody", (_get("/users/1000000"),), (404,)),
    Visit("waits within", (_get("/slow"),), (200,)),
    Visit("fails", (_get("/fails"),), (500,)),
    Visit("fails in a stream", (_get("/broken"),), (200,)),
    Visit("shorter than declared", (_get("/short"),), (200,)),
    Visit("too late for the route", (_get("/late"),), (504,)),
    Visit("says nothing and leaves", (), reads_bytes=0),
    Visit("leaves within a head", (_get("/hello")[:20],), reads_bytes=0),
    Visit("leaves within a small body", (_HALF_POST,), reads_bytes=0),
    Visit("leaves within a large body", (_HALF_UPLOAD,), reads_bytes=0),
    Visit("resets within a large body", (_HALF_UPLOAD,), reads_bytes=0, resets=True),
    Visit("leaves within a chunked body", (_chunked("/upload", _LARGE)[:100_000],), reads_bytes=0),
    Visit("leaves before its answer", (_get("/slow"),), reads_bytes=0),
    Visit("resets before its answer", (_get("/slow"),), reads_bytes=0, resets=True),
    Visit("leaves within its answer", (_get("/big"),), reads_bytes=100_000),
    Visit("resets within its answer", (_get("/big"),), reads_bytes=100_000, resets=True),
    Visit("leaves among pipelined ones", (_get("/slow", last=False) * 20,), reads_bytes=500),
)

SLOW = (
    Visit("a head byte by byte", tuple(bytes([byte]) for byte in _get("/hello")), (200,), pause_s=0.002),
    Visit("a slow reader", (_get("/stream?pieces=200"),), (200,), 800_000, pause_s=0.01),
    Visit("a head that stops", (_get("/hello")[:20],), (408,)),
    Visit("a small body that stops", (_HALF_POST,), (408,)),
    Visit("a large body that stops", (_HALF_UPLOAD,)),
    Visit("an idle connection", (_get("/hello", last=False),), (200,)),
    Visit("takes nothing", (_get("/big"),), (200,), waits_s=1.5 * TIMEOUT_S),
    Visit("too late for the server", (_get("/endless"),), (504,)),
)


class Late(Exception):
    """This process did not get the processor for so long that the server's timeouts came first."""


def visit(port: int, what: Visit) -> str | None:
    """Make one visit; None, or what was wrong. Raises `Late`."""
    received: list[bytes] = []
    began_s = time.monotonic()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER_BYTES)
        client.settimeout(_PATIENCE_S)
        client.connect(("127.0.0.1", port))
        # The server may break off towards those who stop or send what it does not want; what it sent before decides.
        with contextlib.suppress(ConnectionError):
            _send(client, what)
        sent_s = time.monotonic()
        try:
            _receive(client, what, received)
        except ConnectionError:
            pass
        except TimeoutError:
            return f"nothing more after {b''.join(received)[-200:]!r}"
        if what.resets:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    if what.reads_bytes is not None:
        return None
    answers = b"".join(received)
    statuses = tuple(int(found) for found in _STATUS.findall(answers))
    if statuses != what.statuses and sent_s - began_s > TIMEOUT_S:
        raise Late
    if statuses != what.statuses:
        return f"statuses {statuses}, not {what.statuses}"
    if len(answers) < what.least_bytes:
        return f"{len(answers)} bytes, not {what.least_bytes}"
    return None


def _send(client: socket.socket, what: Visit) -> None:
    for piece in what.pieces:
        client.sendall(piece)
        gevent.sleep(what.pause_s)


def _receive(client: socket.socket, what: Visit, received: list[bytes]) -> None:
    gevent.sleep(what.waits_s)
    left = what.reads_bytes
    while left is None or left > 0:
        data = client.recv(65536)
        if not data:
            return
        received.append(data)
        left = None if left is None else left - len(data)
        if what.pause_s:
            gevent.sleep(what.pause_s)


class Visitors:
    """Greenlets that make visits until told to stop; counts them, and keeps one fault of each kind."""

    def __init__(self, port: int, quick_at_once: int) -> None:
        self.requests = 0
        self.late = 0  # visits that say nothing
        self.faults: dict[str, str] = {}
        self.wrong = 0
        self._port = port
        self._stopping = False
        step = len(QUICK) // quick_at_once
        turns = [QUICK[at * step :] + QUICK[: at * step] for at in range(quick_at_once)]  # each begins elsewhere
        self._running = [gevent.spawn(self._run, turn) for turn in (*turns, *((slow,) for slow in SLOW))]

    def stop(self) -> None:
        """Let everybody finish the visit under way."""
        self._stopping = True
        gevent.joinall(self._running, raise_error=True)

    def _run(self, visits: Sequence[Visit]) -> None:
        while True:
            for each in visits:
                if self._stopping:
                    return
                self.requests += each.requests
                try:
                    fault = visit(self._port, each)
                except Late:
                    self.late += 1
                    continue
                if fault is not None:
                    self.wrong += 1
                    self.faults[each.name] = fault

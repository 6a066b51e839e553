"""Files as answers: the same bytes whether the kernel sends them or not."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import socket as std_socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import gevent
import pytest

from tafe.files import FileWrapper
from tafe.limits import Limits
from tests.server.conftest import Serve, hello, read_answer

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
DATA = bytes(range(256)) * 4096  # 1 MiB: more than a socket buffer takes at once


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "data"
    found.write_bytes(DATA)
    return found


def send(opened: Any, headers: list[tuple[str, str]] | None = None, status: str = "200 OK") -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, list(headers or []))
        return environ["wsgi.file_wrapper"](opened())

    return app


def at(path: Path, offset: int) -> Any:
    file = path.open("rb")
    file.seek(offset)
    return file


def temporary() -> Any:
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - the wrapper closes it
    file.write(DATA)
    file.seek(0)
    return file


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def test_a_file_is_sent_whole_with_its_length_and_the_connection_is_kept(serve: Serve, path: Path) -> None:
    live = serve(send(lambda: path.open("rb")))
    with live.connect() as client:
        for _ in range(2):
            client.sendall(GET)
            head, body = read_answer(client)
            assert f"Content-Length: {len(DATA)}".encode() in head
            assert body == DATA


def test_the_kernel_sends_what_can_be_sent_by_it_and_nothing_else(path: Path, tmp_path: Path) -> None:
    with path.open("rb") as plain, path.open("rb", buffering=0) as raw, temporary() as temp:
        for file in (plain, raw, temp):
            file.seek(10)
            found = FileWrapper(file).plain_file()
            assert found is not None
            assert found[1:] == (10, len(DATA) - 10)
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(DATA))
    readable, writable = os.pipe()
    with gzip.open(packed) as zipped, path.open() as text, os.fdopen(readable, "rb") as pipe:
        for file in (zipped, text, pipe, io.BytesIO(DATA), iter([b"x"])):
            assert FileWrapper(file).plain_file() is None
    os.close(writable)
    assert FileWrapper(plain).plain_file() is None, "closed"


def test_a_file_that_must_be_read_gives_the_same_bytes(serve: Serve, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(DATA))
    headers = [("Content-Length", str(len(DATA)))]
    for opened in (lambda: io.BytesIO(DATA), lambda: gzip.open(packed)):  # noqa: SIM115
        assert body_of(serve(send(opened, headers)).ask(LAST)) == DATA


def test_a_range_is_where_the_file_stands_and_as_long_as_declared(serve: Serve, path: Path) -> None:
    headers = [("Content-Length", "1000"), ("Content-Range", f"bytes 300000-300999/{len(DATA)}")]
    live = serve(send(lambda: at(path, 300_000), headers, "206 Partial Content"))
    with live.connect() as client:
        for _ in range(2):
            client.sendall(GET)
            assert read_answer(client)[1] == DATA[300_000:301_000]


def test_head_and_statuses_without_a_body_send_none_of_the_file(serve: Serve, path: Path) -> None:
    answer = serve(send(lambda: path.open("rb"))).ask(LAST.replace(b"GET", b"HEAD"))
    assert b"Content-Length: 1048576\r\n" in answer
    assert body_of(answer) == b""
    assert body_of(serve(send(lambda: path.open("rb"), status="304 Not Modified")).ask(LAST)) == b""


def test_a_file_shorter_than_declared_breaks_the_connection(serve: Serve, path: Path) -> None:
    answer = serve(send(lambda: path.open("rb"), [("Content-Length", "2000000")])).ask(GET + GET)
    assert body_of(answer) == DATA, "and no second answer"


def test_the_file_is_closed_however_it_went(serve: Serve, path: Path) -> None:
    opened: list[Any] = []

    def opening() -> Any:
        opened.append(path.open("rb"))
        return opened[-1]

    live = serve(send(opening))
    live.ask(LAST)
    with live.connect() as client:
        client.sendall(LAST)
        client.recv(10)
    gevent.sleep(0.02)
    assert [file.closed for file in opened] == [True, True]


def test_http_1_0_gets_the_length_too(serve: Serve, path: Path) -> None:
    answer = serve(send(lambda: path.open("rb"))).ask(b"GET / HTTP/1.0\r\n\r\n")
    assert b"Content-Length: 1048576\r\n" in answer
    assert body_of(answer) == DATA


@pytest.mark.parametrize("kind", ["file", "pieces", "upload"])
def test_a_quick_client_with_much_to_carry_does_not_keep_the_hub(serve: Serve, path: Path, kind: str) -> None:
    """Small requests are answered while eight GiB are on their way, in pieces so small that the client never waits."""
    size = 8 << 30
    os.truncate(path, size)  # sparse
    answered = threading.Event()

    sent = itertools.count()

    def pieces() -> Any:
        while True:
            next(sent)
            yield DATA[:64]

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/small":
            return hello(environ, start_response)
        if kind == "upload":
            while environ["wsgi.input"].read(500):
                next(sent)
        start_response("200 OK", [("Content-Length", str(size))])
        return environ["wsgi.file_wrapper"](path.open("rb")) if kind == "file" else pieces()

    live = serve(app, limits=Limits(body_bytes=0))
    give_up_s = time.monotonic() + 3

    def carry() -> None:
        with std_socket.create_connection(live.server.address, timeout=5) as client:
            client.sendall(
                LAST if kind != "upload" else b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
            )
            while not answered.is_set() and time.monotonic() < give_up_s:
                if kind == "upload":
                    client.sendall(DATA)
                else:
                    client.recv(1 << 20)

    carrier = threading.Thread(target=carry)  # as quick as the kernel lets it, whatever the hub does
    carrier.start()
    with live.connect() as client:
        for _ in range(20):
            client.sendall(GET.replace(b"/ ", b"/small "))
            read_answer(client)
            assert time.monotonic() < give_up_s
    answered.set()
    assert next(sent) < 20 * 5000, "a slice of a millisecond holds some hundreds"
    while carrier.is_alive():
        gevent.sleep(0.005)  # its last call waits for the server, so the hub must go on

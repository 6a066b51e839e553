"""The client of large transfers: it must count what really moved, and take nothing else for a transfer."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import zlib
from typing import TYPE_CHECKING

import pytest

from benchmarks import bulk_client
from benchmarks.client import LoadError
from tafe.http1.chunked import ChunkedDecoder
from tafe.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BODY = os.urandom(300_001)
SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKS = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (BODY[:1], BODY[1:200_000], BODY[200_000:], b""))
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS
SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Serve = Callable[[socket.socket], None] if TYPE_CHECKING else object


@pytest.fixture
def peer() -> Iterator[Callable[[Serve], int]]:
    """`peer(serve)` listens and gives its first connection to `serve` in a thread; returns the port."""
    with contextlib.ExitStack() as stack:

        def listen(serve: Serve) -> int:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def accept() -> None:
                with listener.accept()[0] as connection, contextlib.suppress(ConnectionError):
                    connection.settimeout(10)
                    serve(connection)

            thread = threading.Thread(target=accept)
            thread.start()
            stack.callback(thread.join, 10)
            port: int = listener.getsockname()[1]
            return port

        yield listen


def _answers(data: bytes, piece_bytes: int) -> Serve:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        for at in range(0, len(data), piece_bytes):
            connection.sendall(data[at : at + piece_bytes])

    return serve


@pytest.mark.parametrize("answer", [SIZED, CHUNKED], ids=["sized", "chunked"])
@pytest.mark.parametrize("piece_bytes", [997, 10_000_000])
def test_a_download_is_counted_and_summed_up_however_it_comes(
    peer: Callable[[Serve], int], answer: bytes, piece_bytes: int
) -> None:
    moved = bulk_client.download(peer(_answers(answer, piece_bytes)), "/", checksum=True)
    assert (moved.body_bytes, moved.checksum) == (len(BODY), zlib.crc32(BODY))
    assert moved.seconds > 0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (SIZED[:-1], "ended after"),
        (SIZED + b"x", "1 bytes after the end"),
        (CHUNKED[:-2], "ended after"),
        (CHUNKED.replace(b"\r\n30d3f\r\n", b"\r\n30d3e\r\n"), "longer than its size"),
        (SIZED.replace(b"200 OK", b"206 Partial Content"), "206"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + BODY, "without a length"),
        (b"", "ended after"),
    ],
    ids=["cut", "surplus", "cut chunks", "wrong chunk", "partial", "until close", "nothing"],
)
def test_what_is_no_whole_answer_is_no_download(peer: Callable[[Serve], int], answer: bytes, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        bulk_client.download(peer(_answers(answer, 65536)), "/")


def _file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(BODY)
    return file


def test_an_upload_ends_when_the_request_after_it_is_answered(peer: Callable[[Serve], int], tmp_path: Path) -> None:
    received = []

    def early(connection: socket.socket) -> None:
        connection.sendall(SMALL)  # before any of the body was read
        data = b""
        while not data.endswith(b"\r\n\r\n") or b"GET /hello" not in data:
            data += connection.recv(65536)
        received.append(data)
        connection.sendall(SMALL)

    moved = bulk_client.upload(peer(early), "/up", _file(tmp_path), body_bytes=len(BODY), chunked=False)
    assert (moved.body_bytes, moved.answer) == (len(BODY), b"ok")
    head, _, rest = received[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /up HTTP/1.1\r\n")
    assert b"Content-Length: %d" % len(BODY) in head
    assert rest.startswith(BODY + b"GET /hello ")


def test_a_server_that_answers_and_reads_no_further_has_taken_no_upload(
    peer: Callable[[Serve], int], tmp_path: Path
) -> None:
    def lazy(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(SMALL)

    with pytest.raises(LoadError, match=r"broke|ended"):
        bulk_client.upload(peer(lazy), "/", _file(tmp_path), body_bytes=len(BODY), chunked=False)


def test_the_chunked_copy_stands_for_the_same_bytes(tmp_path: Path) -> None:
    coded = tmp_path / "coded"
    bulk_client.chunked_copy(_file(tmp_path), coded)
    decoder = ChunkedDecoder(Limits())
    assert b"".join(decoder.feed(coded.read_bytes())) == BODY
    assert decoder.done
    assert not decoder.rest

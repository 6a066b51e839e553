"""What clients that are slow, or that send more than is taken, cost the worker."""

from __future__ import annotations

import tracemalloc
from typing import Any

import gevent
from gevent import socket
from gevent.event import Event

from tafe.limits import KIB
from tafe.server import RECEIVE_BYTES
from tests.server.conftest import Live, Serve, hello, read_answer

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = 100
# Of our own objects: a connection, and an environ of 1.5 KiB where the head is complete. A greenlet's stack is 16 KiB.
MOST_BYTES = 4 * KIB


def wait_for(condition: Any) -> None:
    with gevent.Timeout(3):
        while not condition():
            gevent.sleep(0.005)


def allocated_bytes() -> int:
    """What code of this package has allocated and still holds."""
    ours = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/tafe/*")])
    return sum(trace.size for trace in ours.traces)


def send_all_one_can(client: socket.socket, piece: bytes) -> int:
    """Send until nobody takes more; return how much that was."""
    sent = 0
    client.settimeout(0.1)
    while True:
        try:
            sent += client.send(piece)
        except TimeoutError:
            return sent


def only_connection(live: Live) -> Any:
    (connection,) = live.server._connections
    return connection


def test_an_unfinished_request_costs_no_greenlet_and_little_memory(serve: Serve) -> None:
    live = serve(hello)
    with live.connect() as client:
        client.sendall(GET)
        read_answer(client)  # whatever is made once
    created = live.server.greenlets.created
    tracemalloc.start()
    try:
        before = allocated_bytes()
        clients = [live.connect() for _ in range(SLOW)]
        for client in clients:
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\nX-A: ")
        gevent.sleep(0.05)
        for client in clients:
            client.sendall(b"1\r\n\r\n" if client.fileno() % 2 else b"1")  # half of them in the body, half in the head
        gevent.sleep(0.05)
        assert live.server.connections == SLOW
        assert (allocated_bytes() - before) / SLOW < MOST_BYTES
    finally:
        tracemalloc.stop()
    assert live.server.greenlets.created == created
    assert live.server.in_flight == 0
    for client in clients:
        client.close()


def test_a_slow_reader_holds_a_piece_of_its_answer_and_not_the_whole(serve: Serve) -> None:
    piece = b"x" * 256 * KIB
    made = 0

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        nonlocal made
        start_response("200 OK", [("Content-Length", str(400 * len(piece)))])
        for _ in range(400):
            made += 1
            yield piece

    live = serve(app)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        client.connect(live.server.address)
        client.sendall(GET)
        wait_for(lambda: made)
        gevent.sleep(0.1)
        stopped_at = made
        gevent.sleep(0.05)
        assert made == stopped_at < 100  # the rest is what the kernel's buffers take
        assert only_connection(live).read_ahead == 0


def test_a_body_that_nobody_reads_yet_stays_with_its_client(serve: Serve) -> None:
    begun = Event()
    go_on = Event()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        begun.set()
        go_on.wait()
        total = 0
        while piece := environ["wsgi.input"].read(64 * KIB):
            total += len(piece)
        start_response("200 OK", [])
        return [str(total).encode()]

    size = 100 * 1024 * KIB
    live = serve(app)
    with live.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        begun.wait(3)
        sent = send_all_one_can(client, b"x" * 64 * KIB)
        assert sent < size / 2  # the rest waits for the application
        assert only_connection(live).read_ahead <= RECEIVE_BYTES
        client.settimeout(5)
        go_on.set()
        client.sendall(b"x" * (size - sent))
        assert read_answer(client)[1] == str(size).encode()


def test_no_more_is_read_ahead_than_the_limit(serve: Serve) -> None:
    go_on = Event()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        go_on.wait()
        return hello(environ, start_response)

    request = GET[:-2] + b"X-A: " + b"b" * KIB + b"\r\n\r\n"
    live = serve(app)
    limit = live.server.limits.pipelined_bytes
    wanted = 4 * limit // len(request)
    with live.connect() as client:
        sending = gevent.spawn(client.sendall, request * wanted)
        gevent.sleep(0.1)
        assert limit <= only_connection(live).read_ahead < limit + RECEIVE_BYTES
        go_on.set()
        assert count_answers(client, wanted) == wanted
        sending.get(timeout=3)


def count_answers(client: socket.socket, wanted: int) -> int:
    data = b""
    while data.count(b"HTTP/1.1 200") < wanted and (more := client.recv(65536)):
        data += more
    return data.count(b"HTTP/1.1 200")


def test_slow_readers_of_one_large_answer_hold_no_copies_of_it(serve: Serve) -> None:
    body = bytes(4 * 1024 * KIB)  # more than the sockets' buffers take
    readers = 8

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(len(body)))] if environ["PATH_INFO"] == "/sized" else [])
        return [body]

    live = serve(app)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        clients = [live.connect() for _ in range(readers)]
        for number, client in enumerate(clients):
            client.sendall(GET.replace(b"/ ", b"/sized ", 1) if number % 2 else GET)
        wait_for(lambda: live.server.in_flight == readers)
        assert tracemalloc.get_traced_memory()[0] - before < len(body) / 2
    finally:
        tracemalloc.stop()
    for client in clients:
        assert read_answer(client)[1] == body
        client.close()

"""Connections as a client sees them: bytes in, bytes out."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent import socket

from tafe.limits import Limits
from tafe.server import WSGIServer
from tests.server.conftest import Serve, echo, hello, read_answer, read_to_end

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def test_a_connection_is_kept_and_answers_request_after_request(serve: Serve) -> None:
    live = serve(hello)
    with live.connect() as client:
        for _ in range(3):
            client.sendall(GET)
            head, body = read_answer(client)
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"onnection" not in head
            assert body == b'{"message": "hello world!"}'
    assert live.server.refused == 0


def test_a_head_may_come_byte_by_byte(serve: Serve) -> None:
    live = serve(hello)
    assert live.ask(*[LAST[i : i + 1] for i in range(len(LAST))]).endswith(b'{"message": "hello world!"}')


def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        gevent.sleep(0.02 if environ["PATH_INFO"] == "/0" else 0)
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    live = serve(app)
    requests = [b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(5)]
    answer = live.ask(b"".join(requests) + LAST.replace(b"GET / ", b"GET /end "))
    bodies = [part.partition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert bodies == [b"/0", b"/1", b"/2", b"/3", b"/4", b"/end"]


def test_a_pipelined_request_after_a_body_is_found(serve: Serve) -> None:
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nfirst"
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecond\r\n0\r\n\r\n"
    answer = serve(echo).ask(post + chunked + post.replace(b"Host", b"Connection: close\r\nHost"))
    assert answer.count(b"first") == 2
    assert answer.count(b"second") == 1


def test_a_half_closed_client_still_gets_its_answer(serve: Serve) -> None:
    def slow(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        gevent.sleep(0.05)
        return hello(environ, start_response)

    assert serve(slow).ask(GET, half_close=True).endswith(b'{"message": "hello world!"}')


def test_http_1_0_is_closed_unless_it_asks_to_be_kept(serve: Serve) -> None:
    live = serve(hello)
    assert b"Connection: close\r\n" in live.ask(b"GET / HTTP/1.0\r\n\r\n")
    with live.connect() as client:
        client.sendall(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert b"Connection: keep-alive" in read_answer(client)[0]
        client.sendall(LAST)
        assert read_to_end(client)


@pytest.mark.parametrize("size", [0, 1, 10_000, 65_536, 65_537, 1_000_000])
@pytest.mark.parametrize("kind", ["declared", "chunked", "expected"])
def test_a_body_of_any_size_and_kind_arrives_whole(serve: Serve, size: int, kind: str) -> None:
    live = serve(echo)
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with live.connect() as client:
        for _ in range(2):
            if kind == "chunked":
                client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
                sender = gevent.spawn(client.sendall, (b"%x\r\n%b\r\n" % (size, body) if size else b"") + b"0\r\n\r\n")
            else:
                expect = b"Expect: 100-continue\r\n" if kind == "expected" else b""
                client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n" % (expect, size))
                if kind == "expected" and size:
                    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
                sender = gevent.spawn(client.sendall, body)
            assert read_answer(client)[1] == body
            sender.get()


def test_a_body_that_breaks_off_is_an_error_to_the_application_never_a_clean_end(serve: Serve) -> None:
    seen: list[object] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        try:
            seen.append(environ["wsgi.input"].read())
        except ConnectionError as error:
            seen.append(type(error).__name__)
            raise
        return hello(environ, start_response)

    live = serve(app)
    live.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc", half_close=True)
    live.ask(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", half_close=True)
    live.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", half_close=True)
    assert seen == ["ClientGone", "ClientGone"], "the third never became complete, so nobody was asked"


def test_lines_of_a_streamed_body_are_read_as_from_a_file(serve: Serve) -> None:
    lines = [b"line %d\n" % n for n in range(20_000)] + [b"no newline"]

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"]
        got = [body.readline(), body.readline(3), body.readline(), *body.readlines(100), body.read(5), *body]
        start_response("200 OK", [])
        return [b"".join(got)]

    data = b"".join(lines)
    live = serve(app)
    with live.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(data))
        gevent.spawn(client.sendall, data)
        assert read_answer(client)[1] == data


def test_an_unread_body_does_not_destroy_the_answer(serve: Serve) -> None:
    live = serve(hello)
    big = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + b"x" * 900_000
    answer = live.ask(big)
    assert answer.endswith(b'{"message": "hello world!"}')
    assert b"Connection: close\r\n" in answer
    little = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    assert live.ask(little + LAST).count(b"200 OK") == 2


def test_a_body_that_nobody_asked_for_and_that_came_at_once_does_not_cost_the_connection(serve: Serve) -> None:
    live = serve(hello)
    expected = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    assert live.ask(expected + b"abcde" + LAST).count(b"200 OK") == 2
    assert live.ask(expected).count(b"Connection: close") == 1, "will the body come? nobody knows"


def test_a_middleware_that_replaces_the_input_does_not_turn_a_body_into_a_request(serve: Serve) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.input"] = None
        return hello(environ, start_response)

    body = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    post = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    assert serve(app).ask(post + LAST).count(b"200 OK") == 2


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\nHost: a\n\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", b"400"),
        (b"GET /" + b"a" * 9000, b"414"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 5000, b"431"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000000\r\n\r\n", b"413"),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", b"505"),
    ],
)
def test_a_refusal_says_why_as_json_and_closes(serve: Serve, request_bytes: bytes, status: bytes) -> None:
    live = serve(hello)
    answer = live.ask(request_bytes)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"Connection: close\r\n" in answer
    assert b'{"error":{"status":' + status in answer
    assert live.server.refused == 1
    assert live.ask(LAST).endswith(b"}")


def test_empty_lines_before_a_request_are_ignored(serve: Serve) -> None:
    assert serve(hello).ask(b"\r\n" + LAST).startswith(b"HTTP/1.1 200 OK")


def test_deadlines_close_idle_and_answer_slow_clients(serve: Serve) -> None:
    live = serve(hello, limits=Limits(idle_timeout_s=0.05, head_timeout_s=0.05, body_timeout_s=0.05))
    with live.connect() as client:
        assert client.recv(100) == b""
    assert live.ask(b"GET / HT").startswith(b"HTTP/1.1 408 ")
    assert live.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc").startswith(b"HTTP/1.1 408 ")
    assert live.server.gathered_bytes == 0


def test_a_request_that_takes_too_long_is_stopped_and_answered_504(serve: Serve) -> None:
    ended: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        try:
            gevent.sleep(5)
        finally:
            ended.append("stopped")
        return hello(environ, start_response)

    answer = serve(app, limits=Limits(request_timeout_s=0.05)).ask(GET)
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert ended == ["stopped"]


def test_a_client_that_stops_reading_is_given_up(serve: Serve) -> None:
    ended: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 1_000_000
        finally:
            ended.append("closed")

    live = serve(app, limits=Limits(write_timeout_s=0.05))
    with live.connect() as client:
        client.sendall(GET)
        with gevent.Timeout(3):
            while not ended:
                gevent.sleep(0.01)
    assert live.server.in_flight == 0


def test_requests_beyond_the_bound_wait_their_turn_in_order(serve: Serve) -> None:
    order: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        order.append(environ["PATH_INFO"])
        assert live.server.in_flight <= 2
        gevent.sleep(0.01)
        return hello(environ, start_response)

    live = serve(app, limits=Limits(in_flight=2))
    clients = [live.connect() for _ in range(8)]
    for n, client in enumerate(clients):
        client.sendall(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n)
        gevent.sleep(0.001)
    for client in clients:
        assert read_answer(client)[0].startswith(b"HTTP/1.1 200")
        client.close()
    assert order == [f"/{n}" for n in range(8)]


def test_the_bound_on_connections_is_kept_and_lifted(serve: Serve) -> None:
    live = serve(hello, limits=Limits(connections=2))
    first, second = live.connect(), live.connect()
    gevent.sleep(0.02)
    third = live.connect()
    third.sendall(GET)
    gevent.sleep(0.02)
    assert live.server.connections == 2
    first.close()
    assert read_answer(third)[0].startswith(b"HTTP/1.1 200")
    second.close()
    third.close()


def test_draining_closes_idle_connections_and_marks_answers(serve: Serve) -> None:
    release = gevent.event.Event()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        release.wait()
        return hello(environ, start_response)

    live = serve(app)
    idle, busy = live.connect(), live.connect()
    busy.sendall(GET)
    gevent.sleep(0.02)
    live.server.begin_drain()
    assert idle.recv(10) == b""
    release.set()
    answer = read_to_end(busy)
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(b"}")
    assert live.ask(GET).count(b"Connection: close") == 1, "a draining server still answers whoever comes"
    idle.close()
    busy.close()


def test_a_request_that_nobody_has_read_yet_survives_the_drain(serve: Serve) -> None:
    live = serve(hello)
    with live.connect() as client:
        client.sendall(GET)
        read_answer(client)
        client.sendall(GET)
        live.server.begin_drain()  # the loop has not turned since
        answer = read_to_end(client)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"Connection: close\r\n" in answer


def test_closing_for_reasons_of_our_own_does_not_reset_a_request_on_its_way(serve: Serve) -> None:
    def failing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise ValueError

    live = serve(failing)
    with live.connect() as client:
        client.sendall(GET)
        assert read_answer(client)[0].startswith(b"HTTP/1.1 500")
        client.sendall(GET)
        gevent.sleep(0.01)
        assert client.recv(100) == b"", "an end, not a reset"
    gevent.sleep(0.01)
    assert live.server.connections == 0


def test_a_server_told_not_to_accept_does_not_start_because_a_connection_ends(serve: Serve) -> None:
    live = serve(hello, limits=Limits(connections=1))
    first = live.connect()
    gevent.sleep(0.01)
    second = live.connect()
    gevent.sleep(0.01)
    live.server.stop_accepting()
    first.close()
    gevent.sleep(0.01)
    assert live.server.connections == 0
    live.server.start_accepting()
    second.sendall(LAST)
    assert read_to_end(second).startswith(b"HTTP/1.1 200")
    second.close()


def test_pipelined_requests_that_come_while_the_next_one_waits_its_turn_stay_in_order(serve: Serve) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    live = serve(app)
    data = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(40))
    for cut in (1, 7, 29, 100):
        with live.connect() as client:
            for at in range(0, len(data), cut):
                client.send(data[at : at + cut])
                if at % 3 == 0:
                    gevent.sleep(0)
            client.shutdown(socket.SHUT_WR)
            answer = read_to_end(client)
        bodies = [part.partition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 ")[1:]]
        assert bodies == [b"/%d" % n for n in range(40)]


def test_every_connection_gets_its_share(serve: Serve) -> None:
    live = serve(hello)
    counts = [0] * 16
    stop = gevent.get_hub().loop.now() + 0.3

    def client(n: int) -> None:
        with live.connect() as sock:
            while gevent.get_hub().loop.now() < stop:
                sock.sendall(GET)
                read_answer(sock)
                counts[n] += 1

    gevent.joinall([gevent.spawn(client, n) for n in range(16)], raise_error=True)
    assert min(counts) >= 0.8 * max(counts), counts


def test_a_unix_socket_serves_too(tmp_path: Any) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    listener.setblocking(False)
    server = WSGIServer(listener, hello)
    server.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        client.sendall(LAST)
        assert read_to_end(client).startswith(b"HTTP/1.1 200 OK")
    server.stop()

"""What must not be left behind: a callback nobody runs, a socket nobody reads, a wait without an end."""

from __future__ import annotations

import io
import socket as native
import time
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from gevent.lock import Semaphore

from tafe.http1.head import HTTPS, REQUEST_ID, HeadParser
from tafe.limits import KIB, Limits
from tests.server.conftest import Live, Serve, hello, read_answer, read_to_end
from tests.server.test_load import only_connection, wait_for

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def in_a_thread(live: Live, requests: bytes, answers: int) -> float:
    """Ask from a thread, so that nothing of the client's wakes the hub; return the seconds until the last answer."""

    def ask() -> float:
        with native.create_connection(live.server.address, timeout=5) as client:
            time.sleep(0.05)  # the hub goes to sleep
            began_s = time.monotonic()
            client.sendall(requests)
            data = b""
            while data.count(b"HTTP/1.1 200") < answers:
                data += client.recv(65536)
            return time.monotonic() - began_s

    took_s: float = gevent.get_hub().threadpool.spawn(ask).get(timeout=10)
    return took_s


@pytest.mark.parametrize(
    "waiting",
    [
        lambda: gevent.spawn(int).join(),
        lambda: gevent.sleep(0),
        lambda: gevent.spawn(Semaphore().release).get(),
    ],
    ids=["child", "sleep", "lock"],
)
def test_what_a_request_queues_is_run_at_once_on_a_quiet_loop(serve: Serve, waiting: Any) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        waiting()
        return hello(environ, start_response)

    live = serve(app)
    assert in_a_thread(live, GET, 1) < 0.3, "and not when the server's own timer wakes the loop"


def test_pipelined_requests_follow_one_another_at_once_on_a_quiet_loop(serve: Serve) -> None:
    assert in_a_thread(serve(hello), GET * 5, 5) < 0.3


def test_a_body_that_never_comes_after_its_answer_is_given_up(serve: Serve) -> None:
    live = serve(hello, limits=Limits(body_timeout_s=0.1))
    with live.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        read_answer(client)
        wait_for(lambda: not live.server.connections)
        assert client.recv(1) == b""
    assert (live.server.in_flight, live.server.max_in_flight) == (0, Limits().in_flight)


def test_stopping_ends_the_wait_for_a_body_after_its_answer(serve: Serve) -> None:
    live = serve(hello)
    with live.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        read_answer(client)
        live.server.stop(timeout=0.1)
        assert read_to_end(client) == b""
    assert (live.server.connections, live.server.max_in_flight) == (0, Limits().in_flight)


def test_a_refusal_that_cannot_be_sent_closes_the_connection_for_good(serve: Serve) -> None:
    live = serve(hello)
    with live.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        wait_for(lambda: live.server.gathered_bytes)
        connection = only_connection(live)

        def broken(data: bytes) -> int:
            raise ConnectionResetError

        connection.send = broken
        connection.expires_s = 0.0
        connection.expired()
        assert (live.server.connections, live.server.gathered_bytes) == (0, 0)


def broken(environ: dict[str, Any]) -> dict[str, Any]:
    raise RuntimeError("as planned")


def test_a_fault_of_ours_closes_its_connection_and_serves_the_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = serve(hello)
    printed = io.StringIO()
    monkeypatch.setitem(vars(gevent.get_hub()), "exception_stream", printed)
    with live.connect() as first, live.connect() as second:
        wait_for(lambda: live.server.connections == 2)
        live.server.make_environ = broken  # type: ignore[assignment]
        first.sendall(GET)
        assert first.recv(1) == b""
        live.server.make_environ = None
        second.sendall(GET)
        assert read_answer(second)[1]
    assert "RuntimeError: as planned" in printed.getvalue()


def test_a_slow_reader_is_asked_for_nothing_it_has_sent_already_when_the_server_drains(serve: Serve) -> None:
    body = bytes(8 * KIB * KIB)

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"next" if environ["PATH_INFO"] == "/next" else body]

    live = serve(app)
    with live.connect() as client:
        client.sendall(GET + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: live.server.in_flight)
        live.server.begin_drain()
        answers = read_to_end(client)
    assert answers.endswith(b"Connection: close\r\n\r\nnext")


def test_a_connection_whose_stream_ends_during_the_drain_is_closed(serve: Serve) -> None:
    go_on = Event()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "4")])
        yield b"ab"
        go_on.wait()
        yield b"cd"

    live = serve(app)
    with live.connect() as client:
        client.sendall(GET)
        wait_for(lambda: live.server.in_flight)
        live.server.begin_drain()
        go_on.set()
        assert read_to_end(client).endswith(b"abcd")
    wait_for(lambda: not live.server.connections)


def test_an_application_that_empties_its_environ_is_logged_all_the_same(serve: Serve) -> None:
    lines: list[str] = []

    class Log:
        def write(self, line: str) -> None:
            lines.append(line)

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        answer = hello(environ, start_response)
        environ.clear()
        return answer

    live = serve(app, log=Log())
    with live.connect() as client:
        for _ in range(2):
            client.sendall(GET)
            read_answer(client)
    assert [line.split('"')[1] for line in lines] == ["- - -"] * 2


def test_who_is_contradicted_is_not_believed() -> None:
    parser = HeadParser({}, Limits())
    for _ in range(2):
        for first, second in (("https", "http"), ("http", "https"), ("https", "https")):
            lines = ["GET / HTTP/1.1", "Host: a", f"X-Forwarded-Proto: {first}", f"X-Forwarded-Proto: {second}"]
            assert not parser.parse("\r\n".join(lines).encode())[1] & HTTPS
        assert not parser.parse(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\r\nX-Request-Id: b")[1] & REQUEST_ID


def test_no_setting_lets_an_underscore_name_the_client() -> None:
    parser = HeadParser({}, Limits(underscores="keep"))
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\nX_Forwarded_For: 1.2.3.4\r\nX_A: kept"
    environ, _ = parser.parse(head)
    assert (environ["HTTP_X_FORWARDED_FOR"], environ["HTTP_X_A"]) == ("9.9.9.9", "kept")


def test_a_client_on_a_unix_socket_has_no_address_even_if_it_has_bound_one(serve: Serve, tmp_path: Any) -> None:
    seen: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append((environ["REMOTE_ADDR"], environ["REMOTE_PORT"]))
        return hello(environ, start_response)

    path = str(tmp_path / "server")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    from tafe.server import WSGIServer

    server = WSGIServer(listener, app)
    server.start()
    for name in (str(tmp_path / "client"), "\0abstract", ""):
        with socket.socket(socket.AF_UNIX) as client:
            client.bind(name)
            client.connect(path)
            client.sendall(GET)
            read_answer(client)
    server.stop(timeout=0.1)
    assert seen == [("", "")] * 3

"""Clients that speak TLS to a server that is used alone: what a handshake costs, and when it ends."""

from __future__ import annotations

import ssl
import subprocess
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.ssl import SSLContext

from tafe.limits import Limits
from tests.server.conftest import Serve, echo, hello, read_answer, read_to_end
from tests.services.requirements import program

LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> SSLContext:
    """A server's, with a key and its certificate."""
    path = tmp_path_factory.mktemp("tls") / "key.pem"
    certificate = path.with_suffix(".crt")
    subprocess.run(
        [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1",
         "-keyout", str(path), "-out", str(certificate)],
        capture_output=True,
        check=True,
    )  # fmt: skip
    context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, path)
    return context


def tls_client(address: Any) -> Any:
    context = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(address, timeout=5))


def wait_for(condition: Any) -> None:
    with gevent.Timeout(3):
        while not condition():
            gevent.sleep(0.005)


def test_tls_arguments_serve_tls(serve: Serve, context: SSLContext) -> None:
    seen: list[tuple[str, str]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append((environ["wsgi.url_scheme"], environ["REMOTE_ADDR"]))
        return echo(environ, start_response)

    live = serve(app, ssl_context=context)
    body = bytes(range(256)) * 4000
    with tls_client(live.server.address) as client:
        for _ in range(2):
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
            sender = gevent.spawn(client.sendall, body)
            assert read_answer(client)[1] == body
            sender.get()
        client.sendall(LAST)
        assert read_to_end(client).startswith(b"HTTP/1.1 200 OK"), "the end is a clean one"
    assert seen == [("https", "127.0.0.1")] * 3


def test_a_client_that_shakes_hands_counts_as_a_connection(serve: Serve, context: SSLContext) -> None:
    live = serve(hello, ssl_context=context, limits=Limits(connections=2))
    first, second, third = (live.connect() for _ in range(3))  # none of them says anything
    wait_for(lambda: live.server.connections == 2)
    gevent.sleep(0.05)
    assert live.server.connections == 2
    first.close()
    second.close()
    with tls_client(live.server.address) as client:
        client.sendall(GET)
        assert read_answer(client)[0].startswith(b"HTTP/1.1 200")
        assert live.server.connections == 2, "the third, and this one"
    third.close()
    wait_for(lambda: live.server.connections == 0)


def test_a_handshake_that_takes_too_long_is_given_up(serve: Serve, context: SSLContext) -> None:
    live = serve(hello, ssl_context=context, limits=Limits(head_timeout_s=0.05))
    with live.connect() as client:
        wait_for(lambda: live.server.connections == 1)
        assert client.recv(1) == b""
    wait_for(lambda: live.server.connections == 0)


def test_stopping_ends_handshakes(serve: Serve, context: SSLContext) -> None:
    live = serve(hello, ssl_context=context)
    with live.connect() as client:
        wait_for(lambda: live.server.connections == 1)
        live.server.stop(timeout=0)
        assert client.recv(1) == b""
        wait_for(lambda: live.server.connections == 0)


def test_who_speaks_no_tls_is_closed_unanswered(serve: Serve, context: SSLContext) -> None:
    live = serve(hello, ssl_context=context)
    with live.connect() as client:
        client.sendall(GET)
        try:
            assert b"200" not in client.recv(1000)
        except ConnectionResetError:
            pass
    wait_for(lambda: live.server.connections == 0)

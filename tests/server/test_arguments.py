"""Arguments of pywsgi's constructor: honoured, or refused; never ignored."""

from __future__ import annotations

import io
import logging
import re
from typing import Any

import gevent
import pytest
from gevent import pywsgi, socket
from gevent.pool import Pool

from tafe.errors import UsageError
from tafe.server import WSGIServer
from tests.server.conftest import Serve, hello, read_to_end

LAST = b"GET /a?b=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Renamed(pywsgi.WSGIHandler):
    ApplicationError = ValueError


class Overridden(pywsgi.WSGIHandler):
    def handle(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    "argument",
    [{"handler_class": object}, {"handler_class": Overridden}, {"spawn": print}, {"spawn": None}, {"spawn": 0},
     {"log": object()}, {"error_log": object()}],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused(argument: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(argument))):
        WSGIServer(("127.0.0.1", 0), hello, **argument)


@pytest.mark.parametrize("argument", [{"handler_class": Renamed}, {"spawn": gevent.spawn}, {"spawn": Pool()}])
def test_what_changes_nothing_is_accepted(serve: Serve, argument: dict[str, Any]) -> None:
    assert b"200 OK" in serve(hello, **argument).ask(LAST)


@pytest.mark.parametrize("spawn", [2, Pool(2)])
def test_a_pool_bounds_the_requests_that_run_at_once(serve: Serve, spawn: Any) -> None:
    running = most = 0

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        gevent.sleep(0.005)
        running -= 1
        return hello(environ, start_response)

    live = serve(app, spawn=spawn)
    gevent.joinall([gevent.spawn(live.ask, LAST) for _ in range(6)], raise_error=True)
    assert most == 2


def test_the_log_gets_a_line_a_request_as_pywsgi_writes_it(serve: Serve) -> None:
    log = io.StringIO()
    serve(hello, log=log).ask(LAST.replace(b"Connection: close\r\n", b"") + LAST)
    first, second = log.getvalue().splitlines()
    pattern = r'127\.0\.0\.1 - - \[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] "GET /a\?b=1 HTTP/1\.1" 200 27 \d+\.\d{6}'
    assert re.fullmatch(pattern, first)
    assert re.fullmatch(pattern, second)


def test_a_logger_is_written_to_as_well(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "access"):
        serve(hello, log=logging.getLogger("access")).ask(LAST)
    assert '"GET /a?b=1 HTTP/1.1" 200 27' in caplog.text


def test_a_log_that_fails_is_switched_off_and_requests_go_on(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    closed = io.StringIO()
    closed.close()
    live = serve(hello, log=closed)
    assert b"200 OK" in live.ask(LAST)
    assert b"200 OK" in live.ask(LAST)
    assert caplog.text.count("the access log failed") == 1


def test_the_error_log_is_wsgi_errors(serve: Serve) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.errors"].write("something to say\n")
        return hello(environ, start_response)

    errors = io.StringIO()
    serve(app, error_log=errors).ask(LAST)
    assert errors.getvalue() == "something to say\n"


def test_a_subclass_may_bring_its_application_and_its_environ_class() -> None:
    class Environ(dict[str, Any]):
        def copy(self) -> Environ:
            return Environ(self)

    class Server(WSGIServer):
        environ_class = Environ

        @staticmethod
        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [])
            return [type(environ).__name__.encode()]

    server = Server(("127.0.0.1", 0))
    server.start()
    with socket.create_connection(server.address) as client:
        client.sendall(LAST)
        assert read_to_end(client).endswith(b"\r\n\r\nEnviron")
    server.stop()

"""Answers made while they are sent."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import pywsgi, socket

import tafe


class Source:
    """An iterator that records what is done to it."""

    def __init__(self, *chunks: Any) -> None:
        self.chunks = list(chunks)
        self.closed = 0

    def __iter__(self) -> Source:
        return self

    def __next__(self) -> Any:
        if not self.chunks:
            raise StopIteration
        chunk = self.chunks.pop(0)
        if isinstance(chunk, BaseException):
            raise chunk
        return chunk

    def close(self) -> None:
        self.closed += 1


def app_of(answer: Any, **options: Any) -> tafe.App:
    app = tafe.App()
    app.get("/x", **options)(lambda: answer() if callable(answer) else answer)
    return app


def test_a_generator_is_sent_chunk_by_chunk() -> None:
    def numbers() -> Iterator[str | bytes]:
        yield "é"
        yield b"\xff"
        yield ""
        yield "end"

    app = tafe.App()
    app.get("/x")(numbers)
    started: list[Any] = []

    def start_response(*args: Any) -> Any:
        started.append(args)

    result = app({"REQUEST_METHOD": "GET", "PATH_INFO": "/x"}, start_response)
    assert started == [("200 OK", [("Content-Type", "application/octet-stream")])]
    assert list(result) == ["é".encode(), b"\xff", b"end"]


def test_a_response_may_stream_with_its_own_headers() -> None:
    answer = (
        app_of(tafe.Response(iter(["a,b\n"]), 206, [("Content-Type", "text/csv"), ("Content-Length", "4")]))
        .test_client()
        .get("/x")
    )
    assert (answer.status, answer.headers, answer.text) == (
        206,
        [("Content-Type", "text/csv"), ("Content-Length", "4")],
        "a,b\n",
    )


def test_a_tuple_may_hold_a_stream() -> None:
    answer = app_of((iter(["a", "b"]), 202)).test_client().get("/x")
    assert (answer.status, answer.text) == (202, "ab")


def test_an_empty_stream_is_an_empty_answer() -> None:
    source = Source("", b"")
    assert app_of(source).test_client().get("/x").body == b""
    assert source.closed == 1


def test_a_stream_is_closed_once_after_sending() -> None:
    source = Source("a", "b")
    assert app_of(source).test_client().get("/x").text == "ab"
    assert source.closed == 1


def test_a_stream_that_nobody_reads_to_its_end_is_closed() -> None:
    done: list[str] = []

    def numbers() -> Iterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            done.append("closed")

    result: Any = app_of(numbers)({"REQUEST_METHOD": "GET", "PATH_INFO": "/x"}, lambda *_: print)
    assert next(iter(result)) == b"a"
    result.close()
    assert done == ["closed"]


def test_an_error_before_the_first_chunk_is_a_proper_answer() -> None:
    source = Source("", tafe.NotFound("no such file"))
    answer = app_of(source).test_client().get("/x")
    assert (answer.status, answer.json()["error"]["message"]) == (404, "no such file")
    assert source.closed == 1


def test_a_first_chunk_of_a_wrong_type_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    source = Source(5)
    assert app_of(source).test_client().get("/x").status == 500
    assert "bytes or str, not int" in caplog.text
    assert source.closed == 1


@pytest.mark.parametrize(("second", "error"), [(ValueError("broken"), ValueError), (5, TypeError)])
def test_a_later_error_is_logged_and_breaks_the_stream_off(
    second: Any, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    source = Source("a", second, "never")
    with pytest.raises(error):
        app_of(source).test_client().get("/x")
    assert "GET /x: the stream broke off in" in caplog.text
    assert source.closed == 1


def test_a_server_leaves_the_last_chunk_out_when_the_stream_breaks_off() -> None:
    server = pywsgi.WSGIServer(
        ("127.0.0.1", 0), app_of(lambda: Source("first", ValueError("x"))), log=None, error_log=None
    )
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.server_port)) as client:
            client.settimeout(5)
            client.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            received = b""
            while data := client.recv(4096):
                received += data
    finally:
        server.stop()
    assert received.startswith(b"HTTP/1.1 200 OK")
    assert b"5\r\nfirst\r\n" in received
    assert not received.endswith(b"0\r\n\r\n")


def test_what_close_raises_is_logged_and_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Source):
        def close(self) -> None:
            raise OSError("disk")

    assert app_of(Bad("a")).test_client().get("/x").text == "a"
    assert "closing the stream failed" in caplog.text


def test_head_closes_the_stream_without_reading_it() -> None:
    source = Source("a")
    answer = app_of(source).test_client().head("/x")
    assert (answer.status, answer.body, source.chunks, source.closed) == (200, b"", ["a"], 1)


def test_a_stream_with_a_status_without_content_is_closed_unsent() -> None:
    source = Source("a", "b")
    assert app_of((source, 204)).test_client().get("/x").body == b""
    assert (source.chunks, source.closed) == (["b"], 1)


def test_a_stream_is_closed_if_the_server_refuses_the_head() -> None:
    source = Source("a")

    def refuse(*_: Any) -> Any:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        app_of(source)({"REQUEST_METHOD": "GET", "PATH_INFO": "/x"}, refuse)
    assert source.closed == 1


def test_the_routes_timeout_covers_the_making_of_the_stream_before_its_first_chunk() -> None:
    def stuck() -> Iterator[str]:
        gevent.get_hub().wait(gevent.get_hub().loop.timer(60))
        yield "never"

    answer = app_of(stuck, timeout_s=0.01).test_client().get("/x")
    assert (answer.status, answer.json()["error"]["code"]) == (504, "timeout")


def test_the_routes_timeout_breaks_off_a_stream_that_has_begun(caplog: pytest.LogCaptureFixture) -> None:
    closed: list[bool] = []

    def slow() -> Iterator[str]:
        try:
            yield "a"
            gevent.sleep(60)
        finally:
            closed.append(True)

    with pytest.raises(tafe.errors.RequestTimeout), caplog.at_level(logging.ERROR):
        app_of(slow, timeout_s=0.01).test_client().get("/x")
    assert closed == [True]
    assert "the stream broke off" in caplog.text


def test_time_spent_by_a_slow_client_does_not_count_against_the_route() -> None:
    result: Any = app_of(lambda: Source("a", "b"), timeout_s=0.03)(
        {"REQUEST_METHOD": "GET", "PATH_INFO": "/x"}, lambda *_: print
    )
    chunks = iter(result)
    assert next(chunks) == b"a"
    gevent.sleep(0.05)  # the client reads slowly: longer than the timeout, which must really pass
    assert list(chunks) == [b"b"]
    result.close()

"""From exceptions to answers."""

from __future__ import annotations

import http
import logging
import re
import subprocess
import sys
import time
from typing import Any

import gevent
import greenlet
import pytest

import tafe
from tafe import errors


def raising(exc: BaseException | type[BaseException]) -> tafe.App:
    app = tafe.App()

    @app.get("/x")
    def handler() -> None:
        raise exc

    return app


@pytest.mark.parametrize(
    ("exc", "status", "code", "message"),
    [
        (tafe.BadRequest("wrong", field="a.b"), 400, "bad_request", "wrong"),
        (tafe.NotFound("no such user"), 404, "not_found", "no such user"),
        (tafe.NotFound, 404, "not_found", "not found"),
        (tafe.HTTPError(402, "pay"), 402, "payment_required", "pay"),
        (tafe.HTTPError(418, "pot", code="teapot"), 418, "teapot", "pot"),
        (tafe.HTTPError(499, "odd"), 499, "error", "odd"),
        (tafe.HTTPError(422, "no"), 422, "unprocessable_content", "no"),
        (tafe.HTTPError(503, "full"), 503, "service_unavailable", "full"),
        (tafe.Unavailable("later"), 503, "unavailable", "later"),
        (errors.PoolTimeout("busy"), 503, "database_busy", "busy"),
        (errors.RequestTimeout("long"), 504, "timeout", "the request took too long"),
        (errors.QueryError("syntax error near SELECT"), 500, "internal_error", "internal error"),
        (ZeroDivisionError("x"), 500, "internal_error", "internal error"),
        (StopIteration("x"), 500, "internal_error", "internal error"),
        (RecursionError("x"), 500, "internal_error", "internal error"),
    ],
)
def test_an_exception_has_its_answer(exc: Any, status: int, code: str, message: str) -> None:
    answer = raising(exc).test_client().get("/x")
    error = answer.json()["error"]
    assert (answer.status, error["status"], error["code"], error["message"]) == (status, status, code, message)
    assert error.get("field") == getattr(exc, "field", None)
    assert answer.header("Content-Type") == "application/json"


def test_every_status_has_a_code_and_it_does_not_depend_on_the_interpreter() -> None:
    known = [status.value for status in http.HTTPStatus if status >= 400]
    codes = {status: errors.code_of(status) for status in known}
    assert {status for status, code in codes.items() if not re.fullmatch("[a-z]+(_[a-z]+)*", code)} == set()
    assert "error" not in codes.values()
    assert [codes[status] for status in (413, 414, 416, 422, 500)] == [
        "content_too_large",
        "uri_too_long",
        "range_not_satisfiable",
        "unprocessable_content",
        "internal_error",
    ]


def test_unavailable_says_when_to_come_back() -> None:
    answer = raising(tafe.Unavailable("later", retry_after_s=7)).test_client().get("/x")
    assert answer.header("Retry-After") == "7"


def test_an_error_with_a_header_that_may_not_be_sent_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    exc = tafe.HTTPError(401, "who", headers={"WWW-Authenticate": "Basic\r\nX: y"})
    assert raising(exc).test_client().get("/x").status == 500
    assert "WWW-Authenticate" in caplog.text


def test_an_error_with_an_impossible_status_is_a_500() -> None:
    assert raising(tafe.HTTPError(99, "x")).test_client().get("/x").status == 500


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, greenlet.GreenletExit])
def test_what_ends_a_process_or_a_greenlet_goes_through(kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        raising(kind).test_client().get("/x")


def test_a_timeout_that_the_handler_let_escape_is_a_logged_500(caplog: pytest.LogCaptureFixture) -> None:
    app = tafe.App()

    @app.get("/x")
    def handler() -> None:
        with gevent.Timeout(0.001):
            gevent.sleep(60)

    answer = app.test_client().get("/x")
    assert (answer.status, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "GET /x: Timeout in" in caplog.text


def test_a_lost_client_is_the_servers_business_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Lost:
        def read(self, size: int) -> bytes:
            raise ConnectionResetError("gone")

    app = tafe.App()
    app.post("/x")(lambda body: None)
    with pytest.raises(ConnectionResetError):
        app.test_client().post("/x", environ={"CONTENT_LENGTH": "5", "wsgi.input": Lost()})
    assert caplog.records == []


def test_a_connection_error_of_the_handlers_own_is_a_500() -> None:
    assert raising(ConnectionResetError("upstream")).test_client().get("/x").status == 500


def test_the_most_specific_error_handler_answers() -> None:
    app = tafe.App()
    kinds: dict[str, type[Exception]] = {
        "lookup": LookupError,
        "key": KeyError,
        "index": IndexError,
        "value": ValueError,
        "missing": tafe.NotFound,
        "http": tafe.BadRequest,
    }

    @app.get("/{name}")
    def handler(name: str) -> None:
        raise kinds[name]("x")

    @app.error(LookupError)
    def lookup(exc: LookupError, request: tafe.Request) -> Any:
        return {"lookup": type(exc).__name__, "at": request.route.label}, 404

    @app.error(KeyError)
    def key(exc: KeyError, request: tafe.Request) -> Any:
        return "key", 410

    @app.error(tafe.NotFound)
    def not_found(exc: tafe.NotFound, request: tafe.Request) -> Any:
        return "<h1>nothing</h1>", 404

    @app.error(Exception)
    def anything(exc: Exception, request: tafe.Request) -> Any:
        return "anything", 500

    client = app.test_client()
    assert client.get("/key").text == "key"
    assert client.get("/index").json() == {"lookup": "IndexError", "at": "GET /{name}"}
    assert client.get("/missing").text == "<h1>nothing</h1>"
    assert client.get("/a/b").text == "<h1>nothing</h1>"
    assert client.get("/value").text == "anything"
    assert client.get("/http").json()["error"]["code"] == "bad_request"  # ours is more specific than Exception


def test_an_error_handler_that_fails_is_a_500_with_both_errors_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = raising(KeyError("first"))

    @app.error(KeyError)
    def handler(exc: KeyError, request: tafe.Request) -> Any:
        raise ValueError("second")

    with caplog.at_level(logging.ERROR):
        assert app.test_client().get("/x").status == 500
    assert "first" in caplog.text
    assert "second" in caplog.text


def test_an_error_handler_may_answer_with_a_stream() -> None:
    app = raising(KeyError("x"))
    app.error(KeyError)(lambda exc, request: (iter(["a", "b"]), 503))
    answer = app.test_client().get("/x")
    assert (answer.status, answer.text) == (503, "ab")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, greenlet.GreenletExit, 5, "KeyError"])
def test_only_exceptions_can_be_answered(kind: Any) -> None:
    with pytest.raises(errors.UsageError, match="cannot be answered"):
        tafe.App().error(kind)(lambda exc, request: None)


def test_two_handlers_for_one_type_are_an_error() -> None:
    app = tafe.App()
    app.error(KeyError)(lambda exc, request: None)
    with pytest.raises(errors.UsageError, match="answered already"):
        app.error(KeyError)(lambda exc, request: None)


def test_a_route_that_takes_too_long_is_answered_with_504(caplog: pytest.LogCaptureFixture) -> None:
    app = tafe.App()

    @app.get("/x", timeout_s=0.01)
    def handler() -> None:
        try:
            gevent.sleep(60)
        except Exception:
            pytest.fail("an `except Exception` in the handler must not swallow it")

    answer = app.test_client().get("/x")
    assert (answer.status, answer.json()["error"]["code"]) == (504, "timeout")
    assert "timeout_s=0.01" in caplog.text
    assert "gevent.sleep(60)" in caplog.text  # the line that waited


def test_an_application_may_answer_a_timeout_in_its_own_way() -> None:
    app = tafe.App()
    app.get("/x", timeout_s=0.01)(lambda: gevent.sleep(60))
    app.error(errors.RequestTimeout)(lambda exc, request: None)
    assert app.test_client().get("/x").status == 204


def test_a_deadline_of_the_servers_is_answered_like_one_of_the_routes() -> None:
    app = tafe.App()
    waiting: list[greenlet.greenlet] = []

    @app.get("/x")
    def handler() -> None:
        waiting.append(greenlet.getcurrent())
        gevent.sleep(60)

    caller = gevent.spawn(app.test_client().get, "/x")
    gevent.sleep(0)
    gevent.get_hub().loop.run_callback(waiting[0].throw, errors.RequestTimeout())  # as the server does
    assert caller.get(timeout=5).status == 504


def test_a_route_in_time_leaves_no_timer_behind() -> None:
    app = tafe.App()

    @app.get("/x", timeout_s=0.01)
    def handler() -> Any:
        gevent.sleep(0)
        return "done"

    assert app.test_client().get("/x").text == "done"
    gevent.sleep(0.03)  # real time must pass: a timer left running would be raised here


def test_a_timeout_of_the_handlers_own_is_told_from_the_routes() -> None:
    app = tafe.App()

    @app.get("/x", timeout_s=30)
    def handler() -> Any:
        try:
            with gevent.Timeout(0.001):
                gevent.sleep(60)
        except gevent.Timeout:
            return "mine"

    assert app.test_client().get("/x").text == "mine"


def test_a_timeout_of_the_handlers_own_that_escapes_a_timed_route_is_a_500() -> None:
    app = tafe.App()

    @app.get("/x", timeout_s=30)
    def handler() -> None:
        with gevent.Timeout(0.001):
            gevent.sleep(60)

    assert app.test_client().get("/x").status == 500


def test_a_budget_spent_without_yielding_is_found_at_the_next_chance() -> None:
    app = tafe.App()

    @app.get("/x", timeout_s=0.01)
    def handler() -> Any:
        time.sleep(0.02)  # unpatched, as in code that blocks the hub: it cannot be interrupted
        return iter(["never"])

    assert app.test_client().get("/x").status == 504


def test_the_body_is_read_outside_the_routes_timeout() -> None:
    class Slow:
        def read(self, size: int) -> bytes:
            gevent.sleep(0.03)  # the client sends slowly: longer than the timeout, which must really pass
            return b"[1]"

    app = tafe.App()
    app.post("/x", timeout_s=0.01)(lambda body: body)
    assert app.test_client().post("/x", environ={"CONTENT_LENGTH": "3", "wsgi.input": Slow()}).json() == [1]


def test_the_application_needs_no_gevent_where_nothing_has_a_deadline() -> None:
    program = """
import sys, tafe
app = tafe.App()
@app.get("/x/{n:int}")
def handler(n: int, request: tafe.Request, q: str = "a"):
    request.defer(print, end="")
    if n: raise ValueError
    return {"n": n}
client = app.test_client()
assert client.get("/x/0").status == 200 and client.get("/x/1").status == 500
assert "gevent" not in sys.modules, "gevent was imported"
"""
    subprocess.run([sys.executable, "-c", program], check=True, stderr=subprocess.DEVNULL)

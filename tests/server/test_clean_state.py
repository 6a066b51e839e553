"""Nothing of one request reaches another through the greenlet that both ran in."""

from __future__ import annotations

import contextvars
from typing import Any

import gevent
import gevent.local
import greenlet

from tests.server.conftest import Serve, hello, read_answer

GET = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n"


def ask_in_turn(serve: Serve, application: Any, *paths: bytes) -> list[bytes]:
    live = serve(application)
    answers = []
    with live.connect() as client:
        for path in paths:
            client.sendall(GET % path)
            answers.append(read_answer(client)[1])
    return answers


def answer(start_response: Any, text: object) -> list[bytes]:
    start_response("200 OK", [])
    return [str(text).encode()]


def test_plain_requests_share_one_greenlet(serve: Serve) -> None:
    live = serve(hello)
    with live.connect() as client:
        for _ in range(20):
            client.sendall(GET % b"/")
            read_answer(client)
    assert live.server.greenlets.created == 1


def test_a_greenlet_local_does_not_reach_the_next_request(serve: Serve) -> None:
    local = gevent.local.local()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen = getattr(local, "value", None)
        local.value = environ["PATH_INFO"]
        return answer(start_response, seen)

    assert ask_in_turn(serve, app, b"/1", b"/2", b"/3") == [b"None"] * 3


def test_a_context_variable_does_not_reach_the_next_request(serve: Serve) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="clean")

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen = variable.get()
        variable.set("dirty")
        return answer(start_response, seen)

    assert ask_in_turn(serve, app, b"/1", b"/2") == [b"clean"] * 2


def test_a_timeout_left_running_does_not_hit_the_next_request(serve: Serve) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/careless":
            gevent.Timeout(0.02).start()
        else:
            gevent.sleep(0.06)
        return answer(start_response, "whole")

    assert ask_in_turn(serve, app, b"/careless", b"/victim") == [b"whole"] * 2


def test_a_late_kill_does_not_hit_the_next_request(serve: Serve) -> None:
    timers: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/careless":
            # Not by gevent.spawn_later, which leaves a mark on the greenlet that calls it.
            timer = gevent.get_hub().loop.timer(0.02)
            timer.start(gevent.kill, greenlet.getcurrent())
            timers.append(timer)
        else:
            gevent.sleep(0.06)
        return answer(start_response, "whole")

    assert ask_in_turn(serve, app, b"/careless", b"/victim") == [b"whole"] * 2

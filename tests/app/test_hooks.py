"""Hooks around requests and workers, and work after the answer."""

from __future__ import annotations

import logging
import re
from typing import Any

import gevent
import pytest
from gevent.event import Event

import tafe
from tafe.app import hooks
from tafe.errors import UsageError


def test_hooks_run_in_order_around_the_handler() -> None:
    app = tafe.App()
    order: list[str] = []
    app.before(lambda request: order.append("before 1"))
    app.before(lambda request: order.append("before 2"))
    app.after(lambda request, response: order.append("after 1"))
    app.after(lambda request, response: order.append("after 2"))

    @app.get("/x")
    def handler() -> Any:
        order.append("handler")
        return {}

    assert app.test_client().get("/x").body == b"{}"
    assert order == ["before 1", "before 2", "handler", "after 1", "after 2"]


def test_an_answer_of_a_before_hook_is_final() -> None:
    app = tafe.App()

    @app.before
    def login(request: tafe.Request) -> Any:
        if request.header("Authorization") is None:
            raise tafe.HTTPError(401, "log in")
        return {"cached": True} if request.path == "/cached" else None

    app.get("/x")(lambda: "handler")
    app.get("/cached")(lambda: pytest.fail("the handler ran"))
    client = app.test_client()
    assert client.get("/x").json()["error"]["code"] == "unauthorized"
    assert client.get("/x", headers={"Authorization": "y"}).text == "handler"
    assert client.get("/cached", headers={"Authorization": "y"}).json() == {"cached": True}


def test_before_hooks_run_before_the_body_is_looked_at() -> None:
    app = tafe.App()

    @app.before
    def refuse(request: tafe.Request) -> Any:
        raise tafe.HTTPError(401, "log in")

    app.post("/x")(lambda body: body)
    assert app.test_client().post("/x", body="{").status == 401


def test_after_hooks_see_every_answer_also_errors_and_unknown_paths() -> None:
    app = tafe.App()
    seen: list[tuple[str, int]] = []

    @app.after
    def log(request: tafe.Request, response: tafe.Response) -> None:
        seen.append((request.route.label, response.status))
        response.set_header("X-Seen", str(len(seen)))

    app.get("/ok")(lambda: {"a": 1})
    app.get("/fails")(lambda: 1 / 0)
    app.get("/stream")(lambda: iter(["a"]))
    client = app.test_client()
    answers = [client.get(path) for path in ("/ok", "/fails", "/stream", "/nothing")]
    answers.append(client.post("/ok"))
    assert seen == [
        ("GET /ok", 200),
        ("GET /fails", 500),
        ("GET /stream", 200),
        ("(no route)", 404),
        ("(no route)", 405),
    ]
    assert [answer.header("X-Seen") for answer in answers] == ["1", "2", "3", "4", "5"]


def test_an_after_hook_may_replace_the_answer() -> None:
    app = tafe.App()
    app.get("/x")(lambda: {"a": 1})
    app.after(lambda request, response: ({"was": response.body.decode()}, 202))
    app.after(lambda request, response: tafe.Response(response.body, response.status + 1))
    answer = app.test_client().get("/x")
    assert (answer.status, answer.json()) == (203, {"was": '{"a":1}'})


def test_an_after_hook_may_wrap_a_stream() -> None:
    app = tafe.App()
    app.get("/x")(lambda: iter(["a", "b"]))

    @app.after
    def upper(request: tafe.Request, response: tafe.Response) -> Any:
        assert response.stream is not None
        return tafe.Response(chunk.upper() for chunk in response.stream)

    assert app.test_client().get("/x").text == "AB"


def test_an_after_hook_that_fails_is_a_500_and_the_next_ones_see_it(caplog: pytest.LogCaptureFixture) -> None:
    app = tafe.App()
    closed: list[bool] = []

    def stream() -> Any:
        try:
            yield "a"
            yield "b"
        finally:
            closed.append(True)

    app.get("/x")(stream)
    seen: list[int] = []

    @app.after
    def fails(request: tafe.Request, response: tafe.Response) -> None:
        raise ValueError("oops")

    app.after(lambda request, response: seen.append(response.status))
    assert app.test_client().get("/x").status == 500
    assert (seen, closed) == ([500], [True])
    assert "oops" in caplog.text


def test_hooks_and_handler_share_the_requests_state() -> None:
    app = tafe.App()

    @app.before
    def login(request: tafe.Request) -> None:
        request.state.user = "joe"

    app.get("/x")(lambda request: request.state.user)
    assert app.test_client().get("/x").text == "joe"


@pytest.mark.parametrize("register", ["before", "after", "on_start", "on_stop"])
def test_a_hook_with_the_wrong_parameters_is_an_error(register: str) -> None:
    def hook(a: int, b: int, c: int) -> None: ...

    async def coroutine(*args: int) -> None: ...

    for wrong in (hook, coroutine, 5):
        with pytest.raises(UsageError):
            getattr(tafe.App(), register)(wrong)


def test_worker_hooks_run_in_order_and_stop_in_the_opposite_one() -> None:
    app = tafe.App()
    order: list[str] = []
    app.on_start(lambda: order.append("start 1"))
    app.on_start(deadline_s=5)(lambda: order.append("start 2"))
    app.on_stop(lambda: order.append("stop 1"))
    app.on_stop(deadline_s=5)(lambda: order.append("stop 2"))
    with app.test_client():
        assert order == ["start 1", "start 2"]
    assert order == ["start 1", "start 2", "stop 2", "stop 1"]


def test_a_start_hook_that_fails_ends_the_start_with_its_name() -> None:
    app = tafe.App()
    later: list[int] = []

    @app.on_start
    def load_model() -> None:
        raise ValueError("no file")

    app.on_start(lambda: later.append(1))
    with pytest.raises(ValueError, match="no file") as caught:
        app.worker_start()
    assert "load_model" in caught.value.__notes__[0]
    assert later == []


def test_a_start_that_is_tried_again_goes_on_with_the_hook_that_failed() -> None:
    app = tafe.App()
    order: list[str] = []
    app.on_start(lambda: order.append("first"))

    @app.on_start
    def needs_database() -> None:
        order.append("second")
        if order.count("second") == 1:
            raise tafe.Unavailable("database down")

    with pytest.raises(tafe.Unavailable):
        app.worker_start()
    app.worker_start()
    assert order == ["first", "second", "second"]
    app.worker_stop()
    app.worker_start()  # a new life, as in a second test
    assert order[3:] == ["first", "second"]


def test_a_start_hook_that_outlives_its_deadline_is_named() -> None:
    app = tafe.App()

    @app.on_start(deadline_s=0.01)
    def load_model() -> None:
        gevent.sleep(60)

    with pytest.raises(TimeoutError, match=r"start hook .*load_model .*test_hooks.py:\d+\) .* deadline_s=0.01"):
        app.worker_start()


def test_a_stop_hook_that_fails_or_hangs_is_logged_and_the_others_run(caplog: pytest.LogCaptureFixture) -> None:
    app = tafe.App()
    order: list[str] = []
    app.on_stop(lambda: order.append("last"))

    @app.on_stop
    def fails() -> None:
        raise ValueError("oops")

    @app.on_stop(deadline_s=0.01)
    def hangs() -> None:
        gevent.sleep(60)

    app.worker_stop()
    assert order == ["last"]
    assert "oops" in caplog.text
    assert "hangs" in caplog.text


@pytest.mark.parametrize("deadline_s", [0, -1, float("inf"), "5"])
def test_a_deadline_that_is_no_time_is_an_error(deadline_s: Any) -> None:
    with pytest.raises(UsageError, match="deadline_s"):
        tafe.App().on_start(deadline_s=deadline_s)(lambda: None)


def deferring(*jobs: Any) -> tafe.App:
    app = tafe.App()

    @app.get("/x")
    def handler(request: tafe.Request) -> Any:
        for job in jobs:
            request.defer(job, request.request_id, twice=True)
        return {"ok": True}

    return app


def test_deferred_work_runs_in_order_when_the_answer_was_sent() -> None:
    done: list[Any] = []
    app = deferring(lambda id_, twice: done.append((1, twice)), lambda id_, twice: done.append((2, twice)))
    result: Any = app({"REQUEST_METHOD": "GET", "PATH_INFO": "/x"}, lambda *_: print)
    assert list(result) == [b'{"ok":true}']
    assert done == []
    result.close()
    assert done == [(1, True), (2, True)]
    result.close()
    assert len(done) == 2


def test_deferred_work_runs_after_errors_and_streams_and_head_too() -> None:
    app = tafe.App()
    done: list[str] = []

    @app.get("/{how}")
    def handler(how: str, request: tafe.Request) -> Any:
        request.defer(done.append, how)
        if how == "stream":
            return iter(["a"])
        raise tafe.BadRequest("x")

    @app.post("/later")
    def later(request: tafe.Request) -> Any:
        def stream() -> Any:
            yield "a"
            request.defer(done.append, "deferred while streaming")

        return stream()

    client = app.test_client()
    assert client.get("/stream").text == "a"
    assert client.get("/error").status == 400
    assert client.head("/stream").status == 200
    assert client.post("/later").text == "a"
    assert done == ["stream", "error", "stream", "deferred while streaming"]


def test_deferred_work_that_fails_is_logged_and_the_rest_runs(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    def fails(id_: str, twice: bool) -> None:
        raise ValueError("oops")

    def times_out(id_: str, twice: bool) -> None:
        raise gevent.Timeout(1)

    app = deferring(fails, times_out, lambda id_, twice: done.append(id_))
    assert app.test_client().get("/x").status == 200
    assert len(done) == 1
    assert "fails" in caplog.records[0].getMessage()
    assert "times_out" in caplog.records[1].getMessage()
    assert done[0] in caplog.records[0].getMessage()


def test_under_a_tafe_worker_deferred_work_does_not_hold_up_the_connection() -> None:
    go, done = Event(), Event()

    def slow(id_: str, twice: bool) -> None:
        go.wait(5)
        done.set()

    app = deferring(slow)
    assert app.test_client().get("/x", environ={"tafe.request_id": "r-1"}).status == 200
    assert not done.is_set()  # the client has its answer, close() has returned
    go.set()
    app.worker_stop()
    assert done.is_set()


def test_deferred_work_that_hangs_is_ended_and_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hooks, "DEFERRED_DEADLINE_S", 0.01)
    app = deferring(lambda id_, twice: gevent.sleep(60))
    assert app.test_client().get("/x", environ={"tafe.request_id": "r-1"}).status == 200
    app.worker_stop()
    assert "took longer than 0.01 s" in caplog.text
    assert "r-1" in caplog.text


def waits_at_stop(monkeypatch: pytest.MonkeyPatch, app: tafe.App, *deadline_s: float) -> float:
    """How long the stop is ready to wait for deferred work."""
    waits: list[float] = []
    monkeypatch.setattr(app._deferred, "join", waits.append)
    app.worker_stop(*deadline_s)
    return waits[0]


def test_deferred_work_has_the_time_that_the_worker_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    app = tafe.App()
    assert waits_at_stop(monkeypatch, app, 18.0) == 18.0
    assert waits_at_stop(monkeypatch, app) == hooks.STOP_DEADLINE_S
    app.on_stop(deadline_s=3)(lambda: None)
    assert waits_at_stop(monkeypatch, app, 18.0) == 15.0
    app.on_stop(deadline_s=60)(lambda: None)
    assert waits_at_stop(monkeypatch, app, 18.0) == 9.0
    assert waits_at_stop(monkeypatch, app, 0.0) == 0.0


def test_a_stop_without_a_limit_waits_for_deferred_work_until_it_is_done() -> None:
    done = Event()
    app = deferring(lambda id_, twice: (gevent.sleep(0.01), done.set()))
    assert app.test_client().get("/x", environ={"tafe.request_id": "r-1"}).status == 200
    app.worker_stop(float("inf"))
    assert done.is_set()


def test_stop_hooks_are_ended_with_the_workers_time_but_each_is_run(caplog: pytest.LogCaptureFixture) -> None:
    app = tafe.App()
    order: list[str] = []
    app.on_stop(lambda: order.append("last"))

    @app.on_stop
    def hangs() -> None:
        order.append("first")
        gevent.sleep(60)

    with gevent.Timeout(2):
        app.worker_stop(0.0)
    assert order == ["first", "last"]
    assert re.search(r"stop hook .*hangs .* took longer than the 0.1 s that were left", caplog.text)


def test_a_stop_abandons_deferred_work_that_does_not_end(caplog: pytest.LogCaptureFixture) -> None:
    release = Event()
    app = deferring(lambda id_, twice: release.wait(5))
    with caplog.at_level(logging.ERROR):
        app.test_client().get("/x", environ={"tafe.request_id": "r-1"})
        app.worker_stop(0.01)
    assert "deferred work of 1 requests was abandoned" in caplog.text
    release.set()
    app.worker_stop()

"""The middleware, call by call, and spans without HTTP; test_servers.py has them on real servers."""

from __future__ import annotations

import io
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar, cast
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import gevent
import pytest

import profiler
from profiler.frames import capture_running
from profiler.model import Span
from profiler.session import current
from profiler.wsgi import SPAN, Middleware

T = TypeVar("T")


class Server:
    """What a server does with an application, in a greenlet of gevent's, one call after another."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self.application = application
        self.environ: dict[str, Any] = {}
        self.started: list[tuple[Any, ...]] = []
        self.written: list[bytes] = []
        self.body: Iterable[bytes] = ()

    def start_response(self, *given: Any) -> Callable[[bytes], None]:
        self.started.append(given)
        return self.written.append

    def call(self, path: str = "/", **environ: Any) -> Iterable[bytes]:
        """Call the application alone."""
        self.environ = {"SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "", **environ}
        setup_testing_defaults(self.environ)
        self.environ["wsgi.errors"] = io.StringIO()
        self.body = self.application(self.environ, self.start_response)
        return self.body

    def serve(self, path: str = "/", **environ: Any) -> bytes:
        """Call it, read the body, close it."""
        try:
            return b"".join(self.call(path, **environ))
        finally:
            if hasattr(self.body, "close"):
                self.body.close()

    @property
    def span(self) -> Span:
        found = self.environ[SPAN]
        assert isinstance(found, Span)
        return found

    @property
    def said(self) -> str:
        return str(self.environ["wsgi.errors"].getvalue())


def ok(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


def in_a_greenlet(function: Callable[..., T], *args: Any, **options: Any) -> T:
    """What it returns, or raises: without gevent's own word on that, as an exception ends no greenlet."""

    def run() -> tuple[T | None, Exception | None]:
        try:
            return function(*args, **options), None
        except Exception as error:
            return None, error

    result, error = gevent.spawn(run).get()
    if error is not None:
        raise error
    return cast("T", result)


@pytest.fixture
def ended(session: profiler.Session, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """The routes of the spans that ended, in order, and whether in an error."""
    spans: list[tuple[str, bool]] = []
    end = session.end

    def note(span: Span, error: bool = False) -> None:
        end(span, error)
        spans.append((span.route, error))

    monkeypatch.setattr(session, "end", note)
    return spans


def test_a_request_is_a_span_named_by_its_path(ended: list[tuple[str, bool]]) -> None:
    server = Server(Middleware(ok))
    assert in_a_greenlet(server.serve, "/users/17", SCRIPT_NAME="/api") == b"ok"
    assert ended == [("GET /api/users/{}", False)]
    assert server.started == [("200 OK", [("Content-Type", "text/plain")])]


def test_a_route_can_be_named_by_the_caller_and_by_the_application(ended: list[tuple[str, bool]]) -> None:
    def named(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] == "/template":
            environ[SPAN].route = "GET /<template>"
        return ok(environ, start_response)

    server = Server(Middleware(named, route=lambda environ: f"mine {environ['PATH_INFO']}"))
    in_a_greenlet(server.serve, "/a")
    in_a_greenlet(server.serve, "/template")
    assert ended == [("mine /a", False), ("GET /<template>", False)]


def test_a_route_that_raises_is_said_once_and_the_default_used(ended: list[tuple[str, bool]]) -> None:
    server = Server(Middleware(ok, route=lambda environ: str(environ["missing"])))
    assert in_a_greenlet(server.serve, "/a/1") == b"ok"
    assert server.said == "profiler: route= raised, and is not asked any more: KeyError('missing')\n"
    assert in_a_greenlet(server.serve, "/a/2") == b"ok"
    assert server.said == ""
    assert ended == [("GET /a/{}", False)] * 2


@pytest.mark.parametrize(
    ("given", "taken"), [("abc-1", True), ("a b", False), ("x" * 128, True), ("x" * 129, False), ("", False)]
)
def test_a_request_id_is_taken_from_the_client_if_it_is_safe(
    session: profiler.Session, given: str, taken: bool
) -> None:
    server = Server(Middleware(ok))
    in_a_greenlet(server.serve, HTTP_X_REQUEST_ID=given)
    assert server.span.request_id == (given if taken else f"{os.getpid()}-1")


def test_a_streamed_response_counts_until_it_is_closed(ended: list[tuple[str, bool]]) -> None:
    steps: list[str] = []

    def stream(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            for number in range(3):
                steps.append(f"make {number}")
                yield b"%d" % number
        finally:
            steps.append("close")

    def serve() -> None:
        server = Server(Middleware(stream))
        blocks = iter(server.call())
        for block in blocks:
            steps.append(f"send {block.decode()}")
            assert ended == []
        server.body.close()  # type: ignore[attr-defined]

    in_a_greenlet(serve)
    assert steps == ["make 0", "send 0", "make 1", "send 1", "make 2", "send 2", "close"]
    assert ended == [("GET /", False)]


class Body:
    """A body that counts how often it is closed."""

    def __init__(self, error: Exception | None = None) -> None:
        self.closed = 0
        self.error = error

    def __iter__(self) -> Iterator[bytes]:
        yield b"one"
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed += 1


def test_the_applications_close_is_called_once_whatever_the_server_does(ended: list[tuple[str, bool]]) -> None:
    body = Body()

    def serve() -> None:
        server = Server(Middleware(lambda environ, start_response: body))
        server.call()  # never read: the client has gone
        server.body.close()  # type: ignore[attr-defined]
        server.body.close()  # type: ignore[attr-defined]

    in_a_greenlet(serve)
    assert body.closed == 1
    assert ended == [("GET /", False)]


def test_an_exception_in_the_call_the_body_or_close_is_an_error_and_goes_on(ended: list[tuple[str, bool]]) -> None:
    def raises(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        raise ValueError("in the call")

    class Unclosable(Body):
        def close(self) -> None:
            raise ValueError("in close")

    with pytest.raises(ValueError, match="in the call"):
        in_a_greenlet(Server(Middleware(raises)).serve)
    with pytest.raises(ValueError, match="in the body"):
        in_a_greenlet(Server(Middleware(lambda e, s: Body(ValueError("in the body")))).serve)
    with pytest.raises(ValueError, match="in close"):
        in_a_greenlet(Server(Middleware(lambda e, s: Unclosable())).serve)
    assert ended == [("GET /", True)] * 3


def test_an_answer_of_5xx_is_an_error(ended: list[tuple[str, bool]]) -> None:
    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response(environ["PATH_INFO"][1:], [])
        return []

    server = Server(Middleware(answer))
    for status in ("404 Not Found", "500 Internal Server Error"):
        in_a_greenlet(server.serve, f"/{status}")
    assert [error for _, error in ended] == [False, True]


def test_start_response_goes_through_with_its_exc_info_and_write(session: profiler.Session) -> None:
    error = (ValueError, ValueError("late"), None)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        start_response("500 Internal Server Error", [], error)(b"written")
        return []

    server = Server(Middleware(answer))
    in_a_greenlet(server.serve)
    assert server.started == [("200 OK", []), ("500 Internal Server Error", [], error)]
    assert server.written == [b"written"]


def test_a_body_of_one_block_keeps_its_length_and_a_generator_has_none(session: profiler.Session) -> None:
    def served() -> tuple[int, bool]:
        sized = Server(Middleware(ok))
        unsized = Server(Middleware(lambda e, s: iter([b"one"])))
        sized.serve()
        unsized.serve()
        return len(sized.body), hasattr(unsized.body, "__len__")  # type: ignore[arg-type]

    assert in_a_greenlet(served) == (1, False)


def test_a_file_wrapper_stays_what_the_server_looks_for(ended: list[tuple[str, bool]]) -> None:
    class Wrapper(Body):
        pass

    server = Server(Middleware(lambda environ, start_response: environ["wsgi.file_wrapper"]()))
    assert in_a_greenlet(server.serve, **{"wsgi.file_wrapper": Wrapper}) == b"one"
    assert isinstance(server.body, Wrapper)
    assert server.body.closed == 1
    assert ended == [("GET /", False)]


def test_the_standard_librarys_validator_finds_nothing_on_either_side(session: profiler.Session) -> None:
    def serve() -> bytes:
        server = Server(validator(Middleware(validator(ok))))
        blocks = list(server.call())
        server.body.close()  # type: ignore[attr-defined]
        return b"".join(blocks)

    assert in_a_greenlet(serve) == b"ok"


def test_a_body_made_by_c_code_is_seen_as_the_middlewares_not_as_the_end_of_a_slice(session: profiler.Session) -> None:
    def frame_of_body() -> FrameType:
        blocks: Any = iter(Server(Middleware(lambda e, s: map(bytes, [b"one"]))).call())
        return cast("FrameType", blocks.gi_frame)

    (code, _), *_ = capture_running(in_a_greenlet(frame_of_body)).stack
    assert code.co_qualname == "_Body.__iter__"


def test_a_middleware_within_another_leaves_the_span_to_that(ended: list[tuple[str, bool]]) -> None:
    outer = Middleware(Middleware(ok, route=lambda environ: "inner"), route=lambda environ: "outer")
    assert in_a_greenlet(Server(outer).serve) == b"ok"
    assert ended == [("outer", False)]


def test_a_call_outside_gevents_greenlets_is_passed_through(ended: list[tuple[str, bool]]) -> None:
    server = Server(Middleware(ok))
    assert server.serve() == b"ok"
    assert in_a_thread(server.serve) == b"ok"
    assert SPAN not in server.environ
    assert ended == []


def in_a_thread(function: Callable[[], bytes]) -> bytes:
    return bytes(gevent.get_hub().threadpool.apply(function))


def test_the_first_request_installs_a_session_and_a_closed_one_is_not_opened_again(tmp_path: Path) -> None:
    server = Server(Middleware(ok, tmp_path, slow_slice_ms=20, worker="w"))
    assert server.serve() == b"ok"  # not in a greenlet
    assert list(tmp_path.iterdir()) == []
    in_a_greenlet(server.serve)
    session = current()
    assert session is not None
    assert session.path is not None
    header = json.loads(Path(session.path).read_text().splitlines()[0])
    session.close()
    assert (header["threshold_s"], header["worker"]) == (0.02, "w")
    assert in_a_greenlet(server.serve) == b"ok"
    assert current() is None


def test_what_cannot_be_profiled_is_served_and_the_reason_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    server = Server(Middleware(ok, tmp_path / "file"))
    assert in_a_greenlet(server.serve) == b"ok"
    assert server.said.startswith("profiler: not profiling: cannot write profiles in ")
    assert in_a_greenlet(server.serve) == b"ok"
    assert server.said == ""
    assert current() is None


def test_a_request_is_queued_from_the_poll_on_but_not_behind_its_predecessor_on_the_connection(
    session: profiler.Session,
) -> None:
    def serve_two() -> tuple[Span, Span]:
        gevent.sleep(0)
        server = Server(Middleware(ok))
        server.serve()
        first = server.span
        until_s = time.thread_time() + 0.002
        while time.thread_time() < until_s:
            pass
        server.serve()
        return first, server.span

    def work() -> None:
        gevent.sleep(0)
        until_s = time.thread_time() + 0.003
        while time.thread_time() < until_s:
            pass

    gevent.spawn(work)
    first, second = gevent.spawn(serve_two).get()
    assert first.queued_s >= 0.003
    assert second.queued_s == 0.0


def test_a_block_within_a_request_is_part_of_it(ended: list[tuple[str, bool]]) -> None:
    def blocks() -> None:
        with profiler.span("outer") as outer, profiler.span("inner") as inner:
            assert inner is outer

    in_a_greenlet(blocks)
    assert ended == [("outer", False)]


def test_a_block_that_raises_is_an_error_and_one_without_a_session_just_runs(ended: list[tuple[str, bool]]) -> None:
    def fail() -> None:
        with profiler.span("fails"):
            raise ValueError("wanted")

    with pytest.raises(ValueError, match="wanted"):
        in_a_greenlet(fail)
    assert ended == [("fails", True)]
    session = current()
    assert session is not None
    session.close()
    with profiler.span("nothing") as span:
        assert span is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"objectives": [1]}, "objectives is [1], and no dict; give each route a length"),
        ({"objectives": {"GET /": "50"}}, "the objective of 'GET /' is '50'; give each route a length"),
        ({"objectives": {"GET /": -1}}, "the objective of 'GET /' is -1; give each route a length"),
        ({"objectives": {"GET /": True}}, "the objective of 'GET /' is True; "),
        ({"objectives": {b"GET /": 50}}, "b'GET /' is no route of an objective; "),
        ({"objectives": {"bad": 50}}, "'bad' is no route of an objective; give METHOD /PATH as the report shows it"),
        ({"objectives": {"GET /users/17": 50}}, "no request has the route 'GET /users/17'; reports call it 'GET /us"),
        ({"slow_slice_ms": 0}, "slow_slice_ms is 0; give a length from 1 to 60000 ms"),
        ({"slow_slice_ms": "x"}, "slow_slice_ms is 'x'; give a length"),
        ({"directory": 7}, "directory is 7; name a directory, or give None"),
        ({"directory": ""}, "directory is ''; name a directory, or give None"),
        ({"route": "GET /"}, "route is 'GET /', and cannot be called; "),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_before_any_request(options: dict[str, Any], told: str) -> None:
    with pytest.raises(profiler.ProfilerError, match=f"^{re.escape(told)}"):
        Middleware(ok, **options)


def test_objectives_may_be_of_any_route_of_a_template_and_of_what_the_application_calls_them() -> None:
    Middleware(ok, objectives={"*": 250, "GET /users/{id}": 50, "GET /users/{}": 50.5})
    Middleware(ok, objectives={"checkout": 50}, route=lambda environ: "checkout")
    with pytest.raises(profiler.ProfilerError, match="the application is None"):
        Middleware(cast("Any", None))

"""Since when was it there? What came while a slice kept the hub, asked after it.

The stall does what others would do meanwhile, so the test knows when that was; then it waits, so that whoever takes the
end of the stall for that moment is wrong by as much.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.socket
import pytest
from gevent.event import Event
from gevent.pywsgi import WSGIServer

import profiler
from profiler.arrivals import READ, WRITE, last_s, stamp_s
from profiler.wsgi import SPAN, Middleware
from tests.profiler.undisturbed import found, undisturbed

HELD_S = 0.05  # after it came
NEARLY_S = HELD_S / 2  # what must be left of that, on a machine that is busy
PATIENCE_S = 10.0  # for the watchdog to get a CPU


def hold(until: Callable[[], object] = lambda: True) -> None:
    """Keep the hub: as long, and until then."""
    begun_s = time.perf_counter()
    while time.perf_counter() < begun_s + HELD_S or not (until() or time.perf_counter() > begun_s + PATIENCE_S):
        pass


def kept_waiting(
    session: profiler.Session, wait: Callable[[], object], stall: Callable[[], object], *, polls: bool = True
) -> profiler.Span:
    """The span of a request that waits while another greenlet stalls; `polls`: the loop does in between."""
    spans: list[profiler.Span] = []

    def request() -> None:
        span = session.begin("GET /", "waits")
        wait()
        session.end(span)
        spans.append(span)

    def keep() -> None:
        if not spans:  # else its time was over already
            stall()

    waiting = gevent.spawn(request)
    if polls:
        gevent.sleep(0.001)  # so that the kernel knows what is waited for
    gevent.spawn(keep).get()
    waiting.get(timeout=2 * PATIENCE_S)
    return spans[0]


@pytest.fixture
def pair() -> Iterator[tuple[gevent.socket.socket, socket.socket]]:
    """A unix socket that a greenlet reads from, and the other end."""
    ours, theirs = gevent.socket.socketpair()
    with ours, theirs:
        yield ours, theirs._sock


def test_bytes_on_tcp_are_stamped_by_the_kernel(connection: tuple[gevent.socket.socket, socket.socket]) -> None:
    ours, theirs = connection
    for _ in range(2):
        before_s = time.perf_counter()
        theirs.send(b"some")
        time.sleep(HELD_S)  # the kernel's clock goes on
        after_s = time.perf_counter()
        assert before_s <= stamp_s(ours._sock) < after_s
        assert ours.recv(16) == b"some", "looked at and left"
        assert before_s <= last_s(ours._sock) < after_s


def test_what_cannot_be_known_is_not_guessed(
    connection: tuple[gevent.socket.socket, socket.socket], pair: tuple[gevent.socket.socket, socket.socket]
) -> None:
    ours, theirs = connection
    assert stamp_s(ours._sock) == 0.0, "nothing has come"
    theirs.send(b"some")
    ours.recv(16)
    theirs.close()
    assert stamp_s(ours._sock) == 0.0, "its end has no stamp, and the bytes before are read"
    pair[1].send(b"some")
    assert stamp_s(pair[0]._sock) == last_s(pair[0]._sock) == 0.0, "a unix socket has neither"
    native = pair[0]._sock
    pair[0].close()
    assert stamp_s(native) == last_s(native) == 0.0


def check(span: profiler.Span, came_s: list[float]) -> None:
    """It was queued from when that came, and not before; and whoever kept the hub is to blame."""
    found(came_s[2:])
    before_s, after_s, end_s = came_s
    assert span.queued_s <= span.started_s + span.total_s - before_s
    found(span.queued_s >= end_s - after_s - NEARLY_S)
    check_blame(span, before_s, end_s - after_s - NEARLY_S)


def check_blame(span: profiler.Span, before_s: float, least_s: float) -> None:
    assert span.blamed is not None
    # A machine that is busy may make others slow as well, even as slow.
    held = [(record, cost_s) for record, cost_s in span.blamed if record.length_s >= HELD_S]
    assert held
    found(len(held) == 1)
    record, cost_s = held[0]
    assert record.harm_s == cost_s <= record.end_s - before_s
    found(cost_s >= least_s)


def does(
    act: Callable[[], object], times: list[float], until: Callable[[], object] = lambda: True
) -> Callable[[], None]:
    def stall() -> None:
        times.append(time.perf_counter())
        act()
        times.append(time.perf_counter())
        hold(until)
        times.append(time.perf_counter())

    return stall


@undisturbed
def test_who_waits_for_tcp_is_queued_from_when_the_bytes_came(
    session: profiler.Session, connection: tuple[gevent.socket.socket, socket.socket]
) -> None:
    ours, theirs = connection
    came_s: list[float] = []
    check(kept_waiting(session, lambda: ours.recv(16), does(lambda: theirs.send(b"some"), came_s)), came_s)


@undisturbed
def test_that_is_known_of_a_wait_that_began_in_the_turn_of_the_stall(
    session: profiler.Session, connection: tuple[gevent.socket.socket, socket.socket]
) -> None:
    ours, theirs = connection
    came_s: list[float] = []
    stall = does(lambda: theirs.send(b"some"), came_s)
    check(kept_waiting(session, lambda: ours.recv(16), stall, polls=False), came_s)


def fill(sock: socket.socket) -> int:
    """Send what there is room for; returns how much that is."""
    sent = 0
    try:
        while True:
            sent += sock.send(bytes(65536))
    except BlockingIOError:
        return sent


@pytest.mark.parametrize("kind", [READ, WRITE], ids=["to read", "to write"])
@undisturbed
def test_who_waits_for_another_socket_is_queued_from_when_the_watchdog_saw_it_ready(
    kind: int, session: profiler.Session, pair: tuple[gevent.socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    came_s: list[float] = []

    def seen() -> float:
        return session._sightings.sighted_s(ours.fileno(), kind, begun_s)

    begun_s = time.perf_counter()
    if kind == WRITE:
        filled = fill(ours._sock)
        stall = does(lambda: theirs.recv(filled), came_s, seen)
        span = kept_waiting(session, lambda: ours.send(b"more"), stall)
        theirs.recv(16)
    else:
        span = kept_waiting(session, lambda: ours.recv(16), does(lambda: theirs.send(b"some"), came_s, seen))
    seen_s = seen()
    found(seen_s)
    assert came_s[0] <= seen_s < came_s[2]
    assert span.queued_s <= span.started_s + span.total_s - came_s[0]
    found(span.queued_s >= came_s[2] - seen_s)
    begun_s = time.perf_counter()
    assert seen() == 0.0, "who waits since then waits for something else"


@undisturbed
def test_who_sleeps_is_queued_from_when_its_time_is_over(session: profiler.Session) -> None:
    came_s: list[float] = []
    slept_s: list[float] = []

    def wait() -> None:
        slept_s.append(time.perf_counter())
        gevent.sleep(0.01)

    def until_due() -> None:
        while time.perf_counter() < slept_s[0] + 0.01:
            pass

    stall = does(until_due, came_s)
    span = kept_waiting(session, wait, stall)
    check(span, [slept_s[0] + 0.01, *came_s[1:]])


@undisturbed
def test_who_is_timed_out_is_queued_from_when_its_time_was_over(session: profiler.Session) -> None:
    came_s: list[float] = []
    began_s: list[float] = []

    def wait() -> None:
        began_s.append(time.perf_counter())
        with gevent.Timeout(0.01, False):
            Event().wait()

    def until_due() -> None:
        while time.perf_counter() < began_s[0] + 0.01:
            pass

    span = kept_waiting(session, wait, does(until_due, came_s))
    check(span, [began_s[0] + 0.01, *came_s[1:]])


@undisturbed
def test_who_waits_for_an_event_is_queued_from_when_the_watchdog_saw_it_set(session: profiler.Session) -> None:
    came_s: list[float] = []
    event = Event()
    marks = session._sightings._marks
    stall = does(event.set, came_s, lambda: marks)

    def after_the_poll() -> None:  # what is set while callbacks run counts as ready from when they began
        gevent.sleep(0.001)
        stall()

    span = kept_waiting(session, event.wait, after_the_poll)
    assert span.queued_s <= span.started_s + span.total_s - came_s[0]
    found(span.queued_s >= NEARLY_S / 2)
    check_blame(span, came_s[0], NEARLY_S / 2)


@pytest.fixture
def pywsgi(session: profiler.Session) -> Iterator[tuple[WSGIServer, list[profiler.Span]]]:
    """A server that knows nothing of the profiler but the middleware, and the spans of its requests."""
    spans: list[profiler.Span] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        spans.append(environ[SPAN])
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    server = WSGIServer(("127.0.0.1", 0), Middleware(application), log=None)
    server.start()
    yield server, spans
    server.stop(timeout=0.2)


def to_its_end(client: gevent.socket.socket) -> None:
    answer = b""
    while not answer.endswith(b"ok"):
        answer += client.recv(4096)


@undisturbed
def test_a_request_to_another_server_is_queued_from_when_its_last_bytes_came(
    pywsgi: tuple[WSGIServer, list[profiler.Span]],
) -> None:
    server, spans = pywsgi
    came_s: list[float] = []
    ask = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with gevent.socket.create_connection(server.address) as client:
        client.sendall(ask)
        to_its_end(client)
        gevent.sleep(0.001)
        gevent.spawn(does(lambda: client._sock.send(ask), came_s)).join()
        to_its_end(client)
    assert came_s[0] <= spans[-1].started_s
    check(spans[-1], came_s)


@undisturbed
def test_gunicorns_environ_shows_its_socket(
    session: profiler.Session, connection: tuple[gevent.socket.socket, socket.socket]
) -> None:
    ours, theirs = connection
    came_s: list[float] = []
    environs: list[dict[str, Any]] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        environs.append(environ)
        start_response("200 OK", [])
        return []

    def serve() -> None:
        ours.recv(16)
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "gunicorn.socket": ours}
        body: Any = Middleware(application)(environ, lambda *_: None)
        body.close()

    serving = gevent.spawn(serve)
    gevent.sleep(0.001)
    gevent.spawn(does(lambda: theirs.send(b"some"), came_s))
    serving.get()
    check(environs[0][SPAN], came_s)

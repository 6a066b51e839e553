"""A WSGI application of which some handlers stall, and a plain worker; for servers in processes of their own.

    gunicorn -k gevent tests.profiler.wsgi_app:app          profiles into $PROFILE_DIR
    python -m tests.profiler.wsgi_app pywsgi PORT           the same on gevent.pywsgi, until a line comes on its input
    python -m tests.profiler.wsgi_app jobs                  jobs in greenlets, without HTTP

Each stall marks its line with `# stalls`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()

import time

import gevent
from gevent.pywsgi import WSGIServer

import profiler
from profiler.wsgi import Middleware

STALL_S = 0.05
real_sleep = monkey.get_original("time", "sleep")


def stall() -> list[bytes]:
    real_sleep(STALL_S)  # stalls
    return [b"stalled\n"]


def cooperate() -> list[bytes]:
    time.sleep(STALL_S)  # gevent's
    return [b"cooperated\n"]


def stream() -> Iterator[bytes]:
    yield b"first\n"
    gevent.sleep(0)
    real_sleep(STALL_S)  # stalls
    yield b"second\n"


def fail() -> list[bytes]:
    raise RuntimeError("wanted")


def refuse() -> list[bytes]:
    return [b"unavailable\n"]


ROUTES: dict[str, tuple[str, Callable[[], Iterable[bytes]]]] = {
    "stall": ("200 OK", stall),
    "cooperate": ("200 OK", cooperate),
    "stream": ("200 OK", stream),
    "fail": ("200 OK", fail),
    "refuse": ("503 Service Unavailable", refuse),
}


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/NAME/17` calls what `ROUTES` names."""
    status, handler = ROUTES[environ["PATH_INFO"].split("/")[1]]
    body = handler()
    start_response(status, [("Content-Type", "text/plain")])
    return body


app = Middleware(application, os.environ.get("PROFILE_DIR"))


def serve(port: int) -> None:
    server = WSGIServer(("127.0.0.1", port), app, log=None, error_log=None)
    server.start()
    gevent.get_hub().threadpool.apply(sys.stdin.readline)
    server.stop()


def work() -> None:
    profiler.install(os.environ["PROFILE_DIR"])

    def job(name: str, number: int) -> None:
        with profiler.span(f"job {name}", f"job-{number}"):
            list(ROUTES[name][1]())

    started = [gevent.spawn(job, name, number) for number in range(3) for name in ("stall", "cooperate")]
    gevent.joinall(started, raise_error=True)


if __name__ == "__main__":
    if sys.argv[1] == "pywsgi":
        serve(int(sys.argv[2]))
    else:
        work()

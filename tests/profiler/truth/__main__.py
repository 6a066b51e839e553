"""The ground truth: every stall of the zoo, visited a known number of times under cooperative traffic.

    python -m tests.profiler.truth DIRECTORY [--visits N] [--cooperative N] [--busy N] [--names NAME ...]

    --visits 0 --cooperative 200000 --names     nothing may be accused (some ten minutes)
    --visits 1 --busy 20                        on two CPUs, ten times overloaded: only the zoo's own lines may be

The zoo's application is served as a server would: each request a raw greenlet, started by a callback of the hub. Every
2 ms a cooperative request starts, and in between the stalls are visited one after the other. Prints as JSON what was
done. A visit is undisturbed when the process's threads hardly had to wait for a CPU while it lasted, and no CPU of the
machine was away then or shortly before (disturbed.py): only then is it known what the profiler should say of it.
Disturbed ones are repeated, up to `TRIES` times the visits in all.
This folder is a server to the profiler, as tafe's is.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import gc  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Callable  # noqa: E402
from functools import partial  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from greenlet import greenlet  # noqa: E402

import profiler  # noqa: E402
import tafe  # noqa: E402
from apps.zoo import ZOO, app  # noqa: E402
from profiler.evidence import WAIT_TOLERATED_S  # noqa: E402
from tests.profiler.cooperative import COOPERATIVE  # noqa: E402
from tests.profiler.truth.disturbed import Machine, without_a_cpu_s  # noqa: E402

STALL_MS = 30
EVERY_S = 0.002
UNDISTURBED_S = 0.003  # without a CPU, of a visit: a third of the threshold
CALM_S = 10.0  # so long no CPU has been away: until then the profiler distrusts what an absence would explain
TRIES = 3
BURN = "import os\nwhile os.getppid() == {}: sum(range(10000))"
PATIENCE_S = 30.0

client = app.test_client()


class Server:
    """Starts requests, and knows which have not ended."""

    def __init__(self, session: profiler.Session) -> None:
        self.session = session
        self.unfinished: set[str] = set()
        self.begun = 0

    def start(self, route: str, handler: Callable[[], object]) -> str:
        self.begun += 1
        request_id = f"request-{self.begun}"
        self.unfinished.add(request_id)
        hub: Any = self.session.hub
        hub.loop.run_callback(greenlet(self._serve, hub).switch, route, request_id, handler)
        return request_id

    def _serve(self, route: str, request_id: str, handler: Callable[[], object]) -> None:
        span = self.session.begin(route, request_id, self.session.turn.ready_ns)
        handler()
        self.session.end(span)
        self.unfinished.discard(request_id)

    def wait(self, request_id: str) -> None:
        until_s = time.perf_counter() + PATIENCE_S
        while request_id in self.unfinished and time.perf_counter() < until_s:
            gevent.sleep(0.003)


def visit(name: str) -> None:
    answer = client.get(f"/stall/{name}?ms={STALL_MS}")
    if answer.status not in (200, 204):
        raise RuntimeError(f"{name} answered {answer.status}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--visits", type=int, default=3)
    parser.add_argument("--cooperative", type=int, default=0, help="at least so many cooperative requests")
    parser.add_argument("--busy", type=int, default=0, help="processes that want a CPU meanwhile")
    parser.add_argument("--names", nargs="*", default=list(ZOO))
    options = parser.parse_args()
    for _ in range(options.busy):
        subprocess.Popen([sys.executable, "-c", BURN.format(os.getpid())])  # ends with us
    for name in options.names:  # what is made at the first visit is not a stall of the plan
        visit(name)
    gc.collect()
    gc.freeze()  # as a worker does
    session = profiler.install(
        options.directory,
        library_prefixes=[os.path.dirname(path) for path in (tafe.__file__, __file__)],
        remedies={"thread": "tafe.offload({})", "sqlite": "tafe.Database, whose threads wait for you"},
    )
    server = Server(session)
    cooperative: Counter[str] = Counter()

    def traffic() -> None:
        while True:
            for handler in COOPERATIVE:
                cooperative[handler.__name__] += 1
                server.start(f"GET /{handler.__name__}", handler)
                gevent.sleep(EVERY_S)

    busy = gevent.spawn(traffic)
    machine = Machine()
    gevent.sleep(0.5)  # until these watch
    began_s = without_a_cpu_s()
    visits: Counter[str] = Counter()
    undisturbed: Counter[str] = Counter()
    at_once: Counter[str] = Counter()  # of them, those whose line the profiler may be certain of
    calm_from_s = 0.0
    for _ in range(options.visits if options.busy else TRIES * options.visits):
        for name in options.names:
            if undisturbed[name] < options.visits:
                before_s = without_a_cpu_s()
                if machine.was_away():
                    calm_from_s = time.perf_counter() + CALM_S
                gevent.sleep(0.012)
                server.wait(server.start(f"GET /stall/{name}", partial(visit, name)))
                gevent.sleep(0.003)
                visits[name] += 1
                if machine.was_away():
                    calm_from_s = time.perf_counter() + CALM_S
                calm = time.perf_counter() >= calm_from_s
                waited_s = without_a_cpu_s() - before_s
                undisturbed[name] += calm and waited_s < UNDISTURBED_S
                at_once[name] += calm and waited_s < WAIT_TOLERATED_S
    while cooperative.total() < options.cooperative:
        gevent.sleep(0.05)
    busy.kill()
    for request_id in list(server.unfinished):
        server.wait(request_id)
    session.close()
    done = {
        "visits": visits,
        "undisturbed": undisturbed,
        "at_once": at_once,
        "cooperative": cooperative,
        "unfinished": sorted(server.unfinished),
        "without_cpu_s": round(without_a_cpu_s() - began_s, 3),
    }
    print(json.dumps(done))


if __name__ == "__main__":
    main()

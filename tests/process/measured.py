"""The application of the metrics tests: known answers, known stalls, a resource that counts."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gevent.monkey import get_original

from tafe import lifecycle

_sleep = get_original("time", "sleep")


class Shelf:
    """A resource with a counter, a gauge and a histogram."""

    name = "shelf"
    ready = True
    taken = 0

    def open(self) -> None:
        """Nothing to fill."""

    def close(self) -> None:
        """Nothing to let go of."""

    def metrics(self) -> Iterator[lifecycle.Metric]:
        """What was taken."""
        labels = {"shelf": "first"}
        yield lifecycle.Metric("shelf_taken_total", labels, self.taken)
        yield lifecycle.Metric("shelf_free", labels, 10 - self.taken)
        yield lifecycle.Metric("shelf_wait_seconds_bucket", {**labels, "le": "0.5"}, self.taken)
        yield lifecycle.Metric("shelf_wait_seconds_bucket", {**labels, "le": "+Inf"}, self.taken)
        yield lifecycle.Metric("shelf_wait_seconds_sum", labels, self.taken / 4)
        yield lifecycle.Metric("shelf_wait_seconds_count", labels, self.taken)
        yield lifecycle.Metric("tafe_requests_total", labels, 1_000_000)  # not his to count
        yield lifecycle.Metric("no name", labels, 1)


shelf = Shelf()
if "SHELF" in os.environ:
    lifecycle.register(shelf)


def hold_gil(seconds: float) -> None:
    """A call into C that keeps the GIL: no thread of this process runs."""
    ctypes.PyDLL(None).usleep(round(seconds * 1_000_000))


def spin(seconds: float) -> None:
    """Bytecode that does not yield."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        pass


def stall() -> None:
    """Holds the hub for 50 ms, asleep."""
    _sleep(0.05)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/status/CODE`, `/loaded/MODULE`, `/take`, `/stall`, `/hold/S`, `/spin/S`, `/sleep/S`; anything else: 200."""
    name, _, argument = environ["PATH_INFO"].strip("/").partition("/")
    status = "200 OK"
    body = str(os.getpid()).encode()
    if name == "status":
        status = f"{argument} Asked For"
    elif name == "take":
        shelf.taken += 1
    elif name == "stall":
        stall()
    elif name == "spin":
        spin(float(argument))
    elif name == "hold":
        hold_gil(float(argument))
    elif name == "loaded":
        body = str(argument in sys.modules).encode()
    elif name == "sleep":
        time.sleep(float(argument))
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]

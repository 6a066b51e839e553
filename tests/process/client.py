"""What the process tests need of an HTTP client: single requests, requests in a thread, a stream of requests."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from concurrent.futures import Future
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Answer:
    """Status, headers and body of one answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read().decode()

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:60]!r}>"


def get(port: int, path: str = "/", headers: dict[str, str] | None = None) -> Answer:
    """One request on a connection of its own."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path, headers=headers or {})
        return Answer(connection.getresponse())


def get_later(port: int, path: str) -> Future[Answer]:
    """One request in a thread, for one that takes time."""
    future: Future[Answer] = Future()

    def run() -> None:
        try:
            future.set_result(get(port, path))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def until(condition: Callable[[], object], what: str, timeout_s: float = 10.0) -> None:
    """Wait for something that another process does; there is no event to wait on."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not {what} after {timeout_s} s"
        time.sleep(0.02)


class Stream:
    """Threads that send one request after the other until told to stop; whatever goes wrong is kept.

    `keep_alive`: as a balancer does, each thread keeps its connection and opens another when the server has said
    that it closes; else every request has a connection of its own.
    """

    def __init__(self, port: int, threads: int = 4, keep_alive: bool = False) -> None:
        self.answers: list[Answer] = []
        self.failures: list[BaseException] = []
        self.refused = 0  # could not connect: nothing was lost
        self._port = port
        self._keep_alive = keep_alive
        self._goes_on = True
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._goes_on = False
        for thread in self._threads:
            thread.join(15)

    def bodies(self) -> set[str]:
        return {answer.body for answer in self.answers}

    def _run(self) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)) as connection:
            self._send(connection)

    def _send(self, connection: http.client.HTTPConnection) -> None:
        while self._goes_on:
            try:
                if connection.sock is None:
                    connection.connect()
            except ConnectionRefusedError:
                self.refused += 1
                time.sleep(0.01)
                continue
            try:
                connection.request("GET", "/")
                self.answers.append(Answer(connection.getresponse()))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(error)
                connection.close()
            if not self._keep_alive:
                connection.close()

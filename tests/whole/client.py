"""HTTP clients for tests: many keep-alive connections at once, each answer with its time.

Threads and `http.client`: the test process is not monkey-patched, and a client that shares no code with the
server cannot share its mistakes. A connection that fails gives an `Answer` with status 0 and the error, and
is opened again.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True)
class Request:
    """What to send; a `body` that is not bytes is sent as JSON."""

    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What came back; `status` 0 means that the connection failed, and `error` says how."""

    request: Request
    status: int
    headers: dict[str, str]
    body: bytes
    began_s: float  # time.monotonic()
    took_s: float
    error: str = ""

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Client:
    """One keep-alive connection to 127.0.0.1."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()

    def ask(self, request: Request) -> Answer:
        """Send a request and read its whole answer."""
        body, headers = request.body, request.headers
        if body is not None and not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
        began = time.monotonic()
        try:
            self._connection.request(request.method, request.path, body=body, headers=headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return Answer(request, 0, {}, b"", began, time.monotonic() - began, repr(error))
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(request, response.status, found, content, began, time.monotonic() - began)

    def get(self, path: str, **headers: str) -> Answer:
        """GET a path."""
        return self.ask(Request("GET", path, headers=headers))

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        """POST a body."""
        return self.ask(Request("POST", path, body, headers))


def ask_all(port: int, requests: Iterable[Request], connections: int, timeout_s: float = 10.0) -> list[Answer]:
    """Send every request once over that many connections at once; the answers are in no particular order."""
    waiting = iter(list(requests))
    lock = threading.Lock()

    def next_request(number: int) -> Request | None:
        with lock:
            return next(waiting, None)

    load = Load(port, next_request, connections, timeout_s)
    load.wait()
    return load.answers


class Load:
    """Connections that send one request after another in the background until told to stop.

    `next_request(number)` is called by connection `number` for each request; None ends that connection.
    """

    def __init__(
        self,
        port: int,
        next_request: Callable[[int], Request | None],
        connections: int,
        timeout_s: float = 10.0,
    ) -> None:
        self.answers: list[Answer] = []
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(port, number, next_request, timeout_s), daemon=True)
            for number in range(connections)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, port: int, number: int, next_request: Callable[[int], Request | None], timeout_s: float) -> None:
        with Client(port, timeout_s) as client:
            while not self._stopping.is_set() and (request := next_request(number)) is not None:
                answer = client.ask(request)
                self.answers.append(answer)
                if answer.status == 0:
                    self._stopping.wait(0.02)  # a refused connection must not become a busy loop

    def stop(self) -> list[Answer]:
        """Let each connection finish its request, and return all answers."""
        self._stopping.set()
        self.wait()
        return self.answers

    def wait(self) -> None:
        """Wait until each connection has ended."""
        for thread in self._threads:
            thread.join()

    def wait_for(self, what: Callable[[list[Answer]], bool], timeout_s: float) -> None:
        """Wait until `what(answers)` holds; AssertionError with a summary when it does not in time."""
        deadline = time.monotonic() + timeout_s
        while not what(self.answers):
            assert time.monotonic() < deadline, f"not seen within {timeout_s} s: {summary(self.answers[-500:])}"
            time.sleep(0.02)


def summary(answers: Iterable[Answer]) -> dict[str, int]:
    """How many answers of each status (or error) there were, for assertion messages."""
    return dict(Counter(answer.error or str(answer.status) for answer in answers))

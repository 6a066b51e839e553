"""Answers that are made while they are sent.

The first chunk is pulled before the status is sent, so that a stream that fails at once is a proper error; a later
failure is logged and raised to the server, which breaks the stream off so that the client sees it is not whole.
Empty chunks are skipped: to a chunked encoding an empty chunk is the end.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tafe.app.logs import report
from tafe.app.response import Response, as_response

if TYPE_CHECKING:
    from tafe.app.hooks import DeferredWork
    from tafe.app.request import Request


class Chunks:
    """A handler's stream as an iterator of bytes, under the route's deadline if it has one."""

    __slots__ = ("_first", "_iterator", "_request", "_source")

    def __init__(self, source: Iterable[bytes | str], request: Request) -> None:
        self._source = source
        self._request = request
        self._iterator = iter(source)
        try:
            self._first = self._pull()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk, self._first = self._first, b""
        if not chunk:
            try:
                chunk = self._pull()
            except BaseException as exc:
                report(logging.ERROR, exc, self._request, "the stream broke off in")
                raise
        if not chunk:
            raise StopIteration
        return chunk

    def _pull(self) -> bytes:
        """The next chunk that is not empty; empty at the end."""
        deadline = self._request.deadline
        while True:
            try:
                chunk = next(self._iterator) if deadline is None else deadline.run(next, self._iterator)
            except StopIteration:
                return b""
            if isinstance(chunk, str):
                chunk = chunk.encode()
            elif not isinstance(chunk, bytes):
                raise TypeError(f"a stream gives bytes or str, not {type(chunk).__name__}")
            if chunk:
                return chunk

    def close(self) -> None:
        """Close the handler's iterator; what that raises is logged, for the answer is over."""
        close = getattr(self._source, "close", None)
        if close is None:
            return
        try:
            close()
        except Exception as exc:  # noqa: BLE001 - a handler's clean-up, whatever it raises
            report(logging.ERROR, exc, self._request, "closing the stream failed in")


class Sending:
    """The iterable that a server gets where something is to be done after sending (PEP 3333: `close()`)."""

    __slots__ = ("_deferred", "_parts", "_request")

    def __init__(self, parts: list[bytes] | Chunks, request: Request, deferred: DeferredWork) -> None:
        self._parts = parts
        self._request = request
        self._deferred = deferred

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._parts)

    def close(self) -> None:
        """Close the stream, then do what the request deferred."""
        if isinstance(self._parts, Chunks):
            self._parts.close()
        self._deferred.run(self._request)


def prepare(answer: Any, request: Request) -> Response:
    """What a handler or a hook returned as a `Response` that can be sent; raises what its first chunk raises."""
    response = as_response(answer)
    stream = response.stream
    if stream is not None and not isinstance(stream, Chunks) and request.method != "HEAD":
        response.stream = Chunks(stream, request)
    return response

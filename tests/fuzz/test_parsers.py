"""Fuzz of the two parsers by themselves: heads, and the chunked coding."""

from __future__ import annotations

from typing import Any

import httptools
from hypothesis import given
from hypothesis import strategies as st

from tafe.http1.chunked import ChunkedDecoder
from tafe.http1.head import HeadParser
from tafe.http1.refusal import Refusal
from tafe.limits import Limits
from tests.fuzz import profile
from tests.fuzz.llhttp import is_stricter_on
from tests.fuzz.mutations import chunked_bodies, cuts_of, heads

LIMITS = Limits()
# Kept from example to example, so that what it remembers of one head can spoil another.
LONG_LIVED = HeadParser({}, LIMITS)


def parse(parser: HeadParser, head: bytes) -> tuple[Any, ...]:
    """What became of a head; any exception but a refusal is let through."""
    try:
        return parser.parse(head)
    except Refusal as refusal:
        return "refused", refusal.status, refusal.message


@profile(2000)
@given(heads())
def test_a_head_means_the_same_to_a_new_parser_and_to_one_that_remembers(data: bytes) -> None:
    head, _, _ = data.partition(b"\r\n\r\n")
    fresh = parse(HeadParser({}, LIMITS), head)
    assert parse(LONG_LIVED, head) == fresh
    assert parse(LONG_LIVED, head) == fresh, "the second time"
    for table in (LONG_LIVED._fields, LONG_LIVED._names, LONG_LIVED._targets):
        assert len(table) <= 4096
    if fresh[0] == "refused":
        _, status, message = fresh
        assert 400 <= status <= 505
        assert message.isascii()
        assert message.isprintable()
        return
    environ, _ = fresh
    assert not any(byte in head.replace(b"\r\n", b"") for byte in b"\r\n\0"), "bare line ends or NUL were let through"
    assert all(isinstance(value, str) for value in environ.values())


def decode(pieces: list[bytes]) -> tuple[bytes, str, bytes]:
    """Body, how it ended, and what followed it; memory is bounded all the time."""
    decoder = ChunkedDecoder(LIMITS)
    body = rest = b""
    for piece in [*pieces, b""]:
        if decoder.done:
            rest += piece
            continue
        try:
            body += b"".join(decoder.feed(piece))
        except Refusal as refusal:
            return body, str(refusal.status), b""
        assert len(decoder._buffer) <= LIMITS.trailer_bytes
        rest += decoder.rest
    return body, "whole" if decoder.done else "open", rest


@profile(1500)
@given(st.data())
def test_a_chunked_body_is_the_same_however_it_is_cut_and_llhttp_agrees(data: st.DataObject) -> None:
    coded = data.draw(chunked_bodies())
    whole = decode([coded])
    assert decode(data.draw(cuts_of(coded))) == whole
    body, end, rest = whole
    if end == "whole" and not is_stricter_on(coded):
        assert coded.endswith(rest)
        assert _llhttp_body(coded[: len(coded) - len(rest)]) == body


def _llhttp_body(coded: bytes) -> bytes:
    """The body as llhttp reads it. Raises its errors: what we take, it takes."""
    pieces: list[bytes] = []
    ended: list[bool] = []

    class Events:
        def on_body(self, piece: bytes) -> None:
            pieces.append(piece)

        def on_message_complete(self) -> None:
            ended.append(True)

    parser = httptools.HttpRequestParser(Events())
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + coded)
    assert ended == [True]
    return b"".join(pieces)

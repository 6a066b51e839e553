"""The chunked coding: the same body however the bytes are cut, and nothing lenient."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tafe.http1.chunked import MAX_LINE_BYTES, ChunkedDecoder
from tafe.http1.refusal import Refusal
from tafe.limits import Limits

LIMITS = Limits()


def decode(*pieces: bytes) -> tuple[bytes, bool, bytes]:
    decoder = ChunkedDecoder(LIMITS)
    body = b""
    rest = b""
    for piece in pieces:
        if decoder.done:
            rest += piece
            continue
        body += b"".join(decoder.feed(piece))
        rest += decoder.rest
        if decoder.faulty:
            decoder.feed(b"")
    return body, decoder.done, rest


def test_chunks_extensions_and_trailers_are_read_and_what_follows_is_left() -> None:
    message = b'3\r\nabc\r\n0A;name="v;\\"x";flag ; a = b\r\n0123456789\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\nGET /'
    assert decode(message) == (b"abc0123456789", True, b"GET /")


@given(st.lists(st.binary(max_size=40), max_size=5), st.binary(max_size=20), st.data())
def test_any_cut_gives_the_same_body(chunks: list[bytes], rest: bytes, data: st.DataObject) -> None:
    message = b"".join(b"%x;x=y\r\n%b\r\n" % (len(c), c) for c in chunks if c) + b"0\r\nT: 1\r\n\r\n" + rest
    cuts = sorted(data.draw(st.lists(st.integers(0, len(message)), max_size=12)))
    pieces = [message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True)]
    assert decode(*pieces) == (b"".join(chunks), True, rest)
    assert decode(*[message[i : i + 1] for i in range(len(message))]) == (b"".join(chunks), True, rest)


@given(st.binary(max_size=60))
def test_garbage_is_refused_or_waited_for_and_the_cut_does_not_matter(garbage: bytes) -> None:
    def outcome(*pieces: bytes) -> object:
        try:
            return decode(*pieces)
        except Refusal as refusal:
            return refusal.status

    assert outcome(garbage) == outcome(*[garbage[i : i + 1] for i in range(len(garbage))])


@pytest.mark.parametrize(
    "message",
    [
        b"-1\r\n",
        b"+3\r\nabc\r\n",
        b"0x3\r\nabc\r\n",
        b"3 \r\nabc\r\n",
        b" 3\r\nabc\r\n",
        b"\r\n",
        b"3\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3_0\r\n",
        b"11111111111111111\r\n",
        b"3;\x00\r\nabc\r\n",
        b"3;a=\r\n\r\n\r\n" + b"x" * 300,
        b"0\r\nbad trailer\r\n\r\n",
        b"0\r\n: x\r\n\r\n",
        b"0\r\nX: \x00\r\n\r\n",
        b"0\r\nX: 1\nY: 2\r\n\r\n",
        b"3;" + b"a" * MAX_LINE_BYTES + b"\r\nabc\r\n",
        b"0\r\n" + b"X: " + b"y" * LIMITS.trailer_bytes,
        (b"1;" + b"a" * 200 + b"\r\nx\r\n") * (LIMITS.chunk_extension_bytes // 200 + 1),
    ],
)
def test_what_is_not_exactly_the_grammar_is_refused(message: bytes) -> None:
    with pytest.raises(Refusal):
        decode(message)


def test_what_came_before_a_fault_is_handed_out_however_the_bytes_are_cut() -> None:
    message = b"3\r\nabc\r\n2\r\nde\r\nfault\r\n"
    for size in range(1, len(message) + 1):
        decoder = ChunkedDecoder(LIMITS)
        body = b""
        with pytest.raises(Refusal):  # noqa: PT012 - which of the calls raises depends on the cut
            for at in range(0, len(message), size):
                body += b"".join(decoder.feed(message[at : at + size]))
            decoder.feed(b"")
        assert body == b"abcde", size

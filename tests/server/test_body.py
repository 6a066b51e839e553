"""`wsgi.input` of a streamed body: the same bytes however they arrive and whatever is asked for."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tafe.body import ChunkedSource, LengthSource, StreamInput
from tafe.http1.refusal import Refusal
from tafe.limits import Limits

NEXT = b"GET /next HTTP/1.1\r\n\r\n"


def receiver(message: bytes, sizes: list[int]) -> Callable[[int], bytes]:
    """A connection that gives `message` in pieces of `sizes`, in turn, and never more than asked for."""
    turn = 0
    rest = message

    def receive(size: int) -> bytes:
        nonlocal turn, rest
        turn += 1
        piece = rest[: min(size, sizes[turn % len(sizes)])]
        rest = rest[len(piece) :]
        assert piece, "more was asked for than the message has"
        return piece

    return receive


# The sizes make one receive bring no chunk, a few, or many; the bodies have lines.
chunks = st.lists(st.binary(min_size=1, max_size=30).map(lambda data: data.replace(b"x", b"\n")), max_size=40)
sizes = st.lists(st.integers(1, 200), min_size=1, max_size=4)
asked = st.lists(st.tuples(st.sampled_from(["read", "readline"]), st.integers(1, 90)), max_size=30)


def taken(stream: StreamInput | io.BytesIO, wanted: list[tuple[str, int]]) -> list[bytes]:
    return [*(getattr(stream, method)(size) for method, size in wanted), stream.read(), stream.read(5)]


@given(chunks, sizes, asked)
def test_a_chunked_body_reads_as_a_file_of_it_would(
    chunks: list[bytes], sizes: list[int], wanted: list[tuple[str, int]]
) -> None:
    message = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""]) + NEXT
    beyond: list[bytes] = []
    stream = StreamInput(ChunkedSource(receiver(message, sizes), beyond.append, Limits()))
    assert taken(stream, wanted) == taken(io.BytesIO(b"".join(chunks)), wanted)
    assert stream.left == 0
    assert NEXT.startswith(b"".join(beyond))


@given(st.binary(max_size=500), sizes, asked)
def test_a_declared_body_reads_as_a_file_of_it_would(
    body: bytes, sizes: list[int], wanted: list[tuple[str, int]]
) -> None:
    stream = StreamInput(LengthSource(receiver(body + NEXT, sizes), len(body)))
    assert taken(stream, wanted) == taken(io.BytesIO(body), wanted)
    assert stream.left == 0


def test_what_came_before_a_fault_can_still_be_read_piece_by_piece() -> None:
    receive = receiver(b"3\r\nabc\r\n" * 8 + b"zz\r\n", [1000])
    stream = StreamInput(ChunkedSource(receive, lambda _rest: None, Limits()))
    assert [stream.read(10), stream.read(10)] == [b"abcabcabca", b"bcabcabcab"]
    assert stream.left == 1
    assert stream.read(4) == b"cabc"
    assert not stream.broken
    with pytest.raises(Refusal, match="malformed"):
        stream.read(1)
    assert stream.broken

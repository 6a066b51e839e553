"""The same bytes have the same outcome, however they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tafe.http1.head import HeadParser
from tafe.http1.refusal import Refusal
from tafe.http1.unfinished import MAX_EMPTY_LINES, UnfinishedHead
from tafe.limits import Limits

SMALL = Limits(request_line_bytes=40, header_field_bytes=30, header_count=4, head_bytes=100)
LINES = [
    b"GET / HTTP/1.1", b"GET /" + b"a" * 40 + b" HTTP/1.1", b"GET / HTTP/3.0", b"G@T / HTTP/1.1", b"GET /\n HTTP/1.1",
    b"Host: a", b"Host: b", b"X: " + b"y" * 40, b"X: 1", b"X-Long: 456789012345678", b"X : 1", b"X: 1\n", b" folded",
    b"X: \r", b"Expect: x", b"Content-Length: 1", b"a_b: c", b"",
]  # fmt: skip


def outcome(*pieces: bytes) -> object:
    """Status of the refusal, whether complete, and how much of a whole head was taken."""
    head = UnfinishedHead(HeadParser({}, SMALL))
    try:
        for piece in pieces:
            if head.add(piece):
                return "complete"
    except Refusal as refusal:
        return refusal.status
    return "incomplete"


@given(st.lists(st.sampled_from(LINES), max_size=9), st.data())
def test_a_head_in_pieces_is_judged_as_the_whole(lines: list[bytes], data: st.DataObject) -> None:
    message = b"\r\n".join([*lines, b"", b""])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(message)), max_size=6)))
    whole = outcome(message)
    assert outcome(*[message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True)]) == whole
    assert outcome(*[message[i : i + 1] for i in range(len(message))]) == whole


@given(st.lists(st.sampled_from(LINES), min_size=1, max_size=9))
def test_what_the_parser_of_whole_heads_accepts_is_accepted_in_pieces(lines: list[bytes]) -> None:
    message = b"\r\n".join([*lines, b"", b""])
    head, _, _ = message.partition(b"\r\n\r\n")
    try:
        HeadParser({}, SMALL).parse(head)
    except Refusal:
        return
    if len(head) + 4 > SMALL.head_bytes:
        assert outcome(message) == 431, "a server never hands the parser more than head_bytes at once"
    else:
        assert outcome(message) == "complete"


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"GET /" + b"a" * 60, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 60, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nX: 1\r\nX: 1\r\nX: 1\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + (b"X: " + b"y" * 25 + b"\r\n") * 3, 431),
        (b"GET / HTTP %\r\n", 400),
        (b"GET / HTTP/1.1\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400),
        (b"\r\n" * (MAX_EMPTY_LINES + 1), 400),
    ],
)
def test_a_fault_is_refused_as_soon_as_it_is_there(message: bytes, status: int) -> None:
    assert outcome(message) == status
    assert outcome(*[message[i : i + 1] for i in range(len(message))]) == status


def test_a_few_empty_lines_are_forgiven() -> None:
    assert outcome(b"\r\n" * MAX_EMPTY_LINES + b"GET / HTTP/1.1\r\n\r\n") == "complete"


@pytest.mark.parametrize(
    ("setting", "expected"), [("drop", "1"), ("refuse", 400), ("keep", "2,1")]
)  # fmt: skip
def test_names_with_an_underscore_are_dropped_refused_or_kept(setting: str, expected: object) -> None:
    parser = HeadParser({}, Limits(underscores=setting))
    message = b"GET / HTTP/1.1\r\nHost: a\r\nX_Tenant: 2\r\nX-Tenant: 1"
    for _ in range(2):
        try:
            seen: object = parser.parse(message)[0]["HTTP_X_TENANT"]
        except Refusal as refusal:
            seen = refusal.status
        assert seen == expected


def test_a_setting_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="underscores"):
        Limits(underscores="maybe")

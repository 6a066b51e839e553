"""Requests near the border of what is accepted: cases of the corpus with a few edits, and ways to cut bytes."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

from tests.corpus.case import all_cases

# Long ones only make the search slower: their limits have cases of their own.
_MAX_SEED_BYTES = 1500
SEEDS = sorted({case.data for case in all_cases() if 0 < len(case.data) <= _MAX_SEED_BYTES})
TOKENS = [
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b":", b",", b";", b"=", b'"', b"\x00", b"\x0b", b"\x7f",
    b"\xe9", b"%", b"%00", b"#", b"?", b"/", b"*", b"@", b"[", b"]", b"\\", b"_", b"-", b"+", b"0", b"5",
    b"a", b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HEAD ", b"POST ",
    b"OPTIONS * ", b"Host: b\r\n", b"http://b", b"X-A: 1\r\n", b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"chunked",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
    b"Expect: 100-continue\r\n", b"X_Forwarded_For: 6\r\n", b"Cookie: a=b\r\n", b"5\r\nhello\r\n",
    b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"1;a=b\r\nx\r\n", b"ffffffffffffffff",
]  # fmt: skip

_positions = st.integers(0, _MAX_SEED_BYTES)
_edits = st.one_of(
    st.tuples(st.just("insert"), _positions, st.sampled_from(TOKENS)),
    st.tuples(st.just("insert"), _positions, st.binary(min_size=1, max_size=3)),
    st.tuples(st.just("overwrite"), _positions, st.sampled_from(TOKENS)),
    st.tuples(st.just("delete"), _positions, st.integers(1, 12)),
    st.tuples(st.just("repeat line"), _positions, st.just(b"")),
    st.tuples(st.just("drop line"), _positions, st.just(b"")),
    st.tuples(st.just("insert"), _positions, st.sampled_from(SEEDS)),
)


def _edit(data: bytes, kind: str, position: int, operand: bytes | int) -> bytes:
    at = position % (len(data) + 1)
    if kind == "delete":
        assert isinstance(operand, int)
        return data[:at] + data[at + operand :]
    assert isinstance(operand, bytes)
    if kind == "insert":
        return data[:at] + operand + data[at:]
    if kind == "overwrite":
        return data[:at] + operand + data[at + len(operand) :]
    lines = data.split(b"\r\n")
    at = position % len(lines)
    again = 2 if kind == "repeat line" else 0
    return b"\r\n".join([*lines[:at], *[lines[at]] * again, *lines[at + 1 :]])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A case of the corpus, with up to five edits."""
    data = draw(st.sampled_from(SEEDS))
    for kind, position, operand in draw(st.lists(_edits, max_size=5)):
        data = _edit(data, kind, position, operand)
    return data


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Bytes with an empty line somewhere, as the parser of heads gets them."""
    data = draw(requests())
    return data if b"\r\n\r\n" in data else data + b"\r\n\r\n"


@st.composite
def chunked_bodies(draw: st.DrawFn) -> bytes:
    """A chunked body and a little more, with up to four edits."""
    chunks = draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4))
    extension = draw(st.sampled_from([b"", b";a", b";a=b", b' ; a = "b;\\"\\\\"', b";a;b=c"]))
    trailer = draw(st.sampled_from([b"", b"X: y\r\n", b"X:\r\nY: z\r\n"]))
    data = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks) + b"0\r\n" + trailer
    data += b"\r\n" + draw(st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"\r\n", b"0\r\n\r\n"]))
    for kind, position, operand in draw(st.lists(_edits, max_size=4)):
        data = _edit(data, kind, position, operand)
    return data


def cuts_of(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """Ways to cut `data`: each byte by itself, or anywhere up to a dozen times."""
    singly = st.just([data[i : i + 1] for i in range(len(data))])
    return st.one_of(singly, st.lists(st.integers(0, len(data)), max_size=12).map(lambda at: _cut(data, at)))


def _cut(data: bytes, positions: list[int]) -> list[bytes]:
    bounds = [0, *sorted(positions), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds) if a < b]

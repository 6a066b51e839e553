"""Fuzz of a connection: the same events however the bytes are cut, nothing unexpected, nothing held, no hang."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.corpus.case import Case, all_cases
from tests.fuzz import profile
from tests.fuzz.live import Live, Outcome
from tests.fuzz.llhttp import BLANKS_IN_EXTENSION, METHODS, read
from tests.fuzz.mutations import cuts_of, requests

READINGS = ["all", "all", "pieces", "lines", "none"]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    live = Live()
    yield live
    live.stop()


def check(outcome: Outcome) -> None:
    """What holds for any bytes whatever."""
    for seen in outcome.seen:
        assert seen.end in ("whole", "ClientGone", "Refusal"), seen
    assert 500 not in outcome.statuses, outcome.sent
    assert len(outcome.statuses) >= len([seen for seen in outcome.seen if seen.end == "whole"])


@profile(150)
@given(st.data())
def test_the_same_requests_are_seen_and_answered_however_the_bytes_are_cut(live: Live, data: st.DataObject) -> None:
    request = data.draw(requests())
    reading = data.draw(st.sampled_from(READINGS))
    pieces = data.draw(cuts_of(request))
    whole = live.run([request], reading)
    check(whole)
    assert live.run(pieces, reading) == whole


@profile(300)
@given(requests())
def test_llhttp_reads_the_same_out_of_what_is_accepted(live: Live, request: bytes) -> None:
    messages, stopped = read(request)
    for number, seen in enumerate(live.run([request]).seen):
        if seen.method not in METHODS:
            return
        assert number < len(messages), f"llhttp stopped before {seen}: {stopped}"
        message = messages[number]
        assert (message.method, message.version) == (seen.method, seen.version)
        assert message.target.decode("ascii") == seen.target
        wanted = dict(message.environ)
        if not seen.target.startswith(("/", "*")):  # the target's authority overrides Host
            wanted["HTTP_HOST"] = seen.environ["HTTP_HOST"]
        assert wanted == seen.environ
        if message.upgrade:
            return
        if seen.end == "whole":
            if not message.complete and BLANKS_IN_EXTENSION.search(request):
                return
            assert message.complete, stopped
            assert message.body == seen.body


KINDS = {
    "get": b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n",
    "head": b"HEAD /%d HTTP/1.1\r\nHost: a\r\n\r\n",
    "sized": b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\nGET / H",
    "chunked": b"POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7;x\r\nGET / H\r\n0\r\nT: u\r\n\r\n",
    "expected": b"POST /%d HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 7\r\n\r\nGET / H",
    "kept 1.0": b"GET /%d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "after an empty line": b"\r\nGET /%d HTTP/1.1\r\nHost: a\r\n\r\n",
    "long head": b"GET /%d HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 5000 + b"\r\n\r\n",
    "large": b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n" + b"GET / HTTP" * 7000,
}


@profile(60)
@given(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=8), st.data())
def test_pipelined_requests_of_every_kind_are_all_answered_in_order(
    live: Live, kinds: list[str], data: st.DataObject
) -> None:
    stream = b"".join(KINDS[kind] % number for number, kind in enumerate(kinds))
    pieces = (
        data.draw(cuts_of(stream)) if len(stream) < 3000 else [stream[i : i + 997] for i in range(0, len(stream), 997)]
    )
    outcome = live.run(pieces, data.draw(st.sampled_from(["all", "pieces", "lines"])))
    assert [seen.target for seen in outcome.seen] == [f"/{number}" for number in range(len(kinds))]
    bodies = {"sized": b"GET / H", "chunked": b"GET / H", "expected": b"GET / H", "large": b"GET / HTTP" * 7000}
    assert [seen.body for seen in outcome.seen] == [bodies.get(kind, b"") for kind in kinds]
    assert outcome.statuses == [200] * len(kinds)


LONG = [case for case in all_cases() if len(case.data) > 1500]


@pytest.mark.parametrize("case", LONG, ids=lambda case: case.name)
def test_a_long_case_is_the_same_in_pieces(live: Live, case: Case) -> None:
    """The random ones above are short."""
    whole = live.run([case.data])
    check(whole)
    for size in (1021, 8192, 16384):
        assert live.run([case.data[i : i + size] for i in range(0, len(case.data), size)]) == whole, size

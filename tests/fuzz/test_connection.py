"""Fuzz of a connection: the same events however the bytes are cut, nothing unexpected, nothing held, no hang."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.corpus.case import Case, all_cases
from tests.fuzz import profile
from tests.fuzz.live import Live, Outcome
from tests.fuzz.llhttp import METHODS, is_stricter_on, read
from tests.fuzz.mutations import cuts_of, requests

# A client in a hurry, and an application that waits: see live.py.
TURNS = st.integers(0, 2)
YIELDS = st.integers(0, 3)
READINGS = ["all", "all", "pieces", "lines", "none"]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    live = Live()
    usual_s = gevent.getswitchinterval()
    gevent.setswitchinterval(1e-6)  # have the loop look for new bytes as often as it ever may
    yield live
    gevent.setswitchinterval(usual_s)
    live.stop()


def check(outcome: Outcome) -> None:
    """What holds for any bytes whatever."""
    for seen in outcome.seen:
        assert seen.end in ("whole", "ClientGone", "Refusal"), seen
    assert 500 not in outcome.statuses, outcome.sent
    assert len(outcome.statuses) >= len([seen for seen in outcome.seen if seen.end == "whole"])


@profile(80)
@given(st.data())
def test_the_same_requests_are_seen_and_answered_however_the_bytes_are_cut(live: Live, data: st.DataObject) -> None:
    request = data.draw(requests())
    # Whether an expected body that nobody reads is thrown away or given up depends on whether it is there already.
    reading = data.draw(st.sampled_from(READINGS[:-1] if b"expect" in request.lower() else READINGS))
    pieces = data.draw(cuts_of(request))
    whole = live.run([request], reading)
    check(whole)
    assert live.run(pieces, reading) == whole
    assert live.run(pieces, reading, turns=data.draw(TURNS), yields=data.draw(YIELDS)) == whole


@profile(250)
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
            if not message.complete and is_stricter_on(request):
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


@profile(50)
@given(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=8), st.data())
def test_pipelined_requests_of_every_kind_are_all_answered_in_order(
    live: Live, kinds: list[str], data: st.DataObject
) -> None:
    stream = b"".join(KINDS[kind] % number for number, kind in enumerate(kinds))
    pieces = (
        data.draw(cuts_of(stream)) if len(stream) < 3000 else [stream[i : i + 997] for i in range(0, len(stream), 997)]
    )
    reading = data.draw(st.sampled_from(["all", "pieces", "lines"]))
    outcome = live.run(pieces, reading, turns=data.draw(TURNS), yields=data.draw(YIELDS))
    assert [seen.target for seen in outcome.seen] == [f"/{number}" for number in range(len(kinds))]
    bodies = {"sized": b"GET / H", "chunked": b"GET / H", "expected": b"GET / H", "large": b"GET / HTTP" * 7000}
    assert [seen.body for seen in outcome.seen] == [bodies.get(kind, b"") for kind in kinds]
    assert outcome.statuses == [200] * len(kinds)


@pytest.mark.parametrize("turns", [0, 1, 2])
@pytest.mark.parametrize("size", [29, 41, 97, 1000])
def test_a_long_train_of_requests_is_answered_in_order_while_it_still_comes(live: Live, size: int, turns: int) -> None:
    train = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(400))
    ahead = 6000  # so much at once, and the rest while that is being answered
    pieces = [train[:ahead], *(train[i : i + size] for i in range(ahead, len(train), size))]
    outcome = live.run(pieces, turns=turns)
    assert [seen.target for seen in outcome.seen] == [f"/{number}" for number in range(400)]
    assert outcome.statuses == [200] * 400


LONG = [case for case in all_cases() if len(case.data) > 1500]


@pytest.mark.parametrize("case", LONG, ids=lambda case: case.name)
def test_a_long_case_is_the_same_in_pieces(live: Live, case: Case) -> None:
    """The random ones above are short."""
    whole = live.run([case.data])
    check(whole)
    for size in (1021, 8192, 16384):
        assert live.run([case.data[i : i + size] for i in range(0, len(case.data), size)]) == whole, size

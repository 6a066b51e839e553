"""GET /win: counted once, only for bids of ours, at prices that can be; and what it changes for later auctions."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import gevent
import pytest

from apps.bidder.config import DEVELOPMENT_KEY
from apps.bidder.notice import VALID_S, Notice, clearing_price_micros
from tests.bidder.generator import deal, imp, request

if TYPE_CHECKING:
    from tafe.app.testing import TestClient, TestResponse
    from tests.bidder.conftest import Ask

KEY = b"a key"
NOTICE = Notice(bid_id="ab" * 16, campaign_id=7, user_id=9, price_micros=1_500_000, bid_at_s=1000)


@pytest.fixture
def bid(ask: Ask) -> Any:
    """A bid for user 5."""
    answer = ask(request(imp("banner", pmp=deal()), user={"buyeruid": "5"}))
    return answer.json()["seatbid"][0]["bid"][0]


def report(bidder: TestClient, bid: Any, /, price: object = None, **changed: str) -> TestResponse:
    """Do what the exchange does with `nurl`."""
    url = bid["nurl"].replace("${AUCTION_PRICE}", str(bid["price"] if price is None else price))
    parts = dict(parse_qsl(urlsplit(url).query)) | changed
    return bidder.get(f"/win?{urlencode(parts)}")


def delivered(user_id: int) -> tuple[int, int]:
    """(wins, nano-dollars) of campaign 1 today."""
    from apps.bidder import web

    row = web.db.fetch_one(
        "SELECT wins, spent_nanos FROM deliveries WHERE user_id = %s AND day = %s AND campaign_id = 1",
        (user_id, int(time.time()) // 86400),
    )
    return (row["wins"], row["spent_nanos"]) if row else (0, 0)


def test_a_win_is_recorded_exactly_once(bidder: TestClient, bid: Any) -> None:
    wins, nanos = delivered(5)
    all_wins, all_nanos = delivered(0)
    answers = [report(bidder, bid, "1.25").json() for _ in range(3)]
    assert answers == [{"recorded": True}, {"recorded": False}, {"recorded": False}]
    assert delivered(5) == (wins + 1, nanos + 1_250_000)
    assert delivered(0) == (all_wins + 1, all_nanos + 1_250_000)


def test_a_win_reported_many_times_at_once_is_recorded_once(bidder: TestClient, bid: Any) -> None:
    wins, _ = delivered(5)
    reports = [gevent.spawn(report, bidder, bid) for _ in range(20)]
    gevent.joinall(reports, timeout=30)
    answers = [one.get().json()["recorded"] for one in reports]
    assert sorted(answers) == [False] * 19 + [True]
    assert delivered(5)[0] == wins + 1


def test_a_second_report_with_another_price_changes_nothing(bidder: TestClient, bid: Any) -> None:
    report(bidder, bid, "1")
    before = delivered(5)
    assert report(bidder, bid, "2").json() == {"recorded": False}
    assert delivered(5) == before


@pytest.mark.parametrize("name", ["bid", "c", "u", "p", "t", "sig"])
def test_a_notice_with_anything_changed_is_forged(bidder: TestClient, bid: Any, name: str) -> None:
    parts = dict(parse_qsl(urlsplit(bid["nurl"]).query))
    before = delivered(0)
    changed = uuid.uuid4().hex if name in ("bid", "sig") else str(int(parts[name]) + 1)
    answer = report(bidder, bid, **{name: changed})
    assert answer.status == 403
    assert answer.json()["error"]["code"] == "forged"
    assert delivered(0) == before


@pytest.mark.parametrize("price", ["-0.01", "50.000002", "1e300", "${AUCTION_PRICE}", "nan", ""])
def test_a_price_that_nobody_can_have_paid_is_refused(bidder: TestClient, bid: Any, price: str) -> None:
    answer = report(bidder, bid, price)
    assert answer.status == 400
    assert answer.json()["error"]["field"] == "price"
    assert report(bidder, bid, "50").json() == {"recorded": True}, "the right report still counts"


def test_a_notice_needs_all_its_parts(bidder: TestClient, bid: Any) -> None:
    parts = dict(parse_qsl(urlsplit(bid["nurl"]).query)) | {"price": "1"}
    for name in parts:
        answer = bidder.get("/win?" + urlencode({other: value for other, value in parts.items() if other != name}))
        assert answer.status == 400
        assert answer.json()["error"]["field"] == name


def test_a_notice_is_good_for_an_hour(bidder: TestClient) -> None:
    def answer(age_s: int) -> int:
        notice = Notice(uuid.uuid4().hex, 1, 5, 1_000_000, int(time.time()) - age_s)
        url = notice.url("", DEVELOPMENT_KEY.encode()).replace("${AUCTION_PRICE}", "1")
        return bidder.get(url).status

    assert answer(VALID_S - 60) == 200
    assert answer(VALID_S + 60) == 410


def test_wins_count_towards_the_users_daily_cap(bidder: TestClient, ask: Ask) -> None:
    from apps.bidder import web

    bidder.put("/users/88", json={"segments": []})
    sent = request(imp("banner", bidfloor=0.01), user={"buyeruid": "88"})
    [first] = ask(sent).json()["seatbid"][0]["bid"]
    row = web.db.fetch_one("SELECT daily_cap FROM campaigns WHERE id = %s", (int(first["cid"]),))
    assert row is not None
    for _ in range(row["daily_cap"]):
        [again] = ask(sent).json()["seatbid"][0]["bid"]
        assert again["cid"] == first["cid"]
        assert report(bidder, again).json() == {"recorded": True}
    answer = ask(sent)
    cids = [bid["cid"] for bid in answer.json()["seatbid"][0]["bid"]] if answer.status == 200 else []
    assert first["cid"] not in cids
    others = ask(sent | {"user": {"buyeruid": "89"}}).json()["seatbid"][0]["bid"]
    assert others, "other users are not concerned"


def test_a_test_request_gets_bids_that_cannot_be_billed(ask: Ask) -> None:
    [bid] = ask(request(imp("banner", pmp=deal()), test=1)).json()["seatbid"][0]["bid"]
    assert "nurl" not in bid


def test_the_signature_covers_every_field_and_the_key() -> None:
    good = NOTICE.signature(KEY)
    assert NOTICE.is_signed(good, KEY)
    assert not NOTICE.is_signed(good, b"another key")
    assert not NOTICE.is_signed("\ud800\u00e9", KEY)
    assert len(good) == 32
    shifted = Notice(NOTICE.bid_id, 79, 1, NOTICE.price_micros, NOTICE.bid_at_s)  # 7|9 against 79|1
    assert shifted.signature(KEY) != good


def test_a_price_is_paid_up_to_the_bid() -> None:
    assert clearing_price_micros(1.5, NOTICE) == 1_500_000
    assert clearing_price_micros(0.0, NOTICE) == 0
    assert clearing_price_micros(1.500001, NOTICE) is None
    assert clearing_price_micros(float("inf"), NOTICE) is None


def test_the_public_key_is_warned_of_at_start(bidder: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with bidder:
        pass
    assert "BIDDER_WIN_KEY is not set" in caplog.text

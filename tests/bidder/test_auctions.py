"""POST /openrtb2/auction in this process: every generated shape, the real requests, and spoiled ones."""

from __future__ import annotations

import copy
import json
import random
import time
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest

from apps.bidder.population import EVERYWHERE
from tests.bidder import generator
from tests.bidder.generator import Case, deal, imp, request

if TYPE_CHECKING:
    from tafe.app.testing import TestClient, TestResponse
    from tests.bidder.conftest import Ask

# Slow enough to be broken off, and stopped by SQLite when it is.
_SLOW = (
    "WITH RECURSIVE c(x) AS (SELECT %s UNION ALL SELECT x + 1 FROM c LIMIT 1000000000) "
    "SELECT count(*) AS segment_id FROM c"
)


def bids_of(answer: TestResponse) -> list[Any]:
    assert answer.status == 200, answer
    [seat] = answer.json()["seatbid"]
    bids: list[Any] = seat["bid"]
    return bids


def check_protocol(answer: TestResponse, sent: Any) -> None:
    """200 with a valid BidResponse for what was sent, 204 with the reason, or 400 with the field."""
    if answer.status == 200:
        check_bid_response(answer.json(), sent)
    elif answer.status == 204:
        code, _, text = str(answer.header("X-No-Bid")).partition(" ")
        assert int(code) in {3, 8, 9, 15} or 500 <= int(code) < 600
        assert text
    else:
        assert answer.status == 400, answer
        error = answer.json()["error"]
        assert error["field"], error
        assert error["message"].startswith(error["field"]) or error["field"] == "body", error


def check_bid_response(response: Any, sent: Any) -> None:
    """OpenRTB 2.6, section 4.2: the required attributes, and that a bid fits the impression it is for."""
    assert response["id"] == sent["id"]
    assert response["cur"] == "USD"
    assert response["bidid"]
    imps = {one["id"]: one for one in sent["imp"]}
    seen: set[str] = set()
    for seat in response["seatbid"]:
        assert seat["bid"], "a seatbid without a bid is not allowed"
        for bid in seat["bid"]:
            place = imps[bid["impid"]]
            assert bid["impid"] not in seen
            seen.add(bid["impid"])
            assert len(bid["id"]) == 32
            floors = {one["id"]: one.get("bidfloor") or 0 for one in (place.get("pmp") or {}).get("deals") or []}
            floor = floors[bid["dealid"]] if "dealid" in bid else place.get("bidfloor") or 0
            assert bid["price"] >= floor
            assert bid["price"] > 0
            assert bid["adomain"][0].endswith(".example")
            assert bid["cid"]
            assert bid["crid"]
            check_media(bid, place)
            assert ("nurl" in bid) == (not sent.get("test"))
            assert "price=${AUCTION_PRICE}" in bid.get("nurl", "price=${AUCTION_PRICE}")


def check_media(bid: Any, place: Any) -> None:
    if bid["mtype"] == 1:
        banner = place["banner"]
        sizes = {(one.get("w"), one.get("h")) for one in [banner, *(banner.get("format") or [])]}
        assert (bid["w"], bid["h"]) in sizes
        assert f'width="{bid["w"]}"' in bid["adm"]
    elif bid["mtype"] == 2:
        film = ET.fromstring(bid["adm"])
        assert film.tag == "VAST"
        [file] = film.iter("MediaFile")
        assert int(file.attrib["width"]) == bid["w"] <= (place["video"].get("w") or 10**6)
        assert file.attrib["type"] in [mime.lower() for mime in place["video"]["mimes"]]
    else:
        assert bid["mtype"] == 4
        native = json.loads(bid["adm"])["native"]
        wanted = openrtb_assets(place)
        given = {asset["id"] for asset in native["assets"]}
        assert given <= {asset["id"] for asset in wanted}
        assert given >= {asset["id"] for asset in wanted if asset.get("required")}
        assert native["link"]["url"].startswith("https://")


def openrtb_assets(place: Any) -> list[Any]:
    markup = json.loads(place["native"]["request"])
    if isinstance(markup, str):
        markup = json.loads(markup)
    assets: list[Any] = (markup.get("native") or markup)["assets"]
    return assets


@pytest.mark.parametrize("case", generator.cases(), ids=lambda case: case.name[:60])
def test_a_generated_request_gets_the_answer_that_it_must(case: Case, ask: Ask) -> None:
    answer = ask(case.body)
    assert answer.status in case.statuses, answer
    if answer.status == 400:
        assert answer.json()["error"]["field"] == case.field
        check_protocol(answer, None)
    else:
        check_protocol(answer, json.loads(case.body))
    if case.nbr is not None:
        assert str(answer.header("X-No-Bid")).split()[0] == str(case.nbr)


def test_there_are_hundreds_of_generated_requests_of_every_class() -> None:
    cases = generator.cases()
    assert len(cases) >= 300
    assert len({case.name for case in cases}) == len(cases)
    for status in (200, 204, 400):
        assert sum(case.statuses == {status} for case in cases) >= 30


def test_the_generator_makes_the_same_requests_for_the_same_seed() -> None:
    assert generator.cases(7) == generator.cases(7)
    assert generator.cases(7) != generator.cases(8)


def test_real_requests_get_bids_reasons_and_named_fields_in_a_healthy_mix(corpus: list[Any], ask: Ask) -> None:
    counts = {200: 0, 204: 0, 400: 0}
    for sent in corpus:
        answer = ask(sent)
        check_protocol(answer, sent)
        counts[answer.status] += 1
    assert len(corpus) == 1705
    assert min(counts[200], counts[204]) > len(corpus) // 5
    assert counts[400] < len(corpus) // 5


@pytest.mark.parametrize("seed", [1, 2])
def test_spoiled_real_requests_never_fail_otherwise(corpus: list[Any], ask: Ask, seed: int) -> None:
    rng = random.Random(seed)
    for entry in corpus:
        sent = spoiled(copy.deepcopy(entry), rng)
        check_protocol(ask(sent), sent)


@pytest.mark.parametrize("seed", [1, 2])
def test_spoiled_generated_requests_never_fail_otherwise(ask: Ask, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(500):
        sent = spoiled(generator.complete(), rng)
        check_protocol(ask(sent), sent)


def spoiled(whole: Any, rng: random.Random) -> Any:
    """A value somewhere is replaced by another, dropped, or put in a second time."""
    holder, way = whole, [whole]
    while isinstance(holder, dict | list) and holder and (len(way) < 2 or rng.random() < 0.8):
        holder = rng.choice(list(holder.values()) if isinstance(holder, dict) else holder)
        way.append(holder)
    target = next(one for one in reversed(way[:-1]) if isinstance(one, dict | list) and one)
    key: Any = rng.choice(list(target)) if isinstance(target, dict) else rng.randrange(len(target))
    what = rng.randrange(4)
    if what == 0:
        del target[key]
    elif what == 1 and isinstance(target, list):
        target.append(copy.deepcopy(target[key]))
    else:
        target[key] = rng.choice((None, True, 0, -1, 1e99, 2**63, "", "x" * 300, [], [None], {}, {"id": {}}, "\ud800"))
    return whole


def test_the_highest_price_wins_the_place(ask: Ask) -> None:
    place = imp("banner", pmp={"deals": [{"id": EVERYWHERE}]})
    [bid] = bids_of(ask(request(place)))
    assert bid["dealid"] == EVERYWHERE
    assert bid["cid"] == "1"
    [cheaper] = bids_of(ask(request(place, badv=["shop1.example"])))
    assert cheaper["price"] < bid["price"]


def test_a_campaign_bids_once_in_a_request(ask: Ask) -> None:
    open_imps = [imp("banner", number) for number in range(5)]
    bids = bids_of(ask(request(*open_imps)))
    assert len(bids) > 1
    assert len({bid["cid"] for bid in bids}) == len(bids)


def test_a_first_price_auction_gets_a_lower_bid_but_not_below_the_floor(ask: Ask) -> None:
    def price(at: int, floor: float) -> float:
        [bid] = bids_of(ask(request(imp("banner", pmp=deal(floor)), at=at)))
        return float(bid["price"])

    assert price(1, 0) == pytest.approx(0.85 * price(2, 0))
    assert price(1, 49.9) == 49.9


def test_the_users_segments_decide_who_bids(bidder: TestClient, ask: Ask) -> None:
    sent = request(imp("banner"), user={"buyeruid": "77"})
    bidder.put("/users/77", json={"segments": []})
    without = {bid["cid"] for bid in bids_of(ask(sent))}
    bidder.put("/users/77", json={"segments": [1, 2, 3, 4, 5]})
    retargeted = {bid["cid"] for bid in bids_of(ask(sent))}
    assert retargeted != without
    limited = {bid["cid"] for bid in bids_of(ask(sent | {"device": {"lmt": 1}}))}
    assert limited == without, "a device that limits tracking is nobody we know"


def test_statements_for_an_auction_are_at_most_three(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    from apps.bidder import web

    statements: list[str] = []
    fetch_all = web.db.fetch_all

    def counted(sql: str, params: Any = ()) -> list[Any]:
        statements.append(sql)
        return fetch_all(sql, params)

    monkeypatch.setattr(web.db, "fetch_all", counted)

    def count(**more: Any) -> int:
        statements.clear()
        ask(request(imp("banner", pmp=deal())) | more)
        return len(statements)

    assert count(user={"buyeruid": "5"}) == 3
    assert count() == 2
    assert count(regs={"coppa": 1}) == 0


def test_the_queries_are_broken_off_when_tmax_is_used_up(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    from apps.bidder import store

    sent = request(imp("banner", pmp=deal()), user={"buyeruid": "5"}, tmax=80)
    with monkeypatch.context() as patched:
        patched.setattr(store, "_SEGMENTS", _SLOW)
        began_s = time.monotonic()
        answer = ask(sent)
        took_s = time.monotonic() - began_s
    assert answer.header("X-No-Bid") == "15 insufficient auction time"
    assert took_s < 2, "the query itself would take minutes"
    assert ask(sent | {"tmax": 5000}).status == 200, "the connection is not left in the old statement"


def test_a_missing_field_is_named_in_the_answer(ask: Ask) -> None:
    answer = ask({"id": "1", "imp": [{"id": "1", "banner": {"w": "300"}}]})
    assert answer.status == 400
    error = answer.json()["error"]
    assert error["field"] == "imp[0].banner.w"
    assert error["message"] == "imp[0].banner.w must be a whole number, not a string"

"""The auction policy by itself: caps, budgets, blocks, floors, consent, time. No database, no clock."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from apps.bidder import openrtb
from apps.bidder.auction import Bid, Delivered, Offer, decide
from apps.bidder.consent import Use, allowed_use
from apps.bidder.identity import SLOTS, user_key
from apps.bidder.nobid import NoBid
from apps.bidder.screening import BANNER, VIDEO, Plan, screen, slot_code, work_time_ms
from tests.bidder.generator import imp, media, request, tcf_consent

BANNER_300 = slot_code(BANNER, 300, 250)
OFFER = Offer(
    campaign_id=1,
    creative_id=11,
    slot=BANNER_300,
    w=300,
    h=250,
    duration_s=0,
    price_micros=2_000_000,
    daily_budget_micros=50_000_000,
    daily_cap=3,
    cat="IAB2-1",
    domain="shop.example",
    deal_id="",
    context_cat="",
)


def offer(**changes: Any) -> Offer:
    return dataclasses.replace(OFFER, **changes)


def decided(sent: Any, *offers: Offer, delivered: dict[int, Delivered] | None = None) -> list[Bid] | NoBid:
    parsed = openrtb.parse(sent)
    plan = screen(parsed)
    assert isinstance(plan, Plan)
    return decide(parsed, plan, offers, delivered or {}, user_known=True)


def price(sent: Any, *offers: Offer, delivered: dict[int, Delivered] | None = None) -> int:
    bids = decided(sent, *offers, delivered=delivered)
    assert not isinstance(bids, NoBid), bids
    return bids[0].price_micros


def test_a_second_price_auction_gets_the_full_value() -> None:
    assert price(request(imp("banner")), OFFER) == 2_000_000


def test_the_first_offer_that_suits_takes_the_place() -> None:
    bids = decided(request(imp("banner")), offer(slot=0), offer(campaign_id=2), offer(campaign_id=3))
    assert [bid.offer.campaign_id for bid in bids] == [2]  # type: ignore[union-attr]


def test_places_are_served_in_the_order_of_the_request() -> None:
    bids = decided(request(imp("banner", 1), imp("banner", 2)), offer(campaign_id=5), offer(campaign_id=6))
    assert [(bid.imp.id, bid.offer.campaign_id) for bid in bids] == [("imp-1", 5), ("imp-2", 6)]  # type: ignore[union-attr]


def test_a_campaign_rests_when_the_user_has_had_its_daily_cap() -> None:
    sent = request(imp("banner"))
    assert price(sent, OFFER, delivered={1: Delivered(user_wins=2)})
    assert decided(sent, OFFER, delivered={1: Delivered(user_wins=3)}) is NoBid.USER_CAP


def test_a_cap_of_one_campaign_leaves_the_place_to_another() -> None:
    delivered = {1: Delivered(user_wins=3)}
    bids = decided(request(imp("banner")), OFFER, offer(campaign_id=2), delivered=delivered)
    assert [bid.offer.campaign_id for bid in bids] == [2]  # type: ignore[union-attr]


def test_a_campaign_stops_before_it_spends_more_than_its_daily_budget() -> None:
    sent, budget_nanos = request(imp("banner")), OFFER.daily_budget_micros * 1000
    assert price(sent, OFFER, delivered={1: Delivered(spent_nanos=budget_nanos - OFFER.price_micros)})
    over = {1: Delivered(spent_nanos=budget_nanos - OFFER.price_micros + 1)}
    assert decided(sent, OFFER, delivered=over) is NoBid.BUDGET


def test_a_price_equal_to_the_floor_is_enough() -> None:
    assert price(request(imp("banner", bidfloor=2.0)), OFFER) == 2_000_000
    assert decided(request(imp("banner", bidfloor=2.000001)), OFFER) is NoBid.FLOOR


@pytest.mark.parametrize(
    ("blocked", "is_blocked"),
    [
        ({"bcat": ["IAB2"]}, True),
        ({"bcat": ["IAB2-1"]}, True),
        ({"bcat": ["IAB2-11", "IAB20", "IAB"]}, False),
        ({"badv": ["shop.example"]}, True),
        ({"badv": ["EXAMPLE"]}, True),
        ({"badv": ["hop.example", "www.shop.example"]}, False),
    ],
)
def test_categories_and_domains_block_what_lies_below_them(blocked: Any, is_blocked: bool) -> None:
    assert (decided(request(imp("banner")) | blocked, OFFER) is NoBid.BLOCKED) == is_blocked


def test_a_contextual_campaign_needs_its_category_on_the_page() -> None:
    sent = request(imp("banner"))
    assert price(sent, offer(context_cat="IAB12"))
    assert decided(sent, offer(context_cat="IAB13")) is NoBid.NO_CAMPAIGN


@pytest.mark.parametrize(
    ("player", "fits"),
    [
        ({"maxduration": 15}, True),
        ({"maxduration": 14}, False),
        ({"minduration": 16}, False),
        ({"w": 639}, False),
        ({"w": 640, "h": 360}, True),
        ({"w": None, "h": 0, "maxduration": None}, True),
    ],
)
def test_a_film_must_fit_the_player_in_time_and_size(player: Any, fits: bool) -> None:
    film = offer(slot=slot_code(VIDEO), w=640, h=360, duration_s=15)
    sent = request({"id": "1", "video": media("video") | player})
    assert (decided(sent, film) is NoBid.NO_CAMPAIGN) == (not fits)


def test_a_deal_has_its_own_floor_and_is_for_its_own_campaign() -> None:
    deals = {"deals": [{"id": "d", "bidfloor": 1.0}]}
    sent = request(imp("banner", bidfloor=5.0, pmp=deals))
    assert price(sent, offer(deal_id="d")) == 2_000_000
    assert decided(sent, OFFER) is NoBid.FLOOR
    assert decided(sent, offer(deal_id="e")) is NoBid.NO_CAMPAIGN


def test_the_reason_told_is_the_one_that_came_closest_to_a_bid() -> None:
    sent = request(imp("banner", bidfloor=3.0), imp("video", 2), bcat=["IAB2"])
    assert decided(sent, offer(cat="IAB9"), offer(campaign_id=2)) is NoBid.FLOOR


def test_without_a_user_an_empty_hand_is_an_unmatched_user() -> None:
    parsed = openrtb.parse(request(imp("banner")))
    plan = screen(parsed)
    assert isinstance(plan, Plan)
    assert decide(parsed, plan, [], {}, user_known=False) is NoBid.UNMATCHED_USER
    assert decide(parsed, plan, [], {}, user_known=True) is NoBid.NO_CAMPAIGN


def test_codes_of_reasons_are_openrtb_s_or_beyond_500() -> None:
    codes = [reason.value[0] for reason in NoBid]
    assert len(set(codes)) == len(codes)
    assert {code for code in codes if code < 500} == {3, 8, 9, 15}
    assert (NoBid.UNMATCHED_USER.value[0], NoBid.USER_CAP.value[0], NoBid.TOO_LATE.value[0]) == (8, 9, 15)


def test_time_for_the_queries_is_tmax_less_the_network_and_what_has_passed() -> None:
    assert work_time_ms(None, 1e6) is None
    assert work_time_ms(100, 5.0) == 80.0
    assert work_time_ms(100, 80.0) == 5.0
    assert work_time_ms(100, 80.1) == 0.0
    assert work_time_ms(10, 0.0) == 0.0


def plan_of(**more: Any) -> Plan:
    plan = screen(openrtb.parse(request(imp("banner"), **more)))
    assert isinstance(plan, Plan)
    return plan


def test_the_country_comes_from_the_device_before_the_user() -> None:
    user = {"geo": {"country": "fra"}}
    assert plan_of(device={"geo": {"country": "USA"}}, user=user).country == "USA"
    assert plan_of(device={}, user=user).country == "FRA"
    assert plan_of().country == ""


def test_a_person_who_must_not_be_known_has_no_key() -> None:
    user = {"buyeruid": "17"}
    assert plan_of(user=user).user_key == 17
    assert plan_of(user=user, device={"lmt": 1}).user_key == 0
    assert plan_of(user=user, regs={"us_privacy": "1YYN"}).user_key == 0


def test_our_own_cookie_is_our_number_and_any_other_name_a_stable_one() -> None:
    def key(theirs: str = "", ours: str = "") -> int:
        return user_key(openrtb.User(id=theirs, buyeruid=ours))

    assert key(ours="00042") == 42
    assert key("42") == key("42") != 42, "a decimal name of the exchange is not our number"
    assert key("x", ours="abc") == key("abc")
    assert 1 <= key("\u0662") <= SLOTS, "digits of other scripts are not decimal numbers here"
    assert key() == 0
    known = sum(key(f"name-{number}") <= 100_000 for number in range(2000))
    assert 0.7 < known / 2000 < 0.82


@pytest.mark.parametrize(
    ("more", "use"),
    [
        ({}, Use.FULL),
        ({"regs": {"coppa": 1}}, Use.NONE),
        ({"regs": {"gdpr": 1}}, Use.NONE),
        ({"regs": {"gdpr": 1}, "user": {"consent": tcf_consent(1, 3, 4)}}, Use.FULL),
        ({"regs": {"gdpr": 1}, "user": {"consent": tcf_consent(1, 3, 4) + ".YAAAAAAAAAA"}}, Use.FULL),
        ({"regs": {"gdpr": 1}, "user": {"consent": tcf_consent(1, 4)}}, Use.NONE),
        ({"regs": {"gdpr": 1}, "user": {"ext": {"consent": tcf_consent(*range(1, 25))}}}, Use.FULL),
        ({"regs": {"gdpr": 0, "ext": {"gdpr": 1}}}, Use.FULL),
        ({"regs": {"gdpr": 1}, "user": {"consent": "B" + tcf_consent(1, 3, 4)[1:]}}, Use.NONE),
        ({"regs": {"gdpr": 1}, "user": {"consent": "!!!"}}, Use.NONE),
        ({"device": {"dnt": 1}}, Use.ANONYMOUS),
        ({"regs": {"us_privacy": "1YNN"}}, Use.FULL),
        ({"regs": {"ext": {"us_privacy": "1NYN"}}}, Use.ANONYMOUS),
        ({"regs": {"gpp_sid": [-1]}}, Use.FULL),
        ({"regs": {"gpp_sid": [7]}}, Use.ANONYMOUS),
    ],
)
def test_the_strictest_rule_decides_what_may_be_done_with_the_persons_data(more: Any, use: Use) -> None:
    assert allowed_use(openrtb.parse(request(imp("banner"), **more))) is use


def test_the_core_of_a_consent_string_is_read_by_its_bits() -> None:
    # Version 2, purposes 1, 3 and 4 by hand: 152 bits, then 1011 0000 ...
    assert tcf_consent(1, 3, 4) == "CAAAAAAAAAAAAAAAAAAAAAAAALAAAAA"

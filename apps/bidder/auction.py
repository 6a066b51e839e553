"""The auction: which offer wins which place, and at what price.

Pure: gets the plan, the offers that the database found for it (dearest first), whether the user is known and
what was delivered today; returns the bids, at most one a place and one a campaign, or the reason for none.
An impression won at a CPM of n micro-dollars costs n nano-dollars; that is how spending is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apps.bidder.nobid import NoBid, nearest
from apps.bidder.screening import VIDEO, slot_code

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from apps.bidder.openrtb import BidRequest, Imp, Video
    from apps.bidder.screening import Place, Plan

FIRST_PRICE = 1  # OpenRTB `at`
# In a first-price auction bidding the full value leaves nothing; a fixed share until one is learnt from wins.
FIRST_PRICE_SHARE = 0.85
NANOS_PER_MICRO = 1000


@dataclass(slots=True)
class Offer:
    """A creative and its campaign, as store.py reads them."""

    campaign_id: int
    creative_id: int
    slot: int
    w: int
    h: int
    duration_s: int
    price_micros: int
    daily_budget_micros: int
    daily_cap: int
    cat: str
    domain: str
    deal_id: str
    context_cat: str


@dataclass(slots=True)
class Delivered:
    """What a campaign delivered today: wins for this user, money over all users."""

    user_wins: int = 0
    spent_nanos: int = 0


@dataclass(slots=True)
class Bid:
    """An offer for an impression, at a price."""

    imp: Imp
    offer: Offer
    price_micros: int


def decide(
    request: BidRequest,
    plan: Plan,
    offers: Sequence[Offer],
    delivered: Mapping[int, Delivered],
    *,
    user_known: bool,
) -> list[Bid] | NoBid:
    """Give each place, in the request's order, the dearest offer that may have it."""
    bids: list[Bid] = []
    used: set[int] = set()
    reason = NoBid.NO_CAMPAIGN if user_known else NoBid.UNMATCHED_USER
    for place in plan.places:
        for offer in offers:
            if offer.campaign_id in used or not _fits(offer, place, plan.context):
                continue
            price = _price(request, place, offer, delivered.get(offer.campaign_id) or Delivered())
            if isinstance(price, int):
                bids.append(Bid(place.imp, offer, price))
                used.add(offer.campaign_id)
                break
            reason = nearest(reason, price)
    return bids or reason


def _fits(offer: Offer, place: Place, context: frozenset[str]) -> bool:
    """Whether the creative can be shown there at all."""
    if offer.slot not in place.slots or offer.deal_id not in place.floors:
        return False
    if offer.context_cat and offer.context_cat not in context:
        return False
    video = place.imp.video
    return offer.slot != slot_code(VIDEO) or (video is not None and _plays(offer, video))


def _plays(offer: Offer, video: Video) -> bool:
    """Whether a film is of allowed length and no larger than the player (0 or absent: any size)."""
    in_time = video.minduration <= offer.duration_s <= (video.maxduration or offer.duration_s)
    return in_time and offer.w <= (video.w or offer.w) and offer.h <= (video.h or offer.h)


def _price(request: BidRequest, place: Place, offer: Offer, delivered: Delivered) -> int | NoBid:
    """The price to bid in micro-dollars, or why not; the cases come in the order of the reasons' rank."""
    floor = place.floors[offer.deal_id]
    if _is_blocked(offer, request):
        return NoBid.BLOCKED
    if offer.price_micros < floor:
        return NoBid.FLOOR
    if delivered.spent_nanos + offer.price_micros > offer.daily_budget_micros * NANOS_PER_MICRO:
        return NoBid.BUDGET
    if delivered.user_wins >= offer.daily_cap:
        return NoBid.USER_CAP
    if request.at == FIRST_PRICE:
        return max(floor, int(offer.price_micros * FIRST_PRICE_SHARE))
    return offer.price_micros


def _is_blocked(offer: Offer, request: BidRequest) -> bool:
    """A category blocks those below it (IAB25 blocks IAB25-3), and so does a domain."""
    return any(offer.cat == cat or offer.cat.startswith(f"{cat}-") for cat in request.bcat if cat) or any(
        offer.domain == domain or offer.domain.endswith(f".{domain}")
        for domain in map(str.lower, request.badv)
        if domain
    )

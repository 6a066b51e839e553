"""What can be bid for in a request, judged from the request alone: the `Plan` for the database, or no bid.

Pure: no I/O, no clock. What the campaigns offer for the plan is auction.py's part.

Money is whole micro-dollars for a thousand impressions (a CPM). Only USD is traded: a floor in another
currency excludes its impression, because a rate that nobody keeps up to date is worse than no bid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apps.bidder.consent import Use, allowed_use
from apps.bidder.identity import user_key
from apps.bidder.nobid import NoBid, nearest

if TYPE_CHECKING:
    from apps.bidder.openrtb import Banner, BidRequest, Imp, Native, Video

SEAT = "tafe"
CURRENCY = "USD"
MICROS = 1_000_000
# Of tmax, kept for the answer's way back; exchanges ask bidders to be 10 to 20 ms away at most.
NETWORK_MARGIN_MS = 15.0
# Less than this cannot hold three queries: about 0.5 ms each when nobody else wants the machine.
LEAST_WORK_MS = 5.0
# Words in user agents of crawlers that say what they are (the IAB's own list is for its members only).
_CRAWLERS = ("bot/", "bot;", "googlebot", "bingbot", "crawler", "spider")
_VAST_PROTOCOLS = frozenset({2, 3, 7})  # inline VAST 2.0, 3.0 and 4.0, which markup.py writes
MAIN_IMAGE = 3  # native markup: what an image is without a type
IMAGE_TYPES = frozenset({1, MAIN_IMAGE})  # native markup: 1 is an icon
_DATA_TYPES = frozenset({1, 2, 12})  # native markup: sponsor, description, call to action

# OpenRTB 2.6 `mtype`
BANNER, VIDEO, NATIVE = 1, 2, 4


def slot_code(mtype: int, w: int = 0, h: int = 0) -> int:
    """What a creative fits, as one number that a database can index: media type, five digits of w, five of h.

    Video and native creatives have no size here, since for them fitting is not equality.
    """
    return (mtype * 100_000 + w) * 100_000 + h


@dataclass(slots=True)
class Place:
    """An impression that can be bid for.

    `floors` has the least price in micro-dollars by deal; the open auction is the deal "".
    """

    imp: Imp
    slots: frozenset[int]
    floors: dict[str, int]


@dataclass(slots=True)
class Plan:
    """What to ask the database. `user_key` is 0 when the person is not known or must not be."""

    places: list[Place]
    user_key: int
    country: str
    context: frozenset[str]

    @property
    def slots(self) -> set[int]:
        return {slot for place in self.places for slot in place.slots}

    @property
    def deals(self) -> set[str]:
        return {deal for place in self.places for deal in place.floors}


def work_time_ms(tmax_ms: int | None, elapsed_ms: float) -> float | None:
    """Milliseconds that the queries may take: None without a limit, 0 if too few are left to begin."""
    if tmax_ms is None:
        return None
    left_ms = tmax_ms - NETWORK_MARGIN_MS - elapsed_ms
    return left_ms if left_ms >= LEAST_WORK_MS else 0.0


def screen(request: BidRequest) -> Plan | NoBid:
    """Plan the questions to the database, or refuse a request that nobody may or wants to buy."""
    device, user = request.device, request.user
    if device is not None and any(word in device.ua.lower() for word in _CRAWLERS):
        return NoBid.CRAWLER
    use = allowed_use(request)
    if use is Use.NONE:
        return NoBid.PRIVACY
    if (request.wseat and SEAT not in request.wseat) or SEAT in request.bseat:
        return NoBid.SEAT
    if request.cur and CURRENCY not in request.cur:
        return NoBid.CURRENCY
    places: list[Place] = []
    refused = NoBid.AUDIO
    for imp in request.imp:
        place = _place(imp)
        if isinstance(place, Place):
            places.append(place)
        else:
            refused = nearest(place, refused)
    if not places:
        return refused
    key = user_key(user) if user is not None and use is Use.FULL else 0
    geo = (device.geo if device else None) or (user.geo if user else None)
    return Plan(places, key, geo.country.upper()[:3] if geo else "", _context(request))


def _context(request: BidRequest) -> frozenset[str]:
    """The content categories of where the impressions are."""
    source = request.site or request.app
    return frozenset((*source.cat, *source.sectioncat, *source.pagecat)) if source else frozenset()


def _place(imp: Imp) -> Place | NoBid:
    slots: set[int] = set()
    if imp.banner is not None:
        slots |= _banner_slots(imp.banner)
    if imp.video is not None and _video_fits(imp.video):
        slots.add(slot_code(VIDEO))
    if imp.native is not None and _native_fits(imp.native):
        slots.add(slot_code(NATIVE))
    if not slots:
        only_audio = imp.banner is None and imp.video is None and imp.native is None
        return NoBid.AUDIO if only_audio else NoBid.UNSUITABLE
    floors = _floors(imp)
    return Place(imp, frozenset(slots), floors) if floors else NoBid.CURRENCY


def _banner_slots(banner: Banner) -> set[int]:
    sizes = [(one.w, one.h) for one in banner.format]
    sizes.append((banner.w, banner.h))
    return {slot_code(BANNER, w, h) for w, h in sizes if w and h}


def _video_fits(video: Video) -> bool:
    known_protocol = not video.protocols or not _VAST_PROTOCOLS.isdisjoint(video.protocols)
    return known_protocol and any(mime.lower() == "video/mp4" for mime in video.mimes)


def _native_fits(native: Native) -> bool:
    """Whether every asset that must be there is one that markup.py can fill."""
    return all(
        asset.title is not None
        or (asset.img is not None and (asset.img.type or MAIN_IMAGE) in IMAGE_TYPES)
        or (asset.data is not None and asset.data.type in _DATA_TYPES)
        for asset in native.assets
        if asset.required
    )


def _floors(imp: Imp) -> dict[str, int]:
    floors: dict[str, int] = {}
    for deal in imp.pmp.deals if imp.pmp else ():
        invited = not deal.wseat or SEAT in deal.wseat
        if invited and _is_usd(deal.bidfloorcur):
            floors[deal.id] = round(deal.bidfloor * MICROS)
    if not (imp.pmp and imp.pmp.private_auction) and _is_usd(imp.bidfloorcur):
        floors[""] = round(imp.bidfloor * MICROS)
    return floors


def _is_usd(currency: str) -> bool:
    return currency.upper() in (CURRENCY, "")

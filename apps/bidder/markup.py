"""Bids as OpenRTB 2.6 bid responses (section 4.2), with the markup of each kind of advertisement.

Banners are HTML, films are VAST in the newest version that the player names, native advertisements are the
JSON of Native Ads 1.2 (section 5). Everything that goes into markup comes from our own tables, never from the
request, so nothing needs escaping; the request's identifiers go into JSON values only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ujson

from apps.bidder.notice import VALID_S
from apps.bidder.screening import BANNER, CURRENCY, IMAGE_TYPES, MAIN_IMAGE, MICROS, NATIVE, SEAT, VIDEO

if TYPE_CHECKING:
    from apps.bidder.auction import Bid, Offer
    from apps.bidder.openrtb import Asset, BidRequest, Native, Video

_VAST_VERSIONS = {7: "4.0", 3: "3.0", 2: "2.0"}  # by OpenRTB protocol, newest first


def bid_response(request: BidRequest, response_id: str, bids: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole answer; `bids` are `bid_object`s."""
    return {
        "id": request.id,
        "bidid": response_id,
        "cur": CURRENCY,
        "seatbid": [{"seat": SEAT, "bid": bids}],
    }


def bid_object(bid: Bid, bid_id: str, notice_url: str) -> dict[str, Any]:
    """One bid; `notice_url` is empty in a test, since nothing may be billed then."""
    offer = bid.offer
    mtype = offer.slot // 10**10
    answer: dict[str, Any] = {
        "id": bid_id,
        "impid": bid.imp.id,
        "price": bid.price_micros / MICROS,
        "adid": str(offer.creative_id),
        "adm": _MARKUP[mtype](bid),
        "adomain": [offer.domain],
        "cid": str(offer.campaign_id),
        "crid": str(offer.creative_id),
        "cat": [offer.cat],
        "mtype": mtype,
        "exp": VALID_S,
    }
    if mtype != NATIVE:
        answer["w"], answer["h"] = offer.w, offer.h
    if notice_url:
        answer["nurl"] = notice_url
    if offer.deal_id:
        answer["dealid"] = offer.deal_id
    return answer


def _click_url(offer: Offer) -> str:
    return f"https://{offer.domain}/?c={offer.campaign_id}"


def _asset_url(offer: Offer, kind: str) -> str:
    return f"https://cdn.{offer.domain}/{offer.creative_id}.{kind}"


def _banner(bid: Bid) -> str:
    offer = bid.offer
    return (
        f'<a href="{_click_url(offer)}" target="_blank" rel="noopener">'
        f'<img src="{_asset_url(offer, "png")}" width="{offer.w}" height="{offer.h}" alt=""></a>'
    )


def _vast(bid: Bid) -> str:
    offer = bid.offer
    video: Video = bid.imp.video  # type: ignore[assignment] # a film is only offered to an imp with a player
    version = next((text for code, text in _VAST_VERSIONS.items() if code in video.protocols), "3.0")
    return (
        f'<VAST version="{version}"><Ad id="{offer.creative_id}"><InLine>'
        f"<AdSystem>tafe</AdSystem><AdTitle>{offer.domain}</AdTitle>"
        f"<Impression><![CDATA[{_asset_url(offer, 'gif')}]]></Impression>"
        f"<Creatives><Creative><Linear><Duration>00:00:{offer.duration_s:02d}</Duration>"
        f"<VideoClicks><ClickThrough><![CDATA[{_click_url(offer)}]]></ClickThrough></VideoClicks>"
        f'<MediaFiles><MediaFile delivery="progressive" type="video/mp4" width="{offer.w}" height="{offer.h}">'
        f"<![CDATA[{_asset_url(offer, 'mp4')}]]></MediaFile></MediaFiles></Linear></Creative></Creatives>"
        f"</InLine></Ad></VAST>"
    )


def _native(bid: Bid) -> str:
    offer = bid.offer
    native: Native = bid.imp.native  # type: ignore[assignment] # offered only to an imp with a native object
    assets = [filled for asset in native.assets if (filled := _fill(asset, offer))]
    document = {"ver": "1.2", "assets": assets, "link": {"url": _click_url(offer)}}
    return ujson.dumps({"native": document}, escape_forward_slashes=False)


def _fill(asset: Asset, offer: Offer) -> dict[str, Any] | None:
    """The asked-for element, or None for an optional one that we do not have."""
    if asset.title is not None:
        return {"id": asset.id, "title": {"text": f"Still there: {offer.domain}"[: asset.title.len]}}
    if asset.img is not None and (asset.img.type or MAIN_IMAGE) in IMAGE_TYPES:
        image = asset.img
        size = {"w": image.w or image.wmin or 300, "h": image.h or image.hmin or 250}
        return {"id": asset.id, "img": {"url": _asset_url(offer, "png"), **size}}
    texts = {1: offer.domain, 2: "What you looked at is still in stock.", 12: "See it"}
    if asset.data is not None and asset.data.type in texts:
        text = texts[asset.data.type]
        return {"id": asset.id, "data": {"value": text[: asset.data.len or len(text)]}}
    return None


_MARKUP = {BANNER: _banner, VIDEO: _vast, NATIVE: _native}

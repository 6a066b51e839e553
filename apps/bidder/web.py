"""The bidder's HTTP interface.

POST /openrtb2/auction   a bid request in; 200 with bids, 204 with the reason in X-No-Bid, or 400 with the field
GET  /win                a win notice, as bids carry it in `nurl`; counted once however often it comes
GET, PUT /users/{id}     a user's segments

Handlers only translate: openrtb.py reads, screening.py and auction.py decide, store.py asks the database,
markup.py writes.
"""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass
from typing import Annotated, Any

import gevent

from apps.bidder import markup, openrtb, schema
from apps.bidder.auction import Bid, decide
from apps.bidder.config import Config
from apps.bidder.nobid import NoBid
from apps.bidder.notice import Notice, clearing_price_micros
from apps.bidder.openrtb import BidRequest
from apps.bidder.reader import Between, Length, read
from apps.bidder.screening import Plan, screen, work_time_ms
from apps.bidder.store import DAY_S, Store
from tafe import App, BadRequest, Database, NotFound, Response
from tafe.errors import DatabaseUnavailable, HTTPError

_log = logging.getLogger("bidder")

config = Config.from_environ()
app = App()
# Sixteen connections answer 32 concurrent auctions without a queue to speak of, since an auction holds one only
# for its statements; two workers stay far below MariaDB's default of 151.
db = Database.from_url(config.database_url, min_size=4, max_size=16)
store = Store(db, schema.dialect(config.database_url))


@dataclass(slots=True)
class SegmentList:
    """The body of PUT /users/{id}."""

    segments: Annotated[tuple[Annotated[int, Between(1, 2**31 - 1)], ...], Length(0, 100)]


@app.on_start
def warn_of_development_key() -> None:
    if config.is_development_key:
        _log.warning(
            "BIDDER_WIN_KEY is not set: win notices are signed with a key that is public, so anybody can forge them"
        )


@app.post("/openrtb2/auction")
def auction(body: dict[str, Any]) -> Response | dict[str, Any]:
    """Bid for the impressions of an OpenRTB 2.6 bid request."""
    began_s = time.perf_counter()
    request = openrtb.parse(body)
    plan = screen(request)
    if isinstance(plan, NoBid):
        return _no_bid(plan)
    left_ms = work_time_ms(request.tmax, (time.perf_counter() - began_s) * 1000)
    if left_ms == 0:
        return _no_bid(NoBid.TOO_LATE)
    bids: list[Bid] | NoBid = NoBid.TOO_LATE
    with gevent.Timeout(None if left_ms is None else left_ms / 1000, False):
        bids = _find_bids(request, plan)
    if bids is NoBid.TOO_LATE and not db.ready:
        raise DatabaseUnavailable("the database did not answer within tmax")
    return _no_bid(bids) if isinstance(bids, NoBid) else _bid_response(request, plan, bids)


def _find_bids(request: BidRequest, plan: Plan) -> list[Bid] | NoBid:
    """Ask the database and decide; may be broken off when tmax runs out, at any statement."""
    segments = store.segments(plan.user_key) if plan.user_key else None
    offers = store.offers(plan, segments or ())
    delivered = store.delivered(plan.user_key, int(time.time()) // DAY_S, offers) if offers else {}
    return decide(request, plan, offers, delivered, user_known=segments is not None)


def _bid_response(request: BidRequest, plan: Plan, bids: list[Bid]) -> dict[str, Any]:
    answer, now_s = [], int(time.time())
    for bid in bids:
        notice = Notice(uuid.uuid4().hex, bid.offer.campaign_id, plan.user_key, bid.price_micros, now_s)
        url = "" if request.test else notice.url(config.public_url, config.win_key)
        answer.append(markup.bid_object(bid, notice.bid_id, url))
    return markup.bid_response(request, uuid.uuid4().hex, answer)


def _no_bid(reason: NoBid) -> Response:
    return Response(None, status=204, headers={"X-No-Bid": reason.header})


@app.get("/win")
def win(bid: str, c: int, u: int, p: int, t: int, sig: str, price: float) -> dict[str, bool]:
    """Record a win; the parameters are those of the notice that went out with the bid."""
    notice = Notice(bid_id=bid, campaign_id=c, user_id=u, price_micros=p, bid_at_s=t)
    now_s = int(time.time())
    if not notice.is_signed(sig, config.win_key):
        raise HTTPError(403, "this is not a bid of ours", code="forged", field="sig")
    if notice.is_expired(now_s):
        raise HTTPError(410, "the notice came too late to be counted", code="expired", field="t")
    price_micros = clearing_price_micros(price, notice)
    if price_micros is None:
        raise BadRequest("price must be 0 to the price that was bid", field="price")
    return {"recorded": store.record_win(notice, price_micros, now_s)}


@app.get("/users/{id:int}")
def read_user(id: int) -> dict[str, Any]:  # noqa: A002 - the name in the path
    """A user's segments."""
    segments = store.segments(id)
    if segments is None:
        raise NotFound("no such user")
    return {"id": id, "segments": segments}


@app.put("/users/{id:int}")
def write_user(id: int, body: dict[str, Any]) -> dict[str, Any]:  # noqa: A002 - the name in the path
    """Replace a user's segments."""
    segments = sorted(set(read(SegmentList, body, "body").segments))
    if not store.replace_segments(id, segments):
        raise NotFound("no such user")
    return {"id": id, "segments": segments}

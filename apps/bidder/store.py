"""What the bidder asks of its database, and nothing else knows its SQL.

An auction costs two or three statements, each a short range of one index: the user's segments (if there is a
user), the offers, and what they delivered today (if there are offers). They are separate because they age
differently: segments change by the second and by user, campaigns by the hour, deliveries with each win.
Recording a win is one transaction whose first statement is the insert of the win: where that key exists already,
nothing is counted. Rows of `deliveries` are locked in the same order everywhere (user 0 first), so two wins
wait for each other but never in a circle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.bidder import schema
from apps.bidder.auction import Delivered, Offer
from tafe.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apps.bidder.notice import Notice
    from apps.bidder.screening import Plan
    from tafe import Database

CONTEXTUAL = 0  # the segment of campaigns that need none
ALL_USERS = 0  # the row of `deliveries` that counts a campaign's whole day
DAY_S = 86_400  # days are UTC's, so that a fleet agrees about them
# Offers looked at for a request, dearest first. A user with 8 segments finds about 10 for a common size; a hundred
# leaves room for requests with many places and bounds what one request can cost.
MOST_OFFERS = 100

_SEGMENTS = (
    "SELECT s.segment_id FROM users u LEFT JOIN user_segments s ON s.user_id = u.id WHERE u.id = %s "
    "ORDER BY s.segment_id"
)
_OFFERS = (
    "SELECT c.id AS campaign_id, k.id AS creative_id, k.slot, k.w, k.h, k.duration_s, c.price_micros, "
    "c.daily_budget_micros, c.daily_cap, c.cat, c.domain, c.deal_id, c.context_cat "
    "FROM creatives k JOIN campaigns c ON c.id = k.campaign_id "
    "WHERE k.segment_id IN %s AND k.slot IN %s "
    "AND c.active = 1 AND c.country IN ('', %s) AND c.deal_id IN %s "
    f"ORDER BY c.price_micros DESC, k.id LIMIT {MOST_OFFERS}"
)
_DELIVERED = (
    "SELECT user_id, campaign_id, wins, spent_nanos FROM deliveries "
    "WHERE user_id IN (%s, %s) AND day = %s AND campaign_id IN %s"
)
_INSERT_WIN = "INSERT INTO wins (bid_id, campaign_id, user_id, price_micros, won_at_s) VALUES (%s, %s, %s, %s, %s)"


class Store:
    """The bidder's tables in a `tafe.Database`; raises what that raises."""

    def __init__(self, database: Database, dialect: str) -> None:
        self._database = database
        self._lock_user = schema.lock_user(dialect)
        self._count_delivery = schema.count_delivery(dialect)

    def segments(self, user_id: int) -> list[int] | None:
        """The user's segments in order; None for a user whom we do not know."""
        rows = self._database.fetch_all(_SEGMENTS, (user_id,))
        if not rows:
            return None
        return [row["segment_id"] for row in rows if row["segment_id"] is not None]

    def replace_segments(self, user_id: int, segments: Iterable[int]) -> bool:
        """Give a user these segments and no others; False for a user whom we do not know.

        Only rows that change are touched: deleting a range, even an empty one, would lock the gaps beside
        it in InnoDB, and two neighbours who insert into the same gap would wait for each other for ever.
        """
        wanted = set(segments)
        with self._database.transaction() as tx:
            if tx.fetch_one(self._lock_user, (user_id,)) is None:
                return False
            rows = tx.fetch_all("SELECT segment_id FROM user_segments WHERE user_id = %s", (user_id,))
            present = {row["segment_id"] for row in rows}
            if gone := present - wanted:
                tx.execute("DELETE FROM user_segments WHERE user_id = %s AND segment_id IN %s", (user_id, gone))
            if new := [(user_id, segment) for segment in wanted - present]:
                tx.execute_many("INSERT INTO user_segments (user_id, segment_id) VALUES (%s, %s)", new)
        return True

    def offers(self, plan: Plan, segments: Sequence[int]) -> list[Offer]:
        """What campaigns offer to a user with these segments for the plan's places, dearest first."""
        wanted = (CONTEXTUAL, *segments)
        rows = self._database.fetch_all(_OFFERS, (wanted, plan.slots, plan.country, plan.deals))
        return [Offer(**row) for row in rows]

    def delivered(self, user_id: int, day: int, offers: Iterable[Offer]) -> dict[int, Delivered]:
        """What the campaigns of these offers delivered on a day (days since 1970), by campaign."""
        campaigns = {offer.campaign_id for offer in offers}
        found: dict[int, Delivered] = {}
        for row in self._database.fetch_all(_DELIVERED, (ALL_USERS, user_id, day, campaigns)):
            one = found.setdefault(row["campaign_id"], Delivered())
            if row["user_id"] == ALL_USERS:
                one.spent_nanos = row["spent_nanos"]
            else:
                one.user_wins = row["wins"]
        return found

    def record_win(self, notice: Notice, price_micros: int, now_s: int) -> bool:
        """Count a win and its price; False if that bid's win has been counted before."""
        nanos, day = price_micros, now_s // DAY_S  # a CPM in micro-dollars is the nano-dollars of one impression
        win = (notice.bid_id, notice.campaign_id, notice.user_id, price_micros, now_s)
        with self._database.transaction() as tx:
            try:
                tx.execute(_INSERT_WIN, win)
            except IntegrityError:
                return False
            for user_id in sorted({ALL_USERS, notice.user_id}):
                tx.execute(self._count_delivery, (user_id, day, notice.campaign_id, nanos, nanos))
        return True

"""The reasons not to bid.

Codes below 500 are OpenRTB's No-Bid Reason Codes; from 500 on they are the bidder's own, as the list allows.
The rank says how close an impression came to a bid: of several impressions the highest rank is told, since
"below the floor" is of more use to the exchange than "no size that we have" for another place on the page.
"""

from __future__ import annotations

import enum


class NoBid(enum.Enum):
    """Why there is no bid: (code, text, rank)."""

    CRAWLER = (3, "known web crawler", 0)
    TOO_LATE = (15, "insufficient auction time", 0)
    PRIVACY = (500, "children's inventory or no consent", 0)
    SEAT = (501, "our seat is not invited", 0)
    AUDIO = (503, "audio is not bought", 1)
    UNSUITABLE = (504, "no size, format or asset that we have", 2)
    CURRENCY = (502, "only USD is traded", 3)
    UNMATCHED_USER = (8, "unmatched user", 4)
    NO_CAMPAIGN = (505, "no campaign for this impression", 5)
    BLOCKED = (506, "blocked category or advertiser", 6)
    FLOOR = (507, "below the floor", 7)
    BUDGET = (508, "daily budget spent", 8)
    USER_CAP = (9, "daily user cap met", 9)

    @property
    def rank(self) -> int:
        return self.value[2]

    @property
    def header(self) -> str:
        """The value of the X-No-Bid header."""
        return f"{self.value[0]} {self.value[1]}"


def nearest(one: NoBid, other: NoBid) -> NoBid:
    """The reason that came closer to a bid."""
    return one if one.rank >= other.rank else other

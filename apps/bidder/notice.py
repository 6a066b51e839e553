"""Win notices: the URL that an exchange calls when a bid wins, and the proof that the bid was ours.

The URL carries the bid and a signature (HMAC-SHA256, shortened to 128 bits) over all of it; only the clearing
price comes from outside, by OpenRTB's macro ${AUCTION_PRICE} (section 4.4). So a win can be recorded without
having stored the bid, and a made-up win cannot. A notice is good for an hour: after that the record of its
win may be deleted without it being counted again. Pure: no clock, no environment.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from apps.bidder.screening import MICROS

# Seconds: a page shows at once, an app from its cache within the hour. Sent as `exp` in a bid.
VALID_S = 3600


@dataclass(frozen=True, slots=True)
class Notice:
    """A bid as its win notice repeats it. `user_id` 0: nobody we know. `bid_at_s`: Unix time of the bid."""

    bid_id: str
    campaign_id: int
    user_id: int
    price_micros: int
    bid_at_s: int

    def signature(self, key: bytes) -> str:
        """Depends on every field; 32 hexadecimal digits."""
        text = f"{self.bid_id}|{self.campaign_id}|{self.user_id}|{self.price_micros}|{self.bid_at_s}"
        return hmac.digest(key, text.encode(errors="surrogatepass"), "sha256")[:16].hex()

    def url(self, public_url: str, key: bytes) -> str:
        """The notice's address, with the macro that the exchange replaces."""
        return (
            f"{public_url}/win?bid={self.bid_id}&c={self.campaign_id}&u={self.user_id}&p={self.price_micros}"
            f"&t={self.bid_at_s}&sig={self.signature(key)}&price=${{AUCTION_PRICE}}"
        )

    def is_signed(self, signature: str, key: bytes) -> bool:
        """Whether `signature` is this notice's, compared in constant time."""
        return hmac.compare_digest(signature.encode(errors="surrogatepass"), self.signature(key).encode())

    def is_expired(self, now_s: float) -> bool:
        return now_s > self.bid_at_s + VALID_S


def clearing_price_micros(price: float, notice: Notice) -> int | None:
    """The price paid in micro-dollars (CPM); None if it cannot be: nobody pays more than the bid."""
    micros = round(price * MICROS) if 0 <= price <= MICROS else -1
    return micros if 0 <= micros <= notice.price_micros else None

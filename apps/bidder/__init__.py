"""A bidder for OpenRTB 2.6, as a company that retargets would run it: `tafe serve apps.bidder:app`.

web.py        HTTP                           store.py, schema.py    the database
openrtb.py    reads a bid request            fill.py, population.py invented users and campaigns
screening.py  what a request may ask for     auction.py             who gets which place, for how much
markup.py     writes the bids                notice.py              proves that a win was ours

`app` is made at first use: it reads the environment, which the fill script and tests of the other modules leave alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apps.bidder.web import app as app


def __getattr__(name: str) -> Any:
    """Load the application (PEP 562)."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from apps.bidder import web

    return web.app

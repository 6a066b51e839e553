"""A bidder for OpenRTB 2.6, as a company that retargets would run it: `tafe serve apps.bidder:app`.

web.py        HTTP                           store.py, schema.py    the database
openrtb.py    reads a bid request            fill.py, population.py invented users and campaigns
screening.py  what a request may ask for     auction.py             who gets which place, for how much
markup.py     writes the bids                notice.py              proves that a win was ours
"""

from apps.bidder.web import app

__all__ = ["app"]

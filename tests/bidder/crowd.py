"""Many greenlets write to one database at once, in a process that gevent has patched.

`python -m tests.bidder.crowd URL` fills it first. The last line is JSON: how the wins and the writes of segments
ended, and the day's counts afterwards. Users and campaigns are few, so that nearly every transaction meets another.
"""

# ruff: noqa: E402 - patching comes first
from gevent import monkey

monkey.patch_all()

import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from gevent.pool import Pool

from apps.bidder import schema
from apps.bidder.fill import fill
from apps.bidder.notice import Notice
from apps.bidder.store import DAY_S, Store
from tafe import Database
from tafe.errors import TafeError

WINS = 600
WRITES = 600
AT_ONCE = 32
PRICE_MICROS = 1000
DAY = 20_000


def main(url: str) -> None:
    # Patience is not under test: SQLite's writers queue without order, so that one may wait for all the others.
    db = Database.from_url(url, min_size=16, max_size=16, acquire_timeout_s=50, read_timeout_s=100)
    db.open()
    fill(db, schema.dialect(url), 20, 5, seed=1)
    store, rng, crowd = Store(db, schema.dialect(url)), random.Random(1), Pool(AT_ONCE)
    ends: dict[str, Counter[str]] = {"wins": Counter(), "writes": Counter()}

    def run(kind: str, call: Callable[..., Any], *args: Any) -> None:
        try:
            ends[kind][str(call(*args))] += 1
        except TafeError as error:
            ends[kind][repr(error)] += 1

    for number in range(WINS):
        notice = Notice(f"{number:032x}", rng.randint(1, 4), rng.randint(0, 5), PRICE_MICROS, DAY * DAY_S)
        for _ in range(2):
            crowd.spawn(run, "wins", store.record_win, notice, PRICE_MICROS, DAY * DAY_S)
    for _ in range(WRITES):
        segments = rng.sample(range(1, 200), rng.randrange(4))
        crowd.spawn(run, "writes", store.replace_segments, rng.randint(1, 8), segments)
    crowd.join()
    totals = db.fetch_one("SELECT sum(wins) AS wins, sum(spent_nanos) AS nanos FROM deliveries WHERE user_id = 0")
    assert totals is not None
    counted = {name: int(value) for name, value in totals.items()}
    asked = {"wins": WINS, "writes": WRITES, "price_micros": PRICE_MICROS}
    print(json.dumps({**ends, "counted": counted, "asked": asked}))
    db.close()


if __name__ == "__main__":
    main(sys.argv[1])

"""The invented users and campaigns that scripts/fill puts into a database; the same for the same seed and sizes.

Users have 0 to 8 of 200 segments, popular ones far more often, as products are looked at. Nineteen campaigns of
twenty are for one segment, one of twenty is contextual; campaign 1 is contextual, takes part only in the deal
EVERYWHERE and has every format, so that whoever sends that deal gets a bid. Domains end in .example (RFC 2606).
Pure.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from apps.bidder.screening import BANNER, MICROS, NATIVE, VIDEO, slot_code
from apps.bidder.store import CONTEXTUAL

SEGMENTS = 200
MOST_SEGMENTS = 8
EVERYWHERE = "tafe-everywhere"
_EVERYWHERE_MICROS = 50 * MICROS  # dearer than any other, so it also comes first in the database's order

# Sizes by how often they are sold; the first is half of all display advertising.
_BANNERS = ((300, 250), (320, 50), (728, 90), (300, 600), (160, 600), (320, 100), (970, 250), (320, 480), (468, 60))
_FILMS = ((300, 250, 6), (320, 480, 15), (640, 360, 15), (640, 480, 30), (1280, 720, 30))
_COUNTRIES = ("", "", "", "USA", "FRA", "DEU", "GBR", "MEX", "ITA")
_CATS = ("IAB1", "IAB2-1", "IAB3", "IAB17", "IAB18-3", "IAB19", "IAB20", "IAB22-1", "IAB22-4")
_CONTEXTS = ("", "IAB1", "IAB2", "IAB3-1", "IAB9", "IAB12", "IAB22-1")

Row = tuple[Any, ...]


def user_segments(count: int, seed: int) -> Iterator[tuple[int, list[int]]]:
    """Users 1 to `count`, each with its segments in order."""
    draw = random.Random(f"users {seed}").random
    for user_id in range(1, count + 1):
        wanted = int(draw() * (MOST_SEGMENTS + 1))
        yield user_id, sorted({int(draw() ** 2 * SEGMENTS) + 1 for _ in range(wanted)})


def campaigns(count: int, seed: int) -> list[Row]:
    """Rows of `campaigns`, in the order of the table's columns."""
    rng = random.Random(f"campaigns {seed}")
    return [_campaign(number, rng) for number in range(1, count + 1)]


def _campaign(number: int, rng: random.Random) -> Row:
    domain = f"shop{number}.example"
    if number == 1:
        budget = 1_000_000 * MICROS
        return (number, CONTEXTUAL, 1, "", _EVERYWHERE_MICROS, budget, 1_000_000, "IAB22", domain, EVERYWHERE, "")
    contextual = number % 20 == 0
    cents = rng.randint(5, 90) if contextual else rng.randint(50, 600)
    return (
        number,
        CONTEXTUAL if contextual else rng.randint(1, SEGMENTS),
        int(rng.random() < 0.95),
        rng.choice(_COUNTRIES),
        cents * MICROS // 100,
        rng.randint(20, 500) * MICROS,
        rng.randint(3, 10),
        rng.choice(_CATS),
        domain,
        f"deal-{number}" if rng.random() < 0.02 else "",
        rng.choice(_CONTEXTS) if contextual else "",
    )


def creatives(campaign_rows: list[Row], seed: int) -> list[Row]:
    """Rows of `creatives`: two to five banners a campaign, and for some a film and a native advertisement."""
    rng = random.Random(f"creatives {seed}")
    rows: list[Row] = []
    for number, segment, *_ in campaign_rows:
        for w, h, duration_s, mtype in _formats(rng, everything=number == 1):
            sized = mtype == BANNER
            slot = slot_code(mtype, w, h) if sized else slot_code(mtype)
            rows.append((len(rows) + 1, number, segment, slot, w, h, duration_s))
    return rows


def _formats(rng: random.Random, *, everything: bool) -> list[tuple[int, int, int, int]]:
    banners, films = list(_BANNERS), list(_FILMS)
    native = everything or rng.random() < 0.4
    if not everything:
        weights = [2.0**-place for place in range(len(banners))]
        banners = sorted(set(rng.choices(banners, weights, k=rng.randint(2, 5))))
        films = rng.sample(films, k=rng.choice((0, 0, 1, 2)))
    formats = [(w, h, 0, BANNER) for w, h in banners]
    formats += [(w, h, duration_s, VIDEO) for w, h, duration_s in films]
    return formats + ([(0, 0, 0, NATIVE)] if native else [])

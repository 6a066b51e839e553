"""The bidder's statements, the same on SQLite and on a real MariaDB."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from apps.bidder import openrtb, schema
from apps.bidder.auction import Delivered, Offer
from apps.bidder.fill import fill
from apps.bidder.notice import Notice
from apps.bidder.screening import Plan, screen
from apps.bidder.store import _OFFERS, DAY_S, MOST_OFFERS, Store
from tafe import Database
from tests.bidder.generator import deal, imp, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
DAY = 20_000
NOW_S = DAY * DAY_S + 5
_bid_ids = (f"{number:032x}" for number in itertools.count())


@pytest.fixture(scope="module", params=["sqlite", pytest.param("mariadb", marks=pytest.mark.real)])
def make_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """A function that makes an empty database of a name, of each kind, and returns its URL."""
    if request.param == "mariadb":
        make: Callable[[str], str] = request.getfixturevalue("mariadb").create_database
        return make
    folder = tmp_path_factory.mktemp("store")
    return lambda name: f"sqlite:///{folder / name}.db"


@pytest.fixture(scope="module")
def url(make_database: Callable[[str], str]) -> str:
    return make_database("bidder_store")


@pytest.fixture(scope="module")
def db(url: str) -> Iterator[Database]:
    opened = Database.from_url(url, min_size=1, max_size=8)
    fill(opened, schema.dialect(url), 200, 1000, seed=1)
    yield opened
    opened.close()


@pytest.fixture
def store(db: Database, url: str) -> Store:
    return Store(db, schema.dialect(url))


def plan_of(*imps: Any, **more: Any) -> Plan:
    plan = screen(openrtb.parse(request(*imps, **more)))
    assert isinstance(plan, Plan)
    return plan


def notice(user_id: int = 7, campaign_id: int = 3) -> Notice:
    return Notice(next(_bid_ids), campaign_id, user_id, 2_000_000, NOW_S)


def offer(campaign_id: int) -> Offer:
    return Offer(campaign_id, 1, 0, 0, 0, 0, 1, 1, 1, "", "", "", "")


def test_an_unknown_user_differs_from_one_without_segments(store: Store) -> None:
    assert store.segments(201) is None
    assert store.replace_segments(8, [])
    assert store.segments(8) == []
    assert not store.replace_segments(201, [1])


def test_segments_come_back_in_order(store: Store) -> None:
    assert store.replace_segments(9, [5, 2**31 - 1, 1])
    assert store.segments(9) == [1, 5, 2**31 - 1]


def test_offers_fit_the_slots_the_country_and_the_segments_dearest_first(store: Store, db: Database) -> None:
    plan = plan_of(imp("banner"), imp("video", 2), device={"geo": {"country": "FRA"}})
    offers = store.offers(plan, [1, 30])
    assert 10 < len(offers) < MOST_OFFERS
    assert {one.slot for one in offers} <= plan.slots
    assert [one.price_micros for one in offers] == sorted((one.price_micros for one in offers), reverse=True)
    rows = {row["id"]: row for row in db.fetch_all("SELECT * FROM campaigns")}
    found = [rows[one.campaign_id] for one in offers]
    assert {row["country"] for row in found} == {"", "FRA"}
    assert {row["segment_id"] for row in found} == {0, 1, 30}
    assert {row["active"] for row in found} == {1}
    assert {row["deal_id"] for row in found} == {""}


def test_without_segments_only_contextual_campaigns_offer(store: Store, db: Database) -> None:
    offers = store.offers(plan_of(imp("banner")), [])
    contextual = {row["id"] for row in db.fetch_all("SELECT id FROM campaigns WHERE segment_id = 0")}
    assert {one.campaign_id for one in offers} <= contextual
    assert offers


def test_a_private_deal_is_offered_by_its_campaign_alone(store: Store) -> None:
    assert {one.campaign_id for one in store.offers(plan_of(imp("banner", pmp=deal())), [1, 2, 3])} == {1}


def test_the_number_of_offers_is_bounded(store: Store) -> None:
    sizes = [{"w": w, "h": h} for w, h in ((300, 250), (320, 50), (728, 90), (300, 600))]
    plan = plan_of({"id": "1", "banner": {"format": sizes}})
    assert len(store.offers(plan, list(range(1, 150)))) == MOST_OFFERS


def test_offers_are_found_through_the_index(db: Database, url: str) -> None:
    plan = plan_of(imp("banner"))
    rows = db.fetch_all(
        ("EXPLAIN QUERY PLAN " if url.startswith("sqlite") else "EXPLAIN ") + _OFFERS,
        ((0, 1, 2), plan.slots, plan.country, plan.deals),
    )
    text = str(rows)
    assert "creatives_by_segment" in text
    assert "SCAN" not in text
    assert "'type': 'ALL'" not in text


def test_a_win_counts_for_the_user_the_campaign_and_the_day(store: Store) -> None:
    offers = [offer(3), offer(4)]
    assert store.delivered(7, DAY, offers) == {}
    assert store.record_win(notice(), 1_500_000, NOW_S)
    assert store.record_win(notice(), 500_000, NOW_S)
    assert store.record_win(notice(user_id=6), 1_000_000, NOW_S)
    assert store.delivered(7, DAY, offers) == {3: Delivered(user_wins=2, spent_nanos=3_000_000)}
    assert store.delivered(5, DAY, offers) == {3: Delivered(user_wins=0, spent_nanos=3_000_000)}
    assert store.delivered(7, DAY + 1, offers) == {}


def test_a_win_for_nobody_counts_money_only(store: Store) -> None:
    assert store.record_win(notice(user_id=0, campaign_id=50), 900, NOW_S)
    assert store.delivered(0, DAY, [offer(50)]) == {50: Delivered(user_wins=0, spent_nanos=900)}


def test_the_same_win_a_second_time_changes_nothing(store: Store) -> None:
    win = notice(campaign_id=60)
    assert [store.record_win(win, 100, NOW_S), store.record_win(win, 200, NOW_S)] == [True, False]
    assert store.delivered(7, DAY, [offer(60)]) == {60: Delivered(user_wins=1, spent_nanos=100)}


def test_writers_that_meet_never_fail_and_a_win_reported_twice_at_once_counts_once(
    make_database: Callable[[str], str],
) -> None:
    command = [sys.executable, "-m", "tests.bidder.crowd", make_database("bidder_crowd")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    ended = json.loads(done.stdout.splitlines()[-1])
    wins = ended["asked"]["wins"]
    assert ended["wins"] == {"True": wins, "False": wins}
    assert ended["writes"] == {"True": ended["asked"]["writes"]}
    assert ended["counted"] == {"wins": wins, "nanos": wins * ended["asked"]["price_micros"]}

"""A bidder over a small filled SQLite database, in the process of the tests, and the corpus of real requests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tafe.app.testing import TestClient, TestResponse
from tests.bidder.generator import USERS

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "openrtb" / "requests.jsonl"

Ask = Callable[[Any], TestResponse]


@pytest.fixture(scope="session")
def bidder_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a database with `USERS` users and 1,000 campaigns; tests may add wins and change segments."""
    from apps.bidder.fill import fill
    from tafe import Database

    url = f"sqlite:///{tmp_path_factory.mktemp('bidder') / 'bidder.db'}"
    db = Database.from_url(url, min_size=1, max_size=1)
    fill(db, "sqlite", USERS, 1000, seed=1)
    db.close()
    return url


@pytest.fixture(scope="session")
def bidder(bidder_url: str) -> Iterator[TestClient]:
    """A client of the bidder. The application reads its settings when it is imported, so that happens here, once."""
    before = os.environ.get("BIDDER_DATABASE_URL")
    os.environ["BIDDER_DATABASE_URL"] = bidder_url
    try:
        from apps.bidder import web
    finally:
        os.environ.pop("BIDDER_DATABASE_URL")
        if before is not None:
            os.environ["BIDDER_DATABASE_URL"] = before
    web.db.open()  # as a worker does
    yield web.app.test_client()
    web.db.close()


@pytest.fixture
def ask(bidder: TestClient) -> Ask:
    """Sends a bid request, a JSON value or bytes."""

    def send(request: Any) -> TestResponse:
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        return bidder.post("/openrtb2/auction", body=body, headers={"Content-Type": "application/json"})

    return send


@pytest.fixture(scope="session")
def corpus() -> list[Any]:
    """The real requests, which are not part of this repository."""
    if not CORPUS.exists():
        pytest.skip(f"{CORPUS} is not there: the real bid requests lie beside the repository, not in it")
    with CORPUS.open() as lines:
        return [json.loads(line)["request"] for line in lines]

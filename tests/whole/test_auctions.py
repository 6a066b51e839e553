"""The whole way: bid requests through nginx (conf/nginx.conf) to two workers that answer from MariaDB.

The corpus of real bid requests lies beside the checkout, not in it; where it is absent that one test is skipped, the
only test that may be skipped in CI. The generated requests are always sent.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.bidder import generator
from tests.whole.client import Answer, Request, ask_all, summary
from tests.whole.report import report_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.services.mariadb import MariaDB
    from tests.services.proxies import Proxy
    from tests.services.tafe_server import Running

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT.parent / "shared" / "openrtb" / "requests.jsonl"
CONNECTIONS = 32
USERS = 100_000
GENERATED = 300
AUCTION = "POST /openrtb2/auction"
# An answer that takes this long is a hang; the requests' own tmax is far less.
HANG_S = 10.0


@dataclass(frozen=True)
class Run:
    """Requests sent, their answers, what the server logged and what the profiler reports."""

    requests: list[Request]
    answers: list[Answer]
    log: str
    report: dict[str, Any]


@pytest.fixture(scope="module")
def bidder_url(mariadb: MariaDB) -> str:
    """A filled database, as scripts/fill makes it."""
    url = mariadb.create_database("bidder")
    fill = [sys.executable, "-m", "apps.bidder.fill", url, "--users", str(USERS)]
    subprocess.run(fill, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return url


@pytest.fixture
def send(
    bidder_url: str, tafe_serve: Callable[..., Running], nginx: Callable[..., Proxy]
) -> Callable[[list[bytes]], Run]:
    """Send bodies as auctions, all the way; stop the server and read the profiler's report."""

    def run(bodies: list[bytes]) -> Run:
        server = tafe_serve("apps.bidder:app", "--workers", "2", env={"BIDDER_DATABASE_URL": bidder_url})
        server.wait_all_ready()
        balancer = nginx(server.port)
        requests = [auction(number, body) for number, body in enumerate(bodies)]
        answers = ask_all(balancer.port, requests, CONNECTIONS, HANG_S)
        assert server.stop() == 0
        return Run(requests, answers, server.log() + balancer.log(), report_of(server.profile_dir))

    return run


def auction(number: int, body: bytes) -> Request:
    """An auction whose request id tells which one it was."""
    headers = {"Content-Type": "application/json", "X-Request-Id": f"auction-{number}"}
    return Request("POST", "/openrtb2/auction", body, headers)


def number_of(answer: Answer) -> int:
    return int(answer.request.headers["X-Request-Id"].removeprefix("auction-"))


def check_answer(answer: Answer) -> None:
    """200 with bids for this request, 204 with the reason, or 400 that names the field."""
    if answer.status == 200:
        sent, response = json.loads(answer.request.body), answer.json()
        assert response["id"] == sent["id"]
        imps = {imp["id"] for imp in sent["imp"]}
        bids = [bid for seat in response["seatbid"] for bid in seat["bid"]]
        assert bids
        assert all(bid["impid"] in imps and bid["price"] > 0 for bid in bids)
    elif answer.status == 204:
        assert answer.body == b""
        assert answer.headers["x-no-bid"]
    else:
        assert answer.status == 400
        error = answer.json()["error"]
        assert error["status"] == 400
        assert error["field"], error
        assert error["request_id"] == answer.request.headers["X-Request-Id"]


def check_run(run: Run) -> None:
    """What holds for every run, whatever was sent."""
    assert len(run.answers) == len(run.requests)
    assert set(summary(run.answers)) <= {"200", "204", "400"}, summary(run.answers)
    for answer in run.answers:
        check_answer(answer)
    assert max(answer.took_s for answer in run.answers) < HANG_S
    assert "Traceback" not in run.log
    assert " [error] " not in run.log, "nginx had something to say"

    route = next(route for route in run.report["routes"] if route["route"] == AUCTION)
    assert route["requests"] == len(run.requests), "each request is in the report, once"
    assert route["errors"] == 0
    for times in ("total_ms", "running_ms", "waiting_ms", "queued_ms", "longest_slice_ms"):
        assert 0 <= route[times]["p50"] <= route[times]["p99"] <= route[times]["max"] < HANG_S * 1000
    assert route["running_ms"]["p50"] > 0
    assert route["waiting_ms"]["p99"] > 0, "the database was asked"
    assert route["running_ms"]["p50"] < route["total_ms"]["p99"]
    assert len(run.report["workers"]) == 2
    assert all(worker["requests"] > 0 for worker in run.report["workers"]), "both workers took part"
    assert sum(worker["requests"] for worker in run.report["workers"]) >= len(run.requests)


def test_every_request_of_the_corpus_gets_an_answer_of_the_protocol(send: Callable[[list[bytes]], Run]) -> None:
    if not CORPUS.exists():
        pytest.skip(f"the corpus of real bid requests is not at {CORPUS}")
    bodies = [json.dumps(json.loads(line)["request"]).encode() for line in CORPUS.read_text().splitlines()]
    assert len(bodies) == 1705
    run = send(bodies)
    check_run(run)
    assert {"200", "204"} <= set(summary(run.answers)), "a bidder that never bids would pass everything else"


def test_generated_requests_of_every_shape_get_the_answer_that_they_must(send: Callable[[list[bytes]], Run]) -> None:
    cases = generator.cases()
    assert len(cases) >= GENERATED
    run = send([case.body for case in cases])
    check_run(run)
    for answer in run.answers:
        case = cases[number_of(answer)]
        assert answer.status in case.statuses, case
        if answer.status == 400:
            assert answer.json()["error"]["field"] == case.field, case
    assert set(summary(run.answers)) == {"200", "204", "400"}

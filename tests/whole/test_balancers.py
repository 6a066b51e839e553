"""A machine that is stopped and started again behind conf/haproxy.cfg or conf/nginx.conf costs no request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.whole.client import Load, Request, summary

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.services.proxies import Proxy
    from tests.services.tafe_server import Running

pytestmark = [pytest.mark.real, pytest.mark.slow]

CONNECTIONS = 8
# A POST, which no balancer repeats once it was sent.
BID = Request("POST", "/echo", b"x" * 100)
# haproxy.cfg: at most a second until the first failed check, 250 ms until the second; three times that is the advice.
DRAIN_DELAY_S = 3


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
def test_stopping_one_of_two_machines_loses_no_request(
    kind: str, request: pytest.FixtureRequest, tafe_serve: Callable[..., Running]
) -> None:
    delay = ("--drain-delay", f"{DRAIN_DELAY_S}s")
    machines = [tafe_serve("tests.whole.frameworks.flask_app:app", "--workers", "1", *delay) for _ in range(2)]
    balancer: Proxy = request.getfixturevalue(kind)(*(machine.port for machine in machines))
    load = Load(balancer.port, lambda _: BID, CONNECTIONS)
    load.wait_for(lambda answers: len(answers) >= 200, 10.0)

    assert machines[0].stop() == 0
    stopped = time.monotonic()
    load.wait_for(lambda answers: sum(answer.began_s > stopped for answer in answers) >= 200, 10.0)
    answers = load.stop()
    assert set(summary(answers)) == {"200"}, summary(answers)
    assert len({answer.body for answer in answers}) == 1

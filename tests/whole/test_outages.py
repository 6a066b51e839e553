"""What clients see while the database, a worker or the whole server goes away and comes back."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.whole.client import Answer, Client, Load, Request, ask_all, summary

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.services.mariadb import MariaDB
    from tests.services.tafe_server import Running

pytestmark = pytest.mark.slow

APPLICATION = "tests.whole.users_app:app"
OUTAGE_CODES = {"database_unavailable", "database_busy", "database_timeout"}
USERS = 100
CONNECTIONS = 16
# The promise for an answer while the database is down; a request that meets it says so at once or not much
# later.
DOWN_ANSWER_S = 2.0


def fill(server: MariaDB) -> dict[str, str]:
    """Make the users' table; return the environment for the application."""
    url = server.create_database("users")
    server.query("CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(40))", database="users")
    rows = ", ".join(f"({number}, 'user {number}')" for number in range(USERS))
    server.query(f"INSERT INTO users VALUES {rows}", database="users")
    return {"USERS_URL": url}


def user_requests(number: int) -> Request:
    """For connection `number`: always the same user, so that an answer for another would show."""
    return Request("GET", f"/users/{number}")


def is_right_user(answer: Answer) -> bool:
    number = int(answer.request.path.rpartition("/")[2])
    return answer.status == 200 and answer.json() == {"id": number, "name": f"user {number}"}


def who_answers(port: int) -> int:
    """The worker that takes a new connection."""
    with Client(port) as client:
        return int(client.get("/pid").json()["pid"])


def succeeds_again(since: float) -> Callable[[list[Answer]], bool]:
    """True once 200 requests in a row that began after `since` were answered rightly."""

    def check(answers: list[Answer]) -> bool:
        recent = answers[-200:]
        return len(recent) == 200 and all(a.began_s > since and is_right_user(a) for a in recent)

    return check


@pytest.mark.parametrize("outage", ["killed", "frozen"])
def test_a_database_outage_gives_503_at_once_and_service_returns_with_it(
    outage: str, mariadb_private: MariaDB, tafe_serve: Callable[..., Running]
) -> None:
    end, begin_again = {
        "killed": (mariadb_private.kill, mariadb_private.start),
        "frozen": (mariadb_private.freeze, mariadb_private.thaw),
    }[outage]
    server = tafe_serve(APPLICATION, "--workers", "2", env=fill(mariadb_private))
    server.wait_all_ready()
    workers = server.worker_pids()
    load = Load(server.port, user_requests, CONNECTIONS, timeout_s=8.0)
    load.wait_for(lambda answers: len(answers) >= 500, 20.0)

    ending = time.monotonic()
    end()
    ended = time.monotonic()
    time.sleep(3.0)  # long enough for a hang of two seconds to show
    assert not server.is_ready(), "a balancer must learn of it"
    restarting = time.monotonic()
    begin_again()
    load.wait_for(succeeds_again(time.monotonic()), 15.0)
    answers = load.stop()

    before = [a for a in answers if a.began_s + a.took_s < ending]
    assert all(is_right_user(a) for a in before), summary(before)
    down = [a for a in answers if ended <= a.began_s and a.began_s + a.took_s < restarting]
    assert len(down) >= CONNECTIONS, "requests were answered while it was down"
    assert {a.status for a in down} == {503}, summary(down)
    assert all(a.took_s < DOWN_ANSWER_S for a in answers), max(a.took_s for a in answers)
    for answer in down:
        error = answer.json()["error"]
        assert error["status"] == 503
        # Behind a server that hangs, requests also wait in vain for a connection or for an answer.
        assert error["code"] in ({"database_unavailable"} if outage == "killed" else OUTAGE_CODES)
        assert error["request_id"]
        assert "retry-after" in answer.headers
        assert mariadb_private.password.encode() not in answer.body
    others = summary(a for a in answers if not is_right_user(a) and a.status != 503)
    assert others == {}, "nothing but right answers and 503, at any time"
    assert server.worker_pids() == workers, "no worker was restarted"
    assert server.is_ready()


def test_a_server_started_while_the_database_is_down_comes_up_with_it(
    mariadb_private: MariaDB, tafe_serve: Callable[..., Running]
) -> None:
    environment = fill(mariadb_private)
    mariadb_private.stop()
    server = tafe_serve(APPLICATION, "--workers", "2", env=environment, wait_ready=False)
    server.wait_until(lambda: server.log().count("is not ready") == 2, "waiting for the database")
    workers = server.worker_pids()
    assert len(workers) == 2
    assert not server.is_ready()
    time.sleep(2.0)  # several attempts; a worker that dies of one would be another by then
    assert server.worker_pids() == workers, "the workers live on"

    mariadb_private.start()
    server.wait_all_ready()
    assert server.worker_pids() == workers
    answers = ask_all(server.port, [user_requests(number) for number in range(USERS)], 4)
    assert all(is_right_user(a) for a in answers), summary(answers)


def test_a_worker_replaced_while_the_database_is_down_comes_up_with_it(
    mariadb_private: MariaDB, tafe_serve: Callable[..., Running]
) -> None:
    server = tafe_serve(APPLICATION, "--workers", "2", env=fill(mariadb_private))
    server.wait_all_ready()
    first, second = server.worker_pids()
    mariadb_private.kill()
    os.kill(first, signal.SIGKILL)
    server.wait_until(lambda: first not in server.worker_pids() and len(server.worker_pids()) == 2, "a new worker")
    replacement = next(pid for pid in server.worker_pids() if pid != second)

    server.wait_for_log(f"worker {replacement} is not ready")

    mariadb_private.start()
    server.wait_for_log(f"worker {replacement} is ready")
    assert server.worker_pids() == sorted([second, replacement])
    answers = ask_all(server.port, [user_requests(number) for number in range(USERS)] * 4, CONNECTIONS)
    assert all(is_right_user(a) for a in answers), summary(answers)


def test_a_stopping_server_finishes_the_requests_in_flight(
    mariadb: MariaDB, tafe_serve: Callable[..., Running]
) -> None:
    server = tafe_serve(APPLICATION, "--workers", "1", env=fill(mariadb))
    answers: list[Answer] = []

    def ask(path: str) -> None:
        with Client(server.port) as client:
            answers.append(client.get(path))

    whole = {
        "/slow?seconds=2": b'{"slept":2.0}',
        "/slow-stream?seconds=2": b"piece 0\npiece 1\npiece 2\npiece 3\n",
    }
    threads = [threading.Thread(target=ask, args=(path,)) for path in whole for _ in range(2)]
    for thread in threads:
        thread.start()
    with Client(server.port) as client:
        server.wait_until(lambda: client.get("/running").json() == {"running": 4}, "4 requests in flight")
        server.signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
    assert server.wait() == 0
    assert len(answers) == 4
    assert [(a.status, a.body) for a in answers] == [(200, whole[a.request.path]) for a in answers]
    with Client(server.port) as client:
        assert client.get("/pid").status == 0, "nobody listens any more"


def test_a_killed_worker_is_replaced_while_the_others_serve(
    mariadb: MariaDB, tafe_serve: Callable[..., Running]
) -> None:
    server = tafe_serve(APPLICATION, "--workers", "3", env=fill(mariadb))
    server.wait_all_ready()
    workers = server.worker_pids()
    load = Load(server.port, lambda _: Request("GET", "/pid"), CONNECTIONS)
    load.wait_for(lambda answers: len(answers) >= 300, 10.0)

    victim = load.answers[-1].json()["pid"]
    assert victim in workers
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    server.wait_until(lambda: len(set(server.worker_pids()) - set(workers)) == 1, "a replacement")
    (replacement,) = set(server.worker_pids()) - set(workers)
    server.wait_until(lambda: who_answers(server.port) == replacement, "the replacement answering")
    replaced = time.monotonic()
    load.wait_for(lambda answers: sum(a.began_s > replaced for a in answers) >= 300, 10.0)
    answers = load.stop()

    lost = [a for a in answers if a.status == 0]
    assert len(lost) <= CONNECTIONS, f"only what the victim was serving: {summary(lost)}"
    assert all(a.began_s < killed + 0.5 for a in lost)
    assert {a.status for a in answers} <= {0, 200}, summary(answers)
    during = {a.json()["pid"] for a in answers if a.status == 200 and killed + 0.1 < a.began_s < replaced}
    assert during, "requests were served in between"
    assert victim not in during
    assert set(workers) - {victim} <= set(server.worker_pids()), "the others were left alone"
    assert all(a.took_s < 2.0 for a in answers), max(a.took_s for a in answers)

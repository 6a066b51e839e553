"""The fast connection waiting for a real MariaDB: answers cut anywhere, lost connections, deadlines, kills."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import gevent
import pytest
from gevent.exceptions import InvalidThreadUseError
from pymysql import cursors, err
from pymysql.constants import CLIENT

from tafe.db import fast
from tests.db.splitting import SplittingProxy
from tests.db.test_fast_connection import CURSORS, all_of, same

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.services.mariadb import MariaDB


def test_bytes_cut_anywhere_by_the_network_make_the_same_answers(
    both: Callable[..., list[Any]], mariadb: MariaDB
) -> None:
    for seed in range(3):
        proxy = SplittingProxy(mariadb.port, seed, longest_piece=random.Random(seed).choice((7, 300, 3000)))
        try:
            stock = both(client_flag=CLIENT.MULTI_STATEMENTS)[0]
            cut = both(client_flag=CLIENT.MULTI_STATEMENTS, port=proxy.port)[1]
            proxy.splits = True
            for cursor_class in CURSORS:
                assert repr(all_of(cut, cursor_class)) == repr(all_of(stock, cursor_class))
            cut.close()
        finally:
            proxy.close()


def test_a_connection_that_ends_anywhere_gives_no_row_and_one_error(login: dict[str, Any], mariadb: MariaDB) -> None:
    draw = random.Random(7)
    proxy = SplittingProxy(mariadb.port, 7)
    proxy.splits = True

    def ask_until_it_ends(connection: fast.Connection) -> None:
        while True:
            connection.query("SELECT seq, MD5(seq) FROM seq_1_to_20")
            assert len(connection._result.rows) == 20

    try:
        for _ in range(60):
            connection = fast.Connection(**{**login, "port": proxy.port})
            proxy.hangs_up_after = draw.randrange(0, 5000)
            with pytest.raises(err.OperationalError, match="Lost connection"):
                ask_until_it_ends(connection)
            assert not connection.open
            assert connection._result is None
            proxy.hangs_up_after = None
    finally:
        proxy.close()


@pytest.mark.parametrize("channel", [True, False])
def test_a_server_that_is_silent_for_too_long_ends_the_connection(
    ours: Callable[..., Any], channel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not channel:
        monkeypatch.setattr(fast, "can_carry", lambda sock: False)
    connection = ours(read_timeout=0.2)
    assert (connection._channel is not None) is channel
    for _ in range(3):
        connection.query("SELECT SLEEP(0.1)")  # the timer of the first one is running still
    started_s = time.monotonic()
    with pytest.raises(err.OperationalError, match="timed out") as caught:
        connection.query("SELECT SLEEP(5)")
    assert isinstance(caught.value.__context__, TimeoutError)
    assert 0.19 < time.monotonic() - started_s < 1
    assert not connection.open


def test_a_timeout_made_shorter_counts_at_once_and_one_made_longer_too(ours: Callable[..., Any]) -> None:
    connection = ours(read_timeout=0.2)
    connection.query("SELECT 1")
    connection._read_timeout = 5
    connection.query("SELECT SLEEP(0.4)")
    connection._read_timeout = None
    connection.query("SELECT SLEEP(0.4)")
    connection._read_timeout = 0.1
    started_s = time.monotonic()
    with pytest.raises(err.OperationalError, match="timed out"):
        connection.query("SELECT SLEEP(5)")
    assert time.monotonic() - started_s < 1


def test_an_answer_that_came_while_the_hub_was_busy_is_not_too_late(ours: Callable[..., Any]) -> None:
    connection = ours(read_timeout=0.2)
    connection.query("SELECT 1")
    asking = gevent.spawn(connection.query, "SELECT 'there'")
    gevent.sleep(0)  # it has asked
    time.sleep(0.5)  # blocks the hub past the deadline
    asking.get(timeout=5)
    assert connection._result.rows == (("there",),)


@pytest.mark.parametrize("how", ["kill", "timeout"])
def test_a_greenlet_that_is_stopped_while_it_waits_closes_the_connection(ours: Callable[..., Any], how: str) -> None:
    connection = ours()

    def ask() -> None:
        with gevent.Timeout(0.05 if how == "timeout" else None, False):
            connection.query("SELECT SLEEP(5)")

    asking = gevent.spawn(ask)
    gevent.sleep(0.02)
    assert connection._channel._waiting is asking
    if how == "kill":
        asking.kill()
    asking.join(timeout=5)
    assert asking.dead
    assert not connection.open
    with pytest.raises(err.InterfaceError):
        connection.query("SELECT 1")


def test_a_connection_closed_by_another_greenlet_wakes_the_one_that_waits(ours: Callable[..., Any]) -> None:
    connection = ours()
    asking = gevent.spawn(connection.query, "SELECT SLEEP(5)")
    gevent.sleep(0.02)
    connection._force_close()
    with pytest.raises(err.OperationalError, match="closed by another greenlet"):
        asking.get(timeout=1)


def test_two_greenlets_that_ask_at_once_get_an_error_and_no_rows(ours: Callable[..., Any]) -> None:
    connection = ours()
    first = gevent.spawn(connection.query, "SELECT SLEEP(1)")
    gevent.sleep(0.02)
    with pytest.raises(AssertionError, match="two greenlets"):
        connection.query("SELECT 1")
    with pytest.raises(err.OperationalError):
        first.get(timeout=5)
    assert not connection.open


def turns(seconds: float) -> int:
    """How often the loop turns while nothing is to be done."""
    count = 0

    def turn() -> None:
        nonlocal count
        count += 1

    check = gevent.get_hub().loop.check()
    check.start(turn)
    gevent.sleep(seconds)
    check.stop()
    check.close()
    return count


def test_an_idle_connection_that_ends_is_noticed_and_does_not_spin_the_loop(
    ours: Callable[..., Any], mariadb: MariaDB
) -> None:
    connection = ours()
    connection.query("SELECT 1")
    mariadb.query(f"KILL {connection.thread_id()}")
    assert turns(0.1) < 20
    with pytest.raises(err.OperationalError):
        connection.query("SELECT 1")


def test_rows_that_nobody_wants_yet_do_not_spin_the_loop(ours: Callable[..., Any]) -> None:
    connection = ours()
    cursor = connection.cursor(cursors.SSCursor)
    cursor.execute("SELECT seq FROM seq_1_to_100000")
    cursor.fetchone()
    assert turns(0.1) < 20
    assert len(cursor.fetchall()) == 99_999


def test_a_connection_that_is_dropped_without_being_closed_is_closed(login: dict[str, Any]) -> None:
    connection = fast.Connection(**login)
    connection.query("SELECT 1")
    descriptor = connection._sock.fileno()
    channel = connection._channel
    assert channel is not None
    assert channel._active
    del connection
    gc.collect()
    assert channel._watcher is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_an_idle_connection_does_not_keep_the_loop_alive(ours: Callable[..., Any]) -> None:
    connection = ours(read_timeout=60)
    connection.query("SELECT 1")
    started_s = time.monotonic()
    gevent.wait(timeout=5)  # returns once nothing is left to wait for
    assert time.monotonic() - started_s < 1


def test_a_statement_larger_than_the_socket_s_buffer_is_sent_whole(
    large_packets: None, both: Callable[..., list[Any]]
) -> None:
    told = same(both(), "SELECT LENGTH(%s)", args=("x" * 12_000_000,))
    assert told[2] == ((12_000_000,),)


def test_a_connection_used_by_another_thread_is_refused_and_closed(
    ours: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    connection = ours()
    raised = []

    def ask() -> None:
        try:
            connection.query("SELECT 1")
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while thread.is_alive():
        gevent.sleep(0.001)
    assert [type(error) for error in raised] == [InvalidThreadUseError]
    gevent.sleep(0.01)
    assert not connection.open
    assert capfd.readouterr().err == ""

"""Requests that yield, in the ways that services do: none of their lines may ever be accused."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
from gevent.event import Event

PIECE_S = 0.0003  # of CPU time: what a request to a database takes of the hub, three times over


def piece() -> None:
    until_s = time.thread_time() + PIECE_S
    while time.thread_time() < until_s:
        pass


def answers_at_once() -> None:
    piece()


def waits_for_a_timer() -> None:
    piece()
    gevent.sleep(0.003)
    piece()


def waits_for_a_socket() -> None:
    ours, theirs = gevent.socket.socketpair()
    with ours, theirs:
        gevent.spawn_later(0.002, theirs.sendall, b"x")
        ours.recv(1)
        piece()


def waits_for_an_event() -> None:
    happened = Event()
    gevent.spawn(happened.set)
    happened.wait()
    piece()


def yields_often() -> None:
    for _ in range(5):
        piece()
        gevent.sleep(0.0001)


COOPERATIVE: list[Callable[[], None]] = [
    answers_at_once,
    waits_for_a_timer,
    waits_for_a_socket,
    waits_for_an_event,
    yields_often,
]

"""Sockets that the profiler looks at belong to others: errors, options and messages are theirs as without it."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import gevent.socket
import pytest

import profiler
from profiler.arrivals import stamp_s
from tests.profiler.test_arrivals import hold, kept_waiting

TIMESTAMP, TIMESTAMPNS, TIMESTAMPING, PEEK_OFF = 29, 35, 37, 42  # asm-generic/socket.h
PKTINFO = 8  # linux/in.h
ULP = 31  # linux/tcp.h
WHEN_RECEIVED = 0x8 | 0x10  # linux/net_tstamp.h: stamp what comes, and tell
A_PKTINFO, A_TIME = 12, 16  # their sizes

Connection = tuple[gevent.socket.socket, socket.socket]


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def stalled(session: profiler.Session, wait: Callable[[], object], act: Callable[[], object]) -> object:
    """What a request waited for, or was told instead, while another greenlet did this and then kept the hub."""
    told: list[object] = []

    def ask() -> None:
        try:
            told.append(wait())
        except OSError as error:
            told.append(type(error))

    def stall() -> None:
        act()
        hold()

    kept_waiting(session, ask, stall)
    return told[0]


def test_a_look_leaves_a_reset_to_who_reads(connection: Connection) -> None:
    ours, theirs = connection
    reset(theirs)
    assert stamp_s(ours._sock) == 0.0
    with pytest.raises(ConnectionResetError):
        ours.recv(16)


def test_a_look_at_what_came_before_a_reset_leaves_both(connection: Connection) -> None:
    ours, theirs = connection
    theirs.send(b"some")
    reset(theirs)
    assert stamp_s(ours._sock) > 0.0
    assert ours.recv(16) == b"some"
    assert stamp_s(ours._sock) == 0.0
    with pytest.raises(ConnectionResetError):
        ours.recv(16)


def test_a_reset_during_a_stall_is_no_clean_end(session: profiler.Session, connection: Connection) -> None:
    ours, theirs = connection
    theirs.send(b"half of")
    assert ours.recv(16) == b"half of"
    assert stalled(session, lambda: ours.recv(16), lambda: reset(theirs)) is ConnectionResetError


def test_a_datagram_that_nobody_takes_is_refused_after_a_stall(session: profiler.Session) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = nobody.getsockname()
    with gevent.socket.socket(type=socket.SOCK_DGRAM) as ours:
        ours.connect(address)
        ours.settimeout(5)
        assert stalled(session, lambda: ours.recv(16), lambda: ours._sock.send(b"some")) is ConnectionRefusedError


@pytest.mark.parametrize(
    ("level", "option", "size"),
    [(socket.IPPROTO_IP, PKTINFO, A_PKTINFO), (socket.SOL_SOCKET, TIMESTAMP, A_TIME)],
    ids=["IP_PKTINFO", "SO_TIMESTAMP"],
)
def test_a_datagram_after_a_stall_has_with_it_what_was_asked_for(
    level: int, option: int, size: int, session: profiler.Session
) -> None:
    with gevent.socket.socket(type=socket.SOCK_DGRAM) as ours, socket.socket(type=socket.SOCK_DGRAM) as theirs:
        ours.bind(("127.0.0.1", 0))
        ours.setsockopt(level, option, 1)
        for _ in range(2):
            told = stalled(
                session,
                lambda: ours.recvmsg(16, socket.CMSG_SPACE(size))[:3],
                lambda: theirs.sendto(b"some", ours.getsockname()),
            )
            assert isinstance(told, tuple)
            data, ancillary, flags = told
            assert (data, flags) == (b"some", 0)
            assert [(of, kind, len(value)) for of, kind, value in ancillary] == [(level, option, size)]


def test_a_look_leaves_no_option_behind(connection: Connection) -> None:
    ours, theirs = connection
    theirs.send(b"some")
    before_s = time.perf_counter() - 1.0
    assert stamp_s(ours._sock) > before_s
    assert ours.getsockopt(socket.SOL_SOCKET, TIMESTAMPNS) == 0
    assert ours.recvmsg(16, 256)[:2] == (b"some", [])


@pytest.mark.parametrize(
    ("option", "value"), [(TIMESTAMP, 1), (TIMESTAMPNS, 1), (TIMESTAMPING, WHEN_RECEIVED)], ids=["us", "ns", "ing"]
)
def test_stamps_that_somebody_asked_for_stay_as_they_are(option: int, value: int, connection: Connection) -> None:
    ours, theirs = connection
    ours.setsockopt(socket.SOL_SOCKET, option, value)
    theirs.send(b"some")
    assert stamp_s(ours._sock) > 0.0, "known by TCP_INFO"
    assert ours.getsockopt(socket.SOL_SOCKET, option) == value
    data, ancillary, _, _ = ours.recvmsg(16, 256)
    assert data == b"some"
    assert [kind for _, kind, _ in ancillary] == [option]


def test_who_has_looked_at_the_first_bytes_looks_at_the_next(connection: Connection) -> None:
    ours, theirs = connection
    try:
        ours.setsockopt(socket.SOL_SOCKET, PEEK_OFF, 0)
    except OSError:
        pytest.skip("SO_PEEK_OFF is for TCP since Linux 6.9")
    theirs.send(b"some")
    assert ours._sock.recv(2, socket.MSG_PEEK) == b"so"
    assert stamp_s(ours._sock) > 0.0, "known by TCP_INFO"
    assert ours._sock.recv(2, socket.MSG_PEEK) == b"me"


class KernelTLS(socket.socket):
    """It says that it is in kernel TLS, of which few machines have the module, and lets nobody look at its bytes."""

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        if (level, option) == (socket.IPPROTO_TCP, ULP):
            return b"tls\0"
        return super().getsockopt(level, option, size) if size else super().getsockopt(level, option)

    def recvmsg_into(self, *_args: Any) -> Any:
        raise AssertionError("it was looked at")


def test_a_record_that_the_kernel_has_yet_to_decipher_is_not_looked_at(connection: Connection) -> None:
    ours, theirs = connection
    theirs.send(b"some")
    with KernelTLS(fileno=os.dup(ours.fileno())) as tls:
        assert stamp_s(tls) > 0.0, "known by TCP_INFO"
        assert tls.getsockopt(socket.SOL_SOCKET, TIMESTAMPNS) == 0
    assert ours.recv(16) == b"some"


def test_a_listener_is_not_looked_at() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert stamp_s(listener) == 0.0
        assert listener.getsockopt(socket.SOL_SOCKET, TIMESTAMPNS) == 0

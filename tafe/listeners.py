"""Listening sockets: bound before any process is forked, shared by all workers, never with SO_REUSEPORT.

With SO_REUSEPORT the kernel splits connections badly between few workers, and closing one listener resets the
connections that wait in its own queue; one shared queue has neither fault.
A busy or impossible address is a `UsageError` at once: no retrying, since the user has to act.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterable

from tafe.errors import UsageError
from tafe.values import Address, parse_address

_SYSTEMD_FIRST_FD = 3  # sd_listen_fds(3)
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; Python has no name for it
# Classic BPF (linux/filter.h): opcode, jump if true, jump if false, constant. The packet starts at the TCP header.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # A = the byte with the flags
    (0x45, 0, 1, 0x02),  # if A & SYN
    (0x06, 0, 0, 0),  # drop it,
    (0x06, 0, 0, 0xFFFFFFFF),  # else take it whole
)


def listen(text: str, backlog: int, set_by: str, flag: str = "--bind") -> socket.socket:
    """A listening socket, non-blocking; `UsageError` if the address, given with `flag`, cannot be had."""
    address = parse_address(text)
    try:
        if address.fd >= 0:
            return _inherited(address.fd)
        if address.path:
            return _unix(address.path, backlog)
        return _tcp(address, backlog)
    except OSError as error:
        raise _refusal(address, error, set_by, flag) from None


def from_systemd() -> list[socket.socket]:
    """The sockets that systemd opened for this very process (sd_listen_fds(3)); none if it did not start us.

    `UsageError` if the number of sockets is none, or if one of them does not listen.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    del os.environ["LISTEN_PID"]  # not meant for our children
    text = os.environ.pop("LISTEN_FDS", "0")
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(
            f"LISTEN_FDS: {text!r} is not a number of sockets", set_by="the environment", allowed="0 or more"
        )
    found = []
    for fd in range(_SYSTEMD_FIRST_FD, _SYSTEMD_FIRST_FD + int(text)):
        try:
            found.append(_inherited(fd))
        except OSError as error:
            reason = error.strerror or str(error)
            raise UsageError(f"LISTEN_FDS: cannot listen on descriptor {fd}: {reason}", set_by="systemd") from None
    return found


def unlink(addresses: Iterable[str]) -> None:
    """Remove the paths of those addresses that are unix sockets of ours."""
    for text in addresses:
        path = parse_address(text).path
        if path and os.path.exists(path):
            os.unlink(path)


def refuse_newcomers(listener: socket.socket) -> None:
    """Let no further TCP connection begin, so that the queue can be emptied and the listener closed without a loss.

    A packet filter drops each SYN: handshakes under way end well, and a newcomer asks again a second later and is then
    refused. Without it, whoever connects between the last accept and the close is reset. It holds for every process
    that shares the socket and is never taken back, so it is only for a socket that nobody will accept from again.
    Does nothing for a unix socket, where the gap is some microseconds, or where filters are not allowed.
    """
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in _DROP_SYN))
    program = struct.pack("@HP", len(_DROP_SYN), ctypes.addressof(code))  # struct sock_fprog
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError:
        return


def name(listener: socket.socket) -> str:
    """As a client would address it."""
    bound = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return str(Address(path=os.fsdecode(bound)))
    return str(Address(host=bound[0], port=bound[1]))


def _inherited(fd: int) -> socket.socket:
    listener = socket.socket(fileno=fd)
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.detach()
        raise OSError(errno.EINVAL, "it does not listen")
    listener.setblocking(False)
    listener.set_inheritable(False)
    return listener


def _tcp(address: Address, backlog: int) -> socket.socket:
    family, kind, protocol, _, resolved = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        # A server that was just stopped leaves connections in TIME_WAIT, which must not keep the next one out.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it: no system call for each connection.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(resolved)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _unix(path: str, backlog: int) -> socket.socket:
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        # Like a loopback port, open to every user of the machine; the directory's permissions narrow it.
        os.chmod(path, 0o666)  # noqa: S103
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    """Take away the socket of a server that is gone; leave alone what is in use or no socket."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "a file that is no socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(path) != errno.ECONNREFUSED:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    os.unlink(path)


def _refusal(address: Address, error: OSError, set_by: str, flag: str) -> UsageError:
    shown = str(address).removeprefix("http://")
    reason = error.strerror or str(error)
    allowed = try_ = ""
    if error.errno == errno.EADDRINUSE:
        reason = "another program listens there"
        try_ = f"stop it, or {flag} {_elsewhere(address)}"
    elif error.errno == errno.EACCES:
        allowed = "a port from 1024, or a directory that you may write to"
        try_ = f"{flag} {_elsewhere(address)}"
    return UsageError(f"{flag}: cannot listen on {shown}: {reason}", set_by=set_by, allowed=allowed, try_=try_)


def _elsewhere(address: Address) -> str:
    if address.path:
        return f"unix:{address.path}.2"
    port = address.port + 1 if 1024 <= address.port < 65535 else 8000
    return str(Address(host=address.host, port=port)).removeprefix("http://")

"""Free loopback ports below the range that outgoing connections take theirs from.

Asking the kernel for port 0 and closing it again races with every client connection that is opened before
the server binds; a port under `ip_local_port_range` (32768 by Linux's default) can be taken only by another
server.
"""

from __future__ import annotations

import os
import socket

_FIRST, _LAST = 20_000, 32_000
# Two test runs at once start at different places; each goes on from there and does not hand out a port twice.
_next = _FIRST + (os.getpid() * 97) % (_LAST - _FIRST)


def free_port() -> int:
    """A port on 127.0.0.1 that nothing listens on now and that this process has not handed out before."""
    global _next
    for _ in range(_LAST - _FIRST):
        port = _next
        _next = _FIRST + (_next + 1 - _FIRST) % (_LAST - _FIRST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port between {_FIRST} and {_LAST}")

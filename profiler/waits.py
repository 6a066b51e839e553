"""What was a greenlet waiting for that goes on now, and since when was that there?

Asked in the turn after a stall alone, in the greenlet itself, right after it was switched to. The function it stands in
tells, where that is one of the table; its arguments are looked at, nobody else's code is.

| stands in | waits for |
| --- | --- |
| `gevent.sleep` | its timer: an expired one holds how late it is |
| a method of gevent's sockets, TLS included | the socket, to read or to write |
| a function named in its module's `__waits_on__` | the gevent socket that is the attribute of `self` named there, \
to read; "": its caller tells |
| anywhere, thrown into by a `gevent.Timeout` | that: the hub stands in its callback |
| anywhere else | unknown: ready from when the loop noticed |

`__waits_on__` is for code that waits for a socket with a watcher of its own: `__waits_on__ = {"_receive": "_sock"}`.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

import gevent
import gevent.socket

from profiler.arrivals import READ, WRITE, stamp_s

if TYPE_CHECKING:
    from types import FrameType

    from profiler.arrivals import Sightings

_OWN: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
_GEVENT: Final = os.path.dirname(gevent.__file__)
_SOCKET_FILES: Final = frozenset(os.path.join(_GEVENT, name) for name in ("_socketcommon.py", "_socket3.py", "ssl.py"))
_WRITERS: Final = frozenset({"send", "sendto", "sendmsg", "connect", "connect_ex", "_internal_connect"})
_SLEEP: Final = gevent.sleep.__code__
_EXPIRE: Final = gevent.Timeout._on_expiration.__code__  # noqa: SLF001 - its frame tells who throws


def ready_s(hub: Any, sightings: Sightings, since_s: float, polled_s: float) -> float:
    """By when was there what the current greenlet has waited for since then? If unknown, when the loop had it."""
    timer: Any = None
    sock: Any = None
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - as everywhere in the profiler
    while frame is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    thrower = hub.gr_frame
    if thrower is not None and thrower.f_code is _EXPIRE:
        timer = thrower.f_locals["self"].timer
    elif frame is None:
        return polled_s
    elif frame.f_code is _SLEEP:
        timer = frame.f_locals.get("t")
    else:
        sock = _socket_of(frame)
    came_s = 0.0
    if timer is not None:
        late_s = -timer.at  # libev leaves in an expired timer what was left of its time
        came_s = polled_s - late_s if late_s > 0.0 else 0.0
    elif sock is not None:
        kind = WRITE if frame is not None and frame.f_code.co_name in _WRITERS else READ
        came_s = (stamp_s(sock, 1) if kind == READ else 0.0) or sightings.sighted_s(sock.fileno(), kind, since_s)
    return min(came_s, polled_s) if came_s else polled_s


def _socket_of(frame: FrameType) -> Any:
    name = _name_in(frame)
    if name == "" and frame.f_back is not None:
        frame = frame.f_back
        name = _name_in(frame)
    if frame.f_code.co_filename in _SOCKET_FILES:
        waiting = frame.f_locals.get("self")
    else:
        waiting = getattr(frame.f_locals.get("self"), name, None) if name else None
    return waiting._sock if isinstance(waiting, gevent.socket.socket) else None  # noqa: SLF001 - the native one


def _name_in(frame: FrameType) -> str | None:
    names: dict[str, str] = frame.f_globals.get("__waits_on__", {})
    return names.get(frame.f_code.co_name)

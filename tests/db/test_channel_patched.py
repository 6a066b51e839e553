"""A channel where the standard library is patched, as in a worker. In a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CLOSED_BY_ANOTHER_GREENLET = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent, socket
from tafe.db.channel import Channel

errors = []
gevent.get_hub().handle_error = lambda *what: errors.append(what)
pairs = [socket.socketpair() for _ in range(3)]
first, middle, last = (Channel(near) for near, _ in pairs)
pairs[1][1].send(b"x")
assert middle.receive(10, 5) == b"x"


def read_and_close(channel):
    channel.receive(10, 5)
    middle.close()


readers = [gevent.spawn(read_and_close, channel) for channel in (first, last)]
gevent.sleep(0)
for _, far in pairs:  # all announced in one turn: whatever the order, one reader comes before the middle one's end
    far.send(b"y")
gevent.joinall(readers, 1)
gevent.sleep(0.01)
assert errors == [], errors
"""


def test_whichever_greenlet_closes_it_nothing_is_announced_any_more() -> None:
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", CLOSED_BY_ANOTHER_GREENLET],
        cwd=root, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr

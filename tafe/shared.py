"""What the connections of one worker share, as far as every request passes it.

`WSGIServer` is one of these: the fields are its own. They are a class by themselves so that compiled code reads them
from a C structure (`shared.pxd`) where interpreted code reads attributes.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tafe.connection import Connection
    from tafe.deadlines import Deadlines
    from tafe.greenlets import GreenletPool
    from tafe.http1.head import HeadParser
    from tafe.limits import Limits
    from tafe.outcomes import AnswerLog
    from tafe.wsgi import Application


class Shared:
    """Set by `WSGIServer.__init__`; who changes what afterwards is said beside it."""

    limits: Limits
    idle_timeout_s: float  # NEVER: none
    request_timeout_s: float  # 0: none
    max_in_flight: int  # the limit, and one more for each request that waits for its client
    receive_bytes: int  # at most this much is taken from a socket at once
    hub: Any
    loop: Any
    deadlines: Deadlines
    greenlets: GreenletPool
    head_parser: HeadParser
    make_environ: type[dict[str, Any]] | None  # pywsgi's `environ_class`; None: a dict
    current_application: Application  # changed by the worker when the application has started
    tell_begin: Callable[[str, str, int], Any] | None  # the observer's; None from when it failed
    tell_end: Callable[..., None] | None  # the same
    answer_log: AnswerLog | None  # the same
    id_prefix: str  # of the ids of requests that come without one
    own_lines: bytes  # renewed every second
    draining: bool  # every answer from now on closes its connection
    closes_idle: bool  # ... and so does whoever has none to wait for
    request_number: int
    waiting: collections.deque[Connection]  # complete requests, in order of arrival
    take_readable: Callable[[Connection], None]  # what a connection's watcher calls, with it
    in_flight: int  # requests that have a greenlet, or a place for one
    overdue: int  # requests that go on although their deadline has passed and their client was answered
    gathered_bytes: int  # promised by bodies being gathered
    refused: int  # requests answered without asking the application

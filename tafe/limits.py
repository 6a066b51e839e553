"""How much one client, and all of them together, may ask of a worker.

Plain numbers, checked where they are set; the code that enforces one reads it from here. Every limit is per worker:
workers share no budget. Zero means "no limit" only where the comment says so.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

KIB = 1024
MIB = 1024 * KIB
UNDERSCORES = ("drop", "refuse", "keep")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds and deadlines of one worker. Raises ValueError for a value that cannot be, naming the field."""

    # -- size of a request
    request_line_bytes: int = 8 * KIB  # RFC 9112, 3 asks for at least 8,000
    header_field_bytes: int = 8 * KIB  # one header line; gunicorn's and nginx's default (nginx: 4 x 8 KiB)
    header_count: int = 100  # gunicorn's default; browsers behind two proxies send about 30
    head_bytes: int = 32 * KIB  # request line and all fields; four full fields, nginx's total
    body_bytes: int = 1024 * MIB  # 0: unlimited. Larger uploads belong on object storage
    gathered_body_bytes: int = 64 * KIB  # a declared body up to this is complete before a greenlet is spent on it
    gathered_total_bytes: int = 64 * MIB  # all bodies being gathered: a thousand of the largest
    chunk_extension_bytes: int = 16 * KIB  # of one body: they are pure overhead to us
    trailer_bytes: int = 8 * KIB  # after a chunked body, which are dropped; as much as one header field
    pipelined_bytes: int = 64 * KIB  # read ahead of the running request; then the socket is left unread

    # -- header names with an underscore: "drop" the field, as nginx does, "refuse" the request, or "keep" it
    underscores: str = "drop"

    # -- how many at once
    connections: int = 16384  # open connections; about 1 KiB each when idle
    # Running requests, a greenlet each; further ones wait their turn in order. One that waits for its client, to take
    # its answer or to send its body, does not count: slow clients are bounded by `connections`.
    in_flight: int = 1024

    # -- deadlines in seconds; 0: none
    head_timeout_s: float = 10.0  # from the first byte of a request to the end of its head
    body_timeout_s: float = 30.0  # without a further byte of a body; a load balancer gives up after 60 s
    idle_timeout_s: float = 75.0  # between requests; longer than nginx's and AWS's 60 s, so that they close first
    write_timeout_s: float = 30.0  # without the client taking a further byte
    request_timeout_s: float = 0.0  # a whole request; off, for long polls and event streams are legitimate

    def __post_init__(self) -> None:
        if self.underscores not in UNDERSCORES:
            raise ValueError(f"underscores: {self.underscores!r} is none of {', '.join(UNDERSCORES)}")
        for field in fields(self):
            if field.name != "underscores" and getattr(self, field.name) < 0:
                raise ValueError(f"{field.name}: {getattr(self, field.name)} is negative")

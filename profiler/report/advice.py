"""What to do about a site, in a sentence: the first row of the table that fits.

Rows are (cause, words in the source line or the stack, advice); more special rows stand above more general
ones. To extend: add a row.
"""

from __future__ import annotations

from collections.abc import Sequence

_ANY: tuple[str, ...] = ()
_OFFLOAD = "in a native thread: gevent.get_hub().threadpool.apply(...), or tafe.offload(...)"
_SOCKETS = ("socket", "ssl", "http", "urllib", "requests", "recv(", "send(", "connect(")
_FILES = ("sqlite", "open(", ".read(", ".write(", "fsync", "flock")

_TABLE: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "blocking",
        ("sleep(",),
        "this sleep is not gevent's: use gevent.sleep, or patch (gevent.monkey.patch_all()) before it is imported",
    ),
    (
        "blocking",
        ("subprocess", "popen", "system("),
        "it waits for a process: use gevent.subprocess, or patch before subprocess is imported",
    ),
    (
        "blocking",
        _SOCKETS,
        f"this socket is not gevent's: patch before its module is imported; if C code makes it, run it {_OFFLOAD}",
    ),
    ("blocking", _FILES, f"a file does not yield: run this call {_OFFLOAD}"),
    ("blocking", _ANY, f"this call waits in the system without yielding: use gevent's own, or run it {_OFFLOAD}"),
    (
        "python",
        _ANY,
        f"this is Python at work: do less, yield every few hundred rounds with gevent.sleep(0), or run it {_OFFLOAD}",
    ),
    ("native", _ANY, f"this is C code at work: give it less at a time, or, if it releases the GIL, run it {_OFFLOAD}"),
    ("gc", _ANY, "the collector ran: gc.freeze() after loading, a higher gc.set_threshold(), fewer objects in cycles"),
    ("starved", _ANY, "the code is innocent, it had no CPU: run fewer workers, or give the machine more"),
    ("unknown", _ANY, "the cause is not known: look at the stack"),
)

# When no line of the application was running: there is no call of theirs to move elsewhere.
_LIBRARY = {
    "blocking": "the server or a library waited without yielding: what for is at the end of the stack (--format json)",
    "python": "the server or a library was at work for these routes: give it less (shorter answers, smaller chunks of "
    "a stream, fewer exceptions and log lines)",
    "native": "C code was at work for the server or a library: give it less for these routes (shorter answers, smaller "
    "chunks of a stream)",
}


def advise(cause: str, source: str, stack: Sequence[str], *, library: bool = False) -> str:
    """What to do; "" for a cause without a row. `library`: no line of the application was running."""
    if library and cause in _LIBRARY:
        return _LIBRARY[cause]
    # The line itself first, then the callees, which are the innermost end of the stack.
    for text in (source, "\n".join(stack[-3:])):
        lowered = text.lower()
        for row_cause, words, advice in _TABLE:
            if cause == row_cause and any(word in lowered for word in words):
                return advice
    return next((advice for row_cause, words, advice in _TABLE if cause == row_cause and not words), "")

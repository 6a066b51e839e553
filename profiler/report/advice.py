"""What to do about a site, in a sentence: the first row of the table that fits.

Rows are (cause, words in the source line or the stack, advice); more special rows stand above more general
ones. To extend: add a row.
"""

from __future__ import annotations

from collections.abc import Sequence

_ANY: tuple[str, ...] = ()
_OFFLOAD = "in a native thread: gevent.get_hub().threadpool.apply(...), or tafe.offload(...)"
_ELSEWHERE = "it keeps the GIL, so a thread would not help: another process, or less of it at a time"

_TABLE: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "blocking",
        ("usleep(", "nanosleep("),
        f"C code sleeps here: if it releases the GIL (ctypes.CDLL does, PyDLL does not), run it {_OFFLOAD}",
    ),
    (
        "blocking",
        ("sleep(",),
        "this sleep is not gevent's: use gevent.sleep, or patch (gevent.monkey.patch_all()) before it is imported",
    ),
    (
        "blocking",
        ("select(", ".poll("),
        "it waits for sockets in select or poll unpatched: patch before it is imported",
    ),
    (
        "blocking",
        ("subprocess", "popen", "system(", "waitpid", ".wait("),
        "it waits for a process: use gevent.subprocess, or patch before subprocess is imported",
    ),
    (
        "blocking",
        ("getaddrinfo", "gethostby", "getnameinfo"),
        "it looks a name up without gevent's resolver: patch before socket is imported, or keep the address",
    ),
    (
        "blocking",
        ("sqlite", "begin immediate", "executemany", ".commit("),
        f"it waits for a lock of the database: use tafe.Database, keep transactions short, or run it {_OFFLOAD}",
    ),
    (
        "blocking",
        ("flock", "lockf"),
        f"it waits for a lock on a file: take it with LOCK_NB and gevent.sleep between tries, or run it {_OFFLOAD}",
    ),
    (
        "blocking",
        (".acquire(", "lock("),
        "this lock is not gevent's: patch before it is made, or use gevent.lock",
    ),
    (
        "blocking",
        ("socket", "ssl", "http", "urllib", "requests", "recv(", "send(", "connect("),
        f"this socket is not gevent's: patch before its module is imported; if C code makes it, run it {_OFFLOAD}",
    ),
    ("blocking", ("fsync", "fdatasync"), f"the disk is waited for: sync less often, for many writes, and {_OFFLOAD}"),
    (
        "blocking",
        ("os.read(", "os.write("),
        f"a pipe or file does not yield: gevent.os.tp_read and tp_write do, or run it {_OFFLOAD}",
    ),
    ("blocking", ("open(", ".read(", ".write("), f"a file does not yield: run this call {_OFFLOAD}"),
    ("blocking", _ANY, f"this call waits in the system without yielding: use gevent's own, or run it {_OFFLOAD}"),
    (
        "python",
        ("deepcopy",),
        "copy.deepcopy walks every object in Python: copy only what is changed, or share what nobody changes",
    ),
    (
        "python",
        ("indent=",),
        "json with indent= encodes in Python: leave indent out (people read it with a tool), or use ujson or orjson",
    ),
    (
        "python",
        (" for ", "while "),
        f"a loop in Python: do less, yield every few hundred rounds with gevent.sleep(0), or run it {_OFFLOAD}",
    ),
    (
        "python",
        _ANY,
        f"this is Python at work: do less, yield every few hundred rounds with gevent.sleep(0), or run it {_OFFLOAD}",
    ),
    (
        "native",
        ("re.match", "re.search", "re.find", "re.full", "re.sub", "re.split", "fullmatch(", ".findall(", ".finditer("),
        "a regular expression tries too many ways: no nested repeats like (a+)+, and a bound on the text's length",
    ),
    ("native", ("zlib", "gzip", "bz2", "lzma", "zstd"), f"compression releases the GIL: run it {_OFFLOAD}"),
    (
        "native",
        ("pbkdf2", "scrypt", "bcrypt", "argon2", "hashlib", "sha256("),
        f"hashing is slow on purpose and releases the GIL: run it {_OFFLOAD}",
    ),
    (
        "native",
        ("getaddrinfo", "gethostby"),
        "it looks names up without gevent's resolver: patch before socket is imported, or keep the address",
    ),
    (
        "native",
        ("pickle", "marshal", "json.", "loads(", "dumps("),
        f"a large object is encoded or decoded in one piece: do it by parts ({_ELSEWHERE})",
    ),
    (
        "native",
        ("sorted(", ".sort("),
        "a long list is sorted in one piece: let the database sort, or merge sorted parts",
    ),
    ("native", (" in ",), "`in` looks through a whole list: use a set or a dictionary, which look in one place"),
    ("native", ("**", "pow("), f"arithmetic with numbers of that many digits: {_ELSEWHERE}"),
    (
        "native",
        _ANY,
        f"this is C code at work: give it less at a time, or, if it releases the GIL, run it {_OFFLOAD}",
    ),
    (
        "gc",
        ("gc.collect(",),
        "the collector is called by hand: leave that out, or do it while the worker has no requests",
    ),
    ("gc", _ANY, "the collector ran: gc.freeze() after loading, a higher gc.set_threshold(), fewer objects in cycles"),
    (
        "convoy",
        ("sleep(0)",),
        "gevent.sleep(0) lets up to fifty others run before sockets and timers get a turn: sleep for 0.0001 s instead",
    ),
    (
        "convoy",
        _ANY,
        "many short pieces of work run in one turn of the loop: start fewer at a time (gevent.pool.Pool)",
    ),
    (
        "gil",
        _ANY,
        "the hub waited for the GIL, which another thread kept: give that thread less at a time, or use a process",
    ),
    ("starved", _ANY, "the code is innocent, it had no CPU: run fewer workers, or give the machine more"),
    ("unknown", _ANY, "the cause is not known: look at the stack"),
)

# By what called the line, however far up the stack: (cause, part of a frame, advice).
_WITHIN: tuple[tuple[str, str, str], ...] = (
    (
        "blocking",
        "logging/__init__.py",
        "a log handler waits for its pipe, file or socket: log through a QueueHandler and a native thread",
    ),
    (
        "python",
        "importlib._bootstrap",
        "a module is loaded during a request: import it at the top, so that the worker loads it before it serves",
    ),
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
    for row_cause, part, advice in _WITHIN:
        if cause == row_cause and any(part in frame for frame in stack):
            return advice
    # The line itself first, then the callees, which are the innermost end of the stack.
    for text in (source, "\n".join(stack[-3:])):
        lowered = text.lower()
        for row_cause, words, advice in _TABLE:
            if cause == row_cause and any(word in lowered for word in words):
                return advice
    return next((advice for row_cause, words, advice in _TABLE if cause == row_cause and not words), "")

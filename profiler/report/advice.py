"""What to do about a site, in a sentence that says what to type: the first row of the tables that fits.

Rows are (cause, words in the source line or the stack, advice); more special rows stand above more general ones. To
extend: add a row. In an advice stand for

    {thread}   the call of that line, made in a native thread; how, the worker's file says ("remedies")
    {args}     the call's arguments                    {name}    its name
    {patch}    how it comes to be monkey-patched       {within}  what `in` looks through
    {stem}     the name of the module                  {sqlite}  how SQLite does not hold up the hub

A line of a report holds an advice of `LONGEST` columns: where the call of the source is too long for that, its
arguments are left out, and then its name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from profiler.report.calls import SOME_CALL, Call, call_in, searched_in, without_ours

LONGEST = 94  # a report's line of 100 columns, less what stands before it

LONGEST_NAME = 30  # what is longer is left to the line of source above

_ANY: tuple[str, ...] = ()
_SEARCH = (" in ",)
_HANDS_ON = ("emit",)  # where a log handler waits: its own call; else the line is one that logs
# How things are done where the worker did not say: with gevent alone.
_REMEDIES = {
    "thread": "gevent.get_hub().threadpool.spawn({}).get()",
    "sqlite": "check_same_thread=False, {thread}",
}
# Of gevent.sleep(0) the loop runs up to fifty before it looks at sockets and timers again.
_YIELD = "gevent.sleep(0.0001) every few hundred rounds (sleep(0) seldom polls)"
_PROCESS = "in a process (gevent.subprocess)"

_TABLE: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("blocking", ("usleep(", "nanosleep("), "C code sleeps (use CDLL, not PyDLL): {thread}"),
    ("blocking", ("sleep(",), "unpatched: gevent.sleep({args}), or {patch}"),
    ("blocking", ("select(", ".poll("), "it waits in the system's select or poll: {patch}"),
    ("blocking", ("os.system(",), "os.system never yields: gevent.subprocess.call({args}, shell=True)"),
    (
        "blocking",
        ("subprocess", "popen", "waitpid", ".communicate("),
        "a process is waited for: gevent.subprocess, or {patch}",
    ),
    (
        "blocking",
        ("getaddrinfo", "gethostby", "getnameinfo"),
        "an unpatched look-up: keep the address, or {patch}",
    ),
    ("blocking", ("sqlite", "begin immediate"), "SQLite's lock: {sqlite}"),
    (
        "blocking",
        (".execute(", "executemany(", ".commit(", ".fetchone(", ".fetchall("),
        "a driver in C: PyMySQL is in Python; or {thread}",
    ),
    (
        "blocking",
        ("flock", "lockf"),
        "wait for the file's lock in a loop: LOCK_EX | LOCK_NB, and gevent.sleep(0.01) between tries",
    ),
    (
        "blocking",
        (".acquire(", "lock(", "lock:", "threading.py", "queue.py"),
        "not gevent's lock: gevent.lock.BoundedSemaphore(), or {patch}",
    ),
    (
        "blocking",
        ("socket", "ssl", "http", "urllib", "urlopen(", "requests", "recv(", "send(", "sendall(", "connect("),
        "not gevent's socket: {patch}; C code's goes into a thread",
    ),
    ("blocking", ("fsync", "fdatasync"), "the disk: sync once for many writes, {thread}"),
    ("blocking", ("os.read(",), "a pipe or file does not yield: gevent.os.tp_read({args})"),
    ("blocking", ("os.write(",), "a pipe or file does not yield: gevent.os.tp_write({args})"),
    ("blocking", ("open(", ".read(", ".write("), "files do not yield: {thread}"),
    ("blocking", _ANY, "it waits and does not yield: {thread}"),
    ("python", ("deepcopy",), "copy.deepcopy walks every object: copy what changes, share what does not"),
    (
        "python",
        ("indent=", "json.dump(", "json/encoder.py"),
        "json.dump and indent= encode in Python: json.dumps without indent=, or orjson.dumps",
    ),
    ("python", ("jinja2", "django/template"), "a template is rendered: fewer rows a page, or stream its parts"),
    ("python", ("re/_compiler.py", "re/_parser.py"), "a pattern is compiled: once, at import, with re.compile"),
    (
        "native",
        ("re.match", "re.search", "re.find", "re.full", "re.sub", "re.split", "fullmatch(", ".findall(", ".finditer("),
        "the pattern backtracks: no repeat in a repeat, as (a+)+; bound the text, len(text) < 1000",
    ),
    ("native", ("zlib", "gzip", "bz2", "lzma", "zstd"), "compression needs no GIL: {thread}"),
    (
        "native",
        ("pbkdf2", "scrypt", "bcrypt", "argon2", "hashlib", "sha256("),
        "hashing needs no GIL: {thread}",
    ),
    (
        "native",
        ("getaddrinfo", "gethostby"),
        "an unpatched look-up: keep the address, or {patch}",
    ),
    (
        "native",
        ("pickle", "marshal", "json.", "loads(", "dumps("),
        "one {name} for all of it keeps the GIL: by parts, gevent.sleep(0.0001) between them",
    ),
    (
        "native",
        ("sorted(", ".sort("),
        "a long list is sorted in one piece: ORDER BY in the database, heapq.nsmallest, or sorted parts",
    ),
    ("native", _SEARCH, "`in` looks through all of {within}: make that a set or a dict, once"),
    ("native", ("**", "pow("), f"so many digits keep the GIL: fewer digits, or {_PROCESS}"),
    ("native", _ANY, "C code: give it less, or (GIL released) {thread}"),
    (
        "gc",
        ("gc.collect(",),
        "leave gc.collect() out: after loading, gc.freeze() makes automatic collections short",
    ),
    ("gc", _ANY, "gc.freeze() once loaded, gc.set_threshold(50_000, 50), and keep fewer objects at a time"),
    (
        "convoy",
        _ANY,
        "many short slices in a turn: gevent.pool.Pool(4) starts fewer; gevent.sleep(0.0001), not (0)",
    ),
    ("gil", _ANY, f"this thread keeps the GIL from the hub: less at a time, or {_PROCESS}"),
    ("starved", _ANY, "the code is innocent, it had no CPU: fewer workers, or more CPUs"),
    ("unknown", _ANY, "the cause was not seen: look at what it calls, by the stack"),
)

# By what called the line, however far up the stack: (cause, part of a frame, advice).
_WITHIN: tuple[tuple[str, str, str], ...] = (
    (
        "blocking",
        "logging/__init__.py",
        "a log handler waits: in its emit {thread}",
    ),
    (
        "python",
        "importlib._bootstrap",
        "loaded while requests run: import {stem} at the top of the file that needs it",
    ),
)

# When no line of the application was running: there is no call of theirs to move elsewhere.
_LIBRARY = {
    "blocking": "none of your lines ran: a library waited; the end of the stack says for what",
    "python": "none of your lines ran: less for the library (shorter answers, fewer exceptions and log lines)",
    "native": "none of your lines ran: less for the library's C code (shorter answers, smaller chunks)",
}

# Python at work, by the shape of the line: what a sleep can be put into.
_LOOP = re.compile(r"(async )?(for|while) ")
_COMPREHENSION = re.compile(r" for .* in ")
_LOOP_ADVICE = f"a loop in Python: {_YIELD}"
_COMPREHENSION_ADVICE = "a comprehension cannot yield: make it a for loop with gevent.sleep(0.0001) in it"
_RECURSION_ADVICE = "it calls itself: keep results (functools.cache), or gevent.sleep(0.0001) at some depth"
_PYTHON_ADVICE = f"Python at work: {_YIELD}"
_SAME_FRAMES = 3  # one below the other: recursion

# Too short, too busy a machine, or a GIL that the watchdog did not get: which, nobody knows.
_UNSEEN_ADVICE = "not certain where: a smaller slow_slice_ms sees more, profiler.functions.record(5) functions"
_UNSURE_ADVICE = "on the CPU, in Python or C that it calls: less at a time, gevent.sleep(0.0001) between parts"
_UNSURE_LOOP_ADVICE = f"perhaps a loop: {_YIELD}"

# The hub cannot wait, and to it every gevent.sleep is an error.
_HUB = re.compile(r"gevent/hub\.py:\d+ run$")  # a frame of every stack there, and of no other greenlet's
_HUB_ADVICE = "the hub calls this itself: let that callback only start it, gevent.spawn({function}, ...)"

_PACKAGE = re.compile(r"(?:site|dist)-packages/(\w+)")
_STANDARD = re.compile(r"(?:^|/)lib/python3|^<frozen ")
_SLOT = re.compile(r"\{(\w*)\}")


class Case(NamedTuple):
    """A site, as far as advice on it depends on that."""

    cause: str
    source: str = ""
    stack: Sequence[str] = ()  # outermost first
    file: str = ""
    line: int = 0
    function: str = ""
    library: bool = False  # no line of the application was running
    on_cpu: bool = False  # for most of its time
    remedies: Mapping[str, str] = {}  # how a call is made in a native thread there, and so on, as its worker said


def advise(case: Case) -> str:
    """What to do; "" for a cause without a row."""
    text, words = _row(case)
    call = None if words is None else call_in(case.source, words)
    if call is None and words is not None and "{args}" not in text:  # which are those of a call that was looked for
        call = call_in(case.source, _ANY)
    call = call or SOME_CALL
    made = ""
    for shown in (call, call.without_arguments(), SOME_CALL):
        made = _filled(text, shown, case)
        if len(made) <= LONGEST:
            break
    return made


def _row(case: Case) -> tuple[str, tuple[str, ...] | None]:
    """The advice, and the words by which it was found; None: it is not about a call of the line."""
    cause, source, stack = case.cause, case.source, case.stack
    if case.library and cause in _LIBRARY:
        return _LIBRARY[cause], _ANY
    if not (case.file or source) and cause in ("python", "native", "blocking", "unknown"):
        return _UNSEEN_ADVICE, _ANY
    if case.function and any(map(_HUB.search, stack[:1])) and cause in ("python", "native", "blocking"):
        return _HUB_ADVICE, _ANY
    for row_cause, part, advice in _WITHIN:
        if cause == row_cause and any(part in frame for frame in stack):
            return advice, _ANY if case.function in _HANDS_ON else None
    # The line itself first, then the callees, which are the innermost end of the stack.
    source = without_ours(source)
    for text in (source, "\n".join(stack[-3:])):
        lowered = text.lower()
        for row_cause, words, advice in _TABLE:
            if cause == row_cause and _fits(words, lowered):
                return advice, words
    if cause == "python":
        return _python(source, stack), _ANY
    if cause == "unknown":  # what such a line does when it is slow, whyever it was this time
        for _, words, advice in _TABLE:
            if _fits(words, source.lower()):
                return f"perhaps: {advice}", words
        if _LOOP.match(source):
            return _UNSURE_LOOP_ADVICE, _ANY
        if _COMPREHENSION.search(source):
            return f"perhaps: {_COMPREHENSION_ADVICE}", _ANY
        if case.on_cpu:
            return _UNSURE_ADVICE, _ANY
    return next((advice for row_cause, words, advice in _TABLE if cause == row_cause and not words), ""), _ANY


def _fits(words: Sequence[str], text: str) -> bool:
    if words == _SEARCH:  # which is in loops and comprehensions too
        return searched_in(text) != ""
    return any(word in text for word in words)


def _python(source: str, stack: Sequence[str]) -> str:
    if _LOOP.match(source):
        return _LOOP_ADVICE
    if _COMPREHENSION.search(source):
        return _COMPREHENSION_ADVICE
    innermost = list(stack[-_SAME_FRAMES:])
    return _RECURSION_ADVICE if len(innermost) == _SAME_FRAMES and len(set(innermost)) == 1 else _PYTHON_ADVICE


def _filled(text: str, call: Call, case: Case) -> str:
    """The advice with this call in it."""
    values = {
        "args": call.arguments,
        "name": "call" if call is SOME_CALL else call.name,
        "patch": _patch(call, case),
        "within": _short(searched_in(case.source), "it"),
        "stem": _identifier(os.path.basename(case.file).partition(".")[0], "it"),
        "function": _identifier(case.function, "f"),
    }
    for name, with_gevent in _REMEDIES.items():  # {} in one is the call, {thread} in a later one is the first
        remedy = case.remedies.get(name, with_gevent)
        values[name] = _SLOT.sub(lambda slot: values.get(slot[1], call.handed_over()), remedy)
    return _SLOT.sub(lambda slot: values.get(slot[1], ""), text)


def _short(name: str, otherwise: str) -> str:
    return name if 0 < len(name) <= LONGEST_NAME else otherwise


def _identifier(name: str, otherwise: str) -> str:
    """One that can be typed: `<lambda>` and the name of many a script cannot."""
    return _short(name, otherwise) if name.isidentifier() else otherwise


def _patch(call: Call, case: Case) -> str:
    """How what the call leads to would have been patched."""
    late = _package(case)
    if not late and call.name.isidentifier() and call is not SOME_CALL:
        late = call.name
    late = _short(late, "")
    return f"import {late} after monkey.patch_all()" if late else "gevent.monkey.patch_all() first of all"


def _package(case: Case) -> str:
    """The outermost package that the line called into; "" if that was none, or the standard library alone."""
    found = ""
    for frame in reversed(case.stack):
        package = _PACKAGE.search(frame)
        if frame == f"{case.file}:{case.line} {case.function}" or not (package or _STANDARD.search(frame)):
            break
        found = package[1] if package and package[1] != "gevent" else found
    return found

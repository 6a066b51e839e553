"""Each kind of stall has advice that says what to type for this very case."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from apps.zoo import ZOO
from profiler.report import advice
from profiler.report.advice import LONGEST, Case, advise
from profiler.report.calls import SOME_CALL, Call, call_in, searched_in
from tafe.profiling import REMEDIES

LATE = "import {} after monkey.patch_all()"
LOOP = "gevent.sleep(0.0001) every few hundred rounds (sleep(0) seldom polls)"
CONVOY = "many short slices in a turn: gevent.pool.Pool(4) starts fewer; gevent.sleep(0.0001), not (0)"
COMPREHENSION = "a comprehension cannot yield: make it a for loop with gevent.sleep(0.0001) in it"
HASHING = "hashing needs no GIL: tafe.offload(hashlib.pbkdf2_hmac, ...)"

# Of each stall of the zoo: what is to be done about it in an application of this server.
ADVICE = {
    "sleep": f"unpatched: gevent.sleep(ms / 1000), or {LATE.format('native_sleep')}",
    "socket": "not gevent's socket: gevent.monkey.patch_all() first of all; C code's goes into a thread",
    "select": f"it waits in the system's select or poll: {LATE.format('_native_select')}",
    "lock": "not gevent's lock: gevent.lock.BoundedSemaphore(), or gevent.monkey.patch_all() first of all",
    "dns": f"an unpatched look-up: keep the address, or {LATE.format('_native_getaddrinfo')}",
    "usleep": "C code sleeps (use CDLL, not PyDLL): tafe.offload(_libc.usleep, ms * 1000)",
    "usleep_with_gil": "C code sleeps (use CDLL, not PyDLL): tafe.offload(_libc_with_gil.usleep, ms * 1000)",
    "system": "os.system never yields: gevent.subprocess.call(f'sleep {ms / 1000}', shell=True)",
    "subprocess": "a pipe or file does not yield: gevent.os.tp_read(reader, 1)",
    "pipe": "a pipe or file does not yield: gevent.os.tp_read(reader, 1)",
    "flock": "wait for the file's lock in a loop: LOCK_EX | LOCK_NB, and gevent.sleep(0.01) between tries",
    "sqlite": "SQLite's lock: tafe.Database, whose threads wait for you",
    "fsync": "the disk: sync once for many writes, tafe.offload(os.fsync, file.fileno())",
    "open": "files do not yield: tafe.offload(os.open, path, os.O_RDONLY)",
    "logging": "a log handler waits: in its emit tafe.offload(lambda: os.write(...))",
    "regex": "the pattern backtracks: no repeat in a repeat, as (a+)+; bound the text, len(text) < 1000",
    "in_list": "`in` looks through all of haystack: make that a set or a dict, once",
    "power": "so many digits keep the GIL: fewer digits, or in a process (gevent.subprocess)",
    "sort": "a long list is sorted in one piece: ORDER BY in the database, heapq.nsmallest, or sorted parts",
    "pickle": "one pickle.dumps for all of it keeps the GIL: by parts, gevent.sleep(0.0001) between them",
    "json_parse": "one json.loads for all of it keeps the GIL: by parts, gevent.sleep(0.0001) between them",
    "zlib": "compression needs no GIL: tafe.offload(zlib.compress, data)",
    "pbkdf2": HASHING,
    "cpu_loop": f"a loop in Python: {LOOP}",
    "comprehension": COMPREHENSION,
    "recursion": "it calls itself: keep results (functools.cache), or gevent.sleep(0.0001) at some depth",
    "deepcopy": "copy.deepcopy walks every object: copy what changes, share what does not",
    "json_indent": "json.dump and indent= encode in Python: json.dumps without indent=, or orjson.dumps",
    "callback": "C code: give it less, or (GIL released) tafe.offload(lambda: _libc.qsort(...))",
    "sort_key": COMPREHENSION,
    "import": "loaded while requests run: import slow_import at the top of the file that needs it",
    "gc_collect": "leave gc.collect() out: after loading, gc.freeze() makes automatic collections short",
    "gc_automatic": "gc.freeze() once loaded, gc.set_threshold(50_000, 50), and keep fewer objects at a time",
    "finalizer": f"unpatched: gevent.sleep(self._ms / 1000), or {LATE.format('native_sleep')}",
    "gil": "this thread keeps the GIL from the hub: less at a time, or in a process (gevent.subprocess)",
    "child": f"a loop in Python: {LOOP}",
    "hub_callback": "the hub calls this itself: let that callback only start it, gevent.spawn(_callback, ...)",
    "convoy": CONVOY,
    "sleep_zero": CONVOY,
    "stream": f"unpatched: gevent.sleep(ms / 1000), or {LATE.format('native_sleep')}",
    "before_hook": f"unpatched: gevent.sleep(_duration_s(request)), or {LATE.format('native_sleep')}",
    "after_hook": f"unpatched: gevent.sleep(_duration_s(request)), or {LATE.format('native_sleep')}",
    "deferred": f"unpatched: gevent.sleep(seconds), or {LATE.format('native_sleep')}",
}
# What is on its stack besides the line, before and after it.
CALLERS = {
    "hub_callback": "/venv/lib/python3.11/site-packages/gevent/hub.py:647 run",
    "logging": "/usr/lib/python3.11/logging/__init__.py:978 handle",
    "import": "<frozen importlib._bootstrap>:241 _call_with_frames_removed",
}
HUB = CALLERS["hub_callback"]
CALLEES = {"dns": "/usr/lib/python3.11/socket.py:962 getaddrinfo"}
RECURSIVE = ("recursion",)


def case_of(name: str) -> Case:
    """What a report knows of this stall."""
    exhibit = ZOO[name]
    source = Path(exhibit.file).read_text().splitlines()
    # A loop's samples fall on its body, as those of the two that make many calls do.
    line = exhibit.lines.stop - 1 if name in ("dns", "fsync") else exhibit.lines.start
    frame = f"{exhibit.file}:{line} {exhibit.function}"
    around = [CALLERS.get(name), *[frame] * (5 if name in RECURSIVE else 1), CALLEES.get(name)]
    return Case(
        exhibit.cause,
        source[line - 1].strip(),
        [one for one in around if one],
        exhibit.file,
        line,
        exhibit.function,
        remedies=REMEDIES,
    )


@pytest.mark.parametrize("name", ZOO)
def test_advice_says_what_to_type_for_each_stall_of_the_zoo(name: str) -> None:
    assert advise(case_of(name)) == ADVICE[name]


@pytest.mark.parametrize("name", ZOO)
def test_advice_fits_a_line_for_those_without_the_server_too_and_names_nothing_of_it(name: str) -> None:
    advised = advise(case_of(name)._replace(remedies={}))
    assert 0 < len(advised) <= LONGEST
    assert "tafe" not in advised
    assert ("tafe.offload" in ADVICE[name]) == ("gevent.get_hub().threadpool.spawn(" in advised) or name == "sqlite"


def test_every_row_fits_the_line_whatever_is_put_into_it() -> None:
    texts = [row[-1] for row in (*advice._TABLE, *advice._WITHIN)] + list(advice._LIBRARY.values())
    for text in texts:
        for remedies in (REMEDIES, {}):
            name = "n" * 99
            case = Case("", f"{name} in {name}", [f"/lib/site-packages/{name}/a.py:1 f"], f"/srv/{name}.py", 1, name)
            shortest = advice._filled(text, SOME_CALL, case._replace(remedies=remedies))
            assert len(shortest) <= LONGEST, shortest  # or wrapped with "perhaps: " before it
            assert "{" not in shortest


def test_without_a_certain_cause_the_shape_of_the_line_tells_what_may_help() -> None:
    loop, comprehension, other = "for row in rows:", "total = {row for row in rows}", "text = text + part"
    place: tuple[list[str], str, int, str] = ([], "/srv/a.py", 1, "f")
    assert advise(Case("unknown", loop, *place)).startswith("perhaps a loop: gevent.sleep(")
    assert advise(Case("unknown", comprehension, *place)).startswith("perhaps: a comprehension cannot yield")
    assert advise(Case("unknown", other, *place, on_cpu=True)).startswith("on the CPU, in Python or C that it calls: ")
    assert advise(Case("unknown", other, *place)).startswith("the cause was not seen")
    for source in (loop, comprehension, other):
        assert len(advise(Case("unknown", source, *place, on_cpu=True))) <= LONGEST


def test_without_a_line_advice_is_how_to_see_more_and_not_what_that_line_should_do() -> None:
    told = {advise(Case(cause)) for cause in ("python", "native", "blocking", "unknown")}
    assert len(told) == 1
    assert "slow_slice_ms" in (unseen := told.pop())
    assert len(unseen) <= LONGEST
    assert "Pool" in advise(Case("convoy"))


def test_every_cause_has_advice_with_and_without_a_line() -> None:
    for kind in ("python", "native", "blocking", "gc", "starved", "gil", "convoy", "unknown"):
        assert advise(Case(kind))
        assert advise(Case(kind, "work(x)", ["/srv/a.py:1 f"], "/srv/a.py", 1, "f"))


@pytest.mark.parametrize(
    ("source", "stack", "expected"),
    [
        ("time.sleep(1)", [], "unpatched: gevent.sleep(1), or gevent.monkey.patch_all() first of all"),
        ("sleep(delay_s)", [], "unpatched: gevent.sleep(delay_s), or import sleep after monkey.patch_all()"),
        (
            "answer = requests.get(url)",
            [
                "/venv/lib/python3.11/site-packages/flask/app.py:880 dispatch_request",
                "/srv/app.py:7 handler",
                "/venv/lib/python3.11/site-packages/requests/api.py:73 get",
                "/venv/lib/python3.11/site-packages/urllib3/util/connection.py:73 create_connection",
                "/usr/lib/python3.11/socket.py:700 readinto",
            ],
            "not gevent's socket: import requests after monkey.patch_all(); C code's goes into a thread",
        ),
        ("page = urlopen(url)", [], "not gevent's socket: import urlopen after monkey.patch_all()"),
        (
            "ready.wait(5)",
            ["/srv/app.py:7 handler", "/usr/lib/python3.11/threading.py:629 wait"],
            "not gevent's lock: ",
        ),
        ("child.wait()", ["/srv/app.py:7 handler", "/usr/lib/python3.11/subprocess.py:1264 wait"], "a process is"),
        (
            "log.warning('late')",
            ["/srv/app.py:7 handler", "/usr/lib/python3.11/logging/__init__.py:1114 emit"],
            "a log handler waits: in its emit gevent.get_hub().threadpool.spawn(the_call, ...).get()",
        ),
        ("with self._lock:", [], "not gevent's lock: gevent.lock.BoundedSemaphore(), or "),
        ("rows = cursor.fetchall()", [], "a driver in C: PyMySQL is in Python; or gevent.get_hub()"),
        ("subprocess.run(command)", [], "a process is waited for: gevent.subprocess, or "),
        ("for row in open(path):", [], "files do not yield: gevent.get_hub().threadpool.spawn(open, path).get()"),
        (
            "frob(one(a), two(b))",
            [],
            "it waits and does not yield: gevent.get_hub().threadpool.spawn(lambda: frob(...)).get()",
        ),
        ("frob(len(a))", [], "it waits and does not yield: gevent.get_hub().threadpool.spawn(frob, len(a)).get()"),
        ("frob(", [], "it waits and does not yield: gevent.get_hub().threadpool.spawn(frob, ...).get()"),
        ("x = y", [], "it waits and does not yield: gevent.get_hub().threadpool.spawn(the_call, ...).get()"),
    ],
)
def test_waiting_is_told_by_the_line_and_by_what_it_called(source: str, stack: list[str], expected: str) -> None:
    place = ("/srv/app.py", 7, "handler")
    assert advise(Case("blocking", source, stack or ["/srv/app.py:7 handler"], *place)).startswith(expected)


THREAD = "tafe.offload("
PATCH = "gevent.monkey.patch_all() first of all"
TYPED = [
    ("blocking", "text = os.popen(cmd).read()", f"a process is waited for: gevent.subprocess, or {PATCH}"),
    (
        "blocking",
        "status = os.system(cmd).bit_length()",
        "os.system never yields: gevent.subprocess.call(cmd, shell=True)",
    ),
    (
        "native",
        "hashlib.sha256(d).hexdigest()",
        f"hashing needs no GIL: {THREAD}lambda: hashlib.sha256(d).hexdigest())",
    ),
    (
        "native",
        "x = hashlib.pbkdf2_hmac('sha256', word, salt, 100_000).hex()",
        f"hashing needs no GIL: {THREAD}lambda: hashlib.pbkdf2_hmac(...).hex())",
    ),
    ("native", "zlib.compress(data).hex()", f"compression needs no GIL: {THREAD}lambda: zlib.compress(data).hex())"),
    ("native", "b64encode(zlib.compress(data))", f"compression needs no GIL: {THREAD}zlib.compress, data)"),
    ("blocking", "open(name).read()", f"files do not yield: {THREAD}lambda: open(name).read())"),
    ("blocking", 'if p.startswith("/x"): ns(0.05)', f"it waits and does not yield: {THREAD}the_call, ...)"),
    ("blocking", "x = self.cache.get(k) or lib.fetch(k)", f"it waits and does not yield: {THREAD}the_call, ...)"),
    ("blocking", "ns(0.03); gevent.sleep(0.01)", f"it waits and does not yield: {THREAD}ns, 0.03)"),
    ("blocking", "gevent.sleep(0.01)", f"it waits and does not yield: {THREAD}the_call, ...)"),
    ("blocking", 'print("sleep(", frob(x))', f"unpatched: gevent.sleep(...), or {PATCH}"),
    ("native", "x = frob(rows(lambda row: row[0])).all()", None),
    ("native", "sock.makefile().frob((yield x))", f"C code: give it less, or (GIL released) {THREAD}the_call, ...)"),
]


@pytest.mark.parametrize(("cause", "source", "expected"), TYPED)
def test_what_is_advised_can_be_typed_and_takes_the_slow_call_along(
    cause: str, source: str, expected: str | None
) -> None:
    for remedies in (REMEDIES, {}):
        advised = advise(Case(cause, source, [], "/srv/app.py", 7, "handler", remedies=remedies))
        assert len(advised) <= LONGEST
        assert all(map(parses, code_in(advised))), advised
        assert not remedies or expected in (None, advised)


def test_code_that_cannot_be_typed_would_be_found_in_advice() -> None:
    assert code_in("one: a.b(c(1)).d(2), or e(x)") == ["a.b(c(1)).d(2)", "e(x)"]
    assert code_in("as check_output(, shell=True)") == ["check_output(, shell=True)"]
    assert not parses("check_output(, shell=True)")


@pytest.mark.parametrize("name", ZOO)
def test_the_code_in_the_advice_for_each_stall_of_the_zoo_parses(name: str) -> None:
    for remedies in (REMEDIES, {}):
        advised = advise(case_of(name)._replace(remedies=remedies))
        assert all(map(parses, code_in(advised))), advised


def test_a_function_without_a_name_is_not_quoted() -> None:
    advised = advise(Case("python", "f(x)", [HUB, "/srv/a-b.py:3 <lambda>"], "/srv/a-b.py", 3, "<lambda>"))
    assert advised.endswith("gevent.spawn(f, ...)")
    importing = Case("python", "x = 1", ["<frozen importlib._bootstrap>:241 f"], "/srv/a-b.py", 3, "<module>")
    assert "import it at the top" in advise(importing)


def code_in(advised: str) -> list[str]:
    """The calls in it: from a name that is followed by a parenthesis to the one that closes it, and what follows."""
    found, end = [], 0
    while begin := re.compile(r"[A-Za-z_][\w.]*\(").search(advised, end):
        depth = 0
        for end, character in enumerate(advised[begin.end() - 1 :], begin.end()):
            depth += (character == "(") - (character == ")")
            if not depth and not re.match(r"[.\w]*\(", advised[end:]) and character == ")":
                break
        found.append(advised[begin.start() : end])
    return found


def parses(code: str) -> bool:
    try:
        ast.parse(code, mode="eval")
    except SyntaxError:
        return False
    return True


def test_of_an_unknown_cause_what_the_line_does_is_a_hint() -> None:
    place = ("/srv/app.py", 7, "handler")
    assert advise(Case("unknown", "return copy.deepcopy(rows)", [], *place)).startswith("perhaps: copy.deepcopy walks")
    assert advise(Case("unknown", "data = zlib.compress(text)", [], *place)).startswith("perhaps: compression needs")
    assert (
        advise(Case("unknown", "return total", [], *place))
        == "the cause was not seen: look at what it calls, by the stack"
    )
    assert "slow_slice_ms" in advise(Case("unknown"))


def test_a_path_on_the_stack_is_no_call() -> None:
    stack = ["/srv/core.py:10 handler", "/srv/store.py:3 compute"]
    assert "pattern" not in advise(Case("native", "compute(rows)", stack))


def test_the_hub_is_never_told_to_sleep() -> None:
    for cause in ("python", "native", "blocking"):
        for source in ("for row in rows:", "time.sleep(1)", "json.loads(text)"):
            assert "sleep" not in advise(Case(cause, source, [HUB, "/srv/a.py:3 callback"], "/srv/a.py", 3, "callback"))


def test_what_a_file_says_of_remedies_is_text_and_nothing_more() -> None:
    hostile = {"thread": "{thread} {patch} {} {0!r}", "sqlite": "{sqlite}", "other": "x"}
    assert advise(Case("native", "zlib.compress(data)", remedies=hostile)).startswith("compression needs no GIL: ")


@pytest.mark.parametrize(
    ("source", "words", "call"),
    [
        ("return len(zlib.compress(data, 9))  # why", ["zlib"], Call("zlib.compress", "data, 9")),
        ("os.close(os.open(path, os.O_RDONLY))", ["open("], Call("os.open", "path, os.O_RDONLY")),
        ("with open(path) as file:", ["open("], Call("open", "path")),
        ("elif check(x):  # or not", [], Call("check", "x")),
        ("while not lock.acquire(timeout=1):", [".acquire("], Call("lock.acquire", "timeout=1")),
        (
            "self.pool.get().run(*args, **kw)",
            [".run("],
            Call("self.pool.get().run", "*args, **kw", "self.pool.get().run(*args, **kw)", "self.pool.get().run(...)"),
        ),
        ("super().save(row)", [], Call("super().save", "row")),
        ("rows = pool.get().run(", [], SOME_CALL),
        ("rows = pool.get().run(", [".run("], SOME_CALL),
        ("answer = (yield frob)(x)()", [], SOME_CALL),
        ("x = frob(y := other(z))", [], SOME_CALL),
        ("frob(other, gevent.spawn(other(x)))", [], SOME_CALL),
        ("if(ready and frob(x,", [], Call("frob", "...")),
        ("rows = json.loads(", ["json."], Call("json.loads", "...")),
        ("found = outer(inner(x))", [], Call("outer", "inner(x)", "outer(inner(x))", "outer(...)")),
        ("return len(x)", [], None),
        ("", [], None),
        (")]}", [], None),
        ("f(" + "x" * 500 + ")", [], Call("f", "...")),
        ('print("\\d")', ["print("], Call("print", "'\\\\d'")),
        ("-" * 250 + "f(x)", [], Call("f", "x")),
        ("(" * 250 + "f(x)", [], Call("f", "...")),
        ("x = 1\x00", [], None),
    ],
)
def test_a_call_is_found_in_whatever_is_left_of_a_statement(source: str, words: list[str], call: Call | None) -> None:
    assert call_in(source, words) == call


def test_a_loop_over_something_is_no_search_in_it() -> None:
    for source in ("for line in text.splitlines():", "total = sum(n for n in numbers)"):
        assert "`in`" not in advise(Case("native", source))


def test_what_is_searched_is_named() -> None:
    assert searched_in("if name not in self.names and x:") == "self.names"
    assert searched_in("for x in y:") == ""

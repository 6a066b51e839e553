"""Which calls `tafe doctor` accuses: those that block, by whatever name, when others are served and not elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.test_doctor import doctor, findings, found_in, whats


def test_names_are_followed_to_the_function_that_would_be_called(tmp_path: Path) -> None:
    source = """
import os as system_calls
import hashlib
from fcntl import flock, LOCK_EX, LOCK_NB
from gevent.monkey import get_original
import time
nap = get_original("time", "sleep")
nap(0)                                  # while loading: nobody is served

class Job:
    def system(self, x): return x
    def run(self):
        nap(1)

def a(): system_calls.system("true")
def b(file): flock(file, LOCK_EX)
def c(file): flock(file, LOCK_EX | LOCK_NB)
def d(nap): nap(1)                      # a parameter
def e():
    from sqlite3 import connect
    return connect("x.db")
def f(): Job().system("fine")
def g(): return lambda: hashlib.pbkdf2_hmac("sha256", b"", b"", 1)
def h(): time.sleep(1)                  # gevent's
def i():
    nap = time.sleep
    nap(1)
def j():
    global nap
    nap(2)
"""
    assert whats(findings(tmp_path, source)) == [
        (13, "run", "time.sleep from before patching"),
        (15, "a", "os.system"),
        (16, "b", "fcntl.flock"),
        (21, "e", "sqlite3.connect"),
        (23, "g", "hashlib.pbkdf2_hmac"),
        (30, "j", "time.sleep from before patching"),
    ]


def test_what_is_handed_to_a_native_thread_may_block(tmp_path: Path) -> None:
    source = """
import hashlib, os, tafe
def slow(): return hashlib.scrypt(b"", salt=b"", n=2, r=1, p=1)
def both(): os.fsync(1)
def handler():
    tafe.offload(slow)
    tafe.offload(lambda: os.system("true"))
    tafe.offload(both)
    both()
"""
    assert whats(findings(tmp_path, source)) == [(4, "both", "os.fsync")]


def test_every_way_into_a_native_thread_is_followed(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text("import os, tafe\nfrom shop import work\ndef imported(): tafe.offload(work)\n")
    source = """
import functools, os, gevent, gevent.threadpool, tafe
start = gevent.monkey.get_original("_thread", "start_new_thread")
native = gevent.threadpool.ThreadPool(1)
class Job:
    def method(self, x): os.fsync(x)
    def go(self): tafe.offload(self.method)
def work(*_): os.fsync(1)
def helped(): work()
def handler():
    tafe.offload(functools.partial(work, 1))
    tafe.offload(fn=work)
    tafe.offload(lambda: work())
    tafe.offload(lambda: os.fsync(1))
    tafe.offload(helped)
    gevent.get_hub().threadpool.spawn(work, 1)
    native.map(work, [1])
    with gevent.threadpool.ThreadPoolExecutor(1) as pool: pool.submit(work)
    start(work, ())
    start(lambda: os.fsync(1), ())
import jobs
"""
    assert findings(tmp_path, source) == []


def test_what_runs_in_a_greenlet_as_well_is_found(tmp_path: Path) -> None:
    ways = [
        "{}()",
        "gevent.spawn({})",
        "greenlets.spawn({})",
        "gevent.Greenlet.spawn({})",
        "list(map({}, [1]))",
        "patched.submit({})",  # patching has made greenlets of its threads
        "with futures.ThreadPoolExecutor(1) as pool: pool.map({}, [1])",
        "_thread.start_new_thread({}, ())",
        "return {}",
    ]
    source = """
import _thread, os, gevent, gevent.pool, tafe
from concurrent import futures
patched, greenlets = futures.ThreadPoolExecutor(1), gevent.pool.Pool(1)
"""
    for number, way in enumerate(ways):
        work = f"work_{number}"
        source += (
            f"def {work}(*_): os.fsync(1)\ndef way_{number}():\n    tafe.offload({work})\n    {way.format(work)}\n"
        )
    assert found_in(findings(tmp_path, source)) == [f"work_{number}" for number in range(len(ways))]


def test_what_is_called_while_nothing_is_served_may_block(tmp_path: Path) -> None:
    source = """
import gc, tafe
shop = tafe.App()
def connect(): gc.collect(); return sync()
def sync(): gc.collect()
database = connect()
class Store:
    def __init__(self): gc.collect()
    def query(self): gc.collect()
store: Store = Store()
@shop.on_start
def warm(): gc.collect()
@shop.on_stop(deadline_s=1)
def flush(): gc.collect()
def late(): gc.collect()
shop.on_start(late)
def main(): input("sure? ")
if __name__ == "__main__": main()
def create():
    gc.collect()
    def handler(): gc.collect()
    return handler
handler = create()
@shop.get("/")
def get(): gc.collect()
get()
def both(): gc.collect()
both()
@shop.get("/both")
def both_too(): both()
"""
    assert found_in(findings(tmp_path, source)) == ["query", "handler", "get", "both"]


def test_a_factory_that_is_named_is_called_while_loading(tmp_path: Path) -> None:
    source = "import gc\ndef create():\n    gc.collect()\n    def app(*_): gc.collect()\n    return app\n"
    (tmp_path / "shop.py").write_text(source)
    done = doctor("shop:create()", "--format", "json", cwd=tmp_path)
    assert found_in(json.loads(done.stdout)["findings"]) == ["app"]


def test_arguments_make_a_call_harmless_and_where_they_are_not_known_nothing_is_said(tmp_path: Path) -> None:
    source = """
import gc, fcntl, tempfile
MODE = fcntl.LOCK_EX
def a(): gc.collect(generation=0)
def b(): gc.collect(1)
def c(file):
    flags = fcntl.LOCK_EX | fcntl.LOCK_NB
    fcntl.flock(file, flags)
def d(file, flags): fcntl.flock(file, flags)
def e(arguments): fcntl.flock(*arguments)
def f(file, wait): fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
def g(file):
    flags = fcntl.LOCK_EX
    flags |= fcntl.LOCK_NB
    fcntl.flock(file, flags)
def h():
    with tempfile.NamedTemporaryFile() as own: fcntl.flock(own, fcntl.LOCK_EX)
def i(file):
    flags = flags | 1
    fcntl.flock(file, flags)
def j(file): fcntl.flock(file, MODE)
def k(file):
    flags = fcntl.LOCK_SH
    fcntl.lockf(file, flags)
def l(): gc.collect(generation=2)
def m(): gc.collect()
"""
    assert found_in(findings(tmp_path, source)) == ["j", "k", "l", "m"]

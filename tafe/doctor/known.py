"""What is known to block a hub, by name. To extend: add a row.

`Known.cause` and the name choose the advice, which is the one that the profiler's report gives for a line that was
seen to block (profiler/report/advice.py); a row with words of its own says it better.
"""

from __future__ import annotations

from collections.abc import Callable
from fcntl import LOCK_NB, LOCK_UN
from typing import NamedTuple


class Harmless(NamedTuple):
    """The argument that decides whether a call blocks, and by which numbers it does not."""

    position: int
    keyword: str
    by: Callable[[int], bool]


class Known(NamedTuple):
    """Why a function blocks."""

    cause: str  # as the profiler would call it
    why: str
    instead: str = ""  # empty: the profiler's advice
    harmless: Harmless | None = None
    on_file: bool = False  # it waits for another process that has the same file


_PROCESS = "it sleeps until the child process has ended, and gevent does not replace it"
_DISK = "it sleeps until the disk has written"
_HASH = "it computes for milliseconds on purpose, and the hub waits"
_WITH_GEVENT = "use gevent.subprocess, or the module subprocess, which is patched"
_UNLOCKED = Harmless(1, "operation", lambda operation: bool(operation & (LOCK_NB | LOCK_UN)))
_YOUNG = Harmless(0, "generation", lambda generation: generation in (0, 1))  # of the generations, the small ones

# Functions that block although everything was patched.
FUNCTIONS: dict[str, Known] = {
    "os.system": Known("blocking", _PROCESS),
    "os.wait": Known("blocking", _PROCESS, _WITH_GEVENT),
    "os.wait3": Known("blocking", _PROCESS, _WITH_GEVENT),
    "os.wait4": Known("blocking", _PROCESS, _WITH_GEVENT),
    "os.fsync": Known("blocking", _DISK),
    "os.fdatasync": Known("blocking", _DISK),
    "fcntl.flock": Known(
        "blocking", "it sleeps until the other holder lets go of the file", harmless=_UNLOCKED, on_file=True
    ),
    "fcntl.lockf": Known(
        "blocking", "it sleeps until the other holder lets go of the file", harmless=_UNLOCKED, on_file=True
    ),
    "sqlite3.connect": Known(
        "blocking",
        "statements on this connection sleep in C while another process holds the lock, and while the disk is read",
        "use tafe.Database.from_url('sqlite:///FILE'), which has threads for it, or tafe.offload(...)",
    ),
    "signal.sigwait": Known("blocking", "it sleeps until a signal comes", "use gevent.signal_handler"),
    "signal.pause": Known("blocking", "it sleeps until a signal comes", "use gevent.signal_handler"),
    "builtins.input": Known("blocking", "it sleeps until somebody types", "a server has nobody to ask"),
    "hashlib.pbkdf2_hmac": Known("native", _HASH),
    "hashlib.scrypt": Known("native", _HASH),
    "bcrypt.hashpw": Known("native", _HASH),
    "bcrypt.checkpw": Known("native", _HASH),
    "bcrypt.kdf": Known("native", _HASH),
    "argon2.low_level.hash_secret": Known("native", _HASH),
    "argon2.low_level.verify_secret": Known("native", _HASH),
    "gc.collect": Known("gc", "the collector looks at every object while the hub waits", harmless=_YOUNG),
}

# What gevent replaces, and what it is to have the function or class from before.
ORIGINALS: dict[str, str] = {
    "time.sleep": "it sleeps with the whole worker",
    **dict.fromkeys(
        ("socket.socket", "socket.create_connection", "socket.socketpair", "socket.fromfd"),
        "whatever it waits for, the whole worker waits",
    ),
    **dict.fromkeys(
        ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyname_ex", "socket.gethostbyaddr",
         "socket.getnameinfo", "socket.getfqdn"),
        "the whole worker waits for the name server",
    ),
    **dict.fromkeys(
        ("select.select", "select.poll", "select.epoll", "selectors.DefaultSelector"),
        "the whole worker waits for the sockets",
    ),
    **dict.fromkeys(
        ("ssl.SSLContext", "ssl.SSLSocket", "ssl.wrap_socket", "ssl.create_default_context"),
        "handshakes, reads and writes wait with the whole worker",
    ),
    **dict.fromkeys(
        ("_thread.allocate_lock", "_thread.allocate", "threading.Lock", "threading.RLock", "threading.Condition",
         "threading.Event", "threading.Semaphore", "threading.BoundedSemaphore", "queue.Queue", "queue.SimpleQueue"),
        "a greenlet that waits for it keeps the hub from the one that would let it go",
    ),
    **dict.fromkeys(
        ("subprocess.Popen", "subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output",
         "os.waitpid"),
        "the whole worker waits for the child process",
    ),
}  # fmt: skip

# Of functions found by ctypes, by their C name.
FOREIGN: dict[str, str] = dict.fromkeys(
    ("sleep", "usleep", "nanosleep", "clock_nanosleep", "poll", "select", "epoll_wait", "flock", "fsync", "system"),
    "C code sleeps here, and gevent knows nothing of C",
)


class Library(NamedTuple):
    """A library that waits in C."""

    name: str  # as people call it
    why: str
    instead: str


_OWN_SOCKETS = "it waits for its server in C, on sockets that gevent does not see: every query keeps the hub"
_OFFLOAD = "call it in a native thread: tafe.offload(...)"
_MYSQL = "use tafe.Database, or PyMySQL (pymysql.install_as_MySQLdb(), tafe.use_fast_pymysql())"
# By the module that holds the C code. Libraries that wait in Python are fine, whatever else of theirs is in C (pymongo,
# psycopg 3, redis, requests, ujson, orjson).
LIBRARIES: dict[str, Library] = {
    "MySQLdb._mysql": Library("mysqlclient", _OWN_SOCKETS, _MYSQL),
    "_mysql_connector": Library(
        "mysql-connector's C extension", _OWN_SOCKETS, f"connect with use_pure=True, or {_MYSQL}"
    ),
    "psycopg2._psycopg": Library(
        "psycopg2",
        _OWN_SOCKETS,
        "set a wait callback before the first query: psycogreen.gevent.patch_psycopg(); or psycopg 3",
    ),
    "grpc._cython.cygrpc": Library(
        "grpc", "its C core waits for its own threads", "call grpc.experimental.gevent.init_gevent() while loading"
    ),
    "confluent_kafka.cimpl": Library("confluent_kafka", "poll, consume and flush of librdkafka wait in C", _OFFLOAD),
    "cx_Oracle": Library("cx_Oracle", _OWN_SOCKETS, "use oracledb, which is thin by default, or tafe.offload(...)"),
    "pyodbc": Library("pyodbc", _OWN_SOCKETS, _OFFLOAD),
    "pymssql._pymssql": Library("pymssql", _OWN_SOCKETS, f"pymssql.set_wait_callback(...), or {_OFFLOAD}"),
    "ibm_db": Library("ibm_db", _OWN_SOCKETS, _OFFLOAD),
    "_pylibmc": Library("pylibmc", _OWN_SOCKETS, "use pymemcache, which is Python"),
    "pycurl": Library(
        "pycurl", "perform() waits for the whole transfer in C", "use requests or urllib3, which are patched"
    ),
    "_ldap": Library("python-ldap", _OWN_SOCKETS, "use ldap3, which is Python"),
    "aerospike": Library("aerospike", _OWN_SOCKETS, _OFFLOAD),
}

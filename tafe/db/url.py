"""Database URLs: what `mysql://...` and `sqlite:///...` mean, and a clear error for everything else.

    mysql://USER:PASSWORD@HOST:PORT/DATABASE?charset=utf8mb4&unix_socket=/run/mysqld/mysqld.sock&reader=auto
    mysql://USER:PASSWORD@HOST/DATABASE?ssl_ca=/etc/ssl/database-ca.pem (tls.py has all of them)
    sqlite:///relative.db        sqlite:////absolute/path.db?mode=rw

User, password, database, path and parameter values are percent-decoded (RFC 3986, 2.1).
The text is taken apart by hand: `urllib.parse` quotes what it cannot parse in its errors, and that may be half
of a password with an unencoded `/` or `#` in it. So nothing that could belong to one is ever shown here, and a
raw `@` behind the host part, the sign of such a password, is refused before anything else is looked at.
Pure: opens nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from urllib.parse import unquote

from tafe.db.tls import PARAMETERS, TLS, tls_of
from tafe.errors import UsageError

DEFAULT_PORT = 3306  # MySQL's registered port
_MYSQL_FORM = "mysql://USER:PASSWORD@HOST:PORT/DATABASE"
_SQLITE_FORM = "sqlite:///relative.db or sqlite:////absolute/path.db"
# Character sets in which no byte of a multi-byte character can be mistaken for a quote or a backslash.
_CHARSETS = ("utf8mb4", "utf8mb3", "latin1", "ascii")
_MODES = ("ro", "rw", "rwc")
# Which class reads results: ours, PyMySQL's, or ours where PyMySQL is a release that it was tested with (wire.py).
READERS = ("auto", "fast", "stock")


@dataclass(frozen=True, slots=True)
class MySQLTarget:
    """Where a MySQL or MariaDB server is and how to log in. `unix_socket`, if not empty, is used instead of host."""

    host: str
    port: int
    user: str = field(repr=False)
    password: str = field(repr=False)
    database: str
    charset: str
    unix_socket: str
    reader: str
    tls: TLS

    @property
    def shown(self) -> str:
        """For logs and `repr`: no user, no password."""
        place = self.unix_socket or f"{self.host}:{self.port}"
        return f"mysql://{place}/{self.database}"

    @property
    def short_name(self) -> str:
        return self.database or "mysql"


@dataclass(frozen=True, slots=True)
class SQLiteTarget:
    """A database file. `mode`: `ro` read only, `rw` must exist, `rwc` is created if missing (SQLite's URI modes)."""

    path: str
    mode: str

    @property
    def shown(self) -> str:
        return f"sqlite:///{self.path}"

    @property
    def short_name(self) -> str:
        return PurePath(self.path).stem


def parse(url: str) -> MySQLTarget | SQLiteTarget:
    """Return what `url` points to; `UsageError` if it cannot be used."""
    if not isinstance(url, str):  # an environment variable that is not set, say
        raise _error(
            f"the database URL is of type {type(url).__name__}", allowed=f"text: {_MYSQL_FORM}, {_SQLITE_FORM}"
        )
    if not url.isprintable():
        raise _error(
            "the database URL holds a line break or another character that is not shown",
            allowed=f"{_MYSQL_FORM}, {_SQLITE_FORM}",
            try_="strip() of what was read from a file",
        )
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise _error("the database URL has no '://'", allowed=f"{_MYSQL_FORM}, {_SQLITE_FORM}")
    if scheme == "mysql":
        return _mysql(rest)
    if scheme == "sqlite":
        return _sqlite(rest)
    # A scheme such as "mysql+pymysql" is a name; anything longer may be a misplaced secret.
    shown = f" {scheme!r}" if scheme.replace("+", "").isalnum() and len(scheme) <= 20 else ""
    raise _error(f"unknown kind of database{shown}", allowed="mysql, sqlite", try_=_MYSQL_FORM)


def _mysql(rest: str) -> MySQLTarget:
    end = min((rest.find(sign) for sign in "/?#" if sign in rest), default=len(rest))
    authority, tail = rest[:end], rest[end:]
    if "@" in tail or "#" in tail:
        raise _error(
            "the mysql URL has '@' or '#' behind its host part",
            allowed=_MYSQL_FORM,
            try_="percent-encode / ? # @ : in the user, password and database: / is %2F, ? %3F, # %23, @ %40",
        )
    userinfo, _, place = authority.rpartition("@")
    user, _, password = userinfo.partition(":")
    path, _, query = tail.partition("?")
    host, port = _host_and_port(place)
    options = _parameters(query, ("charset", "unix_socket", "reader", *PARAMETERS))
    charset = options.get("charset", "utf8mb4")
    if charset not in _CHARSETS:
        raise _error(f"charset {charset!r} cannot be used", allowed=", ".join(_CHARSETS), try_="utf8mb4")
    reader = options.get("reader", "auto")
    if reader not in READERS:
        raise _error(f"reader {reader!r} is unknown", allowed=", ".join(READERS), try_="auto")
    unix_socket = options.get("unix_socket", "")
    if not host and not unix_socket:
        raise _error("the mysql URL names no host", allowed=_MYSQL_FORM, try_="mysql://...@127.0.0.1:3306/...")
    if not user:
        raise _error("the mysql URL names no user", allowed=_MYSQL_FORM)
    login = (_decode(user), _decode(password), _decode(path[1:]))
    return MySQLTarget(host, port, *login, charset, unix_socket, reader, tls_of(options, local=bool(unix_socket)))


def _host_and_port(place: str) -> tuple[str, int]:
    """Split HOST, HOST:PORT, [IPV6] or [IPV6]:PORT. The place is never shown: it may be part of a password."""
    host, colon, port = place.rpartition(":")
    if place.endswith("]") or not colon:
        host, port = place, str(DEFAULT_PORT)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise _error(
            "the mysql URL's port is not a number",
            allowed=f"1 to 65535; without one, {DEFAULT_PORT}",
            try_="percent-encode / ? # @ : if they are part of the password",
        )
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if any(sign in host for sign in "[]"):
        raise _error("the mysql URL's host has a bracket too many or too few", allowed="[IPV6] or [IPV6]:PORT")
    return host, int(port)


def _sqlite(rest: str) -> SQLiteTarget:
    location, _, query = rest.partition("?")
    if not location.startswith("/") or location == "/":
        raise _error("the sqlite URL names no file", allowed=_SQLITE_FORM, try_="sqlite:///users.db")
    path = _decode(location[1:])
    if path == ":memory:" or path.startswith("file:"):
        raise _error(
            "an in-memory database cannot be pooled: each connection would see one of its own",
            allowed=_SQLITE_FORM,
            try_="sqlite:////dev/shm/users.db, a file that is kept in memory",
        )
    if "\0" in path:
        raise _error("the sqlite URL's path holds a zero byte", allowed=_SQLITE_FORM)
    mode = _parameters(query, ("mode",)).get("mode", "rwc")
    if mode not in _MODES:
        raise _error(f"mode {mode!r} is unknown", allowed=", ".join(_MODES), try_="rw, for a file that must exist")
    return SQLiteTarget(path, mode)


def _parameters(query: str, allowed: tuple[str, ...]) -> dict[str, str]:
    """Decode `a=1&b=2`; an unknown, repeated or empty parameter is an error, for it would be without effect."""
    options: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        key, _, value = pair.partition("=")
        if key not in allowed or key in options or not value:
            shown = f" {key!r}" if key.replace("_", "").isalpha() else ""
            raise _error(
                f"URL parameter{shown} is unknown, empty or repeated",
                allowed=", ".join(allowed),
                try_="pool sizes and timeouts are arguments of Database.from_url",
            )
        options[key] = _decode(value)
    return options


def _decode(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _error(
            "the database URL holds percent-escapes that are not UTF-8", allowed="%XX of UTF-8 bytes"
        ) from None


def _error(problem: str, *, allowed: str, try_: str = "") -> UsageError:
    return UsageError(problem, set_by="Database.from_url", allowed=allowed, try_=try_)

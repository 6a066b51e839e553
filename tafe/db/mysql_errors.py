"""What error numbers of MySQL, MariaDB and PyMySQL mean to us, in words that hold neither user nor host.

1000 to 1999, 3000 and above: the server's (the lists of MySQL and MariaDB agree below 1900).
2000 to 2999: the client's. Whatever is not listed here is the statement's own fault: a `QueryError`.
"""

from __future__ import annotations

import ssl

import pymysql
from pymysql import connections
from pymysql.constants import CR, ER

from tafe.db.driver import ConnectionLost
from tafe.db.wire import TooLate
from tafe.errors import QueryTimeout

# Numbers after which a connection is useless, in the words for the one who asked. (PyMySQL's constants lack some.)
LOST = {
    0: "the connection is closed",
    CR.CR_SERVER_GONE_ERROR: "the connection was lost before the statement was sent",
    CR.CR_SERVER_LOST: "the connection was lost during a statement",
    ER.CON_COUNT_ERROR: "too many connections",
    ER.SERVER_SHUTDOWN: "the server is shutting down",
    1077: "the server is shutting down",  # ER_NORMAL_SHUTDOWN
    1079: "the server is shutting down",  # ER_SHUTDOWN_COMPLETE
    1158: "the connection was lost during a statement",  # ER_NET_READ_ERROR
    1159: "the connection was lost during a statement",  # ER_NET_READ_INTERRUPTED
    1160: "the connection was lost during a statement",  # ER_NET_ERROR_ON_WRITE
    1161: "the connection was lost during a statement",  # ER_NET_WRITE_INTERRUPTED
    1203: "too many connections of this user",  # ER_TOO_MANY_USER_CONNECTIONS
    1226: "the user's limit is used up",  # ER_USER_LIMIT_REACHED
    1927: "the connection was killed on the server",  # ER_CONNECTION_KILLED (MariaDB)
    4031: "the server closed an idle connection",  # ER_CLIENT_INTERACTION_TIMEOUT (MySQL 8)
}
REFUSED = {
    CR.CR_AUTH_PLUGIN_ERR: "the server asks for the password in clear text, which only TLS or a unix socket carries",
    CR.CR_SSL_CONNECTION_ERROR: "the server does not offer TLS, which the URL asks for",
    CR.CR_CONNECTION_ERROR: "the server cannot be reached",
    CR.CR_CONN_HOST_ERROR: "the server cannot be reached",
    CR.CR_SERVER_LOST: "the server ended the login",
    ER.ACCESS_DENIED_ERROR: "access denied: check user and password",
    ER.DBACCESS_DENIED_ERROR: "access denied to this database",
    ER.BAD_DB_ERROR: "there is no such database on the server",
    1129: "the server blocks this host",  # ER_HOST_IS_BLOCKED
    1130: "the server does not admit this host",  # ER_HOST_NOT_PRIVILEGED
    1698: "access denied: check user and password",  # ER_ACCESS_DENIED_NO_PASSWORD_ERROR
}
# Constraint violations that PyMySQL classes as something else.
CONSTRAINTS = frozenset(
    {
        1169,  # ER_DUP_UNIQUE
        1586,  # ER_DUP_ENTRY_WITH_KEY_NAME
        3819,  # ER_CHECK_CONSTRAINT_VIOLATED (MySQL)
        ER.CONSTRAINT_FAILED,  # 4025 (MariaDB)
    }
)
# The server ended a statement that took longer than the session or the statement allows.
ENDED = frozenset(
    {
        1969,  # ER_STATEMENT_TIMEOUT (MariaDB)
        3024,  # ER_QUERY_TIMEOUT (MySQL)
    }
)
# With these the server has undone the statement or, by its settings, the whole transaction, and does not say which.
MAY_ROLL_BACK = frozenset(
    {
        ER.CHECKREAD,  # 1020, with innodb_snapshot_isolation, MariaDB's default since 11.6.2
        ER.LOCK_WAIT_TIMEOUT,  # 1205, with innodb_rollback_on_timeout
    }
)
# After these the server closes the connection although the statement is to blame.
FATAL_STATEMENTS = frozenset({ER.NET_PACKET_TOO_LARGE})


class GaveUp(ConnectionLost, QueryTimeout):
    """The client's own limit was reached: the connection is discarded."""


def why_refused(error: Exception, connect_timeout_s: float) -> str:
    """A reason without user, password or text of the server."""
    number = error.args[0] if error.args and isinstance(error.args[0], int) else None
    cause = error if isinstance(error, OSError) else getattr(error, "original_exception", None) or error.__context__
    if isinstance(cause, TimeoutError):
        return f"no answer within connect_timeout_s={connect_timeout_s:g}"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the server's certificate is not accepted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS with the server failed: {(cause.reason or 'unknown reason').replace('_', ' ').lower()}"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return REFUSED.get(number or -1) or LOST.get(number or -1) or f"login failed ({number or type(error).__name__})"


def timed_out(error: BaseException) -> bool:
    """Was this raised by what waited for the server because it took too long?"""
    return isinstance(error, TooLate) or (
        isinstance(error, pymysql.OperationalError) and isinstance(_reason(error), TimeoutError)
    )


def _reason(error: BaseException) -> BaseException | None:
    """What an error of the connection was made of: its cause if fast.py made it, its context if PyMySQL did.

    Its context may also be what the application is handling just now; that was caught elsewhere.
    """
    found = error.__cause__ or error.__context__
    if found is None or found is error.__cause__:
        return found
    trace = found.__traceback__
    by_pymysql = trace is not None and trace.tb_frame.f_globals.get("__name__") == connections.__name__
    return found if by_pymysql else None


def thrown_in(error: BaseException) -> bool:
    """Did somebody throw this into the greenlet while it waited? Then it came out of gevent's switch to the hub."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("gevent.")

"""Our connection in PyMySQL's place, for applications that use PyMySQL by themselves or through a library.

Call it before anything imports the names from PyMySQL, as with `pymysql.install_as_MySQLdb()`. Works on every server,
with or without gevent; waiting as `channel.py` does takes a gevent socket.
"""

from __future__ import annotations

import pymysql
from pymysql import connections

from tafe.db.wire import Wire, wire_class


def use_fast_pymysql() -> bool:
    """Let `pymysql.connect` and its other names make connections that read results faster (fast.py).

    False, with the reason in the log, if the installed release of PyMySQL is not one that this was tested with; PyMySQL
    then stays as it is. Connections made before, and names imported from PyMySQL before, stay as well.
    """
    if wire_class("auto") is Wire:
        return False
    from tafe.db import fast  # here, for with another PyMySQL this import may fail

    pymysql.connect = pymysql.Connect = pymysql.Connection = fast.Connection  # type: ignore[assignment]
    connections.Connection = fast.Connection  # type: ignore[misc, assignment]
    return True

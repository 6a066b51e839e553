"""What tests of the SQLite driver share: a statement without an end, and looks at threads and connections."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tafe.db import Database

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) AS c FROM n"


def connection_of(database: Database) -> Any:
    """The one idle connection."""
    (connection,) = database._source.pool._idle
    return connection


def native_threads() -> set[str]:
    return set(os.listdir("/proc/self/task"))

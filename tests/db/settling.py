"""Waiting for a pool to come to rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gevent

if TYPE_CHECKING:
    from tafe.db import Database


def settled(database: Database) -> None:
    """Wait until every connection is back or gone: one that was discarded is in use until its thread has left it."""
    with gevent.Timeout(5):
        while database.stats.in_use:
            gevent.sleep(0.001)

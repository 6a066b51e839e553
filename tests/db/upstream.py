"""A pytest plugin for PyMySQL's own tests: which connection class they get, and where the rest of them is.

    UPSTREAM_CLASS=stock|fast  UPSTREAM_GEVENT=0|1  UPSTREAM_SOURCE=folder of a source distribution
    python -m pytest -p tests.db.upstream FOLDER/pymysql/tests

The installed PyMySQL is tested; only its `tests` (and helpers of theirs that are no longer in it) come from the source.
"""

from __future__ import annotations

import os
import unittest

if os.environ["UPSTREAM_GEVENT"] == "1":
    from gevent import monkey

    monkey.patch_all()

import pymysql
import pymysql.connections

pymysql.__path__.append(os.path.join(os.environ["UPSTREAM_SOURCE"], "pymysql"))

if os.environ["UPSTREAM_CLASS"] == "fast":
    from tafe.db import fast

    for module in (pymysql, pymysql.connections):
        for name in ("Connection", "Connect", "connect"):
            if hasattr(module, name):
                setattr(module, name, fast.Connection)

if not hasattr(unittest.TestCase, "assertEquals"):  # gone in Python 3.12
    unittest.TestCase.assertEquals = unittest.TestCase.assertEqual  # type: ignore[attr-defined]

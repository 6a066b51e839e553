"""Databases: one small API, a fair bounded pool, MySQL and MariaDB through PyMySQL, SQLite on native threads.

url -> driver (mysql, sqlite) -> pool (policy decides, pool acts) -> Database, Transaction.
Knows no HTTP: the worker sees a `lifecycle.Resource`, handlers see `Database`.
"""

from tafe.db.database import Database
from tafe.db.driver import Result, Row
from tafe.db.replicas import Replica
from tafe.db.stand_in import use_fast_pymysql
from tafe.db.stats import Stats
from tafe.db.transaction import Transaction

__all__ = ["Database", "Replica", "Result", "Row", "Stats", "Transaction", "use_fast_pymysql"]

"""The driver, which is optional: `pip install 'asyncsmtp[postgres]'`."""

from __future__ import annotations

from typing import TypeAlias

from asyncsmtp.errors import MissingDependency

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from psycopg.rows import TupleRow
except ImportError:
    raise MissingDependency("a ledger in PostgreSQL", "asyncsmtp[postgres]") from None

__all__ = ["Connection", "conninfo_to_dict", "make_conninfo", "psycopg"]

Connection: TypeAlias = psycopg.AsyncConnection[TupleRow]

"""What PostgreSQL says when it fails: whether it may pass, and a sentence with what to do next."""

from __future__ import annotations

from asyncsmtp.bulk.postgres.driver import psycopg
from asyncsmtp.bulk.postgres.place import Database
from asyncsmtp.errors import LedgerError
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Fenced", "is_lost", "ledger_error"]

_PASSING = ("08", "57P0")  # connections; the server is shut down, has crashed, or is starting
_READ_ONLY = "25006"  # it is a replica now: the primary is elsewhere
_TANGLED = ("40001", "40P01")  # another transaction was in the way

_ADVICE = {
    "28": "the database lets this user not in: correct the user of the URL, or the password in ~/.pgpass or PGPASSWORD",
    "3D": "there is no such database: make it, or correct its name in the URL",
    "42501": "this user may not do that: GRANT CREATE ON DATABASE, or the rights on the schema asyncsmtp",
    "53": "the database has no room left: free some, then run the same command again",
    "XX": "the database is damaged: restore it before anything more is sent",
}


class Fenced(LedgerError):
    """This process may mark no further row; what it still hears of those it marked may be written."""


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, or of no use any more, so that the same may be tried on another one."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:  # it is the driver's own
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(_PASSING) or error.sqlstate in (_READ_ONLY, *_TANGLED)


def ledger_error(database: Database, error: BaseException) -> LedgerError:
    """The error that ends the campaign; the caller sets the cause."""
    if isinstance(error, LedgerError):
        return error
    said = safe_text(" ".join(str(error).split()), 300)
    if not isinstance(error, psycopg.Error):
        return LedgerError(f"{database}: writing the ledger failed unexpectedly ({said}): this is a bug, report it")
    state = error.sqlstate or ""
    advice = next((words for start, words in _ADVICE.items() if state.startswith(start)), None)
    if advice is None:
        advice = "see whether the database runs, and what the URL says, then run the same command again"
    return LedgerError(f"{database}: {advice} ({said})")

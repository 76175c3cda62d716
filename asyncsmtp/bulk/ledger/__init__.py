"""The ledger of a campaign: the state of every recipient, in a SQLite file or in PostgreSQL.

`interfaces` has the public types, `base` the ledger that both databases share, `store` its SQL. The folders `sqlite`
and `postgres` have what differs: opening, writing and the errors of each database.
"""

from __future__ import annotations

__all__ = ["STORED", "UNTIL_NEXT"]

# In place of the seconds for which the addresses of a campaign are kept. They are here since options name them, and
# must not import the ledger.
STORED = -1.0  # as the last run stored them
UNTIL_NEXT = -2.0  # not applied this time, by a command that is about something else

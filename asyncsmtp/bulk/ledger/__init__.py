"""The ledger of a campaign: the state of every recipient, in a SQLite file or in PostgreSQL.

`interfaces` has the public types, `base` the ledger that both databases share, `store` its SQL. The folders `sqlite`
and `postgres` have what differs: opening, writing and the errors of each database.
"""

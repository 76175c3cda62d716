"""A ledger in a file of this machine (SQLite)."""

"""Workers: one campaign sent by several processes, on one host or many, over a ledger in PostgreSQL."""

"""Consent of recipients: who unsubscribes, and whose data is removed.

The lists themselves are in `asyncsmtp.bulk.ledger.suppression_list`, since a ledger obeys them; their names can be
imported from here as well.
"""

from __future__ import annotations

from asyncsmtp.bulk.ledger.suppression_list import (
    Suppressed,
    SuppressionList,
    erase_from_text_list,
    export_entries,
    format_line,
    import_entries,
    is_text_list,
    parse_key,
    read_text_list,
)

__all__ = [
    "Suppressed",
    "SuppressionList",
    "erase_from_text_list",
    "export_entries",
    "format_line",
    "import_entries",
    "is_text_list",
    "parse_key",
    "read_text_list",
]

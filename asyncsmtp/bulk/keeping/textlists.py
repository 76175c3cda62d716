"""Suppression lists that are files of text: read again when one has changed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from asyncsmtp.bulk.suppression import is_text_list, parse_key, read_text_list
from asyncsmtp.errors import SuppressionError

__all__ = ["TextLists"]

_log = logging.getLogger("asyncsmtp.ledger")


class TextLists:
    """Those of `paths` that are files of text. Blocks."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._facts = {path: (0, 0) for path in paths if is_text_list(path)}

    def __bool__(self) -> bool:
        return bool(self._facts)

    def read(self, *, anew: bool = False) -> list[tuple[str, str]] | None:
        """Key and reason of every entry; None where no file has changed, or one cannot be read now.

        Raises:
            SuppressionError: `anew` was asked for, and one cannot be read.
        """
        try:
            facts = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in self._facts}
        except OSError as error:
            if anew:
                raise SuppressionError(f"there is no suppression list {error.filename}: correct its name") from error
            _log.warning("a suppression list is gone; its entries are kept: %s", error)
            return None
        if facts == self._facts and not anew:
            return None
        try:
            entries = [(parse_key(entry.address), entry.reason) for path in facts for entry in read_text_list(path)]
        except SuppressionError as error:
            if anew:
                raise
            _log.warning("a suppression list cannot be read; its former entries are kept: %s", error)
            return None
        self._facts = facts
        return entries

"""[columns] of a campaign file, and --column: what the templates call the columns of the recipients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from asyncsmtp.protocol.replies import safe_text

__all__ = ["EMAIL", "mapping"]

EMAIL = "email"  # this name is also that of the column with the addresses
_FORM = 'must be names and columns, such as name = "Full name"'


def mapping(value: object, folder: Path) -> Mapping[str, str]:
    """The section as a table, or `NAME=COLUMN` several times as the command line has it."""
    from asyncsmtp.mail.templates.variables import is_free

    pairs = value.items() if isinstance(value, dict) else _parted(value)
    found: dict[str, str] = {}
    for name, column in pairs:
        if not isinstance(column, str) or not column.strip():
            raise ValueError(f"“{safe_text(str(name), 60)}”: {_FORM}")
        if not is_free(name):
            raise ValueError(f"“{safe_text(name, 60)}” cannot be a name in a template: letters, digits and _ only")
        if found.setdefault(name, column.strip()) != column.strip():
            raise ValueError(f"“{safe_text(name, 60)}” is given two columns: leave one of them out")
    return found


def _parted(value: object) -> list[tuple[str, str]]:
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) and "=" in text for text in value):
        raise ValueError(f'{_FORM}; on a command line: name="Full name"')
    return [(name.strip(), column) for name, _, column in (text.partition("=") for text in value)]

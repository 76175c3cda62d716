"""A further file of recipients, for a campaign that was begun (`--add`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.errors import RecipientError
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.cli.campaign.assembly import Assembled
    from asyncsmtp.cli.campaign.settings import Settings

__all__ = ["with_recipients"]


async def with_recipients(path: Path, assembled: Assembled, settings: Settings) -> Assembled:
    """The campaign as it is for another file, which is read and judged as the first one is.

    Raises:
        Failed: it lacks columns of the first one, which templates and conditions go by. RecipientError: its header.
    """
    from asyncsmtp.bulk.recipients.file import RecipientFile

    first, rules = await assembled.file.header(), assembled.file.rules
    if rules.row_filter is not None:
        rules = replace(rules, row_filter=rules.row_filter.for_added_file())
    file = RecipientFile(path, email=first.email, delimiter=settings.delimiter, encoding=settings.encoding, rules=rules)
    file.renames = _spelt(file.name, await file.columns(), first.columns)
    return replace(assembled, file=file)


def _spelt(name: str, columns: Sequence[str], wanted: Sequence[str]) -> Mapping[str, str]:
    """Its columns that are `wanted` but for case and spaces: the campaign goes by the spelling of the first file."""
    from asyncsmtp.bulk.recipients.column_header import find_column

    free, missing = [column for column in columns if column not in wanted], []
    names: dict[str, str] = {}
    for each in wanted:
        try:
            if each not in columns and names.setdefault(find_column(name, free, each), each) != each:
                missing.append(each)
        except RecipientError:
            missing.append(each)
    if missing:
        listed = ", ".join(f"“{safe_text(each, 60)}”" for each in missing)
        raise Failed(f"{name} lacks the columns {listed}", "give it the columns of the campaign's recipients")
    return names

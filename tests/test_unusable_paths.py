"""A path that cannot be used is one sentence with the system's reason, and neither its number nor a traceback."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isawaitable
from pathlib import Path

import pytest

from asyncsmtp import RecipientFile
from asyncsmtp.bulk.bounces.dsn import read_mail_files
from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.bulk.rate_limit.shared_store import SharedRateStore
from asyncsmtp.bulk.recipients.file import hash_file
from asyncsmtp.bulk.setup.config import load_config
from asyncsmtp.bulk.suppression import SuppressionList, export_entries, import_entries, read_text_list
from asyncsmtp.errors import SMTPError
from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.mail.signing.dkim import DkimKey

CALLS: dict[str, Callable[[Path], object]] = {
    "recipients": lambda path: RecipientFile(path).header(),
    "recipients, hashed": hash_file,
    "a campaign file": load_config,
    "a ledger": lambda path: SqliteLedger.open(path, name="news", from_domain="x.example"),
    "a list": lambda path: SuppressionList(path).create(),
    "an export": lambda path: export_entries([], path),
    "an import": import_entries,
    "a list of text": lambda path: list(read_text_list(path)),
    "shared rates": lambda path: SharedRateStore(path, "relay", Rate.parse_all("1/day")).reserve(1),
    "an attachment": Attachment.from_path,
    "a DKIM key": lambda path: DkimKey.from_file("x.example", "s1", path),
    "a mailbox": lambda path: list(read_mail_files(path)),
}


@pytest.mark.parametrize("name", CALLS)
async def test_the_reason_is_the_system_s_without_its_number(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    path = tmp_path / "file" / "below"

    async def call() -> None:
        found = CALLS[name](path)
        if isawaitable(found):
            await found

    with pytest.raises(SMTPError) as caught:
        await call()
    said = str(caught.value)
    assert str(path) in said
    assert "not a directory" in said.lower() or "file exists" in said.lower()
    assert "[Errno" not in said

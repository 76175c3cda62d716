"""Addresses that differ from row to row: the copies of a message, and its sender, checked before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote

from asyncsmtp.bulk.recipients.recipient import Recipient, RecipientWithCopies, address_key
from asyncsmtp.client.config.hostport import split_url
from asyncsmtp.mail.address import is_aligned
from asyncsmtp.mail.list_unsubscribe import ReturnPath
from asyncsmtp.mail.templates.variables import split_name_and_address
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.recipients.file import RecipientFile
    from asyncsmtp.bulk.recipients.preflight import PreflightReport
    from asyncsmtp.bulk.setup.config import CampaignConfig
    from asyncsmtp.mail.templates.template import Composer

__all__ = ["describe_senders", "prepare_rows"]

MAX_SHOWN = 5  # senders of a kind
_DOMAIN = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")


async def prepare_rows(
    file: RecipientFile, composer: Composer, config: CampaignConfig, certified: Collection[str]
) -> tuple[str, Callable[[PreflightReport], Iterable[str]]]:
    """Have each row checked where it is read, for a campaign with copies, or with a sender of each row.

    Args:
        certified: the addresses that the certificate of [smime] is for.
    Returns:
        The domain of the Message-IDs, and a function that returns remarks about the rows.
    """

    def expand(row: Recipient) -> Recipient:
        author = composer.find_author(row.mailbox, row.fields)
        copies = tuple(composer.list_copies(row.mailbox, row.fields, address_key))
        row_values = (row.row, row.mailbox, row.fields, row.line, row.remark, row.separate, row.repaired, row.addresses)
        return RecipientWithCopies(*row_values, copies, author)

    file.rules = replace(file.rules, expand=expand)
    domain = await _find_domain(config, composer, file) if composer.author is None else composer.author.domain
    return domain, partial(describe_senders, config, certified) if composer.author is None else lambda report: ()


async def _find_domain(config: CampaignConfig, composer: Composer, file: RecipientFile) -> str:
    """Return the domain for the Message-IDs of a campaign whose sender differs from row to row.

    It is the one that all senders have, or that of the return path, or that of the first row's sender.
    """
    domain = split_name_and_address(config.from_)[1].rpartition("@")[2].strip()
    if _DOMAIN.fullmatch(domain):
        return Mailbox.parse(f"a@{domain}").domain
    if config.return_path is not None:
        return ReturnPath(config.return_path).address_for("a@a").domain
    async with aclosing(file.batches()) as batches:
        async for batch in batches:
            for row in batch:
                if isinstance(row, RecipientWithCopies) and row.author is not None:
                    return row.author.domain
    return "localhost"


def describe_senders(config: CampaignConfig, certified: Collection[str], report: PreflightReport) -> Iterator[str]:
    """Yield what may be wrong with the senders of the rows, one sentence each.

    Args:
        certified: the addresses that the certificate of [smime] is for.
    """
    senders = report.authors
    domains: dict[str, tuple[int, int]] = {}
    for author, (rows, first) in senders.items():
        known = domains.get(author.domain.lower(), (0, first))
        domains[author.domain.lower()] = (known[0] + rows, known[1])
    keys = ", ".join(each.domain for each in config.dkim)
    unsigned = {
        domain: where
        for domain, where in domains.items()
        if keys and not any(is_aligned(each.domain, domain) for each in config.dkim)
    }
    why = f"and the keys of [dkim] are for {keys}: such mail fails DMARC"
    yield from _describe_first([(f"at {domain}", *where) for domain, where in unsigned.items()], why)
    login = _find_login(config)
    others = [(str(each), *where) for each, where in senders.items() if "@" in login and str(each).lower() != login]
    why = f"and the login at the relay is {safe_text(login, 80)}: the relay must let it send as others"
    yield from _describe_first(others, why)
    if certified:
        others = [(str(each), *where) for each, where in senders.items() if str(each).lower() not in certified]
        yield from _describe_first(others, "and the certificate of [smime] is for another address: readers are warned")


def _describe_first(found: list[tuple[str, int, int]], why: str) -> Iterator[str]:
    for sender, rows, first in found[:MAX_SHOWN]:
        where = f"row {first}" if rows == 1 else f"{rows:,} rows, the first is row {first}"
        yield f"From is {safe_text(sender, 80)} in {where}, {why}"
    if len(found) > MAX_SHOWN:
        yield f"… and so for {len(found) - MAX_SHOWN:,} more senders"


def _find_login(config: CampaignConfig) -> str:
    """Return the user of the login at the first relay, in lower case; "" if there is none."""
    for relay in (each.relay for each in config.relay_configs):
        if isinstance(relay, str):
            return unquote(split_url(relay).netloc.rpartition("@")[0]).lower()
        return "" if relay.login is None else (relay.login.username or "").lower()
    return ""

"""Which ledger a command is about: a campaign's, its rehearsal's, or one named outright."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asyncsmtp.cli.output.failures import Failed

__all__ = ["Named", "named"]


@dataclass(frozen=True, slots=True)
class Named:
    """A ledger's place, and how the campaign is named on a command line."""

    path: Path
    reference: str


def named(campaign: Path | None, ledger: Path | None, *, sandbox: bool) -> Named:
    """Find the ledger of CAMPAIGN.toml, or take the one that --ledger names.

    Raises:
        Failed: neither was given, or the campaign file cannot be used.
    """
    if ledger is not None:
        return Named(ledger, f"--ledger {ledger}")
    if campaign is None:
        raise Failed("no campaign was given", "name its file, such as campaign.toml; or: --ledger NAME.ledger")
    from asyncsmtp.cli.campaign import campaignfile
    from asyncsmtp.cli.campaign.settings import settle

    settings = settle(campaignfile.read(campaign), {}, campaign)
    return Named(settings.ledger(sandbox=sandbox), f"{campaign}{' --sandbox' if sandbox else ''}")

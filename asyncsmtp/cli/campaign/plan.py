"""What one call of `asyncsmtp bulk` is to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsmtp.cli.campaign.settings import Settings
from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.cli.relays import relay_of

if TYPE_CHECKING:
    from asyncsmtp.client.settings.relay import Relay

__all__ = ["Plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Settings, and how this run goes about them.

    Attributes:
        ledger: where the outcomes are kept.
        reference: how the campaign is named on a command line.
        limit: rows to try in this run; None for all.
        wait: stay until those deferred were tried again.
        confirmed: nobody has to be asked.
    """

    settings: Settings
    ledger: Path
    reference: str
    limit: int | None = None
    strict: bool = False
    wait: bool = False
    confirmed: bool = False
    as_json: bool = False
    verbose: bool = False

    def relay(self) -> Relay:
        """The relay of the settings, its password found.

        Raises:
            Failed: there is none. BadArgument: its URL is no relay's.
        """
        if self.settings.relay is None:
            raise Failed(
                "no relay was given",
                "add --relay smtp://user@host:587, or url = … under [relay]; to rehearse: --sandbox",
            )
        return relay_of(
            self.settings.relay,
            ca_file=self.settings.ca_file,
            dialogue=self.settings.dialogue,
            password_command=self.settings.password_command,
            source_address=self.settings.source_address,
            proxy=self.settings.proxy,
            pins=self.settings.pins,
            client_cert=self.settings.client_cert,
            client_key=self.settings.client_key,
        )

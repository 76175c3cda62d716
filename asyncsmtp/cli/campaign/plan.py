"""What one call of `asyncsmtp bulk` is to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsmtp.bulk.postgres.place import Database
from asyncsmtp.cli.campaign.settings import Settings
from asyncsmtp.cli.campaign.shares import RelayShare
from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.cli.relays import relay_of

if TYPE_CHECKING:
    from asyncsmtp.client.config.relay import Relay

__all__ = ["Plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Settings, and how this run goes about them.

    Attributes:
        ledger: where the outcomes are kept.
        reference: how the campaign is named on a command line.
        limit: rows to try in this run; None for all.
        wait: stay until those deferred were tried again.
        add: a file with further recipients for a campaign that was begun.
        rehearses: nothing leaves this machine.
        confirmed: nobody has to be asked.
    """

    settings: Settings
    ledger: Path | Database
    reference: str
    limit: int | None = None
    strict: bool = False
    wait: bool = False
    add: Path | None = None
    rehearses: bool = False
    confirmed: bool = False
    as_json: bool = False
    verbose: bool = False

    def relays(self) -> list[tuple[Relay, RelayShare]]:
        """The relays of the settings with their shares, the first one first; their passwords found.

        Raises:
            Failed: there is none. InvalidArgument: a URL is no relay's.
        """
        main = [(self.relay(), self.own_share)] if self.settings.relay else []
        others = [
            (self._relay(share.url, share.password_command or self.settings.password_command), share)
            for share in self.settings.shares
        ]
        return main + others or [(self.relay(), RelayShare(url=""))]

    @property
    def own_share(self) -> RelayShare:
        """That of the relay in [relay]."""
        settings = self.settings
        return RelayShare(url="", sessions=settings.sessions, max_per_connection=settings.max_per_connection)

    def relay(self) -> Relay:
        """The first relay of the settings, its password found.

        Raises:
            Failed: there is none. InvalidArgument: its URL is no relay's.
        """
        if self.settings.relay is not None:
            return self._relay(self.settings.relay, self.settings.password_command)
        if self.settings.shares:
            return self.relays()[0][0]
        raise Failed(
            "no relay was given",
            "add --relay smtp://user@host:587, or url = … under [relay]; to rehearse: --sandbox",
        )

    def _relay(self, url: str, password_command: str | None) -> Relay:
        return relay_of(
            url,
            ca_file=self.settings.ca_file,
            dialogue=self.settings.dialogue,
            password_command=password_command,
            source_address=self.settings.source_address,
            proxy=self.settings.proxy,
            pins=self.settings.pins,
            client_cert=self.settings.client_cert,
            client_key=self.settings.client_key,
        )

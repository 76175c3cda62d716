"""What is done with each outcome as it is recorded: counted, and printed for a program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsmtp.bulk.states import State
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.records import json_line, of_settlement, reason_of
from asyncsmtp.protocol.delivery import Outcome

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger import Claim, Settlement
    from asyncsmtp.cli.output.meter import Meter

__all__ = ["Reporter"]

_OUTCOME = {State.of(outcome): outcome for outcome in Outcome}


class Reporter:
    """The watch of a run. It never raises: a report that cannot be written is no reason to stop the mails.

    Attributes:
        failed: whether stdout could not be written, so that what was printed is not all.
    """

    def __init__(self, meter: Meter, *, as_json: bool) -> None:
        self.failed = False
        self._meter = meter
        self._prints = as_json

    def watch(self, claim: Claim, settlement: Settlement) -> None:
        """Take one outcome."""
        accepted = settlement.state is State.ACCEPTED
        self._meter.count(_OUTCOME[settlement.state], "" if accepted else reason_of(settlement), again=claim.again)
        if self._prints:
            self._print(claim, settlement)

    def _print(self, claim: Claim, settlement: Settlement) -> None:
        try:
            self._prints = console.out(json_line(of_settlement(claim, settlement)), harmless=False)
        except OSError as error:
            self.failed, self._prints = True, False
            console.say(f"stdout cannot be written ({str(error.strerror).lower()}); the run goes on without it")
            console.say("  next: the ledger has every outcome: asyncsmtp results CAMPAIGN.toml --json")

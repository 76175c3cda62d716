"""A storm of refusals by policy, or of lost replies: the campaign stops before it has used up its recipients."""

from __future__ import annotations

from collections import deque

from asyncsmtp.bulk.ledger import Settlement
from asyncsmtp.bulk.states import State
from asyncsmtp.errors import CampaignHalted

__all__ = ["MOST", "SPAN", "Breaker"]

SPAN = 50  # outcomes that are looked back at
MOST = 20  # of these, so many may speak against going on


class Breaker:
    """Looks at the last outcomes of a run; once it is open it stays so.

    Enhanced codes 5.7.x (RFC 3463 §3.8) are about the sender: a blocked address, a revoked account. They refuse
    everyone, and each would be taken for a word about its recipient. A reply that is lost leaves a doubt for a person
    to decide; a relay that loses one after another would make a campaign of doubts.

    Attributes:
        halted: why the campaign must stop; None: it need not.
    """

    def __init__(self, span: int = SPAN, most: int = MOST) -> None:
        self.halted: CampaignHalted | None = None
        self._last: deque[bool] = deque(maxlen=span)
        self._most = most
        self._against = 0

    def admits(self, settlement: Settlement) -> bool:
        """Take an outcome to notice; False: the refusal is not one to hold against the recipient, as a storm is on."""
        refused = settlement.state is State.REJECTED and (settlement.status or "").startswith("5.7.")
        if self.halted is not None:
            return not refused
        against = refused or settlement.state is State.IN_DOUBT
        if against or self._against:  # as long as all goes well there is nothing to count
            self._count(against, settlement)
        return True

    def _count(self, against: bool, settlement: Settlement) -> None:
        if len(self._last) == self._last.maxlen:
            self._against -= self._last[0]
        self._last.append(against)
        self._against += against
        if self._against >= self._most:
            what = f"{settlement.code} {settlement.reply}" if settlement.code else settlement.reply
            self.halted = CampaignHalted(self._against, len(self._last), settlement.host, what)

"""What a relay has shown of its manners: whether it reads what was said before it answered.

RFC 2920 allows a client to say the next envelope behind the content's last dot. EHLO does not tell which
servers bear it: some refuse what follows (503), some lose it in silence, one crashes. So a session speaks
behind the dot only once it has proved its server, with an RSET in the same write as a dot: its reply in time
is the proof. A refusal or a silence is remembered for every later session with the same relay.

Some offer PIPELINING and yet throw away what they have read behind a command. That shows when an envelope
said in one group is answered in part and then no more; from then on commands are said one at a time.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import Enum

from asyncsmtp.client.connection.wire import Said
from asyncsmtp.protocol.commands import RSET, Command
from asyncsmtp.protocol.replies import Reply

__all__ = ["Behind", "Manners"]

logger = logging.getLogger("asyncsmtp.session")

PATIENCE = 1.0  # seconds for the reply to the probe, or …
ROUND_TRIPS = 4  # … so many round trips, whichever is longer


@dataclass(slots=True)
class Manners:
    """Shared by the sessions of one pool.

    Attributes:
        stops_at_the_dot: the relay refused or lost what was said behind a content.
        loses_commands: it answered part of an envelope that was said in one group, and no more.
    """

    stops_at_the_dot: bool = False
    loses_commands: bool = False

    def lost_commands(self, host: str) -> None:
        """It answered part of a group; said once, since somebody should know why it is slow."""
        if not self.loses_commands:
            self.loses_commands = True
            logger.warning(
                "%s offers PIPELINING and loses commands: it is spoken to command by command from now on; "
                "set its dialogue to lockstep to save the time of finding out",
                host,
            )


class _Known(Enum):
    NOTHING = "nothing"
    PROBING = "probing"
    PROVED = "proved"
    REFUSED = "refused"


_PROBING, _PROVED = _Known.PROBING, _Known.PROVED  # looked up once: on Python 3.11 that is a call


class Behind:
    """What one session knows of its server, and the probe that finds out.

    Args:
        round_trip: seconds, as the opening of the session took them.
    """

    def __init__(self, manners: Manners, round_trip: float) -> None:
        self._manners = manners
        self._patience = max(PATIENCE, ROUND_TRIPS * round_trip)
        self._known = _Known.REFUSED if manners.stops_at_the_dot else _Known.NOTHING

    @property
    def proved(self) -> bool:
        return self._known is _PROVED

    @property
    def probing(self) -> bool:
        return self._known is _PROBING

    def probe(self) -> list[Said]:
        """What to say behind a content to find out; nothing once that was tried."""
        if self._known is not _Known.NOTHING or self._manners.stops_at_the_dot:
            return []
        self._known = _Known.PROBING
        return [Said((RSET,), self._heard, self._patience)]

    def _heard(self, _: Command, reply: Reply) -> None:
        self._known = _Known.PROVED if reply.positive else _Known.REFUSED
        self._manners.stops_at_the_dot |= not reply.positive

    def lost(self) -> None:
        """The connection is gone; if a probe was out, that is the answer."""
        if self.probing:
            self._manners.stops_at_the_dot = True

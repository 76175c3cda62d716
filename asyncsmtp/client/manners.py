"""What a relay has shown of its manners: whether it reads on behind the end of a content.

RFC 2920 allows a client to say the next envelope behind the content's last dot. EHLO does not tell which
servers bear it: some refuse what follows (503), some lose it in silence, one crashes. So a session speaks
behind the dot only once it has proved its server, with an RSET in the same write as a dot: its reply in time
is the proof. A refusal or a silence is remembered for every later session with the same relay.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Behind", "Manners"]


@dataclass(slots=True)
class Manners:
    """Shared by the sessions of one pool.

    Attributes:
        stops_at_the_dot: the relay refused or lost what was said behind a content.
    """

    stops_at_the_dot: bool = False


class Behind(Enum):
    """What one session knows of its server."""

    UNKNOWN = "unknown"
    PROBING = "probing"
    PROVED = "proved"
    REFUSED = "refused"

"""How many sessions and messages a pool has room for, which changes as the relay and this process have it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import NoReturn

from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.events.types import EventEmitter, PoolResized
from asyncsmtp.client.pool.capacity import Capacity
from asyncsmtp.client.pool.ceiling import Ceiling
from asyncsmtp.client.pool.slot import Slot, Slots
from asyncsmtp.errors import AuthenticationRefused, ConnectFailed, Refused, SMTPError
from asyncsmtp.protocol.replies import Reply

__all__ = ["NoRoom", "Room", "is_no_room"]

logger = logging.getLogger("asyncsmtp.pool")

_FEWER = (
    "%s has no room for all of the %d sessions (%s): the pool goes on with fewer, and tries one more now and then; "
    "ask for fewer, or its owner for more"
)


class NoRoom(Exception):
    """There was no room for one session more: the message is for another one."""


def is_no_room(error: SMTPError) -> bool:
    """Whether that is what it may mean, with other sessions open: 421, 4yz or no connection, also for want of
    file descriptors (EMFILE). A refused password, or a certificate that is not valid, is said to the sender.
    """
    if isinstance(error, Refused):
        return 400 <= error.reply.code < 500 and not isinstance(error, AuthenticationRefused)
    return isinstance(error, ConnectFailed) and not isinstance(error.__cause__, ssl.SSLError)


class Room:
    """Keeps places, ceiling and capacity of a pool in step.

    Attributes:
        capacity: for messages in hand, `depth` a session.
    """

    def __init__(self, relay: Relay, slots: Slots, sessions: int, depth: int, witness: EventEmitter | None) -> None:
        self.capacity = Capacity(sessions * depth)
        self._relay = relay
        self._slots = slots
        self._depth = depth
        self._ceiling = Ceiling(sessions)
        self._witness = witness

    @property
    def sessions(self) -> int:
        """How many there may be now."""
        return self._ceiling.sessions

    def lower(self, slot: Slot, why: Reply | SMTPError) -> NoReturn:
        """There was no room for a session at this place: go on with the others.

        Raises:
            NoRoom: for the message that it was meant for.
        """
        if not self._ceiling.lowered:
            logger.warning(_FEWER, self._relay, self._ceiling.most, why)
        self._ceiling.lower(self._slots.bar(slot), asyncio.get_running_loop().time())
        self._resized(str(why))
        raise NoRoom(str(why))

    def accepted(self) -> None:
        """The relay took a message: there may be room for more."""
        if self._ceiling.lowered and self._ceiling.accepted(asyncio.get_running_loop().time()):
            self._slots.unbar()
            self._resized(None)

    def _resized(self, why: str | None) -> None:
        self.capacity.resize(self.sessions * self._depth)
        logger.info("%s may have %d sessions from now on", self._relay, self.sessions)
        if self._witness is not None:
            self._witness.tell(PoolResized(self._witness.host, self.sessions, why))

"""The hosts of one relay: in which order they are tried, and after which failures.

Three kinds of failure are told apart. Of *transport*: no connection, no handshake, a greeting that says "not now": the
next host may do better. *Permanent*: credentials, a certificate, a policy that cannot be met: wrong everywhere, and an
answer that nobody should go looking for elsewhere. *Past the point of no return*: never here, since only connecting is
tried again; a message in doubt stays with the host that may have it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.connection.tls import tls_context
from asyncsmtp.errors import (
    AllHostsFailed,
    AuthenticationRefused,
    CertificateRefused,
    ConnectFailed,
    Refused,
    SMTPError,
)
from asyncsmtp.protocol.delivery import TlsInfo
from asyncsmtp.protocol.opening_handshake import Security

__all__ = ["PENALTY", "Hosts", "may_do_better"]

logger = logging.getLogger("asyncsmtp.session")

PENALTY = 30.0  # seconds for which a host that failed comes last


def may_do_better(error: SMTPError) -> bool:
    """Whether another host is worth a try after this failure to open a session."""
    if isinstance(error, Refused):
        return error.reply.code < 500 and not isinstance(error, AuthenticationRefused)
    return isinstance(error, ConnectFailed) and not isinstance(error, CertificateRefused)


class Hosts:
    """The hosts of a relay, and which of them failed lately; the sessions of a pool share it."""

    def __init__(self, relay: Relay) -> None:
        self._each = relay.each
        self._until: dict[str, float] = {}
        self._unproved: set[str] = set()

    async def reach(self, connect: Callable[[Relay], Awaitable[TlsInfo | None]]) -> None:
        """Connect to the first host that takes us, in the order of the relay; those that failed lately come last.

        `connect` opens a session and returns what protects it.

        Cancelling it cancels the one that is being tried, and tries no other.

        Raises:
            AllHostsFailed: there are several, and none took us. Of a single host its own error.
            And what `connect` raises, where no other host may do better.
        """
        if len(self._each) == 1:
            self._opened(self._each[0], await connect(self._each[0]))
            return
        if self._each[0].security is not Security.PLAINTEXT:
            await tls_context(self._each[0])  # files that cannot be used are no host's fault
        failures = []
        for host in self.in_order():
            try:
                self._opened(host, await connect(host))
            except SMTPError as error:
                if not may_do_better(error):
                    raise
                self._failed(host)
                logger.info("the next host is tried: %s", error)
                failures.append((str(host), error))
            else:
                for name, failure in failures:
                    logger.warning("%s does not take us, %s does: %s", name, host, failure)
                return
        raise AllHostsFailed(failures) from failures[-1][1]

    def in_order(self) -> list[Relay]:
        """As the relay names them; but those that failed lately come last, in the order they did."""
        now = asyncio.get_running_loop().time()
        return sorted(self._each, key=lambda host: max(self._until.get(str(host), 0.0), now))

    def _failed(self, host: Relay) -> None:
        self._until[str(host)] = asyncio.get_running_loop().time() + PENALTY

    def _opened(self, host: Relay, tls: TlsInfo | None) -> None:
        """It works; say so once, and loudly, if nobody knows who it is."""
        name = str(host)
        self._until.pop(name, None)
        if tls is not None and not tls.verified and name not in self._unproved:
            self._unproved.add(name)
            logger.warning(
                "nobody verified the certificate of %s: whoever sits on the line can read and change what is sent; "
                "pin it (pins), or trust its CA (ca_file)",
                name,
            )

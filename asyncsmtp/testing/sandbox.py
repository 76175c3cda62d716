"""The sandbox: a relay on loopback that stores each mail in a Maildir and delivers none."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping

from asyncsmtp.testing.parser import CommandSyntaxError, parse_path
from asyncsmtp.testing.policy import Policy
from asyncsmtp.testing.received import Maildir, MessageNotAccepted, Received, StoredMail
from asyncsmtp.testing.relay import SmtpServer
from asyncsmtp.testing.script import Rule, Script, Stage, StageContext

__all__ = ["Sandbox"]


class Sandbox(SmtpServer):
    """A relay that accepts everything and delivers nothing.

        async with Sandbox("mail") as sandbox:
            await send_my_campaign(sandbox.url)
            print(sandbox.count)
        for mail in sandbox.mails():
            print(render(mail))

    It offers PIPELINING, CHUNKING, 8BITMIME, SMTPUTF8 and SIZE, and STARTTLS if it has a certificate. A mail is in
    `new` before its 250 is written; the file is not synchronized to the disk, since it is only there to be looked at.

    Args:
        maildir: the folder, created if missing; None stores nothing and counts.
        refuse: replies to RCPT by address, or by "@domain" for a whole domain: {"ann@example.net": "550 5.1.1 gone"}.
        fail_every: each n-th message is answered with 451 instead of being stored.
        tls: a server's context with its certificate.
        users: names and passwords, to try out a login; nobody has to log in.

    Attributes:
        count: mails stored since it started.
    """

    def __init__(
        self,
        maildir: str | os.PathLike[str] | None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        users: Mapping[str, str] | None = None,
        refuse: Mapping[str, str] | None = None,
        fail_every: int | None = None,
        max_size: int | None = 52_428_800,
        round_trip: float = 0.0,
        name: str = "sandbox.localhost",
    ) -> None:
        policy = Policy(name=name, starttls=tls is not None, users=users or {}, max_size=max_size)
        super().__init__(
            policy, Script(_refusals(refuse or {})), context=tls, host=host, port=port, round_trip=round_trip
        )
        self.count = 0
        self._maildir = None if maildir is None else Maildir(maildir)
        self._fail_every = fail_every
        self._offered = 0

    def mails(self) -> Iterator[StoredMail]:
        """Return the mails in its Maildir, earlier ones included, in the order of arrival."""
        return iter(()) if self._maildir is None else self._maildir.mails()

    def accept(self, message: Received) -> str:
        self._offered += 1
        if self._fail_every and self._offered % self._fail_every == 0:
            raise MessageNotAccepted("451 4.3.0 failing on request, try again later")
        try:
            name = "nowhere" if self._maildir is None else self._maildir.add(message)
        except OSError as error:
            raise MessageNotAccepted(f"452 4.3.1 the sandbox cannot write: {error.strerror}") from error
        self.count += 1
        return f"ok: stored as {name}"


def _refusals(refuse: Mapping[str, str]) -> dict[Stage, Rule]:
    """Return the rule for RCPT, if there is one: domains in any case, local parts as they are."""
    if not refuse:
        return {}
    replies = {_key(address): reply for address, reply in refuse.items()}

    def rule(context: StageContext) -> str | None:
        try:
            key = _key(parse_path(context.line.partition(b" ")[2], "TO:").address)
        except CommandSyntaxError:
            return None
        return replies.get(key) or replies.get(key[key.rfind("@") :])

    return {Stage.RCPT: rule}


def _key(address: str) -> str:
    local, at, domain = address.rpartition("@")
    return f"{local}{at}{domain.lower()}" if at else address

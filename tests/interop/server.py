"""The interface of the tests to a real server."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import trustme

from asyncsmtp.client.config.relay import Login, Relay
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.opening_handshake import Security
from tests.interop.jail import Jail, wait_until
from tests.interop.postfix import free_ports

__all__ = ["MAIL_OWNER", "PASSWORD", "USER", "Jailed", "Server", "original"]

USER = "news"
PASSWORD = "correct horse"  # with a space: a login that splits words fails here
MAIL_OWNER = "keeper"  # of the mailbox, inside a jail

TRACE = re.compile(rb"(?:(?:Return-Path|Delivered-To|X-Original-To|Received):[^\n]*\n(?:[ \t][^\n]*\n)*)*")


class Server:
    """One running server: where it listens, what it offers, and the mailbox behind it.

    Mail to anybody at example.com, .net or .org lands in one Maildir, but `nobody@example.com` is refused.

    Attributes:
        plain: the port that offers STARTTLS and needs none. submission: STARTTLS and AUTH required.
            smtps: TLS from the first octet, AUTH required.
        limit: the octets of the largest message.
        client_certificate: a key and a certificate that names the user, in one file.
        mechanisms: what AUTH offers, over TLS, to a client without a certificate.
        knows_certificates: whether a client with a certificate may log in by EXTERNAL.
        extensions: keywords that EHLO offers over TLS, and that the tests count on.
        asks_in_clear: whether the plain port wants a login as well.
        has_busy: whether `busy@example.com` is refused for now.
        queues: the folders of mails that are accepted and not delivered yet.
    """

    host = "127.0.0.1"
    plain: int
    submission: int
    smtps: int
    ca_file: Path
    client_certificate: Path
    maildir: Path
    queues: tuple[Path, ...]
    limit = 1_000_000
    mechanisms: frozenset[str]
    extensions: frozenset[str]
    asks_in_clear = False
    has_busy = True
    knows_certificates = False

    @property
    def log(self) -> str:
        """Return what the server logged so far."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it, and forget its mail."""
        raise NotImplementedError

    def token(self) -> str:
        """An access token that it takes, where it offers OAuth."""
        raise NotImplementedError

    def clear(self) -> None:
        """Forget every mail delivered so far."""
        for file in self._delivered():
            file.unlink()

    def wait_for(self, count: int) -> list[bytes]:
        """The files of the mailbox, once there are `count` and nothing is on its way: delivery follows the 250."""

        def explanation() -> str:
            return f"{len(self._delivered())} of {count} mails arrived:\n{self.log[-4000:]}"

        wait_until(lambda: len(self._delivered()) >= count and not self._queued(), explanation)
        return [file.read_bytes() for file in self._delivered()]

    def relay(self, security: Security = Security.STARTTLS, **settings: Any) -> Relay:
        """Return the relay to submit to it with; with a login if it demands one."""
        ports = {Security.STARTTLS: self.submission, Security.IMPLICIT_TLS: self.smtps, Security.PLAINTEXT: self.plain}
        in_clear = security is Security.PLAINTEXT
        login = None if in_clear and not self.asks_in_clear else Login(USER, Secret(PASSWORD))
        given = {"login": login, "ca_file": self.ca_file, "cleartext_login": in_clear} | settings
        return Relay("localhost", ports[security], security, **given)

    def _delivered(self) -> list[Path]:
        return sorted((self.maildir / "new").glob("*"))

    def _queued(self) -> bool:
        return any(files for queue in self.queues for _, _, files in os.walk(queue))


class Jailed(Server):
    """A server in a jail; starts when it is made.

    Attributes:
        name: as in `install.SERVERS`. users: the accounts that it has inside. command: starts it in the foreground.
    """

    name: str
    users: tuple[str, ...]
    command: tuple[str, ...]

    def __init__(self) -> None:
        self.jail = Jail(self.name, (*self.users, MAIL_OWNER))
        try:
            self.plain, self.submission, self.smtps = free_ports(3)
            self._make_mailbox()
            self._lay_out()
            self.jail.start(*self.command, ports=(self.plain, self.submission, self.smtps))
        except BaseException:
            self.jail.stop()
            raise

    @property
    def log(self) -> str:
        return self.jail.log

    def stop(self) -> None:
        self.jail.stop()

    def _lay_out(self) -> None:
        """Write its configuration, and what that names."""
        raise NotImplementedError

    def _make_mailbox(self) -> None:
        self.maildir = self.jail.folder("/mail", MAIL_OWNER)
        for part in ("new", "cur", "tmp"):
            self.jail.folder(f"/mail/{part}", MAIL_OWNER)

    def _certify(self, owner: str = "root") -> None:
        """Make an authority of its own: a certificate of that for clients, a key and certificate for the server."""
        authority = trustme.CA()
        self.ca_file = self.jail.path("/etc/ca.pem")
        authority.cert_pem.write_to_path(str(self.ca_file))
        certificate = authority.issue_cert("localhost", self.host)
        self.jail.write("/etc/server.pem", certificate.private_key_and_cert_chain_pem.bytes(), owner)
        self.client_certificate = self.jail.path("/etc/client.pem")
        client = authority.issue_cert(f"{USER}@example.org", common_name=USER)
        client.private_key_and_cert_chain_pem.write_to_path(str(self.client_certificate))


def original(stored: bytes) -> bytes:
    """A mail of the mailbox as it was submitted: without the fields of its trace, with the line ends of the wire."""
    return TRACE.sub(b"", stored, count=1).replace(b"\n", b"\r\n")

"""Where reports come in, on another machine: a folder of an IMAP server (RFC 9051), by TLS from the first octet."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote

from asyncsmtp.bulk.bounces.report import MOST_OCTETS
from asyncsmtp.client.config.proxy import parse_host_port, split_url
from asyncsmtp.errors import CertificateRefused, ConnectFailed, InvalidArgument, MissingDependency
from asyncsmtp.protocol.auth.sasl import Secret
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from imapclient import IMAPClient

__all__ = ["ImapFolder", "ImapPlace", "LoginRefused"]

PATIENCE = 60.0  # seconds for each answer
WINDOW = 5_000  # messages that one search is about
_FORM = "write imaps://user@host/INBOX"


class LoginRefused(InvalidArgument):
    """The server takes another user or another password."""


@dataclass(frozen=True, slots=True)
class ImapPlace:
    """A folder, and who may read it."""

    user: str
    host: str
    port: int
    folder: str

    def __str__(self) -> str:
        return safe_text(f"imaps://{self.user}@{self.host}:{self.port}/{self.folder}", 200)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Take `imaps://user@host:993/Folder` (RFC 5092 §2), `%XX` decoded.

        Raises:
            InvalidArgument: not an IMAP URL, or one with a password (which is not repeated) or a control character.
        """
        parts = split_url(url)
        user, _, hosts = parts.netloc.rpartition("@")
        shown = safe_text(url, 80)
        if parts.scheme != "imaps" or not user or parts.query or parts.fragment:
            raise InvalidArgument(f"“{shown}” is no folder of an IMAP server: {_FORM}")
        host, port = parse_host_port(hosts)
        place = cls(unquote(user), host, port or 993, unquote(parts.path).strip("/") or "INBOX")
        if not (place.user + place.host + place.folder).isprintable():
            raise InvalidArgument(f"“{shown}” holds a control character: {_FORM}")
        return place


class ImapFolder:
    """A folder that is open; every method blocks. Nothing is deleted, and only `mark` changes anything.

    Args:
        ca_file: authorities to trust beside the system's.
        writable: whether `mark` will be called; without it the server itself is told that nothing may change.
    """

    def __init__(self, place: ImapPlace, password: Secret, *, ca_file: Path | None, writable: bool) -> None:
        """Raises as `__enter__` does, for what is no password: it may hold no control character."""
        if not password.reveal().isprintable():
            raise LoginRefused("the password holds a control character: is it the right one?")
        self._place = place
        self._password = password
        self._ca_file = ca_file
        self._writable = writable
        self._client: IMAPClient | None = None
        self._messages = 0

    def __enter__(self) -> Self:
        """Connect, log in, open the folder.

        Raises:
            MissingDependency: the library is not there. ConnectFailed: the server, or its certificate.
            LoginRefused: the password. InvalidArgument: the folder.
        """
        try:
            from imapclient import IMAPClient
            from imapclient.exceptions import IMAPClientError, LoginError
        except ImportError:
            raise MissingDependency("reading a mailbox by IMAP", "asyncsmtp[imap]") from None
        place = self._place
        try:
            context = _context(self._ca_file)
            client = IMAPClient(place.host, place.port, ssl=True, ssl_context=context, timeout=PATIENCE)
        except ssl.SSLCertVerificationError as error:
            raise CertificateRefused(f"{place}: the certificate is refused: {error.verify_message}") from error
        except (OSError, IMAPClientError) as error:
            raise _lost(place, error) from error
        try:
            # PLAIN, since LOGIN would have the user's name in a command as it is
            client.plain_login(place.user, self._password.reveal())
            found = client.select_folder(place.folder, readonly=not self._writable)
            self._messages = int(found[b"EXISTS"])
        except LoginError as error:
            client.shutdown()
            raise LoginRefused(f"{place}: the login is refused: {safe_text(str(error), 200)}") from None
        except IMAPClientError as error:
            client.shutdown()
            if isinstance(error, client.AbortError):
                raise _lost(place, error) from error
            raise InvalidArgument(f"{place} cannot be opened: {safe_text(str(error), 200)}") from error
        except OSError as error:
            client.shutdown()
            raise _lost(place, error) from error
        self._client = client
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.__exit__(kind, error, trace)

    def messages(self, since: date | None = None) -> Iterator[tuple[int, bytes]]:
        """Each message that nobody has seen, or each that came on `since` or later: its UID, and its octets.

        Of a message as much as a report is looked at, one at a time; none is marked as seen by that. From the newest
        on, so that what others delete meanwhile hides none. One that is gone when its turn comes is left out.

        Raises:
            ConnectFailed: the server is lost.
        """
        wanted = ["SINCE", since] if since is not None else ["UNSEEN"]
        client = self._opened()
        for last in range(self._messages, 0, -WINDOW):
            with _talking(self._place):
                found = client.search([f"{max(1, last - WINDOW + 1)}:{last}", *wanted])
            for uid in found:
                with _talking(self._place):
                    parts = client.fetch([uid], [f"BODY.PEEK[]<0.{MOST_OCTETS}>"]).get(uid, {})
                octets = parts.get(b"BODY[]<0>")
                if isinstance(octets, bytes):
                    yield int(uid), octets[:MOST_OCTETS]

    def mark(self, uids: Sequence[int]) -> None:
        r"""Have these messages marked as seen (`\Seen`).

        Raises:
            ConnectFailed: the server is lost.
        """
        for first in range(0, len(uids), WINDOW // 10):
            with _talking(self._place):
                self._opened().add_flags(uids[first : first + WINDOW // 10], [rb"\Seen"], silent=True)

    def _opened(self) -> IMAPClient:
        if self._client is None:
            raise RuntimeError("the folder is not open: use it in a with statement")
        return self._client


@contextmanager
def _talking(place: ImapPlace) -> Iterator[None]:
    """Turn what the library raises of a lost or a strange server into ConnectFailed."""
    from imapclient.exceptions import IMAPClientError

    try:
        yield
    except (OSError, IMAPClientError) as error:
        raise _lost(place, error) from error


def _context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context()
        if ca_file is not None:
            context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"the CA file {ca_file} cannot be used: {error.strerror or error}") from error
    if ssl.HAS_NEVER_CHECK_COMMON_NAME:  # a common name proves no host (RFC 9525 §2)
        context.hostname_checks_common_name = False
    return context


def _lost(place: ImapPlace, error: Exception) -> ConnectFailed:
    why = getattr(error, "strerror", None) or error or type(error).__name__
    return ConnectFailed(f"{place}: {safe_text(str(why), 200)}")

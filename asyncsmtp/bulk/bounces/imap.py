"""Bounce messages of an IMAP folder (RFC 9051), over implicit TLS."""

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

from asyncsmtp.bulk.bounces.dsn import MAX_DSN_BYTES
from asyncsmtp.client.config.hostport import parse_host_port, split_url
from asyncsmtp.errors import CertificateRefused, ConnectFailed, InvalidArgument, MissingDependency
from asyncsmtp.protocol.auth.credentials import Secret
from asyncsmtp.protocol.masking import SecretMask
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from imapclient import IMAPClient

__all__ = ["REPLY_TIMEOUT", "ImapFolder", "ImapUrl", "LoginRefused", "make_context", "split_mailbox_url"]

REPLY_TIMEOUT = 60.0  # seconds
SEARCH_BATCH = 5_000  # messages of one search
STORE_BATCH = 500  # messages of one STORE
_FORM = "write imaps://user@host/INBOX"


class LoginRefused(InvalidArgument):
    """The server refused the user or the password."""


def split_mailbox_url(url: str, scheme: str, what: str, form: str) -> tuple[str, str, int | None, str]:
    """Return user, host, port and path of the URL of a mailbox, `%XX` decoded.

    Raises:
        InvalidArgument: not a valid URL, or one with a password (which the message omits) or a control character.
    """
    parts = split_url(url)
    user, _, hosts = parts.netloc.rpartition("@")
    shown = safe_text(url, 80)
    if parts.scheme != scheme or not user or parts.query or parts.fragment:
        raise InvalidArgument(f"“{shown}” is not the URL of {what}: {form}")
    host, port = parse_host_port(hosts)
    user, path = unquote(user), unquote(parts.path)
    if not (user + host + path).isprintable():
        raise InvalidArgument(f"“{shown}” has a control character: {form}")
    return user, host, port, path


@dataclass(frozen=True, slots=True)
class ImapUrl:
    """The URL of a folder, with the user."""

    user: str
    host: str
    port: int
    folder: str

    def __str__(self) -> str:
        return safe_text(f"imaps://{self.user}@{self.host}:{self.port}/{self.folder}", 200)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Parse `imaps://user@host:993/Folder` (RFC 5092 §2), `%XX` decoded.

        Raises:
            InvalidArgument: not a valid URL, or one with a password (which the message omits) or a control character.
        """
        user, host, port, path = split_mailbox_url(url, "imaps", "an IMAP folder", _FORM)
        return cls(user, host, port or 993, path.strip("/") or "INBOX")


class ImapFolder:
    """An open folder; every method blocks. Nothing is deleted, and only `mark_seen` changes anything.

    Args:
        ca_file: authorities to trust beside the system's.
        writable: whether `mark_seen` will be called; otherwise the folder is opened read-only (EXAMINE).
    """

    def __init__(self, url: ImapUrl, password: Secret, *, ca_file: Path | None, writable: bool) -> None:
        """Raises LoginRefused: the password has a control character."""
        if not password.reveal().isprintable():
            raise LoginRefused("the password has a control character: is it the right one?")
        self._url = url
        self._password = password
        self._ca_file = ca_file
        self._writable = writable
        self._client: IMAPClient | None = None
        self._messages = 0

    def __enter__(self) -> Self:
        """Connect, log in, open the folder.

        Raises:
            MissingDependency: imapclient is missing. ConnectFailed: no connection, or the certificate is refused.
            LoginRefused: the password is refused. InvalidArgument: the folder cannot be opened.
        """
        try:
            from imapclient import IMAPClient  # an extra
            from imapclient.exceptions import IMAPClientError, LoginError
        except ImportError:
            raise MissingDependency("reading a mailbox by IMAP", "asyncsmtp[imap]") from None
        url = self._url
        try:
            context = make_context(self._ca_file)
            client = IMAPClient(url.host, url.port, ssl=True, ssl_context=context, timeout=REPLY_TIMEOUT)
        except ssl.SSLCertVerificationError as error:
            raise CertificateRefused(f"{url}: the certificate is refused: {error.verify_message}") from error
        except (OSError, IMAPClientError) as error:
            raise _lost(url, error) from error
        try:
            # PLAIN, since LOGIN would put the user name into a command as it is
            client.plain_login(url.user, self._password.reveal())
            found = client.select_folder(url.folder, readonly=not self._writable)
            self._messages = int(found[b"EXISTS"])
        except LoginError as error:
            client.shutdown()
            raise LoginRefused(f"{url}: the login is refused: {self._describe(error)}") from None
        except IMAPClientError as error:
            client.shutdown()
            if isinstance(error, client.AbortError):
                raise _lost(url, error) from error
            raise InvalidArgument(f"{url} cannot be opened: {self._describe(error)}") from error
        except OSError as error:
            client.shutdown()
            raise _lost(url, error) from error
        self._client = client
        return self

    def _describe(self, error: Exception) -> str:
        """Return the words of the server, which may echo the password."""
        return safe_text(SecretMask(self._password.reveal().encode()).mask_text(str(error)), 200)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.__exit__(kind, error, trace)

    def messages(self, since: date | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield the UID and the first `MAX_DSN_BYTES` of each unseen message, or of each that came on `since` or later.

        They are fetched one at a time and not marked as seen. The newest comes first, so that messages that others
        delete meanwhile hide none. A message that is gone when its turn comes is left out.

        Raises:
            ConnectFailed: the connection is lost.
        """
        wanted = ["SINCE", since] if since is not None else ["UNSEEN"]
        client = self._connected()
        for last in range(self._messages, 0, -SEARCH_BATCH):
            with _translate_errors(self._url):
                found = client.search([f"{max(1, last - SEARCH_BATCH + 1)}:{last}", *wanted])
            for uid in found:
                with _translate_errors(self._url):
                    parts = client.fetch([uid], [f"BODY.PEEK[]<0.{MAX_DSN_BYTES}>"]).get(uid, {})
                data = parts.get(b"BODY[]<0>")
                if isinstance(data, bytes):
                    yield int(uid), data[:MAX_DSN_BYTES]

    def mark_seen(self, uids: Sequence[int]) -> None:
        r"""Mark messages as seen (`\Seen`). Raises ConnectFailed: the connection is lost."""
        for first in range(0, len(uids), STORE_BATCH):
            with _translate_errors(self._url):
                self._connected().add_flags(uids[first : first + STORE_BATCH], [rb"\Seen"], silent=True)

    def _connected(self) -> IMAPClient:
        if self._client is None:
            raise RuntimeError("the folder is not open: use it in a with statement")
        return self._client


@contextmanager
def _translate_errors(url: ImapUrl) -> Iterator[None]:
    """Turn the errors of the library into ConnectFailed."""
    from imapclient.exceptions import IMAPClientError

    try:
        yield
    except (OSError, IMAPClientError) as error:
        raise _lost(url, error) from error


def make_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities, and those of a file."""
    try:
        context = ssl.create_default_context()
        if ca_file is not None:
            context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"the CA file {ca_file} cannot be used: {error.strerror or error}") from error
    if ssl.HAS_NEVER_CHECK_COMMON_NAME:  # a common name proves no host (RFC 9525 §2)
        context.hostname_checks_common_name = False
    return context


def _lost(url: ImapUrl, error: Exception) -> ConnectFailed:
    why = getattr(error, "strerror", None) or error or type(error).__name__
    return ConnectFailed(f"{url}: {safe_text(str(why), 200)}")

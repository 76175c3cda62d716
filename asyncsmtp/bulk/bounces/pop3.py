"""Bounce messages of a POP3 mailbox (RFC 1939), over implicit TLS.

Not by `poplib`: it refuses lines of more than 2,048 bytes, and reads however much a server sends.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from asyncsmtp.bulk.bounces.imap import REPLY_TIMEOUT, LoginRefused, make_context, split_mailbox_url
from asyncsmtp.bulk.bounces.mime_parser import MAX_DSN_BYTES
from asyncsmtp.errors import CertificateRefused, ConnectFailed, InvalidArgument
from asyncsmtp.protocol.auth.credentials import Secret
from asyncsmtp.protocol.masking import SecretMask
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Pop3Mailbox", "Pop3Url"]

MAX_MESSAGES = 1_000_000  # of a mailbox, in the server's answer to STAT
_MAX_LINE = 64 * 1024  # bytes that are read at once
_MAX_READ = 256 * 1024 * 1024  # bytes of a message that is read past its first `MAX_DSN_BYTES`
_FORM = "write pop3s://user@host"


@dataclass(frozen=True, slots=True)
class Pop3Url:
    """The URL of a mailbox, with the user."""

    user: str
    host: str
    port: int

    def __str__(self) -> str:
        return safe_text(f"pop3s://{self.user}@{self.host}:{self.port}", 200)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Parse `pop3s://user@host:995`, `%XX` decoded.

        Raises:
            InvalidArgument: not a valid URL, or one with a password (which the message omits) or a control character.
        """
        user, host, port, path = split_mailbox_url(url, "pop3s", "a POP3 mailbox", _FORM)
        if path.strip("/"):
            raise InvalidArgument(f"“{safe_text(url, 80)}” is not the URL of a POP3 mailbox: {_FORM}")
        return cls(user, host, port or 995)


class Pop3Mailbox:
    """An open mailbox; every method blocks. Nothing is deleted, and POP3 can mark nothing: each run reads all of it.

    Args:
        ca_file: authorities to trust beside the system's.
    """

    def __init__(self, url: Pop3Url, password: Secret, *, ca_file: Path | None) -> None:
        """Raises LoginRefused: the password has a control character."""
        if not password.reveal().isprintable():
            raise LoginRefused("the password has a control character: is it the right one?")
        self._url = url
        self._password = password
        self._ca_file = ca_file
        self._socket: ssl.SSLSocket | None = None
        self._file: BinaryIO | None = None
        self._count = 0

    def __enter__(self) -> Self:
        """Connect, log in, count the messages.

        Raises:
            ConnectFailed: no connection, the certificate is refused, or the server does not talk POP3.
            LoginRefused: the user or the password is refused.
        """
        url, context = self._url, make_context(self._ca_file)
        try:
            plain = socket.create_connection((url.host, url.port), REPLY_TIMEOUT)
            try:
                self._socket = context.wrap_socket(plain, server_hostname=url.host)
            except BaseException:
                plain.close()
                raise
        except ssl.SSLCertVerificationError as error:
            raise CertificateRefused(f"{url}: the certificate is refused: {error.verify_message}") from error
        except OSError as error:
            raise self._lost(error) from error
        try:
            self._file = self._socket.makefile("rb")
            with self._translate_errors():
                self._reply("the greeting")
                for command in (f"USER {url.user}", f"PASS {self._password.reveal()}"):
                    try:
                        self._send(command)
                        self._reply("the login")
                    except _RefusedError as error:
                        mask = SecretMask(self._password.reveal().encode())
                        why = safe_text(mask.mask_text(str(error)), 200)
                        raise LoginRefused(f"{url}: the login is refused: {why}") from None
                self._send("STAT")
                count = self._reply("STAT").split(b" ", 1)[0]
                self._count = min(int(count), MAX_MESSAGES) if count.isdigit() and len(count) < 10 else 0
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._socket is not None:
            with suppress(OSError, ConnectFailed, _RefusedError):
                self._send("QUIT")
                self._reply("QUIT")
        self._close()

    def messages(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number and the first `MAX_DSN_BYTES` of each message, the newest first.

        A message that the server does not give out, since somebody deleted it, is left out.

        Raises:
            ConnectFailed: the connection is lost.
        """
        for number in range(self._count, 0, -1):
            with self._translate_errors():
                self._send(f"RETR {number}")
                try:
                    self._reply("RETR")
                except _RefusedError:
                    continue
                data = self._read_message()
            yield number, data

    def _read_message(self) -> bytes:
        """Read up to the line with a dot only (RFC 1939 §3)."""
        kept: list[bytes] = []
        size, begins = 0, True  # whether this begins a line
        while (line := self._line()) not in (b".\r\n", b".\n") or not begins:
            if begins and line.startswith(b"."):
                line = line[1:]
            begins = line.endswith(b"\n") or not line
            if size < MAX_DSN_BYTES:
                kept.append(line)
            size += len(line)
            if size > _MAX_READ:
                raise ConnectFailed(f"{self._url}: a message has more than {_MAX_READ // 2**20} MiB")
        return b"".join(kept)[:MAX_DSN_BYTES]

    def _send(self, command: str) -> None:
        assert self._socket is not None
        self._socket.sendall(command.encode() + b"\r\n")

    def _reply(self, what: str) -> bytes:
        """Return the text of `+OK`. Raises _RefusedError: it is `-ERR`."""
        line = self._line().strip()
        if line.startswith(b"+OK"):
            return line[3:].strip()
        text = line.decode("utf-8", "replace")
        if line.startswith(b"-ERR"):
            raise _RefusedError(text[4:].strip())
        raise ConnectFailed(f"{self._url}: the answer to {what} is not POP3: “{safe_text(text, 200)}”")

    def _line(self) -> bytes:
        assert self._file is not None
        line = self._file.readline(_MAX_LINE)
        if not line:
            raise ConnectFailed(f"{self._url}: the server closed the connection")
        return line

    def _close(self) -> None:
        for each in (self._file, self._socket):
            if each is not None:
                with suppress(OSError):
                    each.close()
        self._file = self._socket = None

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._lost(error) from error
        except _RefusedError as error:
            raise ConnectFailed(f"{self._url}: the server refuses: {safe_text(str(error), 200)}") from None

    def _lost(self, error: OSError) -> ConnectFailed:
        why = getattr(error, "strerror", None) or error or type(error).__name__
        return ConnectFailed(f"{self._url}: {safe_text(str(why), 200)}")


class _RefusedError(Exception):
    """The server answered -ERR; its words, as they are."""

"""The mailbox that `asyncsmtp bounces` reads: on this machine, or by IMAP; its failures, some thousands at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsmtp.cli.output.exits import Exit
from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.cli.secrets import password
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.bounces.dsn import Bounce
    from asyncsmtp.bulk.bounces.imap import ImapFolder
    from asyncsmtp.mail.verp import ReturnPath

__all__ = ["Batch", "Inbox", "opened"]

BATCH = 10_000  # failures in memory at a time


@dataclass(slots=True)
class Batch:
    """Some of the failures, by what stands for their messages; and the UIDs of the reports, where they have some."""

    failures: dict[str, Bounce] = field(default_factory=dict)
    uids: list[int] = field(default_factory=list)


class Inbox:
    """Messages to read, one after the other; every method blocks. As a text it is its place."""

    def __init__(self, place: object, messages: Iterable[tuple[int, bytes]], marks: ImapFolder | None = None) -> None:
        self._place = place
        self._messages = messages
        self._marks = marks

    def __str__(self) -> str:
        return safe_text(str(self._place))

    def batches(self, path: ReturnPath | None) -> Iterator[Batch]:
        """The failures that the messages report."""
        from asyncsmtp.bulk.bounces.dsn import parse_dsn

        batch = Batch()
        for uid, octets in self._messages:
            reported = False
            for bounce in parse_dsn(octets):
                reported = True
                tokens = [path.parse_token(address) for address in bounce.sent_to] if path else []
                token = next(filter(None, tokens), None) or bounce.message_id.partition("@")[0]
                if bounce.failed and token:
                    batch.failures[token] = bounce
            if reported and self._marks is not None:
                batch.uids.append(uid)
            if len(batch.failures) >= BATCH or len(batch.uids) >= BATCH:
                yield batch
                batch = Batch()
        if batch.failures or batch.uids:
            yield batch

    def done(self, batch: Batch) -> None:
        """What was in the batch is recorded: its reports need not be read again."""
        if self._marks is not None:
            self._marks.mark_seen(batch.uids)


@contextmanager
def opened(
    mailbox: str, since: datetime | None, *, seen: bool, ca_file: Path | None, password_command: str | None
) -> Iterator[Inbox]:
    """Open what --from names.

    Raises:
        Failed: the server cannot be reached, or refuses the login; an option does not fit. InvalidArgument: the place.
    """
    if "://" not in mailbox:
        if since is not None or seen:
            raise Failed("--since and --seen are about a mailbox by IMAP", "leave them out: all messages are read")
        from asyncsmtp.bulk.bounces.dsn import read_mail_files

        yield Inbox(mailbox, ((0, octets) for octets in read_mail_files(Path(mailbox))))
        return
    from asyncsmtp.bulk.bounces.imap import ImapFolder, ImapUrl, LoginRefused
    from asyncsmtp.errors import ConnectFailed

    place = ImapUrl.from_url(mailbox)
    secret = password(place.user, place.host, password_command)
    try:
        with ImapFolder(place, secret, ca_file=ca_file, writable=seen) as folder:
            yield Inbox(place, folder.messages(since.date() if since else None), folder if seen else None)
    except LoginRefused as error:
        advice = "set the right ASYNCSMTP_PASSWORD and user, then run the same command again"
        raise Failed(str(error), advice, Exit.AUTHENTICATION) from None
    except ConnectFailed as error:
        advice = "see that it is right and reachable, then run the same command again: nothing is lost"
        raise Failed(str(error), advice, Exit.UNREACHABLE) from error

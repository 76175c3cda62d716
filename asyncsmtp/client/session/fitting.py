"""Whether the relay has what a message needs: found out before anything of it is said."""

from __future__ import annotations

from asyncsmtp.client.session.line import Line
from asyncsmtp.client.session.place import BeforeEnd, Place
from asyncsmtp.errors import ExtensionNotSupported
from asyncsmtp.protocol.content import AnyContent
from asyncsmtp.protocol.delivery import TlsInfo
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.extensions import Extensions
from asyncsmtp.protocol.transaction import Transaction, mail_parameters, rcpt_parameters

__all__ = ["fitted"]


def fitted(
    envelope: Envelope,
    content: AnyContent,
    before_end: BeforeEnd | None,
    *,
    offered: Extensions,
    line: Line,
    lmtp: bool,
    tls: TlsInfo | None,
) -> Place:
    """A place in the line, its commands made.

    Raises:
        ExtensionNotSupported, InsecureConnection: as `Session.send`; nothing was said.
    """
    needed = mail_parameters(envelope, content, offered, verified=tls is not None and tls.verified)
    if content.binary and not line.pipelined:
        raise ExtensionNotSupported("PIPELINING", "binary content goes in chunks, one behind the other: use base64")
    transaction = Transaction(
        envelope,
        needed,
        rcpt_parameters(envelope, offered),
        pipelined=line.pipelined,
        chunked=line.chunked or content.binary,
        lmtp=lmtp,
    )
    return Place(transaction, content, before_end, line.loop)

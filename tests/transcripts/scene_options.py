"""ESMTP options of a scene, read from its head.

mail_options: ret=HDRS envid=QQ314159 deliver_by=120;N
to: bob@example.net notify=SUCCESS|FAILURE orcpt=rfc822;ann@example.org, carol@example.net notify=NEVER
xclient: name=spike.example addr=192.0.2.7
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any

from asyncsmtp.protocol.envelope import (
    ByMode,
    DeliverBy,
    Envelope,
    Mailbox,
    MailOptions,
    Notify,
    RcptOptions,
    Ret,
    ValidSince,
)
from asyncsmtp.protocol.opening_handshake import XClient

__all__ = ["build_envelope", "build_xclient"]

REVERSE_PATH = "ann@example.org"


def build_envelope(settings: Mapping[str, str], recipients: tuple[str, ...]) -> Envelope:
    """Build the envelope of one `to`, with the options after its addresses, and those of the scene."""
    paths = [recipient.split()[0] for recipient in recipients]
    each = [recipient.split()[1:] for recipient in recipients]
    mail_options = (
        MailOptions(**_fields(settings["mail_options"].split(), _MESSAGE)) if "mail_options" in settings else None
    )
    asked = [RcptOptions(**_fields(words, _RECIPIENT)) if words else None for words in each]
    return Envelope.of(REVERSE_PATH, paths, mail_options=mail_options, rcpt_options=asked if any(each) else ())


def build_xclient(settings: Mapping[str, str]) -> XClient | None:
    """Build the attributes of the other client that the scene names; None without them."""
    if "xclient" not in settings:
        return None
    return XClient(**_fields(settings["xclient"].split(), {"port": int, "destport": int}))


def _fields(words: Iterable[str], readers: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    said = (word.partition("=") for word in words)
    return {name: readers.get(name, str)(value) for name, _, value in said}


def _deliver_by(text: str) -> DeliverBy:
    seconds, _, mode = text.partition(";")
    return DeliverBy(int(seconds), ByMode(mode[0]), mode.endswith("T"))


def _valid_since(text: str) -> ValidSince:
    moment, _, otherwise = text.partition(";")
    return ValidSince(datetime.fromisoformat(moment), {"": None, "C": True, "R": False}[otherwise])


_MESSAGE: Mapping[str, Callable[[str], Any]] = {
    "ret": Ret,
    "require_tls": "yes".__eq__,
    "deliver_by": _deliver_by,
    "hold_for": int,
    "hold_until": datetime.fromisoformat,
    "priority": int,
    "auth": lambda text: text if text == "<>" else Mailbox.parse(text),
}
_RECIPIENT: Mapping[str, Callable[[str], Any]] = {
    "notify": lambda text: reduce(or_, (Notify[word] for word in text.split("|"))),
    "valid_since": _valid_since,
}

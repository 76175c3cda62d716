"""The parameters of MAIL and RCPT that a message needs, checked against what the relay offers, before MAIL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from asyncsmtp.errors import InsecureConnection, NotOffered
from asyncsmtp.protocol.content import AnyContent
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.extensions import Extensions, Limits
from asyncsmtp.protocol.wishes import ByMode, Wish, Wishes, utc

__all__ = ["Parameters", "parameters", "recipient_parameters"]

Parameters = Mapping[str, str | None]


def parameters(
    envelope: Envelope, content: AnyContent, offered: Extensions, *, verified: bool = False
) -> dict[str, str | None]:
    """The parameters of MAIL that this message needs.

    Args:
        verified: whether the session is under TLS and the relay's certificate was verified.
    Raises:
        NotOffered: the relay does not offer what the message needs, or not so much; nothing was sent.
        InsecureConnection: REQUIRETLS is wished for, and this session is not protected itself.
    """
    needed: dict[str, str | None] = {}
    if "SIZE" in offered and content.size is not None:
        if offered.size is not None and content.size > offered.size:
            raise NotOffered("that SIZE", f"the message has {content.size} octets, the relay takes {offered.size}")
        needed["SIZE"] = str(content.size)
    if content.binary:
        for extension in ("BINARYMIME", "CHUNKING"):
            _need(offered, extension, "encode the parts as base64; any octets at all go by BDAT only")
        needed["BODY"] = "BINARYMIME"
    elif content.eight_bit:
        _need(offered, "8BITMIME", "encode the parts as quoted-printable or base64")
        needed["BODY"] = "8BITMIME"
    wishes = envelope.wishes
    if envelope.needs_smtputf8 or content.utf8_headers or (wishes is not None and wishes.needs_smtputf8):
        _need(offered, "SMTPUTF8", "an address or a header of the message is beyond ASCII")
        needed["SMTPUTF8"] = None
    if offered.limits is not None:
        _keep_within(offered.limits, envelope)
    if wishes is not None:
        needed |= _said(wishes, offered)
        _check_bounds(wishes, offered)
        if wishes.require_tls and not verified:
            raise InsecureConnection(
                "REQUIRETLS is asked for, and this session is in clear or its certificate was not verified: "
                "use smtps:// or STARTTLS, and a context that verifies certificates; nothing was sent"
            )
    return needed


def recipient_parameters(envelope: Envelope, offered: Extensions) -> tuple[Parameters, ...]:
    """The parameters of each RCPT, in the order of the envelope; empty when no recipient needs any.

    Raises:
        NotOffered: the relay does not offer what is wished for a recipient; nothing was sent.
    """
    if not envelope.recipient_wishes:
        return ()
    return tuple({} if wishes is None else _said(wishes, offered) for wishes in envelope.recipient_wishes)


def _said(wishes: Iterable[Wish], offered: Extensions) -> dict[str, str | None]:
    said = {}
    for extension, keyword, value in wishes:
        _need(offered, extension, f"{keyword} cannot be asked for; leave the wish out, or use another relay")
        said[keyword] = value
    return said


def _need(offered: Extensions, extension: str, why: str) -> None:
    if extension not in offered:
        raise NotOffered(extension, why)


def _keep_within(limits: Limits, envelope: Envelope) -> None:
    """RFC 9422 §4: what the relay said it takes, so that no RCPT is refused for it."""
    recipients = len(envelope.forward_paths)
    if limits.rcpt_max is not None and recipients > limits.rcpt_max:
        raise NotOffered(
            "so many recipients",
            f"the message has {recipients}, the relay takes {limits.rcpt_max} at once (RCPTMAX): send it in parts",
        )
    if limits.rcpt_domain_max is not None:
        domains = len({path.domain.lower() for path in envelope.forward_paths})
        if domains > limits.rcpt_domain_max:
            raise NotOffered(
                "so many domains",
                f"the recipients have {domains}, the relay takes {limits.rcpt_domain_max} (RCPTDOMAINMAX): "
                "send the message domain by domain",
            )


def _check_bounds(wishes: Wishes, offered: Extensions) -> None:
    """What an extension takes at most, or at least, as EHLO said."""
    if (by := wishes.deliver_by) is not None and by.mode is ByMode.RETURN:
        shortest = offered.min_by_time
        if shortest is not None and by.seconds < shortest:
            raise NotOffered("that DELIVERBY", f"{by.seconds} s are asked for, the relay needs {shortest}")
    held = offered.future_release
    if held is None:
        return
    if wishes.hold_for is not None and held.seconds is not None and wishes.hold_for > held.seconds:
        raise NotOffered("that HOLDFOR", f"{wishes.hold_for} s are asked for, the relay holds for {held.seconds}")
    if wishes.hold_until is not None and held.moment is not None and wishes.hold_until > held.moment:
        asked, last = utc(wishes.hold_until), utc(held.moment)
        raise NotOffered("that HOLDUNTIL", f"{asked} is asked for, the relay holds until {last}")

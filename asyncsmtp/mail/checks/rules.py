"""What large providers object to in a message of a list, one rule a function.

The rules are those that the big mailbox providers have published for senders of lists since 2024, RFC 8058, and what
their filters are known to dislike. They are about one message; what DNS says of the sender is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from asyncsmtp.mail.checks import files, leaving, page
from asyncsmtp.mail.checks.seen import Said, Seen, see
from asyncsmtp.mail.domains import is_aligned
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.replies import safe_text

__all__ = ["RULES", "Finding", "Weight", "check"]

MOST = 10 * 1024 * 1024  # octets of a message to a list


class Weight(StrEnum):
    """How much a finding matters."""

    OBJECTION = "objection"  # a provider may refuse the message, or take it for spam, because of it
    NOTE = "note"  # it could be better


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found.

    Attributes:
        rule: its name.
        sentence: what is so. advice: what to do about it.
    """

    rule: str
    weight: Weight
    sentence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.weight} ({self.rule}): {self.sentence}: {self.advice}"


def _text_part(seen: Seen) -> Said:
    if seen.text is None or not seen.text.strip():
        yield "there is no text for who reads no HTML", "add text = a file to [campaign]"


def _unsigned(seen: Seen) -> Said:
    if not seen.signed:
        yield "the campaign signs nothing with DKIM", "add [dkim], unless the relay signs"


def _aligned(seen: Seen) -> Said:
    domains = [domain for domain, _ in seen.signed]
    if domains and not any(is_aligned(domain, seen.author) for domain in domains):
        shown = ", ".join(safe_text(domain, 80) for domain in domains)
        yield (
            f"DKIM signs for {shown}, and From is at {safe_text(seen.author, 80)}: DMARC fails",
            "sign for the domain in From",
        )


def _reverse(seen: Seen) -> Said:
    if seen.reverse and not seen.signed and not is_aligned(seen.reverse, seen.author):
        yield (
            f"bounces go to {safe_text(seen.reverse, 80)}, and From is at {safe_text(seen.author, 80)}: DMARC fails",
            "take a return_path at the domain in From, or sign with DKIM",
        )


def _large(seen: Seen) -> Said:
    if seen.size > MOST:
        yield f"the message has {seen.size:,} octets", "link to what is large instead of attaching it"


def _eight_bit(seen: Seen) -> Said:
    if seen.eight_bit and seen.message["From"] and not _needs_utf8(seen):
        yield "octets above 127 go out though no address needs them", "encode the parts as quoted-printable"


def _subject(seen: Seen) -> Said:
    subject = str(seen.message["Subject"] or "").strip()
    if not subject:
        yield "there is no subject", "write one"
    elif len(subject) > 8 and subject.upper() == subject and subject.lower() != subject:
        yield f"the subject shouts: {safe_text(subject, 80)}", "write it in lower case"


RULES: Mapping[str, tuple[Weight, Callable[[Seen], Said]]] = {
    "unsubscribe": (Weight.OBJECTION, leaving.unsubscribe),
    "one-click": (Weight.OBJECTION, leaving.one_click),
    "unsubscribe-signed": (Weight.OBJECTION, leaving.unsubscribe_signed),
    "text-part": (Weight.OBJECTION, _text_part),
    "unsigned": (Weight.NOTE, _unsigned),
    "aligned": (Weight.OBJECTION, _aligned),
    "return-path": (Weight.OBJECTION, _reverse),
    "image-only": (Weight.OBJECTION, page.image_only),
    "alternatives": (Weight.NOTE, page.alternatives),
    "large": (Weight.OBJECTION, _large),
    "long-html": (Weight.NOTE, page.long_html),
    "eight-bit": (Weight.NOTE, _eight_bit),
    "insecure-link": (Weight.OBJECTION, page.insecure),
    "relative-link": (Weight.OBJECTION, page.relative_link),
    "relative-image": (Weight.OBJECTION, page.relative_image),
    "script": (Weight.OBJECTION, page.script),
    "form": (Weight.OBJECTION, page.form),
    "active-file": (Weight.OBJECTION, files.active),
    "disguised-file": (Weight.OBJECTION, files.disguised),
    "subject": (Weight.OBJECTION, _subject),
}


def check(message: Message) -> list[Finding]:
    """What a provider would object to in a composed message, by the order of the rules."""
    seen = see(message)
    return [
        Finding(name, weight, sentence, advice)
        for name, (weight, rule) in RULES.items()
        for sentence, advice in rule(seen)
    ]


def _needs_utf8(seen: Seen) -> bool:
    return any(not str(seen.message[name] or "").isascii() for name in ("To", "Reply-To", "From"))

"""What large providers object to in a message of a list, one rule a function.

The rules are those that the big mailbox providers have published for senders of lists since 2024, RFC 8058, and what
their filters are known to dislike. They are about one message; what DNS says of the sender is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from asyncsmtp.mail.checks.seen import Seen, see
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.replies import safe_text

__all__ = ["RULES", "Finding", "Weight", "check"]

MOST = 10 * 1024 * 1024  # octets of a message to a list
MOST_HTML = 100 * 1024  # octets: some providers cut what is longer
LEAST_TEXT = 60  # visible characters beside images
_ACTIVE = (
    ".exe",
    ".com",
    ".scr",
    ".bat",
    ".cmd",
    ".js",
    ".jse",
    ".vbs",
    ".wsf",
    ".msi",
    ".jar",
    ".lnk",
    ".iso",
    ".ps1",
)


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


_Said = Iterator[tuple[str, str]]  # sentence and advice


def _unsubscribe(seen: Seen) -> _Said:
    if "List-Unsubscribe" not in seen.message:
        yield "there is no List-Unsubscribe", "add [unsubscribe] with a url to the campaign"


def _one_click(seen: Seen) -> _Said:
    if "List-Unsubscribe" in seen.message and "List-Unsubscribe-Post" not in seen.message:
        yield "unsubscribing takes more than one click (RFC 8058)", "set one_click = true under [unsubscribe]"


def _unsubscribe_signed(seen: Seen) -> _Said:
    wanted = {name for name in ("list-unsubscribe", "list-unsubscribe-post") if name in seen.message}
    if wanted and seen.signed and not any(wanted <= covered for _, covered in seen.signed):
        yield "no DKIM signature covers List-Unsubscribe (RFC 8058 §4)", "sign with [dkim] of the campaign"


def _text_part(seen: Seen) -> _Said:
    if seen.text is None or not seen.text.strip():
        yield "there is no text for who reads no HTML", "add text = a file to [campaign]"


def _unsigned(seen: Seen) -> _Said:
    if not seen.signed:
        yield "the campaign signs nothing with DKIM", "add [dkim], unless the relay signs"


def _aligned(seen: Seen) -> _Said:
    domains = [domain for domain, _ in seen.signed]
    if domains and not any(_covers(domain, seen.author) for domain in domains):
        shown = ", ".join(safe_text(domain, 80) for domain in domains)
        yield (
            f"DKIM signs for {shown}, and From is at {safe_text(seen.author, 80)}: DMARC fails",
            "sign for the domain in From",
        )


def _reverse(seen: Seen) -> _Said:
    aligned = _covers(seen.reverse, seen.author) or _covers(seen.author, seen.reverse)
    if seen.reverse and not aligned and not seen.signed:
        yield (
            f"bounces go to {safe_text(seen.reverse, 80)}, and From is at {safe_text(seen.author, 80)}: DMARC fails",
            "take a return_path at the domain in From, or sign with DKIM",
        )


def _image_only(seen: Seen) -> _Said:
    if seen.html is not None and seen.html.images and len(seen.html.text) < LEAST_TEXT:
        yield "the HTML is images with hardly any text", "write in text what the images say"


def _alternatives(seen: Seen) -> _Said:
    missing = [source for source, alt in seen.html.images if alt is None] if seen.html else []
    if missing:
        yield f"the image {safe_text(missing[0], 80)} has no alt", 'add alt="…", or alt="" if it is decoration'


def _large(seen: Seen) -> _Said:
    if seen.size > MOST:
        yield f"the message has {seen.size:,} octets", "link to what is large instead of attaching it"


def _long_html(seen: Seen) -> _Said:
    if seen.html_size > MOST_HTML:
        yield f"the HTML has {seen.html_size:,} octets, and some providers cut it at 100 KB", "shorten it"


def _eight_bit(seen: Seen) -> _Said:
    if seen.eight_bit and seen.message["From"] and not _needs_utf8(seen):
        yield "octets above 127 go out though no address needs them", "encode the parts as quoted-printable"


def _insecure(seen: Seen) -> _Said:
    links = seen.html.links + [source for source, _ in seen.html.images] if seen.html else []
    found = next((link for link in links if link.lower().startswith("http://")), None)
    if found is not None:
        yield f"the link {safe_text(found, 100)} is not encrypted", "use https"


def _script(seen: Seen) -> _Said:
    found = (
        next((link for link in seen.html.links if link.lower().startswith(("javascript:", "data:"))), None)
        if (seen.html)
        else None
    )
    if found is not None:
        yield f"the link {safe_text(found, 60)} runs a script", "link to a page"


def _active(seen: Seen) -> _Said:
    found = next((name for name in seen.files if name.lower().endswith(_ACTIVE)), None)
    if found is not None:
        yield f"{safe_text(found, 80)} is a kind of file that providers refuse", "link to it, or send another kind"


def _disguised(seen: Seen) -> _Said:
    for name, said, found in seen.disguised[:1]:
        yield (
            f"{safe_text(name, 80)} is said to be {said}, and is {found} by its octets",
            "give it the name that fits, or the file that was meant",
        )


def _subject(seen: Seen) -> _Said:
    subject = str(seen.message["Subject"] or "").strip()
    if not subject:
        yield "there is no subject", "write one"
    elif len(subject) > 8 and subject.upper() == subject and subject.lower() != subject:
        yield f"the subject shouts: {safe_text(subject, 80)}", "write it in lower case"


RULES: Mapping[str, tuple[Weight, Callable[[Seen], _Said]]] = {
    "unsubscribe": (Weight.OBJECTION, _unsubscribe),
    "one-click": (Weight.OBJECTION, _one_click),
    "unsubscribe-signed": (Weight.OBJECTION, _unsubscribe_signed),
    "text-part": (Weight.OBJECTION, _text_part),
    "unsigned": (Weight.NOTE, _unsigned),
    "aligned": (Weight.OBJECTION, _aligned),
    "return-path": (Weight.OBJECTION, _reverse),
    "image-only": (Weight.OBJECTION, _image_only),
    "alternatives": (Weight.NOTE, _alternatives),
    "large": (Weight.OBJECTION, _large),
    "long-html": (Weight.NOTE, _long_html),
    "eight-bit": (Weight.NOTE, _eight_bit),
    "insecure-link": (Weight.OBJECTION, _insecure),
    "script": (Weight.OBJECTION, _script),
    "active-file": (Weight.OBJECTION, _active),
    "disguised-file": (Weight.OBJECTION, _disguised),
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


def _covers(domain: str, other: str) -> bool:
    """Whether `other` is `domain`, or below it: what DMARC calls relaxed, short of the public suffixes."""
    return other == domain or other.endswith(f".{domain}")


def _needs_utf8(seen: Seen) -> bool:
    return any(not str(seen.message[name] or "").isascii() for name in ("To", "Reply-To", "From"))

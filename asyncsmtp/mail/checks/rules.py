"""What large providers object to in a message of a list, one rule a function.

The rules are those that the big mailbox providers have published for senders of lists since 2024, RFC 8058, and what
their filters are known to dislike. They are about one message; what DNS says of the sender is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from asyncsmtp.mail.checks import rules
from asyncsmtp.mail.checks.parsed_message import Findings, ParsedMessage, is_relative_url, parse_message
from asyncsmtp.mail.domains import is_aligned
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "RULES",
    "Finding",
    "Weight",
    "active",
    "alternatives",
    "check",
    "disguised",
    "form",
    "image_only",
    "insecure",
    "long_html",
    "one_click",
    "relative_image",
    "relative_link",
    "script",
    "unsubscribe",
    "unsubscribe_signed",
]

_BRACKETED = re.compile(r"<([^<>]*)>")
_COMMENT = re.compile(r"\([^()]*\)")
_WAYS = ("https://", "http://", "mailto:")
_ONE_CLICK = "list-unsubscribe=one-click"


def unsubscribe(seen: ParsedMessage) -> Findings:
    """A way out of the list, as a list of URLs."""
    value = seen.message["List-Unsubscribe"]
    if value is None:
        yield "there is no List-Unsubscribe", "add [unsubscribe] with a url to the campaign"
    elif not _urls(str(value)):
        yield (
            f"List-Unsubscribe has no URL in angle brackets (RFC 2369 §2): {safe_text(str(value), 80)}",
            'write "<https://…>", or leave it to [unsubscribe]',
        )


def one_click(seen: ParsedMessage) -> Findings:
    """A way out that takes a single POST, which the provider's own button sends."""
    value, post = (seen.message[name] for name in ("List-Unsubscribe", "List-Unsubscribe-Post"))
    if value is None:
        return
    urls = _urls(str(value))
    if post is None:
        yield "unsubscribing takes more than one click (RFC 8058)", "set one_click = true under [unsubscribe]"
    elif str(post).strip().lower() != _ONE_CLICK:
        yield (
            f"List-Unsubscribe-Post says {safe_text(str(post), 60)}, which means nothing (RFC 8058 §3.1)",
            'write "List-Unsubscribe=One-Click", or leave it to [unsubscribe]',
        )
    elif urls and not any(url.startswith("https://") for url in urls):
        yield (
            "one click needs an https URL in List-Unsubscribe (RFC 8058 §3.1), and there is none",
            "add [unsubscribe] with a url to the campaign",
        )


def unsubscribe_signed(seen: ParsedMessage) -> Findings:
    """A way out that nobody on the way can have changed."""
    wanted = {name for name in ("list-unsubscribe", "list-unsubscribe-post") if name in seen.message}
    if wanted and seen.signed and not any(wanted <= covered for _, covered in seen.signed):
        yield "no DKIM signature covers List-Unsubscribe (RFC 8058 §4)", "sign with [dkim] of the campaign"


def _urls(value: str) -> list[str]:
    """The ways out, white space within the brackets gone, schemes in lower case; none where the field is none."""
    if _COMMENT.sub("", _BRACKETED.sub("", value)).strip(" ,\t\r\n"):
        return []
    urls = ["".join(url.split()) for url in _BRACKETED.findall(value)]
    return [scheme + url[len(scheme) :] for url in urls for scheme in _WAYS if url.lower().startswith(scheme)]


_GMAIL = """
    ade adp apk appx appxbundle bat cab chm cmd com cpl diagcab diagcfg diagpkg dll dmg ex ex_ exe hta img ins iso isp
    jar jnlp js jse lib lnk mde mjs msc msi msix msixbundle msp mst nsh pif ps1 scr sct shb sys vb vbe vbs vhd vxd
    wsc wsf wsh xll
"""  # what it says that it blocks: support.google.com/mail/answer/6590
_OUTLOOK = """
    application appref-ms gadget hlp inf msh mshxml msu ps1xml ps2 psc1 psd1 psdm1 reg scf settingcontent-ms shs url
    vbp vhdx ws xbap
"""  # what it blocks besides, as far as nobody would send it in good faith
_ACTIVE = tuple(f".{ending}" for ending in f"{_GMAIL} {_OUTLOOK}".split())


def active(seen: ParsedMessage) -> Findings:
    """Files that a double click would run."""
    found = next(filter(_is_active, seen.files), None)
    if found is not None:
        yield f"{safe_text(found, 80)} is a kind of file that providers refuse", "link to it, or send another kind"


def disguised(seen: ParsedMessage) -> Findings:
    """Files that are of another kind than they say."""
    found = next((each for each in seen.disguised if not _is_active(each[0])), None)
    if found is not None:
        name, said, octets = found
        yield (
            f"{safe_text(name, 80)} is said to be {said}, and is {octets} by its octets",
            "give it the name that fits, or the file that was meant",
        )


def _is_active(name: str) -> bool:
    return name.lower().rstrip(". ").endswith(_ACTIVE)  # Windows drops dots and spaces at the end


MOST_HTML = 100 * 1024  # octets: some providers cut what is longer
LEAST_TEXT = 60  # visible characters beside images
_RUNS = ("javascript:", "vbscript:", "data:")


def image_only(seen: ParsedMessage) -> Findings:
    """Pictures of words, which no filter reads."""
    if seen.html is not None and seen.html.images and len(seen.html.text) < LEAST_TEXT:
        yield "the HTML is images with hardly any text", "write in text what the images say"


def alternatives(seen: ParsedMessage) -> Findings:
    """Words for who sees no image."""
    missing = [source for source, alt in seen.html.images if alt is None] if seen.html else []
    if missing:
        yield f"the image {safe_text(missing[0], 80)} has no alt", 'add alt="…", or alt="" if it is decoration'


def long_html(seen: ParsedMessage) -> Findings:
    """An end that some readers never see."""
    if seen.html_size > MOST_HTML:
        yield f"the HTML has {seen.html_size:,} octets, and some providers cut it at 100 KB", "shorten it"


def insecure(seen: ParsedMessage) -> Findings:
    """Links and images in clear."""
    links = seen.html.links + seen.html.loaded if seen.html else []
    found = next((link for link in links if link.lower().startswith("http://")), None)
    if found is not None:
        yield f"the link {safe_text(found, 100)} is not encrypted", "use https"


def relative_link(seen: ParsedMessage) -> Findings:
    """Links that want the folder of the page, which stayed at home."""
    found = next(filter(is_relative_url, seen.html.links), None) if seen.html else None
    if found is not None:
        yield (
            f"the link {safe_text(found, 100)} leads nowhere from a mailbox",
            "write the whole URL, beginning with https://",
        )


def relative_image(seen: ParsedMessage) -> Findings:
    """Images, of styles too, that neither go along nor are on the web."""
    found = next(filter(is_relative_url, seen.html.loaded), None) if seen.html else None
    if found is not None:
        yield (
            f"the HTML shows {safe_text(found, 100)}, which the message does not bring along",
            "name it under inline and show it by cid:, or write its whole URL, beginning with https://",
        )


def script(seen: ParsedMessage) -> Findings:
    """What would run."""
    if seen.html is None:
        return
    found = next((link for link in seen.html.links if link.lower().startswith(_RUNS)), None)
    if found is not None:
        yield f"the link {safe_text(found, 60)} runs a script", "link to a page"
    if seen.html.active:
        yield (
            f"the HTML has {safe_text(seen.html.active[0], 60)}, and no mailbox runs scripts",
            "take it out, and link to a page that does it",
        )


def form(seen: ParsedMessage) -> Findings:
    """Fields to fill in."""
    if seen.html is not None and seen.html.forms:
        yield "the HTML has a form, which providers take for phishing or take out", "link to a page that has the form"


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


def _text_part(seen: ParsedMessage) -> Findings:
    if seen.text is None or not seen.text.strip():
        yield "there is no text for who reads no HTML", "add text = a file to [campaign]"


def _unsigned(seen: ParsedMessage) -> Findings:
    if not seen.signed:
        yield "the campaign signs nothing with DKIM", "add [dkim], unless the relay signs"


def _aligned(seen: ParsedMessage) -> Findings:
    domains = [domain for domain, _ in seen.signed]
    if domains and not any(is_aligned(domain, seen.author) for domain in domains):
        shown = ", ".join(safe_text(domain, 80) for domain in domains)
        yield (
            f"DKIM signs for {shown}, and From is at {safe_text(seen.author, 80)}: DMARC fails",
            "sign for the domain in From",
        )


def _reverse(seen: ParsedMessage) -> Findings:
    if seen.reverse and not seen.signed and not is_aligned(seen.reverse, seen.author):
        yield (
            f"bounces go to {safe_text(seen.reverse, 80)}, and From is at {safe_text(seen.author, 80)}: DMARC fails",
            "take a return_path at the domain in From, or sign with DKIM",
        )


def _large(seen: ParsedMessage) -> Findings:
    if seen.size > MOST:
        yield f"the message has {seen.size:,} octets", "link to what is large instead of attaching it"


def _eight_bit(seen: ParsedMessage) -> Findings:
    if seen.eight_bit and seen.message["From"] and not _needs_utf8(seen):
        yield "octets above 127 go out though no address needs them", "encode the parts as quoted-printable"


def _subject(seen: ParsedMessage) -> Findings:
    subject = str(seen.message["Subject"] or "").strip()
    if not subject:
        yield "there is no subject", "write one"
    elif len(subject) > 8 and subject.upper() == subject and subject.lower() != subject:
        yield f"the subject shouts: {safe_text(subject, 80)}", "write it in lower case"


RULES: Mapping[str, tuple[Weight, Callable[[ParsedMessage], Findings]]] = {
    "unsubscribe": (Weight.OBJECTION, rules.unsubscribe),
    "one-click": (Weight.OBJECTION, rules.one_click),
    "unsubscribe-signed": (Weight.OBJECTION, rules.unsubscribe_signed),
    "text-part": (Weight.OBJECTION, _text_part),
    "unsigned": (Weight.NOTE, _unsigned),
    "aligned": (Weight.OBJECTION, _aligned),
    "return-path": (Weight.OBJECTION, _reverse),
    "image-only": (Weight.OBJECTION, rules.image_only),
    "alternatives": (Weight.NOTE, rules.alternatives),
    "large": (Weight.OBJECTION, _large),
    "long-html": (Weight.NOTE, rules.long_html),
    "eight-bit": (Weight.NOTE, _eight_bit),
    "insecure-link": (Weight.OBJECTION, rules.insecure),
    "relative-link": (Weight.OBJECTION, rules.relative_link),
    "relative-image": (Weight.OBJECTION, rules.relative_image),
    "script": (Weight.OBJECTION, rules.script),
    "form": (Weight.OBJECTION, rules.form),
    "active-file": (Weight.OBJECTION, rules.active),
    "disguised-file": (Weight.OBJECTION, rules.disguised),
    "subject": (Weight.OBJECTION, _subject),
}


def check(message: Message) -> list[Finding]:
    """What a provider would object to in a composed message, by the order of the rules."""
    seen = parse_message(message)
    return [
        Finding(name, weight, sentence, advice)
        for name, (weight, rule) in RULES.items()
        for sentence, advice in rule(seen)
    ]


def _needs_utf8(seen: ParsedMessage) -> bool:
    return any(not str(seen.message[name] or "").isascii() for name in ("To", "Reply-To", "From"))

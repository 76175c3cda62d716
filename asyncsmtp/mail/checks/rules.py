"""Rules for messages to lists, one function for each: what large mailbox providers object to.

The rules are those that the providers have published for senders of lists since 2024, RFC 8058, and what their filters
are known to dislike. They look at one message only; `dns_rules` checks the sender's DNS records.

A rule yields (sentence, advice) for each finding: the fault, and how to fix it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from asyncsmtp.mail.address import is_aligned
from asyncsmtp.mail.checks.parsed_message import Findings, ParsedMessage, is_relative_url, parse_message
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.replies import safe_text

__all__ = ["RULES", "STARTER_TEXT", "Finding", "FindingLevel", "check_message"]

_BRACKETED = re.compile(r"<([^<>]*)>")
_COMMENT = re.compile(r"\([^()]*\)")
_URL_SCHEMES = ("https://", "http://", "mailto:")
_ONE_CLICK = "list-unsubscribe=one-click"


def _check_unsubscribe(parsed: ParsedMessage) -> Findings:
    """Find a missing List-Unsubscribe, or one that is not a list of URLs."""
    value = parsed.message["List-Unsubscribe"]
    if value is None:
        yield "there is no List-Unsubscribe", "add [unsubscribe] with a url to the campaign"
    elif not _parse_urls(str(value)):
        sentence = f"List-Unsubscribe has no URL in angle brackets (RFC 2369 §2): {safe_text(str(value), 80)}"
        yield sentence, 'write "<https://…>", or leave it to [unsubscribe]'


def _check_one_click(parsed: ParsedMessage) -> Findings:
    """Find a List-Unsubscribe that takes more than the single POST of a provider's own button."""
    value, post = (parsed.message[name] for name in ("List-Unsubscribe", "List-Unsubscribe-Post"))
    if value is None:
        return
    urls = _parse_urls(str(value))
    if post is None:
        yield "unsubscribing takes more than one click (RFC 8058)", "set one_click = true under [unsubscribe]"
    elif str(post).strip().lower() != _ONE_CLICK:
        sentence = f"List-Unsubscribe-Post is {safe_text(str(post), 60)}, which has no meaning (RFC 8058 §3.1)"
        yield sentence, 'write "List-Unsubscribe=One-Click", or leave it to [unsubscribe]'
    elif urls and not any(url.startswith("https://") for url in urls):
        sentence = "one click needs an https URL in List-Unsubscribe (RFC 8058 §3.1), and there is none"
        yield sentence, "add [unsubscribe] with a url to the campaign"


def _check_unsubscribe_signature(parsed: ParsedMessage) -> Findings:
    """Find a List-Unsubscribe that could be changed on the way."""
    wanted = {name for name in ("list-unsubscribe", "list-unsubscribe-post") if name in parsed.message}
    if wanted and parsed.signatures and not any(wanted <= covered for _, covered in parsed.signatures):
        yield "no DKIM signature covers List-Unsubscribe (RFC 8058 §4)", "sign with [dkim] of the campaign"


def _parse_urls(value: str) -> list[str]:
    """Return the URLs, without white space and with schemes in lower case; empty if the field is malformed."""
    if _COMMENT.sub("", _BRACKETED.sub("", value)).strip(" ,\t\r\n"):
        return []
    urls = ["".join(url.split()) for url in _BRACKETED.findall(value)]
    return [scheme + url[len(scheme) :] for url in urls for scheme in _URL_SCHEMES if url.lower().startswith(scheme)]


_GMAIL_BLOCKED = """
    ade adp apk appx appxbundle bat cab chm cmd com cpl diagcab diagcfg diagpkg dll dmg ex ex_ exe hta img ins iso isp
    jar jnlp js jse lib lnk mde mjs msc msi msix msixbundle msp mst nsh pif ps1 scr sct shb sys vb vbe vbs vhd vxd
    wsc wsf wsh xll
"""  # the types that it blocks: support.google.com/mail/answer/6590
_OUTLOOK_BLOCKED = """
    application appref-ms gadget hlp inf msh mshxml msu ps1xml ps2 psc1 psd1 psdm1 reg scf settingcontent-ms shs url
    vbp vhdx ws xbap
"""  # further types that it blocks and that nobody sends in good faith
_ACTIVE_ENDINGS = tuple(f".{ending}" for ending in f"{_GMAIL_BLOCKED} {_OUTLOOK_BLOCKED}".split())


def _check_active_files(parsed: ParsedMessage) -> Findings:
    """Find files that a double click would run."""
    found = next(filter(_is_active, parsed.files), None)
    if found is not None:
        yield f"{safe_text(found, 80)} is a type of file that providers refuse", "link to it, or send another type"


def _check_mismatched_files(parsed: ParsedMessage) -> Findings:
    """Find files whose content is another type than the one declared."""
    found = next((each for each in parsed.mismatched_files if not _is_active(each[0])), None)
    if found is not None:
        name, declared, detected = found
        sentence = f"{safe_text(name, 80)} is declared as {declared}, but its content is {detected}"
        yield sentence, "give it the right name, or attach the file that was meant"


def _is_active(name: str) -> bool:
    return name.lower().rstrip(". ").endswith(_ACTIVE_ENDINGS)  # Windows drops dots and spaces at the end


MAX_SIZE = 10 * 1024 * 1024  # bytes of a message to a list
MAX_HTML_SIZE = 100 * 1024  # bytes: some providers cut longer HTML
MIN_VISIBLE_TEXT = 60  # visible characters beside images
_SCRIPT_SCHEMES = ("javascript:", "vbscript:", "data:")


def _check_image_only(parsed: ParsedMessage) -> Findings:
    """Find images in place of text, which filters cannot read."""
    if parsed.html.images and len(parsed.html.text) < MIN_VISIBLE_TEXT:
        yield "the HTML is images with hardly any text", "add the text of the images"


def _check_image_alternatives(parsed: ParsedMessage) -> Findings:
    """Find images without a text for readers who do not see them."""
    missing = [source for source, alt in parsed.html.images if alt is None]
    if missing:
        yield f"the image {safe_text(missing[0], 80)} has no alt attribute", 'add alt="…", or alt="" for decoration'


STARTER_TEXT = "Write your message here."  # of the templates that `asyncsmtp init` makes
_FILLER_TEXTS = (STARTER_TEXT, "Lorem ipsum dolor")


def _check_filler_text(parsed: ParsedMessage) -> Findings:
    """Find text of a template that nobody has replaced."""
    shown = " ".join(f"{parsed.text or ''} {parsed.html.text}".split()).casefold()
    found = next((text for text in _FILLER_TEXTS if text.casefold() in shown), None)
    if found is not None:
        yield f"the message has the text “{found.rstrip('.')}” of a template", "write your own in the template's files"


def _check_long_html(parsed: ParsedMessage) -> Findings:
    """Find HTML whose end some readers never see."""
    if parsed.html_size > MAX_HTML_SIZE:
        yield f"the HTML has {parsed.html_size:,} bytes, and some providers cut it at 100 KB", "shorten it"


def _check_insecure_links(parsed: ParsedMessage) -> Findings:
    links = parsed.html.links + parsed.html.loaded
    found = next((link for link in links if link.lower().startswith("http://")), None)
    if found is not None:
        yield f"the link {safe_text(found, 100)} is not encrypted", "use https"


def _check_relative_links(parsed: ParsedMessage) -> Findings:
    """Find links that work only beside the original page."""
    found = next(filter(is_relative_url, parsed.html.links), None)
    if found is not None:
        yield f"the link {safe_text(found, 100)} does not work in a mailbox", "write the whole URL, with https://"


def _check_relative_images(parsed: ParsedMessage) -> Findings:
    """Find images, also in styles, that are neither attached nor on the web."""
    found = next(filter(is_relative_url, parsed.html.loaded), None)
    if found is not None:
        advice = "name it under inline and show it by cid:, or write its whole URL, beginning with https://"
        yield f"the HTML shows {safe_text(found, 100)}, which is not part of the message", advice


def _check_scripts(parsed: ParsedMessage) -> Findings:
    found = next((link for link in parsed.html.links if link.lower().startswith(_SCRIPT_SCHEMES)), None)
    if found is not None:
        yield f"the link {safe_text(found, 60)} runs a script", "link to a page"
    if parsed.html.active:
        sentence = f"the HTML has {safe_text(parsed.html.active[0], 60)}, and mail programs run no scripts"
        yield sentence, "remove it, and link to a page that does it"


def _check_forms(parsed: ParsedMessage) -> Findings:
    if parsed.html.forms:
        yield "the HTML has a form, which providers treat as phishing or remove", "link to a page that has the form"


class FindingLevel(StrEnum):
    """The severity of a finding."""

    OBJECTION = "objection"  # a provider may refuse the message, or take it for spam, because of it
    NOTE = "note"  # it could be better


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault that a rule found.

    Attributes:
        rule: the name of the rule, a key of `RULES`.
        weight: the severity.
        sentence: the fault.
        advice: how to fix it.
    """

    rule: str
    weight: FindingLevel
    sentence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.weight} ({self.rule}): {self.sentence}: {self.advice}"


def _check_text_part(parsed: ParsedMessage) -> Findings:
    if parsed.text is None or not parsed.text.strip():
        yield (
            "there is no text part for readers without HTML",
            "add text = a file to [campaign], or text_from_html = true with the extra html",
        )


def _check_dkim(parsed: ParsedMessage) -> Findings:
    if not parsed.signatures:
        yield "the campaign does not sign with DKIM", "add [dkim], unless the relay signs"


def _check_dkim_alignment(parsed: ParsedMessage) -> Findings:
    domains = [domain for domain, _ in parsed.signatures]
    if domains and not any(is_aligned(domain, parsed.author) for domain in domains):
        shown = ", ".join(safe_text(domain, 80) for domain in domains)
        author = safe_text(parsed.author, 80)
        yield f"DKIM signs for {shown}, and From is at {author}: DMARC fails", "sign for the domain in From"


def _check_return_path(parsed: ParsedMessage) -> Findings:
    if parsed.return_path and not parsed.signatures and not is_aligned(parsed.return_path, parsed.author):
        bounces, author = safe_text(parsed.return_path, 80), safe_text(parsed.author, 80)
        sentence = f"bounces go to {bounces}, and From is at {author}: DMARC fails"
        yield sentence, "use a return_path at the domain in From, or sign with DKIM"


def _check_size(parsed: ParsedMessage) -> Findings:
    if parsed.size > MAX_SIZE:
        yield f"the message has {parsed.size:,} bytes", "link to large files instead of attaching them"


def _check_eight_bit(parsed: ParsedMessage) -> Findings:
    addresses = "".join(str(parsed.message[name] or "") for name in ("To", "Reply-To", "From"))
    if parsed.eight_bit and parsed.message["From"] and addresses.isascii():
        yield "the message has bytes above 127 that no address needs", "encode the parts as quoted-printable"


def _check_subject(parsed: ParsedMessage) -> Findings:
    subject = str(parsed.message["Subject"] or "").strip()
    if not subject:
        yield "there is no subject", "write one"
    elif len(subject) > 8 and subject.upper() == subject and subject.lower() != subject:
        yield f"the subject is all capitals: {safe_text(subject, 80)}", "write it in lower case"


RULES: Mapping[str, tuple[FindingLevel, Callable[[ParsedMessage], Findings]]] = {
    "unsubscribe": (FindingLevel.OBJECTION, _check_unsubscribe),
    "one-click": (FindingLevel.OBJECTION, _check_one_click),
    "unsubscribe-signed": (FindingLevel.OBJECTION, _check_unsubscribe_signature),
    "text-part": (FindingLevel.OBJECTION, _check_text_part),
    "unsigned": (FindingLevel.NOTE, _check_dkim),
    "aligned": (FindingLevel.OBJECTION, _check_dkim_alignment),
    "return-path": (FindingLevel.OBJECTION, _check_return_path),
    "filler-text": (FindingLevel.OBJECTION, _check_filler_text),
    "image-only": (FindingLevel.OBJECTION, _check_image_only),
    "alternatives": (FindingLevel.NOTE, _check_image_alternatives),
    "large": (FindingLevel.OBJECTION, _check_size),
    "long-html": (FindingLevel.NOTE, _check_long_html),
    "eight-bit": (FindingLevel.NOTE, _check_eight_bit),
    "insecure-link": (FindingLevel.OBJECTION, _check_insecure_links),
    "relative-link": (FindingLevel.OBJECTION, _check_relative_links),
    "relative-image": (FindingLevel.OBJECTION, _check_relative_images),
    "script": (FindingLevel.OBJECTION, _check_scripts),
    "form": (FindingLevel.OBJECTION, _check_forms),
    "active-file": (FindingLevel.OBJECTION, _check_active_files),
    "disguised-file": (FindingLevel.OBJECTION, _check_mismatched_files),
    "subject": (FindingLevel.OBJECTION, _check_subject),
}


BULK_SENDER = 5000  # messages a day from which Gmail demands one-click unsubscribing: support.google.com/mail/81126
_OF_BULK_SENDERS = {"unsubscribe": "List-Unsubscribe", "one-click": "List-Unsubscribe-Post"}  # rules and their fields


def check_message(message: Message, recipients: int | None = None) -> list[Finding]:
    """Return what providers would object to in a composed message, in the order of the rules.

    Args:
        recipients: how many get it; None if it is not known. What is demanded of large lists only is a note for fewer.
    """
    parsed = parse_message(message)
    is_small = recipients is not None and recipients < BULK_SENDER
    found = []
    for name, (level, rule) in RULES.items():
        for sentence, advice in rule(parsed):
            if is_small and name in _OF_BULK_SENDERS and parsed.message[_OF_BULK_SENDERS[name]] is None:
                level = FindingLevel.NOTE
                sentence += f"; Gmail and Yahoo demand it from {BULK_SENDER:,} messages a day"
                advice = f"for a newsletter, {advice}"
            found.append(Finding(name, level, sentence, advice))
    return found

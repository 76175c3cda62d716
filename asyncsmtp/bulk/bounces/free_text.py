"""Failures that a mail system reports in words of its own, without the fields of RFC 3464.

qmail, most Exim, old Exchange, Notes and many providers write such messages. `flufl.bounce`, where it is installed,
finds the recipients in dozens of forms; codes and words of SMTP in the text say the rest. A person's answer, a receipt
and a note of absence are no failures, whatever they quote.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from html import unescape

from asyncsmtp.bulk.bounces.dsn import Bounce, find_addresses, find_message_id
from asyncsmtp.bulk.bounces.fault import effective_status, is_gone
from asyncsmtp.bulk.bounces.mime_parser import HEADERS, MESSAGES, Part
from asyncsmtp.protocol.replies import safe_text

__all__ = ["parse_text"]

MAX_RECIPIENTS = 50  # of a message
_MAX_TEXT = 16 * 1024  # characters that are looked at
_MAX_LINE = 1000  # characters of a line
_MAX_WORDS = 500  # characters that a bounce keeps
# What the parser of the standard library is given takes it a fraction of a second: it compares each line with the
# boundaries of all open parts.
_MAX_BYTES = 64 * 1024
_MAX_BOUNDARIES = 12
_MAX_LINE_BYTES = 2000


def _phrases(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_SYSTEM = _phrases(
    r"\b(?:mailer-?daemon|mdaemon|post[-_]?master)\b",
    r"mail(?:er)?[ ._-]?delivery[ ._-]?(?:sub)?(?:system|service)",
    r"delivery subsystem",
)
_SUBJECT = _phrases(
    r"undeliver|non[- ]?deliver|not delivered|could not be delivered|returned mail|mail error|unzustellbar|non remis",
    r"(?:delivery|deliver) +(?:status|failed|failure|problem|error|has failed|notification)",
    r"fail(?:ure|ed)?[ :]+(?:notice|delivery|to deliver)|error during delivery|delivery .{0,20}\bfail",
)
_ABSENT = _phrases(
    r"auto[-_ ]?(?:repl|respon|generated repl)|out of (?:the )?office|vacation|abwesen|absence|automatic reply"
)

_DELAYED = _phrases(
    r"not yet been delivered|\b(?:been|is|was) (?:delayed|postponed|deferred)|delivery (?:is )?delayed",
    r"warning message only|just a warning|this is (?:only )?a warning|advisory-only",
    r"will (?:continue|keep)(?: to)? (?:try|attempt|be made)|attempts will continue|will be retried|still being tried",
    r"no action is required",
)
_FAILURE = _phrases(
    r"(?:could|can|was|were|is|are|has|have) ?(?:not|n't|n’t)(?: been)?(?: be)? (?:successfully )?deliver",
    r"(?:unable|not able|n't able|failed) to deliver|could(?: not|n't) deliver|undeliver(?:able|ed)|non-delivery",
    r"delivery (?:to|of|has)\b.{0,100}?\b(?:failed|aborted)|delivery fail|\bfailed (?:recipients?|address)",
    r"delevery to .{0,100}?\b(?:failed|aborted)",
    r"permanent (?:fatal )?(?:delivery )?error|fatal (?:delivery )?error|delivery problems|given up|giving up",
    r"did not (?:reach|receive)|could not be reached|was (?:automatically )?rejected|no valid recipients",
    r"encountered an error|an error was detected|has been returned|did not exactly match|invalid final delivery",
    r"returned an error|error has occurred while attempting to deliver|failure reasons|requested action not taken",
    r"n'a pas pu|no pudo ser entregad|nicht zugestellt werden|не может быть доставлено|could not be sent",
)
_CODE = re.compile(r"(?<![\d.:])5[0-5]\d(?=[ \-#:\]]|$)|(?<![\d.])[45]\.\d\.\d{1,3}(?!\.?\d)")
_REASON = _phrases(
    r"quota|\bfull\b|\bspam|blocked|refused|rejected|timed? ?out|not responding|unavailable|too (?:large|long)"
)
_ORIGINAL = re.compile(
    r"^(?:[>|\s]*(?:received|return-path):|\W*(?:below (?:this|the next) line|included is a copy|the header of the orig"
    r"|original message|message text follows|returned m(?:ail|essage)|unsent message|old message|message headers follow"
    r"|this is a copy of|a copy of the original|original mail|header of the source|the first \d+ lines"
    r"|a summary of the undelivered|your message reads)[^\n]{0,80}$)",
    re.IGNORECASE,
)
_NO_WORD = re.compile(r"[<>\"'\[\]*\s-]*")
_TAG = re.compile(r"<(?:br|/p|/div|/tr)\b[^<>]{0,500}>|</?[a-z!][^<>@]{0,500}>", re.IGNORECASE)
_ADDRESS = re.compile(r"(?<![\w.+=/-])[\w.!#$%&'*+/=?^`{|}~-]{1,64}@(?:[\w-]{1,63}\.){1,8}[\w-]{2,63}")


def parse_text(data: bytes, parts: list[Part], name: str) -> Iterator[Bounce]:
    """Yield the failures or delays of a message without a delivery status, by recipient; nothing if it is no report.

    Never raises, and takes a fraction of a second, whatever the message is.

    Args:
        name: the identifier of the report.
    """
    report = parts[0]
    if not _is_from_system(report, parts):
        return
    lines = list(_lines(parts))
    text = " ".join(" ".join(lines).split())
    known = _ADDRESS.findall(report.get("x-failed-recipients"))
    delayed, failed = _detect(data)
    is_delayed = _DELAYED.search(text) is not None or bool(delayed and not failed)
    if not (known or failed or is_delayed or _FAILURE.search(text) or _is_coded(lines)):
        return
    recipients = [*known, *failed, *delayed] or _find_recipients(lines, report)
    message_id, to = find_message_id(parts), tuple(find_addresses(report))
    for recipient in [*dict.fromkeys(recipients)][:MAX_RECIPIENTS] or [""]:
        words = safe_text(_find_words(lines, recipient, alone=len(recipients) < 2), _MAX_WORDS)
        status = effective_status("", words)
        words = words or ("delayed" if is_delayed else "could not be delivered")
        yield Bounce(safe_text(recipient, 320), not is_delayed, status, words, message_id, to, name)


def _is_from_system(report: Part, parts: list[Part]) -> bool:
    """Return whether a mail system wrote the message, and neither a person nor a program that answers for one."""
    kind = report.get("content-type").lower()
    is_status = report.content_type == "multipart/report" and "delivery-status" in kind
    from_system = any(_SYSTEM.search(_decode_words(report.get(field))) for field in ("from", "sender", "return-path"))
    if is_status or from_system or "x-failed-recipients" in report.fields:
        return True
    subject = _decode_words(report.get("subject"))
    answer = " ".join((report.get("auto-submitted"), report.get("precedence"), subject))
    if _ABSENT.search(answer) or any(field.startswith(("x-autore", "x-auto-response")) for field in report.fields):
        return False
    if report.get("in-reply-to") and not _SUBJECT.search(subject):
        return False
    return report.get("return-path").strip() == "<>" or _SUBJECT.search(subject) is not None or not _has_author(report)


def _decode_words(value: str) -> str:
    """Return the value of a field with its encoded words decoded (RFC 2047)."""
    try:
        return str(make_header(decode_header(value[:_MAX_LINE])))
    except (HeaderParseError, LookupError, ValueError):
        return value[:_MAX_LINE]


def _has_author(report: Part) -> bool:
    """Return whether From has an address: some mail systems write `Mail Delivery System <>`, or nothing."""
    return "@" in report.get("from") or not report.fields


def _lines(parts: list[Part]) -> Iterator[str]:
    """Yield the lines of what a mail system says, without the message that came back."""
    left = _MAX_TEXT
    texts = []
    for part in parts:
        if part.content_type in MESSAGES or part.content_type in HEADERS:
            break
        if part.content_type.startswith("text/") or (part is parts[0] and len(parts) == 1):
            texts.append(part)
    if any(part.content_type != "text/html" for part in texts):
        texts = [part for part in texts if part.content_type != "text/html"]
    for part in texts:
        text = part.text()[:left]
        if part.content_type == "text/html":
            text = unescape(_TAG.sub("\n", text))
        left -= len(text)
        for number, line in enumerate(text.split("\n")):
            if number and _ORIGINAL.match(line[:_MAX_LINE]):
                return
            yield line[:_MAX_LINE].strip()


def _is_coded(lines: list[str]) -> bool:
    return any(_CODE.search(line) or is_gone(line) for line in lines)


def _find_recipients(lines: list[str], report: Part) -> list[str]:
    """Return the addresses at the beginning of a line or alone on it, else the first of all; none of our own."""
    own = {address.lower() for address in (*find_addresses(report), *_ADDRESS.findall(report.get("from")))}
    found: list[tuple[bool, str]] = []
    for line in lines:
        for match in _ADDRESS.finditer(line):
            if match[0].lower() not in own and not _SYSTEM.search(match[0]):
                before = line[: match.start()]
                first = _NO_WORD.fullmatch(before) is not None or before.rstrip(' <"').endswith(":")
                found.append((first, match[0].rstrip(".")))
    return [address for first, address in found if first] or [address for _, address in found[:1]]


def _find_words(lines: list[str], recipient: str, *, alone: bool) -> str:
    """Return the words about a recipient: its paragraph where that gives a reason, else the first one that does."""
    paragraphs = _paragraphs(lines)
    for own in (True, False) if recipient else (False,):
        for sign in (_CODE.search, is_gone, _REASON.search, _FAILURE.search):
            for number, paragraph in enumerate(paragraphs):
                about = recipient.lower() in paragraph.lower()
                if own and not about and not (number and recipient.lower() in paragraphs[number - 1].lower() and alone):
                    continue
                if (own or alone or not _ADDRESS.search(paragraph)) and sign(_without_addresses(paragraph)):
                    if own and sign == _FAILURE.search and alone:
                        continue  # `could not be delivered to ann@example.net:` gives no reason
                    return paragraph
    return ""


def _paragraphs(lines: list[str]) -> list[str]:
    """Return the paragraphs; a line that begins with an address begins one."""
    found: list[list[str]] = [[]]
    for line in lines:
        if not line or re.match(r"<[^<>\s]{1,320}>:|[*\-]*\s*\[?[^\s<>]{1,64}@[^\s<>]{1,255}:", line):
            found.append([])
        if line:
            found[-1].append(line)
    return [" ".join(" ".join(each).split()) for each in found if each]


def _without_addresses(text: str) -> str:
    return _ADDRESS.sub(" ", text)


def _detect(data: bytes) -> tuple[list[str], list[str]]:
    """Return the recipients that are delayed and those that failed, by flufl.bounce; nothing without it."""
    try:
        from flufl.bounce import all_failures  # an extra
    except ImportError:
        return [], []

    data = b"\n".join(line[:_MAX_LINE_BYTES] for line in data[:_MAX_BYTES].replace(b"\r\n", b"\n").split(b"\n"))
    if data.lower().count(b"boundary") > _MAX_BOUNDARIES:
        return [], []
    # It logs the exceptions of its detectors, with what the message says; nobody asked for that.
    logger = logging.getLogger("flufl.bounce")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    try:
        delayed, failed = all_failures(message_from_bytes(data))
    except Exception:  # of whatever its detectors do with a message that they do not expect
        return [], []
    return _decode(delayed), _decode(failed)


def _decode(addresses: object) -> list[str]:
    assert isinstance(addresses, (set, frozenset))
    texts = (each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in addresses)
    return sorted(text for text in texts if len(text) <= 320)

"""What providers object to: a good message passes every rule, and a bad one trips each."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.mail.checks.rules import RULES, Weight, check
from asyncsmtp.mail.message import Message
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.mail.unsubscribe import Unsubscribe
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Envelope, Mailbox

WAY = Unsubscribe("https://example.org/u/{{ token }}", b"0123456789abcdef")
SIGNED = (
    b"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s1;\r\n"
    b" h=From:List-Unsubscribe:List-Unsubscribe-Post; b=x\r\n"
)
TEXT = "The news of this week, in as many words as it takes to say something to somebody who reads.\n"
HTML = f'<p>{TEXT}</p><img src="https://example.org/logo.png" alt="Example"><a href="https://example.org/">more</a>'
GOOD: dict[str, object] = {
    "from_": "News <news@example.org>",
    "subject": "News of the week",
    "text": TEXT,
    "html": HTML,
    "unsubscribe": WAY,
}


def message(signature: bytes = SIGNED, **changed: object) -> Message:
    composer = Template(**{**GOOD, **changed}).compile(())  # type: ignore[arg-type]
    made = composer.compose(
        Mailbox.parse("ann@example.net"), {}, message_id="a@example.org", date=datetime(2026, 3, 1, tzinfo=UTC)
    )
    return Message(made.envelope, Content.of(signature + bytes(made.content)))  # type: ignore[arg-type]


def found(given: Message) -> set[str]:
    return {finding.rule for finding in check(given)}


def test_a_good_message_passes_every_rule() -> None:
    assert check(message()) == []
    assert check(message(text=TEXT, html=None)) == []


BAD = {
    "unsubscribe": message(unsubscribe=None),
    "one-click": message(unsubscribe=Unsubscribe(WAY.url, WAY.secret, one_click=False)),
    "unsubscribe-signed": message(SIGNED.replace(b":List-Unsubscribe-Post", b"")),
    "text-part": message(text=None),
    "unsigned": message(b""),
    "aligned": message(SIGNED.replace(b"d=example.org", b"d=relay.example")),
    "return-path": message(b"", return_path="bounces@relay.example"),
    "image-only": message(html='<p>News</p><img src="https://example.org/all.png" alt="everything">'),
    "alternatives": message(html=HTML.replace(' alt="Example"', "")),
    "disguised-file": message(attachments=(Attachment("terms.pdf", b"\x89PNG\r\n\x1a\n" + bytes(30)),)),
    "large": message(attachments=(Attachment("film.bin", b"x" * 9_000_000),)),
    "long-html": message(html=HTML + "<p>and more</p>" * 7_000),
    "eight-bit": Message(
        Envelope.of("news@example.org", ["ann@example.net"]),
        Content.of(bytes(message().content).replace(b"News of the week", "Käse".encode())),  # type: ignore[arg-type]
    ),
    "insecure-link": message(html=HTML.replace('href="https', 'href="HTTP')),
    "script": message(html=HTML.replace('https://example.org/"', 'javascript:alert(1)"')),
    "active-file": message(attachments=(Attachment("invoice.pdf.EXE", b"MZ"),)),
    "subject": message(subject="BUY THIS NOW"),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_bad_message_trips_the_rule(rule: str) -> None:
    """Each rule by itself; what it says has an advice, and nothing that acts on a terminal."""
    assert rule in found(BAD[rule])
    (finding,) = [one for one in check(BAD[rule]) if one.rule == rule]
    assert finding.weight in Weight
    assert finding.advice
    assert str(finding).isprintable()


def test_no_message_is_bad_for_more_than_its_own_reason() -> None:
    """A rule that fires with another's fault would send its reader the wrong way."""
    allowed = {"return-path": {"unsigned"}, "large": set(), "unsubscribe-signed": set()}
    for rule, bad in BAD.items():
        assert found(bad) - {rule} <= allowed.get(rule, set()), rule


@pytest.mark.parametrize(
    ("domain", "aligned"), [("example.org", True), ("news.example.org", False), ("ample.org", False)]
)
def test_a_signature_is_aligned_by_its_domain_or_one_above(domain: str, aligned: bool) -> None:
    """RFC 7489 §3.1.1, as far as it goes without the list of public suffixes."""
    assert ("aligned" not in found(message(SIGNED.replace(b"d=example.org", f"d={domain}".encode())))) is aligned
    below = message(from_="News <news@mail.example.org>")
    assert "aligned" not in found(below)


def test_hostile_html_is_no_trap() -> None:
    """What a template's author pasted from anywhere: unclosed, nested, endless."""
    html = "<" * 5000 + "<a href=" + '"' * 300 + "<style>" * 100 + TEXT
    assert "image-only" not in found(message(html=html))

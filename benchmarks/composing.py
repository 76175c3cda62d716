"""Composing, and composing with DKIM: text, HTML and an inline PNG of 20 KB; the peer is EmailMessage and dkimpy."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from random import Random

import dkim
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jinja2 import Environment

from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.mail.signing.dkim import DkimKey, Signer
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.protocol.envelope import Mailbox
from benchmarks.measure import Cost, Row, in_turn

__all__ = ["measure"]

_PARAGRAPH = "<p style='color:#333'>Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod.</p>\n"
_HTML = f"<h1>Hello {{{{ name }}}}</h1>\n{_PARAGRAPH * 40}<p>{{{{ city }}}}</p>\n<img src='cid:logo'>\n"
_TEXT = "Hello {{ name }},\n" + "Lorem ipsum dolor sit amet, consectetur adipiscing elit.\n" * 60
_PNG = Random(1).randbytes(20_000)
_DATE = datetime(2025, 11, 3, 9, 0, tzinfo=UTC)


async def measure(*, messages: int = 1_000, peer_messages: int = 60, turns: int = 5) -> list[Row]:
    """Rows 6 and 7."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    found = []
    for work, target, signer, key_pem in (
        ("compose, text, HTML, PNG of 20 KB", 25, None, None),
        ("the same, signed with RSA-2048", 15, Signer(DkimKey.of_pem("example.com", "s1", pem)), pem),
    ):
        ours, peer = _ours(signer), _peer(key_pem)

        async def a(make: Callable[[int], object] = ours) -> Cost:
            return _timed(make, messages)

        async def b(make: Callable[[int], object] = peer) -> Cost:
            return _timed(make, peer_messages)

        mine, theirs = await in_turn(a, b, turns)
        ratio = theirs.each / mine.each
        cells = (f"{cost.each * 1000:.3f} ms" for cost in (mine, theirs))
        found.append(Row(work, *cells, f"{ratio:.1f}×", f"≥ {target}×", ratio >= target))
    return found


def _timed(make: Callable[[int], object], messages: int) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(messages):
        make(number)
    return Cost(messages, time.perf_counter() - wall, time.process_time() - cpu)


def _ours(signer: Signer | None) -> Callable[[int], object]:
    template = Template(
        "News <news@example.com>",
        "News for {{ name }}",
        text=_TEXT,
        html=_HTML,
        inline={"logo": Attachment("logo.png", _PNG)},
    )
    composer, to = template.compile(["name", "city"], signer=signer), Mailbox.parse("bob@x.example")

    def make(number: int) -> object:
        cells = {"name": f"Bob {number}", "city": "Wien"}
        return composer.compose(to, cells, message_id=f"{number}@example.com", date=_DATE)

    return make


def _peer(pem: bytes | None) -> Callable[[int], bytes]:
    environment = Environment(autoescape=True)
    html, text = environment.from_string(_HTML), environment.from_string(_TEXT)

    def make(number: int) -> bytes:
        cells = {"name": f"Bob {number}", "city": "Wien"}
        message = EmailMessage(policy=SMTP)
        message["From"], message["To"] = "News <news@example.com>", "bob@x.example"
        message["Subject"], message["Message-ID"] = f"News for Bob {number}", f"<{number}@example.com>"
        message["Date"] = _DATE
        message.set_content(text.render(cells))
        message.add_alternative(html.render(cells), subtype="html")
        message.get_payload()[1].add_related(_PNG, "image", "png", cid="<logo>")
        octets = message.as_bytes()
        if pem is None:
            return octets
        return dkim.sign(octets, b"s1", b"example.com", pem, canonicalize=(b"relaxed", b"relaxed")) + octets

    return make

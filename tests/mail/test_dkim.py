"""DKIM signatures hold for two verifiers, and break with whatever is changed or added."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from asyncsmtp.errors import MessageError
from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.mail.message import Message, build
from asyncsmtp.mail.signing import dkim as signing
from asyncsmtp.mail.signing.dkim import DkimKey, Signer
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.protocol.content import Content, dot_stuff
from asyncsmtp.protocol.envelope import Envelope, Mailbox
from tests.mail.dkim_verifier import verdicts

DATE = datetime(2025, 11, 3, 9, 0, tzinfo=UTC)
BOB = Mailbox.parse("bob@x.example")
LISTS = {"List-Unsubscribe": "<https://example.com/u/1>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}


def pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def keys() -> tuple[DkimKey, DkimKey]:
    edwards = ed25519.Ed25519PrivateKey.generate()
    return DkimKey.of_pem("example.com", "r1", pem(rsa_key())), DkimKey.of_pem("example.com", "e1", pem(edwards))


def records() -> dict[str, str]:
    return {key.name: key.record for key in keys()}


def hold(octets: bytes) -> list[bool]:
    """What both verifiers say of each signature; they must agree."""
    ours = verdicts(octets, records())

    def dns(name: bytes, timeout: int = 5) -> bytes:
        return records()[name.decode("ascii").rstrip(".")].encode("ascii")

    theirs = []
    for index in range(len(ours)):
        try:
            theirs.append(dkim.DKIM(octets).verify(index, dnsfunc=dns))
        except dkim.DKIMException:
            theirs.append(False)
    assert ours == theirs
    return ours


def message(**given: object) -> Message:
    parts = {
        "from_": "News <news@example.com>",
        "to": "bob@x.example",
        "subject": "Hi",
        "text": "one  two \n\n.three\n",
    }
    return build(**(parts | given), message_id="1@example.com", date=DATE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"text": ""},
        {"text": "\n\n \n"},
        {"text": "tab\there   and  there \t\n" * 50},
        {"text": "a" * 100_000},
        {"subject": "Grüße, 世界 " * 40, "text": "שלום 🎉"},
        {"subject": ""},
        {"html": "<p>Hi</p>", "attachments": [Attachment(f"{n}.bin", bytes(3_000)) for n in range(5)]},
        {"headers": LISTS | {"X-A": "1", "Feedback-ID": "a:b:c:d", "References": "<a@b> " * 30}},
        {"cc": "c@y.example, d@y.example", "reply_to": "desk@example.com"},
        {"from_": "Jörg <news@example.com>", "to": "grün@x.example"},
    ],
)
def test_both_signatures_hold_for_both_verifiers(given: dict[str, object]) -> None:
    """MH-11: RSA and Ed25519 side by side, over the octets before dots are doubled."""
    signed = Signer(*keys()).sign(message(**given), DATE)
    assert hold(bytes(signed.content)) == [True, True]
    assert signed.content.size == len(bytes(signed.content))
    Content.of(bytes(signed.content))
    assert b"".join(dot_stuff(signed.content.parts)).replace(b"\r\n..", b"\r\n.") == bytes(signed.content)


@pytest.mark.parametrize(
    "name",
    ["From", "Subject", "To", "Cc", "Date", "Message-ID", "Reply-To", "Content-Type", "List-ID", *LISTS],
)
def test_a_field_added_later_breaks_them(name: str) -> None:
    """MH-11: there or not, it is named once more than it occurs."""
    octets = bytes(Signer(*keys()).sign(message(headers=LISTS), DATE).content)
    added = f"{name}: evil@example.net\r\n".encode()
    assert hold(added + octets) == [False, False]
    assert hold(octets.replace(b"\r\n\r\n", b"\r\n" + added + b"\r\n", 1)) == [False, False]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Subject: Hi", b"Subject: Ho"),
        (b"one", b"two"),
        (b"One-Click", b"Two-Click"),
        (b".three\r\n", b".three\r\nfour\r\n"),
        (b"Subject: Hi\r\n", b""),
    ],
)
def test_what_is_altered_breaks_them(old: bytes, new: bytes) -> None:
    """Also what is written on below the body, since there is no `l=`."""
    octets = bytes(Signer(*keys()).sign(message(headers=LISTS), DATE).content)
    assert old in octets
    assert hold(octets.replace(old, new)) == [False, False]


@pytest.mark.parametrize("count", [0, 2])
def test_anything_but_one_from_is_refused(count: int) -> None:
    """MH-11: which of two authors is shown is anybody's guess."""
    content = Content.of(b"From: a@example.com\r\n" * count + b"Subject: x\r\n\r\nx\r\n")
    with pytest.raises(MessageError, match="exactly one"):
        Signer(*keys()).signed(content)


def test_content_that_is_not_in_memory_is_refused() -> None:
    """Its hash stands before its first octet."""

    class Afar:
        size, eight_bit, utf8_headers, binary, is_consumed = None, False, False, False, False

        async def blocks(self) -> AsyncGenerator[bytes]:
            yield b"From: <a@example.com>\r\n"

    with pytest.raises(MessageError, match="read it first"):
        Signer(*keys()).sign(Message(Envelope.of(None, "b@example.net"), Afar()))


def test_binary_content_is_refused() -> None:
    """RFC 6376 §5.3: what a relay may change on the way cannot be signed."""
    with pytest.raises(MessageError, match="binary"):
        Signer(*keys()).signed(Content.from_binary(b"From: a@example.com\r\n\r\na\nb"))


def test_a_retry_signs_the_same_octets() -> None:
    """The time in it is given, and neither algorithm uses chance; without an offset the date is UTC."""
    first, again = (Signer(*keys()).sign(message(), date) for date in (DATE, DATE.replace(tzinfo=None)))
    assert bytes(first.content) == bytes(again.content)
    assert b" t=1762160400;" in bytes(first.content)
    later = Signer(*keys()).sign(message(), DATE + timedelta(seconds=1))
    assert b" t=1762160401;" in bytes(later.content)
    assert b" t=" not in bytes(Signer(*keys()).sign(message()).content)


@pytest.mark.parametrize("text", ["The same for all. " * 400, "Dear {{ name }}, " + "the same for all. " * 400])
def test_messages_of_a_template_are_signed(text: str) -> None:
    """Each recipient's own octets, whatever the signer remembers of the one before."""
    template = Template("News <news@example.com>", "For {{ name }}", text=text, headers=LISTS)
    composer = template.compile(["name"], signer=Signer(*keys()))
    made = [composer.compose(BOB, {"name": name}, message_id="1@example.com", date=DATE) for name in ("A", "B", "A")]
    assert [hold(bytes(each.content)) for each in made] == [[True, True]] * 3
    assert bytes(made[0].content) == bytes(made[2].content) != bytes(made[1].content)


def test_a_body_that_all_share_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """25 MB to 1,000 recipients must not be hashed 1,000 times."""
    taken: list[int] = []

    class Counting(signing.BodyHash):
        def update(self, part: bytes) -> None:
            taken.append(len(part))
            super().update(part)

    monkeypatch.setattr(signing, "BodyHash", Counting)
    file = Attachment("a.bin", bytes(100_000))
    template = Template("News <news@example.com>", "For {{ name }}", text="Hello", attachments=(file,))
    composer = template.compile(["name"], signer=Signer(*keys()))
    for name in "ABC":
        composer.compose(BOB, {"name": name}, message_id="1@example.com", date=DATE)
    assert sum(taken) < 2 * 137_000


@pytest.mark.parametrize("name", ["x; s=evil", "x\r\nBcc: z", "", "a" * 64, "-a", "a_b", "é", "a..b", "a "])
def test_a_name_that_would_end_its_tag_is_refused(name: str) -> None:
    """MH-10."""
    with pytest.raises(MessageError, match="selector"):
        DkimKey.of_pem("example.com", name, pem(rsa_key()))
    with pytest.raises(MessageError, match="domain"):
        DkimKey.of_pem(f"{name}.example.com" if name else "com", "s1", pem(rsa_key()))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: b"nonsense", "no private key in PEM"),
        (lambda: pem(ec.generate_private_key(ec.SECP256R1())), "neither RSA nor Ed25519"),
        (
            lambda: rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
            "encrypted",
        ),
    ],
)
def test_a_key_that_cannot_sign_is_refused(make: Callable[[], bytes], why: str) -> None:
    """Before anything is sent, with what to do."""
    with pytest.raises(MessageError, match=why):
        DkimKey.of_pem("example.com", "s1", make())


def test_a_key_of_the_older_form_is_read() -> None:
    """PKCS#1, `BEGIN RSA PRIVATE KEY`."""
    old = rsa_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert DkimKey.of_pem("example.com", "r1", old) == keys()[0]


def test_a_short_rsa_key_is_weak() -> None:
    """RFC 8301 §3.2: from 1024 bits it may sign, from 2048 it should."""
    key = keys()[0]
    assert not key.weak
    assert replace(key, bits=1024).weak
    assert not keys()[1].weak


def test_a_signer_needs_a_key() -> None:
    """An empty list must not send unsigned mail."""
    with pytest.raises(MessageError, match="no key"):
        Signer()

"""S/MIME: what openssl says of it, also after one octet has changed; and that nothing else of the message changes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from asyncsmtp.errors import MessageError
from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.mail.message import Message, build
from asyncsmtp.mail.signing.dkim import DkimKey, Signer
from asyncsmtp.mail.signing.smime import SmimeSigner
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Envelope, Mailbox
from tests.mail.dkim_verifier import verdicts

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
DATE = datetime(2026, 3, 1, tzinfo=UTC)
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def pem(key: Key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificate(key: Key, above: tuple[x509.Name, Key] | None = None, *, days: int = 30) -> x509.Certificate:
    """One for news@example.org, by itself or by another."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "News" if above else "Authority")])
    issuer, signer = above or (name, key)
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=60)).not_valid_after(now + timedelta(days=days))
    if above is None:
        builder = builder.add_extension(x509.BasicConstraints(True, None), True)
    else:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.RFC822Name("News@example.org")]), False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
    return builder.sign(signer, SHA256())


class Papers:
    """An authority, and a certificate of its making with the key."""

    def __init__(self, days: int = 30) -> None:
        authority = rsa.generate_private_key(65_537, 2_048)
        self.key = rsa.generate_private_key(65_537, 2_048)
        root = certificate(authority)
        self.root = root.public_bytes(Encoding.PEM)
        self.leaf = certificate(self.key, (root.subject, authority), days=days).public_bytes(Encoding.PEM)

    def seal(self) -> SmimeSigner:
        return SmimeSigner(self.leaf, pem(self.key), self.root)


@pytest.fixture(scope="module")
def papers() -> Papers:
    return Papers()


@pytest.fixture
def believes(papers: Papers, tmp_path: Path) -> Callable[[bytes], bool]:
    """Whether openssl finds the signature good, by the authority."""
    (tmp_path / "root.pem").write_bytes(papers.root)

    def ask(message: bytes) -> bool:
        (tmp_path / "message.eml").write_bytes(message)
        command = ["openssl", "cms", "-verify", "-purpose", "smimesign", "-CAfile", "root.pem", "-in", "message.eml"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0

    return ask


TEXTS: dict[str, dict[str, str | None]] = {
    "text": {"text": "Dear {{ name }},\n\nall is well. \n"},
    "html": {"text": "Dear {{ name }}\n", "html": "<p>Dear {{ name }}</p>\n"},
    "beyond": {"text": "Ærede {{ name }}: " + "æøå" * 60 + "\n.\n..dots\n"},
}


def composed(papers: Papers, kind: str = "html", *, signer: Signer | None = None, seal: bool = True) -> Message:
    files = (Attachment("terms.pdf", b"%PDF-1.7 " + bytes(range(256))),) if kind == "html" else ()
    template = Template(from_="News <news@example.org>", subject="For {{ name }}", attachments=files, **TEXTS[kind])  # type: ignore[arg-type]
    composer = template.compile(("name",), signer=signer, smime_signer=papers.seal() if seal else None)
    return composer.compose(Mailbox.parse("ann@x.example"), {"name": "Åse"}, message_id="1@example.org", date=DATE)


def octets(message: Message) -> bytes:
    assert isinstance(message.content, Content)
    return bytes(message.content)


@needs_openssl
@pytest.mark.parametrize("kind", TEXTS)
def test_openssl_believes_it_as_it_is_and_no_other(
    papers: Papers, believes: Callable[[bytes], bool], kind: str
) -> None:
    """RFC 8551 §3.5.3: multipart/signed with a detached signature, whatever the body is made of."""
    sent = octets(composed(papers, kind))
    assert believes(sent)
    place = sent.index(b"Dear") if b"Dear" in sent else sent.index(b"\r\n\r\n", sent.index(b"base64")) + 10
    assert not believes(sent[:place] + b"X" + sent[place + 1 :])


def test_the_body_is_what_it_was(papers: Papers) -> None:
    """RFC 1847 §2.1: the first part is the body with its fields, octet for octet; the header keeps the others."""
    plain, sealed = octets(composed(papers, seal=False)), octets(composed(papers))
    section, _, body = plain.partition(b"\r\n\r\n")
    about = section[section.index(b"Content-Type") :]
    assert about + b"\r\n\r\n" + body in sealed
    assert sealed.startswith(section[: section.index(b"Content-Type")])
    read = message_from_bytes(sealed, policy=policy.default)
    assert isinstance(read, EmailMessage)
    assert read.get_content_type() == "multipart/signed"
    assert read["Content-Type"].params["protocol"] == "application/pkcs7-signature"
    assert read["Content-Type"].params["micalg"] == "sha-256"
    first, second = read.iter_parts()
    assert second.get_filename() == "smime.p7s"
    assert first.get_content_type() == "multipart/mixed"
    assert [part.get_content_type() for part in read.walk()][-2:] == ["application/pdf", "application/pkcs7-signature"]
    assert Content.of(sealed).size == len(sealed)  # canonical


def test_a_message_of_the_library_in_eight_bits_is_signed_in_seven(papers: Papers) -> None:
    """FT-43: what a relay encodes anew would break the signature; one of others is not touched for ours."""
    message = EmailMessage()
    message["From"], message["To"] = "news@example.org", "ann@x.example"
    message.set_content("Grüße\n", cte="8bit")
    sealed = octets(papers.seal().sign(Message.of(message)))
    assert sealed.isascii()
    inner = next(message_from_bytes(sealed, policy=policy.default).iter_parts())  # type: ignore[attr-defined]
    assert inner.get_content().strip() == "Grüße"
    message["DKIM-Signature"] = "v=1"
    with pytest.raises(MessageError, match="signature"):
        papers.seal().sign(Message.of(message))


def test_the_same_message_gives_the_same_bytes(papers: Papers) -> None:
    """A retry next week sends what was sent."""
    assert octets(composed(papers)) == octets(composed(papers))


def test_dkim_covers_the_signed_body(papers: Papers) -> None:
    """It is made last."""
    key = DkimKey.from_pem("example.org", "s1", pem(rsa.generate_private_key(65_537, 2_048)))
    sent = octets(composed(papers, signer=Signer(key)))
    assert verdicts(sent, {key.name: key.record}) == [True]
    assert not any(verdicts(sent.replace(b"smime.p7s", b"smime.p7x"), {key.name: key.record}))


def test_any_message_can_be_signed(papers: Papers) -> None:
    """And what a relay might change cannot."""
    envelope = Envelope.of("news@example.org", ["ann@x.example"])
    signed = papers.seal().sign(Message(envelope, Content.of("From: news@example.org\n\nDear Ann\n")))
    assert b"\r\n\r\nDear Ann\r\n" in octets(signed)
    with pytest.raises(MessageError, match="quoted-printable"):
        papers.seal().sign(Message(envelope, Content.of("From: news@example.org\n\nÅ\n")))


def _wrong(papers: Papers) -> Iterator[tuple[bytes, bytes, str]]:
    other = rsa.generate_private_key(65_537, 2_048)
    curve = ec.generate_private_key(ec.SECP256R1())
    yield papers.leaf, pem(other), "does not belong to the certificate"
    yield papers.leaf, b"-----BEGIN", "there is no private key in PEM"
    yield pem(other), pem(papers.key), "is not valid PEM"
    yield certificate(curve).public_bytes(Encoding.PEM), pem(curve), "must be an RSA key"


def test_a_wrong_certificate_or_key_is_named(papers: Papers) -> None:
    for leaf, key, reason in _wrong(papers):
        with pytest.raises(MessageError, match=reason):
            SmimeSigner(leaf, key)
    assert papers.seal().addresses == ("news@example.org",)


def test_a_signed_draft_is_still_a_draft(papers: Papers) -> None:
    """Its body is signed, not its header: the Date can be added when it is sent."""
    draft = build(from_="news@example.org", to="ann@x.example", text="x")
    assert papers.seal().sign(draft).is_draft


def test_folded_fields_stay_with_their_names(papers: Papers) -> None:
    """A fold belongs to the field above it: of the message, or of the part that is signed."""
    octets = (
        b"From: x@example.org\r\nReferences: <a@x.example>\r\n <b@x.example>\r\n"
        b"Content-Type: text/plain;\r\n\tcharset=utf-8\r\nTo: y@x.example\r\nSubject: News\r\n\r\nHello\r\n"
    )
    signed = bytes(papers.seal().sign_content(Content.of(octets)))
    outer, _, rest = signed.partition(b"\r\n\r\n")
    assert b"\r\nReferences: <a@x.example>\r\n <b@x.example>\r\nTo: y@x.example\r\nSubject: News\r\n" in outer
    assert b"charset" not in outer
    assert b"\r\nContent-Type: text/plain;\r\n\tcharset=utf-8\r\n\r\nHello\r\n\r\n--" in rest


class Streamed:
    """Content that is read while it is sent."""

    size: int | None = None
    eight_bit = utf8_headers = binary = False

    def blocks(self) -> Iterator[bytes]:
        yield b"x\r\n"


def test_what_is_not_in_memory_cannot_be_signed(papers: Papers) -> None:
    """The signature stands behind the body, and its digest is of all of it."""
    message = Message(Envelope.of("x@example.org", ["y@x.example"]), Streamed())  # type: ignore[arg-type]
    with pytest.raises(MessageError, match="streamed content cannot be signed: read it into memory first"):
        papers.seal().sign(message)

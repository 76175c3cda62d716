"""DKIM signatures hold for two verifiers, and break with whatever is changed or added."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from dkim.canonicalization import Relaxed
from hypothesis import example, given
from hypothesis import strategies as st

from asyncsmtp.errors import InvalidArgument, MessageError
from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.mail.message import Message, build
from asyncsmtp.mail.signing import dkim as signing
from asyncsmtp.mail.signing.dkim import BodyHash, DkimKey, Signer, canonicalize_field, split_fields
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.protocol.content import Content, dot_stuff
from asyncsmtp.protocol.envelope import Envelope, Mailbox
from tests.mail import dkim_verifier
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
    return DkimKey.from_pem("example.com", "r1", pem(rsa_key())), DkimKey.from_pem("example.com", "e1", pem(edwards))


def records() -> dict[str, str]:
    return {key.name: key.record for key in keys()}


def written(message: Message) -> bytes:
    assert isinstance(message.content, Content)
    return bytes(message.content)


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
    "name", ["From", "Subject", "To", "Cc", "Date", "Message-ID", "Reply-To", "Content-Type", "List-ID", *LISTS]
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
        Signer(*keys()).sign_content(content)


def test_content_that_is_not_in_memory_is_refused() -> None:
    """Its hash stands before its first octet."""

    class Afar:
        size, eight_bit, utf8_headers, binary, is_consumed = None, False, False, False, False

        async def blocks(self) -> AsyncGenerator[bytes]:
            yield b"From: <a@example.com>\r\n"

    with pytest.raises(MessageError, match="read it into memory first"):
        Signer(*keys()).sign(Message(Envelope.of(None, "b@example.net"), Afar()))


def test_binary_content_is_refused() -> None:
    """RFC 6376 §5.3: what a relay may change on the way cannot be signed."""
    with pytest.raises(MessageError, match="binary"):
        Signer(*keys()).sign_content(Content.from_binary(b"From: a@example.com\r\n\r\na\nb"))


def test_a_retry_signs_the_same_bytes() -> None:
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
        DkimKey.from_pem("example.com", name, pem(rsa_key()))
    with pytest.raises(MessageError, match="domain"):
        DkimKey.from_pem(f"{name}.example.com" if name else "com", "s1", pem(rsa_key()))


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
        DkimKey.from_pem("example.com", "s1", make())


def test_without_its_package_a_key_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is optional."""
    text = pem(rsa_key())
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(MessageError, match=r"pip install 'asyncsmtp\[dkim\]'") as missing:
        DkimKey.from_pem("example.com", "s1", text)
    assert isinstance(missing.value.__cause__, ImportError)


def test_a_key_of_the_older_form_is_read() -> None:
    """PKCS#1, `BEGIN RSA PRIVATE KEY`."""
    old = rsa_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert DkimKey.from_pem("example.com", "r1", old) == keys()[0]


def test_a_short_rsa_key_is_weak() -> None:
    """RFC 8301 §3.2: from 1024 bits it may sign, from 2048 it should."""
    key = keys()[0]
    assert not key.is_weak
    assert replace(key, bits=1024).is_weak
    assert not keys()[1].is_weak


def test_a_signer_needs_a_key() -> None:
    """An empty list must not send unsigned mail."""
    with pytest.raises(MessageError, match="no key"):
        Signer()


LINES = st.lists(st.binary(max_size=12).map(lambda line: line.translate(None, b"\r\n\0")), max_size=8)
BLANKS = st.lists(st.text(" \tab.", max_size=8).map(str.encode), max_size=8)
BODIES = st.one_of(LINES, BLANKS).map(lambda lines: b"".join(line + b"\r\n" for line in lines))


@given(BODIES, st.lists(st.integers(0, 100), max_size=4))
@example(b"", [])
@example(b" \t\r\n\r\n", [1])
@example(b"a \t\r\n\r\n", [2])
@example(b" C \r\nD \t E\r\n\r\n\r\n", [3, 4])
def test_a_body_hashes_as_two_others_say_wherever_it_is_cut(body: bytes, cuts: list[int]) -> None:
    """F7, P3: dkimpy and the RFC's steps agree with ours, and the cuts do not matter."""
    hash_ = BodyHash()
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    for start, end in pairwise(edges):
        hash_.update(body[start:end])
    assert hash_.digest() == sha256(Relaxed.canonicalize_body(body)).digest()
    assert hash_.digest() == sha256(dkim_verifier.relaxed_body(body)).digest()


@given(st.lists(st.text("a \t:é", max_size=12), min_size=1, max_size=4))
def test_a_field_is_written_as_two_others_write_it(words: list[str]) -> None:
    """F7: folded anywhere, with white space anywhere."""
    field = b"X-Some \t:" + "\r\n ".join(words).encode()
    [(name, value)] = Relaxed.canonicalize_headers([(b"X-Some \t", field.partition(b":")[2] + b"\r\n")])
    assert canonicalize_field(field) + b"\r\n" == name + b":" + value
    assert canonicalize_field(field) + b"\r\n" == dkim_verifier.relaxed_field(field)


def test_a_field_keeps_its_folded_lines() -> None:
    """A line that begins with white space belongs to the one above."""
    fields = split_fields(b"Subject: a\r\n b\r\n\tc\r\nTO: d\r\n")
    assert fields == [(b"subject", b"Subject: a\r\n b\r\n\tc"), (b"to", b"TO: d")]


def test_a_signer_reads_its_key_from_a_file(tmp_path: Path) -> None:
    """A string or a Path; the same key signs the same."""
    path = tmp_path / "dkim.pem"
    path.write_bytes(pem(rsa_key()))
    by_text, by_path = Signer.from_file("example.com", "r1", str(path)), Signer.from_file("example.com", "r1", path)
    signed = written(by_text.sign(message(), DATE))
    assert signed == written(by_path.sign(message(), DATE)) == written(Signer(keys()[0]).sign(message(), DATE))
    assert hold(signed) == [True]


def test_a_key_file_that_cannot_be_read_is_a_message_error(tmp_path: Path) -> None:
    with pytest.raises(MessageError, match=r"DKIM: the key file .*none\.pem cannot be read: No such file"):
        Signer.from_file("example.com", "r1", tmp_path / "none.pem")
    with pytest.raises(TypeError, match="path must be str or Path, not int"):
        Signer.from_file("example.com", "r1", 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="date must be datetime or None, not str"):
        Signer(*keys()).sign(message(), date="x")  # type: ignore[arg-type]


def test_a_signer_shows_the_names_of_its_keys() -> None:
    first, *_ = used = keys()
    assert repr(Signer(*used)).startswith(f"<Signer for {first.selector}._domainkey.{first.domain}")


def test_an_email_message_can_be_signed() -> None:
    """It is converted as `Message.of` does, and left unchanged."""
    email = EmailMessage()
    email["From"], email["To"], email["Subject"] = "Ada <ada@example.com>", "bob@x.example", "Hi"
    email["Date"], email["Message-ID"] = DATE, "<1@example.com>"
    email.set_content("Hello")
    before = email.as_bytes()
    signed = Signer(*keys()).sign(email, DATE)
    assert hold(written(signed)) == [True, True]
    assert str(signed.envelope.reverse_path) == "ada@example.com"
    assert email.as_bytes() == before


def test_a_draft_cannot_be_signed() -> None:
    """The Date that sending adds would break the signature, which covers its absence."""
    draft = build(from_="ada@example.com", to="bob@x.example", text="x")
    with pytest.raises(InvalidArgument, match="before it is signed: give date= and message_id="):
        Signer(*keys()).sign(draft)
    composer = Template("ada@example.com", "x", text="x").compile((), signer=Signer(*keys()))
    with pytest.raises(InvalidArgument, match="before it is signed"):
        composer.compose("bob@x.example", {})


def test_several_threads_may_sign_with_one_signer() -> None:
    """The remembered beginning is replaced as a whole, so no thread takes another's hash."""
    prefixes = [b"From: ada@example.com\r\n\r\n" + bytes([65 + n]) * 10 for n in range(3)]
    contents = [Content.from_canonical((prefixes[n % 3], b"%d\r\n" % n)) for n in range(300)]
    shared, key = Signer(keys()[1]), keys()[1]
    with ThreadPoolExecutor(4) as pool:
        signed = list(pool.map(shared.sign_content, contents))
    assert list(map(bytes, signed)) == [bytes(Signer(key).sign_content(content)) for content in contents]


READ = (
    *("From", "Reply-To", "Subject", "Date", "Message-ID", "To", "Cc", "MIME-Version", "Content-Type"),
    *("Content-Transfer-Encoding", "List-ID", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Help"),
    *("List-Subscribe", "List-Owner", "List-Post", "List-Archive"),
)
RELATED = ("Sender", "In-Reply-To", "References", "Feedback-ID", "Auto-Submitted")


@pytest.mark.parametrize("name", [*READ, *RELATED])
def test_a_field_that_readers_see_is_covered(name: str) -> None:
    """RFC 6376 §5.4.1: one that is there is signed, and cannot be changed; §8.15: nor can one more of what is read."""
    value = "News <news@example.com>" if name == "From" else "x"
    fields = "" if name == "From" else f"{name}: {value}\r\n"
    octets = f"From: News <news@example.com>\r\n{fields}X-Other: x\r\n\r\nHello\r\n".encode()
    signed = bytes(Signer(keys()[0]).sign_content(Content.of(octets), DATE))
    assert verdicts(signed, records()) == [True]
    changed = signed.replace(f"\n{name}: {value}".encode(), f"\n{name}: y@example.com".encode())
    added = signed.replace(b"\nX-Other:", f"\n{name}: y@example.com\r\nX-Other:".encode())
    assert verdicts(changed, records()) == [False]
    assert verdicts(added, records()) == [False]
    bare = bytes(Signer(keys()[0]).sign_content(Content.of(octets.replace(fields.encode(), b"")), DATE))
    later = bare.replace(b"\nX-Other:", f"\n{name}: x\r\nX-Other:".encode())
    assert verdicts(later, records()) == [name in RELATED]
    assert verdicts(signed.replace(b"\nX-Other: x", b"\nX-Other: y"), records()) == [True]

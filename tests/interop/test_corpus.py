"""Three hundred mails of every shape through Postfix into a mailbox and a parser: unchanged, and validly signed."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.mail.message import Message
from asyncsmtp.mail.signing.dkim import DkimKey, Signer
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.opening_handshake import Security
from tests.interop.postfix import Postfix
from tests.interop.server import original

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

NUMBER = 300
NAMES = (
    "Ann O'Neil", "Jörg Müller", "Łukasz Żak", "Ștefan Țepeș", "Νίκος Παπαδόπουλος", "Анна Иванова", "Ђорђе Ђурић",
    "Արամ Խաչատրյան", "გიორგი მამულაშვილი", "משה כהן", "محمد علي", "فاطمه زهرا", "אברהם‎ (Abe)", "सुनीता शर्मा",
    "সুমন দাস", "ਗੁਰਪ੍ਰੀਤ ਸਿੰਘ", "ગીતા પટેલ", "ସୁଭାଷ", "தமிழ்ச்செல்வி", "తెలుగు రాజు", "ಕನ್ನಡ", "മലയാളം", "සිංහල", "สมชาย ใจดี",
    "ສົມສັກ", "မြန်မာ", "ភាសាខ្មែរ", "བོད་ཡིག", "አበበ ቢቂላ", "ᏣᎳᎩ", "王小明", "佐藤 花子", "김철수", "Nguyễn Thị Ánh",
    "👩‍🚀 Zoë 🎉", "𝔊𝔬𝔱𝔥𝔦𝔠", '"Quoted, \\ Name" (x)', "a=?utf-8?q?b?=", "x" * 200,
)  # fmt: skip


@dataclass(frozen=True)
class Meant:
    """Return the meaning of a message, apart from its encoding."""

    name: str
    subject: str
    text: str | None
    html: str | None
    files: tuple[tuple[str, bytes], ...]
    references: str


def meanings(chance: random.Random) -> Iterator[Meant]:
    """Of every kind some: long subjects, empty parts, forty attachments, lines of a megabyte."""
    for number in range(NUMBER):
        words = [chance.choice(NAMES) for _ in range(chance.randrange(1, 12))]
        text = (
            "\n".join(chance.choice((*words, "", ".", "..", "From here", "--", "trailing ")) for _ in range(12)) + "\n"
        )
        kind = number % 10
        yield Meant(
            NAMES[number % len(NAMES)],
            " ".join(words)[:500] if kind else ("Betreff ü " * 50)[:500].strip(),
            (None if kind == 1 else "" if kind == 2 else "x" * 1_000_000 + "\n" if number == 13 else text),
            f"<p>{text}</p>\n" if kind in (1, 3, 4, 8) else "ä" * 500_000 + "\n" if number == 25 else None,
            tuple(files(chance, 40 if number in (7, 57) else chance.randrange(4) if kind in (4, 5, 7) else 0)),
            " ".join(f"<{chance.getrandbits(200):x}@example.org>" for _ in range(30)) if kind == 6 else "",
        )


def files(chance: random.Random, number: int) -> Iterator[tuple[str, bytes]]:
    for place in range(number):
        name = chance.choice(("Rechnung für März.pdf", "資料.bin", "it's; a=b.txt", "émoji 🎉.dat", "n" * 120 + ".csv"))
        yield f"{place} {name}", chance.randbytes(chance.choice((0, 1, 57, 5_000)))


def composed(meant: Meant, number: int, signer: Signer) -> Message:
    template = Template(
        from_="News <news@example.org>",
        subject="{{ subject }}",
        text=None if meant.text is None else "{{ text }}",
        html=None if meant.html is None else "{{ html|safe }}",
        to_name="{{ name }}",
        attachments=tuple(Attachment(name, data, "application/octet-stream") for name, data in meant.files),
        headers={"References": "{{ references }}"} if meant.references else {},
    )
    cells = {"subject": meant.subject, "text": meant.text or "", "html": meant.html or "", "name": meant.name}
    cells["references"] = meant.references
    return template.compile(tuple(cells), signer=signer).compose(
        Mailbox.parse(f"reader{number}@example.com"),
        cells,
        message_id=f"corpus.{number}@example.org",
        date=datetime(2026, 3, 1, 9, tzinfo=UTC),
        row=number,
    )


def shown_name(octets: bytes) -> str:
    """The display name in To. By the old parser: the new one of some Pythons keeps the space between encoded words."""
    field = "".join(str(message_from_bytes(octets, policy=policy.compat32)["To"]).splitlines())
    return str(make_header(decode_header(parseaddr(field)[0])))


def check(parsed: EmailMessage, meant: Meant) -> None:
    """The parser's message says what was meant."""
    assert " ".join(str(parsed["Subject"]).split()) == " ".join(meant.subject.split())
    if meant.references:
        assert str(parsed["References"]).split() == meant.references.split()
    for kind, said in (("plain", meant.text), ("html", meant.html)):
        part = parsed.get_body((kind,))
        assert (part is None) == (said is None)
        if part is not None and said is not None:
            found = part.get_content().replace("\r\n", "\n")
            assert found.rstrip("\n") == said.rstrip("\n")
    found_files = tuple((part.get_filename(), part.get_payload(decode=True)) for part in parsed.iter_attachments())
    assert found_files == meant.files


async def test_a_corpus_survives_postfix_and_the_parser(postfix: Postfix) -> None:
    """Octet for octet what was composed; by the parser what was meant; both signatures valid."""
    pem = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    keys = (
        DkimKey.from_pem("example.org", "r", rsa.generate_private_key(65537, 2048).private_bytes(*pem)),
        DkimKey.from_pem("example.org", "e", ed25519.Ed25519PrivateKey.generate().private_bytes(*pem)),
    )
    records = {f"{key.name}.".encode(): key.record.encode() for key in keys}
    meant = list(meanings(random.Random(5322)))
    sent = [composed(one, number, Signer(*keys)) for number, one in enumerate(meant)]
    relay = Relay(postfix.host, postfix.plain, Security.PLAINTEXT)
    async with Pool(relay, sessions=4) as pool:
        deliveries = await asyncio.gather(*map(pool.send, sent))
    assert all(delivery.accepted for delivery in deliveries)
    await asyncio.to_thread(postfix.wait_for, NUMBER, 60.0)
    arrived: dict[int, bytes] = {}
    for file in (postfix.root / "mail/all/new").iterdir():
        octets = original(file.read_bytes())
        found = re.search(rb"^Message-ID: <corpus\.(\d+)@", octets, re.MULTILINE)
        assert found is not None
        arrived[int(found[1])] = octets
    assert sorted(arrived) == list(range(NUMBER))
    for number, (one, message) in enumerate(zip(meant, sent, strict=True)):
        assert isinstance(message.content, Content)
        assert arrived[number] == bytes(message.content), number
        parsed = message_from_bytes(arrived[number], policy=policy.default)
        assert isinstance(parsed, EmailMessage)
        assert shown_name(arrived[number]) == one.name
        check(parsed, one)
        if not number % 6:  # dkimpy takes its time
            verifier = dkim.DKIM(arrived[number])
            for place in range(2):
                assert verifier.verify(place, dnsfunc=lambda name, timeout=5: records[name]), (number, place)

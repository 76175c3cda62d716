"""Preparation: what a ledger keeps of a campaign is what it has kept since the first version."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from asyncsmtp.bulk.setup.config import load_config
from asyncsmtp.bulk.setup.prepare import PreparedCampaign, describe_sender, prepare
from asyncsmtp.errors import ConfigError
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Envelope

FILE = """\
[campaign]
name = "news"
from = "Example News <news@example.org>"
subject = "News for {{ name }}"
recipients = "people.csv"
html = "message.html"
text = "texts/message.txt"
attachments = ["terms.pdf", "invoices/{{ id }}.pdf"]
inline = { logo = "logo.png", photo = "photos/{{ id }}.png" }
headers = { X-Campaign = "november" }
reply_to = "desk@example.org"
return_path = "bounces+{{ token }}@example.org"
where = "id != '2'"
offset = 1
[columns]
who = "Name"
[unsubscribe]
url = "https://example.org/u/{{ token }}"
secret_file = "secret"
"""
FILES = {
    "people.csv": "email,name,id\nann@example.org,Ann,1\nbob@example.org,Bob,3\n",
    "message.html": '<p>Hello {{ who }}</p><img src="cid:logo"><img src="cid:photo">{% include "foot.html" %}',
    "foot.html": "<p>Bye</p>",
    "texts/message.txt": "Hello {{ name }}",
    "terms.pdf": "terms",
    "logo.png": "\x89PNG",
    "secret": "a secret of some length",
}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A campaign that uses every kind of file and of setting."""
    for name, text in (FILES | {"campaign.toml": FILE}).items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "secret").chmod(0o600)
    return tmp_path / "campaign.toml"


async def prepared(file: Path) -> PreparedCampaign:
    return await prepare(load_config(file))


async def test_the_fingerprint_names_and_digests_what_a_message_shows(file: Path) -> None:
    """A name or a byte that differs here would stop every campaign that has begun."""
    found = await (await prepared(file)).fingerprint()
    token = found.pop("the secret of [unsubscribe]")
    assert len(token) == 64
    assert found == {name: digest(text) for name, text in FILES.items() if name != "secret"} | {
        "from": digest("Example News <news@example.org>"),
        "subject": digest("News for {{ name }}"),
        "reply_to": digest("desk@example.org"),
        "unsubscribe": digest("https://example.org/u/{{ token }}"),
        "where": digest("id != '2'"),
        "offset": digest("1"),
        "return_path": digest("bounces+{{ token }}@example.org"),
        "header X-Campaign": digest("november"),
        "column who": digest("name"),
        "column email": digest("email"),
        "attachments": digest("terms.pdf\0invoices/{{ id }}.pdf"),
        "inline": digest("logo\0photo\0photos/{{ id }}.png"),
    }


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("message.html", r"campaign\.toml, \[campaign\] html: .*message\.html: does not exist"),
        ("terms.pdf", r"\[campaign\] attachments: .*terms\.pdf: does not exist"),
        ("logo.png", r"\[campaign\] inline logo: .*logo\.png: does not exist"),
        ("secret", r"\[unsubscribe\] secret_file: .*secret: does not exist"),
    ],
)
async def test_a_missing_file_is_named_with_its_key(file: Path, name: str, why: str) -> None:
    (file.parent / name).unlink()
    with pytest.raises(ConfigError, match=why) as caught:
        await prepared(file)
    assert caught.value.advice


async def test_a_template_in_another_encoding_is_named_with_its_line(file: Path) -> None:
    (file.parent / "texts" / "message.txt").write_bytes(b"Hello\n\xe9")
    with pytest.raises(ConfigError, match=r"message\.txt, line 2: not UTF-8"):
        await prepared(file)


@pytest.mark.parametrize(
    ("reverse_path", "domain"),
    [("b@bounces.example.org", "bounces.example.org"), ("news@example.org", "example.org"), ("", "example.org")],
)
def test_the_sender_has_the_domain_of_its_return_path(file: Path, reverse_path: str, domain: str) -> None:
    """SPF is about that one; only without a return path about the author's."""
    file.write_text(FILE + '[relay]\nurl = "smtp://one.example,two.example:587"\n', encoding="utf-8")
    content = Content.of(b"From: Example News <news@example.org>\r\n\r\nx\r\n")
    sender = describe_sender(load_config(file), Message(Envelope.of(reverse_path, ["ann@example.net"]), content))
    assert (sender.author, sender.return_path) == ("example.org", domain)
    assert sender.relays == ["one.example", "two.example"]

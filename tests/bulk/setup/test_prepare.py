"""Preparation: what a ledger keeps of a campaign is what it has kept since the first version."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asyncsmtp.bulk.campaign import describe_sender
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient
from asyncsmtp.bulk.setup.config import load_config
from asyncsmtp.bulk.setup.prepare import PreparedCampaign, prepare, prepare_file
from asyncsmtp.bulk.setup.saved_rows import save_rows
from asyncsmtp.client.config.relay import Relay
from asyncsmtp.errors import ConfigError, RecipientError
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Envelope
from tests.mail.test_smime import Papers, pem

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


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


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


async def test_what_a_program_passes_as_text_has_the_name_of_its_parameter(file: Path) -> None:
    """And the two conversions have a word of their own, which is there only if they are chosen."""
    config = replace(load_config(file), text="Hello", html="<p>Hello</p>", inline={}, attachments=())
    found = await (await prepare(config)).fingerprint()
    assert (found["text="], found["html="]) == (digest("Hello"), digest("<p>Hello</p>"))
    assert not {"attachments", "inline", "inline_styles", "text_from_html", "texts/message.txt"} & found.keys()
    chosen = await (await prepare(replace(config, inline_styles=True, text_from_html=True))).fingerprint()
    assert chosen == found | {"inline_styles": digest("yes"), "text_from_html": digest("yes")}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
async def test_a_secret_that_others_can_read_is_refused_with_the_command(file: Path, mode: int) -> None:
    """The group is others too."""
    secret = file.parent / "secret"
    secret.chmod(mode)
    with pytest.raises(
        ConfigError, match=r"\[unsubscribe\] secret_file: other users of this machine can read"
    ) as caught:
        await prepared(file)
    assert caught.value.advice == f"chmod 600 {secret}"


async def test_a_secret_may_have_64_kib_and_no_more(file: Path) -> None:
    """A file with more is something else than a secret."""
    (file.parent / "secret").write_text("x" * 65_536, encoding="utf-8")
    await prepared(file)
    (file.parent / "secret").write_text("x" * 65_537, encoding="utf-8")
    with pytest.raises(ConfigError, match="is too large for a key: name the file that holds the key"):
        await prepared(file)


async def test_the_secret_may_be_in_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same secret makes the same tokens, wherever it comes from."""
    before = await (await prepared(file)).fingerprint()
    write(file, FILE.replace('secret_file = "secret"', ""))
    monkeypatch.delenv("ASYNCSMTP_UNSUBSCRIBE_SECRET", raising=False)
    with pytest.raises(ConfigError, match="there is no secret for the tokens") as caught:
        await prepared(file)
    assert caught.value.advice == (
        "name a file as secret_file, or set ASYNCSMTP_UNSUBSCRIBE_SECRET; to make one: openssl rand -hex 16"
    )
    monkeypatch.setenv("ASYNCSMTP_UNSUBSCRIBE_SECRET", FILES["secret"])
    assert await (await prepared(file)).fingerprint() == before


@pytest.mark.parametrize(("days", "is_soon"), [(13, True), (15, False)])
async def test_a_certificate_that_ends_within_two_weeks_is_remarked(file: Path, days: int, is_soon: bool) -> None:
    """In time to get a new one; it is signed with nevertheless."""
    papers = Papers(days=days)
    for name, octets in (("news.pem", papers.leaf), ("news.key", pem(papers.key))):
        (file.parent / name).write_bytes(octets)
        (file.parent / name).chmod(0o600)
    write(file, FILE + '[smime]\ncertificate = "news.pem"\nkey = "news.key"\n')
    remarks = (await prepared(file)).remarks
    assert [remark.startswith("the certificate of [smime] ends on 20") for remark in remarks] == [True] * is_soon


@pytest.mark.parametrize("number", [1, 499, 500, 501, 1001])
async def test_all_rows_of_a_program_are_saved_in_order(number: int) -> None:
    """They are written five hundred at a time."""
    path = await save_rows({"email": f"{n}@example.org", "n": n} for n in range(number))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == [{"email": f"{n}@example.org", "n": n} for n in range(number)]
        assert path.stat().st_mode & 0o777 == 0o600
    finally:
        path.unlink()


@pytest.mark.parametrize("rows", [[], [{"email": "x"}, 5], [{"email": "x"}, {"n": 10**5000}]])
async def test_rows_that_cannot_be_saved_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Any]
) -> None:
    """Nobody, no row, and a number with more digits than Python writes."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises((TypeError, RecipientError)):
        await save_rows(rows)
    assert not os.listdir(tmp_path)


async def test_a_further_file_may_spell_its_columns_otherwise(file: Path) -> None:
    """Case and spaces do not matter; what is missing is named."""
    first = await prepared(file)
    more = file.parent / "more.csv"
    write(more, "Email,Names,Id,x\ncid@example.org,Cid,4,x\n")
    with pytest.raises(ConfigError, match="lacks the columns “name”") as caught:
        await prepare_file(more, first, load_config(file))
    assert caught.value.advice == "give it the columns of the campaign's recipients"
    write(more, "NAME,N ame,Email,Id\nCid,x,cid@example.org,4\n")
    with pytest.raises(ConfigError, match="lacks the columns “name”"):
        await prepare_file(more, first, load_config(file))
    write(more, "NAME,E Mail,Id\nCid,cid@example.org,4\n")
    found = await prepare_file(more, first, load_config(file))
    assert found.file.renames == {"NAME": "name", "E Mail": "email", "Id": "id"}
    (row,) = [row async for batch in found.file.batches() for row in batch]
    assert isinstance(row, Recipient)
    assert dict(row.fields) == {"name": "Cid", "email": "cid@example.org", "id": "4"}


async def test_a_setting_may_have_what_is_not_utf_8(file: Path) -> None:
    """A command line may have any bytes, which Python keeps as lone surrogates."""
    config = replace(load_config(file), where="name != '\udcff'", offset=0)
    assert "where" in await (await prepare(config)).fingerprint()


async def test_the_column_of_the_time_zone_is_used(file: Path) -> None:
    """A row that lacks it is a problem: it would be sent at the wrong hour."""
    write(file.parent / "people.csv", "email,name,id,tz\nann@example.org,Ann,1\nbob@example.org,Bob,3,UTC\n")
    for column, number in (("TZ", 1), (None, 0)):
        config = replace(load_config(file), time_zone_column=column, where=None, offset=0)
        rows = [row async for batch in (await prepare(config)).file.batches() for row in batch]
        assert sum(isinstance(row, Problem) for row in rows) == number


def test_the_relays_of_a_program_are_known_by_their_hosts(file: Path) -> None:
    """All hosts of a Relay, as those of a URL."""
    relay = Relay("one.example", 587, fallback_hosts=["two.example:25"])
    content = Content.of(b"From: Example News <news@example.org>\r\n\r\nx\r\n")
    message = Message(Envelope.of("news@example.org", ["ann@example.net"]), content)
    found = describe_sender(replace(load_config(file), relay=relay), message)
    assert found.relays == ["one.example", "two.example"]


async def test_a_secret_that_is_too_short_is_reported(file: Path) -> None:
    """The section is checked with its secret before anything is sent."""
    write(file.parent / "secret", "short")
    with pytest.raises(ConfigError, match=r"\[unsubscribe\]: ") as caught:
        await prepared(file)
    assert caught.value.advice == "correct it, then run the same command again"


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 3 << 20])
async def test_standard_input_is_saved_to_its_last_byte(file: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """It is read a mebibyte at a time; without any input the file of the last run serves."""
    given = b"email,name,id\nann@example.org,Ann,1\n"
    given += b"".join(b"r%d@example.org,R,2\n" % number for number in range(size // 20))
    config = replace(load_config(file), recipients=Path("-"))
    saved = file.parent / "news.recipients.csv"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    await prepare(config)
    assert await asyncio.to_thread(saved.read_bytes) == given
    assert saved.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    await prepare(config)
    assert sorted(os.listdir(file.parent)) == sorted([*{Path(name).parts[0] for name in FILES}, file.name, saved.name])
    saved.unlink()
    with pytest.raises(ConfigError, match="there are no recipients on standard input") as caught:
        await prepare(config)
    assert caught.value.advice == "give it a CSV: < people.csv"


async def test_a_certificate_that_cannot_sign_is_reported(file: Path) -> None:
    """Another key than that of the certificate, and a file that is not there."""
    papers = Papers()
    for name, octets in (("news.pem", papers.leaf), ("news.key", pem(Papers().key))):
        (file.parent / name).write_bytes(octets)
        (file.parent / name).chmod(0o600)
    write(file, FILE + '[smime]\ncertificate = "news.pem"\nkey = "news.key"\n')
    with pytest.raises(ConfigError, match=r"^\[smime\]: .*the key does not belong to the certificate") as caught:
        await prepared(file)
    assert caught.value.advice == "correct it, then run the same command again"
    (file.parent / "news.pem").unlink()
    with pytest.raises(ConfigError, match=r"\[smime\] certificate: .*news\.pem: does not exist") as caught:
        await prepared(file)
    assert caught.value.advice == "correct the name or its rights, then run the same command again"

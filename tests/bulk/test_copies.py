"""Campaigns with Cc, Bcc and a sender of each row, against a relay on loopback."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from asyncsmtp import Campaign, ConfigError, Entry, LedgerMismatch, RecipientError, RowOutcome, TemplateError
from asyncsmtp.mail.list_unsubscribe import unsubscribe_token
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.testing import Fin, ScriptedRelay, Stage
from tests.bulk.test_campaign import entries, refusing, url
from tests.mail.test_dkim import pem

PEOPLE = [
    {"email": "ann@example.org", "name": "Ann", "boss": '"Boss, B" <boss@example.net>; vice@example.net', "copy": ""},
    {"email": "bob@example.org", "name": "Bob", "boss": "", "copy": "archive@example.com"},
    {"email": "cid@example.org", "name": "Doe, Cid", "boss": "boss@example.net", "copy": "cid@example.org"},
]
DMARC = "and the keys of [dkim] are for example.org: such mail fails DMARC"
ALL = {
    *("ann@example.org", "bob@example.org", "cid@example.org", "boss@example.net", "vice@example.net"),
    "archive@example.com",
}


def make(folder: Path, recipients: object = PEOPLE, **settings: object) -> Campaign:
    given: dict[str, object] = {
        "name": "news",
        "recipients": recipients,
        "from_": "Example News <news@example.org>",
        "subject": "News",
        "text": "Hello {{ name }}",
        "cc": "{{ boss }}",
        "bcc": "{{ copy }}",
        "folder": folder,
    }
    return Campaign(**given | settings)  # type: ignore[arg-type]


def state(found: list[Entry]) -> list[tuple[int, str, str, str]]:
    return [(entry.row, entry.kind, entry.address, str(entry.state)) for entry in found]


async def test_everyone_in_cc_and_bcc_gets_the_message(tmp_path: Path) -> None:
    """In an envelope of their own, with the same header; Bcc is seen by nobody."""
    async with ScriptedRelay() as relay:
        result = await make(tmp_path, to_name="{{ name }}").run(relay=url(relay))
    assert result.counts["accepted"] == 7
    got = {(message.email["To"], *message.forward_paths): message for message in relay.received}
    assert {(to, address) for to, address in got} == {
        *(("Ann <ann@example.org>", each) for each in ("ann@example.org", "boss@example.net", "vice@example.net")),
        *(("Bob <bob@example.org>", each) for each in ("bob@example.org", "archive@example.com")),
        *(('"Doe, Cid" <cid@example.org>', each) for each in ("cid@example.org", "boss@example.net")),
    }
    first = got["Ann <ann@example.org>", "ann@example.org"]
    assert first.email["Cc"] == '"Boss, B" <boss@example.net>, vice@example.net'
    for address in ("boss@example.net", "vice@example.net"):
        assert got["Ann <ann@example.org>", address].content == first.content
    assert not any(b"archive" in message.content for message in relay.received)
    assert got["Bob <bob@example.org>", "bob@example.org"].email["Cc"] is None


async def test_each_recipient_has_an_outcome(tmp_path: Path) -> None:
    """The relay refuses one of each kind; what comes of the others is theirs."""
    script = refusing(ann="550 5.1.1 no such user", vice="550 5.1.1 nor this one", archive="451 4.3.0 later")
    campaign = make(tmp_path, retry_delay=0.5)
    outcomes: list[RowOutcome] = []
    async with ScriptedRelay(script) as relay, campaign.run(relay=url(relay)) as run:
        outcomes += [outcome async for outcome in run]
    assert {(each.row, each.kind, each.address): str(each.state) for each in outcomes} == {
        (1, "to", "ann@example.org"): "rejected",
        (1, "cc", "boss@example.net"): "accepted",
        (1, "cc", "vice@example.net"): "rejected",
        (2, "to", "bob@example.org"): "accepted",
        (2, "bcc", "archive@example.com"): "deferred",
        (3, "to", "cid@example.org"): "accepted",
        (3, "cc", "boss@example.net"): "accepted",
    }
    assert len({each.message_id for each in outcomes}) == 3  # those of the headers
    async with ScriptedRelay() as relay:
        await campaign.run(relay=url(relay), wait=True)
        assert [message.forward_paths for message in relay.received] == [("archive@example.com",)]  # only who is left


async def test_a_lost_reply_is_a_doubt_of_one(tmp_path: Path) -> None:
    """A decision about the row sends once more to that one."""

    campaign = make(tmp_path)
    async with ScriptedRelay({Stage.END_OF_DATA: {2: Fin()}}) as relay:
        await campaign.run(relay=url(relay))
    (doubt,) = await entries(campaign, "in doubt")
    assert await campaign.resolve("resend", rows=[doubt.row]) == 1
    async with ScriptedRelay() as relay:
        result = await campaign.run(relay=url(relay))
        assert [message.forward_paths for message in relay.received] == [(doubt.address,)]
    assert result.counts["accepted"] == 7


@pytest.mark.parametrize(
    ("key", "cell", "reason"),
    [
        ("boss", "boss", "cc: “boss” is not an e-mail address"),
        ("boss", "a@example.net b@example.net", "cc: "),
        ("copy", "x@example.net\r\nSubject: y", "bcc: .* has a line break"),
    ],
)
async def test_a_row_with_a_wrong_address_is_named_before_anything_is_sent(
    tmp_path: Path, key: str, cell: str, reason: str
) -> None:
    """With its key; strict sends nothing, otherwise that row alone is rejected, and nobody gets half of it."""
    people = [*PEOPLE, PEOPLE[0] | {"email": "dan@example.org", key: cell}]
    campaign = make(tmp_path, people)
    report = (await campaign.check()).report
    assert [problem.row for problem in report.problem_rows] == [4]
    with pytest.raises(RecipientError, match=f"row 4: {reason}"):
        await campaign.run(relay="smtp://127.0.0.1:1?security=none", strict=True)
    async with ScriptedRelay() as relay:
        result = await campaign.run(relay=url(relay))
        assert {address for message in relay.received for address in message.forward_paths} == ALL
    assert (result.counts["accepted"], result.counts["rejected"]) == (7, 1)


async def test_constant_copies_go_with_each_row(tmp_path: Path) -> None:
    """An archive gets each message; the pre-flight says so."""
    campaign = make(tmp_path, cc=None, bcc="archive@example.com, ann@example.org")
    report = (await campaign.check()).report
    assert (report.recipients, report.copies) == (3, 5)
    assert report.copied == (("bcc", "archive@example.com", 3), ("bcc", "ann@example.org", 2))
    async with ScriptedRelay() as relay:
        await campaign.run(relay=url(relay))
    assert sorted(address for message in relay.received for address in message.forward_paths) == [
        *(3 * ["ann@example.org"]),  # her own, and a copy of the two others
        *(3 * ["archive@example.com"]),
        *("bob@example.org", "cid@example.org"),
    ]


async def test_limit_counts_recipients(tmp_path: Path) -> None:
    """A row and its two copies are three; a row is done before the next one begins."""
    campaign = make(tmp_path)
    async with ScriptedRelay() as relay:
        await campaign.run(relay=url(relay), limit=2)
        await campaign.run(relay=url(relay), limit=2)
    assert state(await entries(campaign, "accepted")) == [
        (1, "to", "ann@example.org", "accepted"),
        (1, "cc", "boss@example.net", "accepted"),
        (1, "cc", "vice@example.net", "accepted"),
        (2, "to", "bob@example.org", "accepted"),
    ]


async def test_the_link_of_a_copy_is_its_readers(tmp_path: Path) -> None:
    """RFC 8058: a click in Cc does not unsubscribe the one in To, and whoever clicked gets no copy any more."""
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123456789abcdef")
    secret.chmod(0o600)
    campaign = make(
        tmp_path,
        unsubscribe={"url": "https://example.org/u/{{ token }}", "secret_file": str(secret)},
        text="Hello {{ name }}: {{ unsubscribe_url }}",
    )
    async with ScriptedRelay() as relay:
        await campaign.run(relay=url(relay))
    assert len(relay.received) == 7
    for message in relay.received:
        (address,) = message.forward_paths
        own = unsubscribe_token(secret.read_bytes(), Mailbox.parse(address))
        assert message.email["List-Unsubscribe"] == f"<https://example.org/u/{own}>"
        assert own in str(message.email.get_content())


async def test_each_row_may_have_its_own_sender(tmp_path: Path) -> None:
    """The reverse-path follows; the pre-flight looks at all of them."""
    people = [
        row | {"sender": f"{row['name'][:3].lower()}@{'other' if n else 'example'}.org"} for n, row in enumerate(PEOPLE)
    ]
    campaign = make(tmp_path, people, from_="{{ name }} of News <{{ sender }}>", reply_to="{{ sender }}")
    result = await campaign.check()
    assert {str(author): where for author, where in result.report.authors.items()} == {
        "ann@example.org": (1, 1),
        "bob@other.org": (1, 2),
        "doe@other.org": (1, 3),
    }
    async with ScriptedRelay() as relay:
        await campaign.run(relay=url(relay))
    assert {
        (message.reverse_path, str(message.email["From"]), message.email["Reply-To"]) for message in relay.received
    } == {
        ("ann@example.org", "Ann of News <ann@example.org>", "ann@example.org"),
        ("bob@other.org", "Bob of News <bob@other.org>", "bob@other.org"),
        ("doe@other.org", '"Doe, Cid of News" <doe@other.org>', "doe@other.org"),
    }
    assert {str(message.email["Message-ID"]).rpartition("@")[2] for message in relay.received} == {"example.org>"}


async def test_senders_that_nobody_vouches_for_are_remarks(tmp_path: Path) -> None:
    """DKIM signs for a domain, and a login sends as its own address: the first rows that differ are named."""
    (tmp_path / "key.pem").write_bytes(pem(ed25519.Ed25519PrivateKey.generate()))
    (tmp_path / "key.pem").chmod(0o600)
    people = [
        row | {"sender": f"{row['name'][:3].lower()}@{'other.example' if n else 'example.org'}"}
        for n, row in enumerate(PEOPLE)
    ]
    campaign = make(
        tmp_path,
        people,
        from_="{{ sender }}",
        relay="smtp://ann@example.org@relay.example",
        dkim=[{"domain": "example.org", "selector": "s", "key": str(tmp_path / "key.pem")}],
    )
    remarks = (await campaign.check()).remarks
    login = "and the login at the relay is ann@example.org: the relay must let it send as others"
    assert remarks == (
        f"From is at other.example in 2 rows, the first is row 2, {DMARC}",
        f"From is bob@other.example in row 2, {login}",
        f"From is doe@other.example in row 3, {login}",
    )


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"cc": "nobody"}, TemplateError),
        ({"bcc": "{{ nobody }}"}, TemplateError),
        ({"cc": ""}, ConfigError),
        ({"from_": "{{ name }} <{{ nobody }}>"}, TemplateError),
        ({"to_name": "{{ nobody }}"}, TemplateError),
        ({"bcc": 5}, TypeError),
    ],
)
async def test_what_is_wrong_for_all_is_an_error_at_once(
    tmp_path: Path, settings: Mapping[str, object], error: type[Exception]
) -> None:
    """One sentence, and nothing was begun."""
    with pytest.raises(error):
        await make(tmp_path, **settings).prepare()


async def test_other_copies_are_another_campaign(tmp_path: Path) -> None:
    """They belong to the fingerprint: what has begun goes on with those it began with."""
    async with ScriptedRelay({Stage.RCPT: {2: "451 4.3.0 later"}}) as relay:
        await make(tmp_path, ledger=str(tmp_path / "x.ledger")).run(relay=url(relay))
    for changed in ({"bcc": "other@example.com"}, {"cc": None}, {"to_name": "{{ name }}"}):
        with pytest.raises(LedgerMismatch, match=next(iter(changed))):
            await make(tmp_path, ledger=str(tmp_path / "x.ledger"), **changed).run(
                relay="smtp://127.0.0.1:1?security=none"
            )

"""Campaigns with Cc and Bcc in which a mailbox has several rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from asyncsmtp import Campaign, Entry, RecipientError, RowState, SqliteLedger
from asyncsmtp.bulk import forget
from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.ledger.suppression_list import Suppressed, SuppressionList
from asyncsmtp.testing import ScriptedRelay
from tests.bulk.test_campaign import entries, refusing, url

PEOPLE = [
    {"email": "ann@example.org", "child": "Zoe", "boss": "boss@example.net"},
    {"email": "bob@example.org", "child": "Max", "boss": ""},
    {"email": "Ann@example.org", "child": "Tom", "boss": "Boss@example.net"},
]
DIFFERENT = [*PEOPLE[:2], PEOPLE[2] | {"boss": "vice@example.net"}]
LIST = "{% for each in rows %}{{ each.child }},{% endfor %}"


def make(folder: Path, duplicates: str, recipients: object = PEOPLE, **settings: object) -> Campaign:
    given: dict[str, object] = {
        "name": "news",
        "recipients": recipients,
        "from_": "news@example.org",
        "subject": "For {{ child }}",
        "text": LIST if duplicates == "group" else "{{ child }}",
        "cc": "{{ boss }}",
        "folder": folder,
        "duplicates": duplicates,
    }
    return Campaign(**given | settings)  # type: ignore[arg-type]


async def outcomes(campaign: Campaign) -> list[tuple[int, str, str, str]]:
    return [(each.row, each.kind, each.address, str(each.state)) for each in await entries(campaign)]


async def stored(folder: Path) -> Sequence[Entry]:
    """The rows as the ledger has them."""
    async with await SqliteLedger.open(folder / "news.ledger", name="news", from_domain="example.org") as ledger:
        return [entry async for entry in ledger.entries()]


async def test_each_row_of_a_mailbox_has_copies_of_its_own(tmp_path: Path) -> None:
    """Their messages, Message-IDs and outcomes are their own, also where two rows are equal."""
    people = [*PEOPLE, PEOPLE[0]]
    campaign = make(tmp_path, "send", people)
    async with ScriptedRelay() as relay:
        await campaign.run(relay=url(relay))
        await campaign.run(relay=url(relay))
    assert sorted((message.forward_paths[0].lower(), message.email["Subject"]) for message in relay.received) == [
        *(("ann@example.org", "For Tom"), ("ann@example.org", "For Zoe"), ("ann@example.org", "For Zoe")),
        ("bob@example.org", "For Max"),
        *(("boss@example.net", "For Tom"), ("boss@example.net", "For Zoe"), ("boss@example.net", "For Zoe")),
    ]
    found = await entries(campaign)
    assert {each.state for each in found} == {RowState.ACCEPTED}
    by_row = {row: {each.message_id for each in found if each.row == row} for row in (1, 2, 3, 4)}
    assert [len(ids) for ids in by_row.values()] == [1, 1, 1, 1]  # a copy has the header of its message
    assert len(set.union(*by_row.values())) == 4
    assert {str(message.email["Message-ID"]) for message in relay.received} == {
        f"<{each}>" for each in set.union(*by_row.values())
    }


async def test_a_group_has_the_copies_of_its_one_message(tmp_path: Path) -> None:
    """An equal address gets it once, with all rows; the outcome of a copy is its own."""
    campaign = make(tmp_path, "group")
    async with ScriptedRelay(refusing(boss="550 5.1.1 no such user")) as relay:
        await campaign.run(relay=url(relay))
    assert await outcomes(campaign) == [
        (1, "to", "ann@example.org", "accepted"),
        (1, "cc", "boss@example.net", "rejected"),
        (2, "to", "bob@example.org", "accepted"),
        (3, "to", "Ann@example.org", "accepted"),
    ]
    assert await campaign.resolve("resend", states="rejected") == 1
    async with ScriptedRelay() as again:
        await campaign.run(relay=url(again))
    first = next(each for each in relay.received if each.email["To"] == "ann@example.org")
    [copy] = again.received
    assert copy.forward_paths == ("boss@example.net",)
    assert copy.email.get_content().strip() == "Zoe,Tom,"
    assert copy.content == first.content


@pytest.mark.parametrize(
    ("settings", "people"),
    [
        ({}, DIFFERENT),
        ({}, [*PEOPLE[:2], PEOPLE[2] | {"boss": ""}]),
        ({"cc": None, "bcc": "{{ boss }}"}, DIFFERENT),
        ({"cc": "boss@example.net", "from_": "News <{{ boss or 'x@example.org' }}>"}, DIFFERENT),
    ],
)
async def test_rows_of_one_message_have_the_same_addresses(
    tmp_path: Path, settings: dict[str, object], people: object
) -> None:
    """Otherwise somebody would be left out, or read what is not theirs: an error before anything is sent."""
    campaign = make(tmp_path, "group", people, **settings)
    report = (await campaign.check()).report
    (problem,) = report.problem_rows
    assert problem.row == 1
    why = "the message has row 3 too, whose addresses in From, Cc or Bcc are others: make them the same, or set "
    assert problem.reason == f'{why}duplicates to "send"'
    with pytest.raises(RecipientError, match="row 1: the message has row 3 too"):
        await campaign.run(relay="smtp://127.0.0.1:1?security=none", strict=True)
    async with ScriptedRelay() as relay:
        await campaign.run(relay=url(relay))
        assert {message.email["To"] for message in relay.received} == {"bob@example.org"}
    assert [(row, state) for row, kind, _, state in await outcomes(campaign) if kind == "to"] == [
        (1, "rejected"),
        (2, "accepted"),
        (3, "rejected"),
    ]


async def test_a_template_may_name_the_copies_of_all_rows(tmp_path: Path) -> None:
    """Through `rows`, in whose order they are in Cc; then each gets the message."""
    every = "{% for each in rows %}{{ each.boss }};{% endfor %}"
    campaign = make(tmp_path, "group", [*DIFFERENT, DIFFERENT[2] | {"boss": ""}], cc=every)
    async with ScriptedRelay() as relay:
        await campaign.run(relay=url(relay))
    ann = [message for message in relay.received if message.email["To"] == "ann@example.org"]
    assert {message.email["Cc"] for message in ann} == {"boss@example.net, vice@example.net"}
    assert sorted(message.forward_paths[0] for message in ann) == [
        *("ann@example.org", "boss@example.net", "vice@example.net")
    ]


@pytest.mark.parametrize(("duplicates", "number"), [("send", 5), ("group", 3)])
async def test_a_file_that_is_added_twice_is_sent_once_with_its_copies(
    tmp_path: Path, duplicates: str, number: int
) -> None:
    """A duplicate has no message, and so there is no copy of it; what an earlier run has left is sent as well."""
    more = tmp_path / "more.csv"
    more.write_text("email,child,boss\nann@example.org,Zoe,boss@example.net\ndora@example.org,Kim,boss@example.net\n")
    campaign = make(tmp_path, duplicates)
    async with ScriptedRelay() as relay:
        assert (await campaign.run(relay=url(relay), limit=2)).counts["accepted"] == 2
        for _ in range(2):
            assert (await campaign.run(add=more, relay=url(relay))).counts["accepted"] == number + 2
        assert len(relay.received) == number + 2
    late = [each for each in await stored(tmp_path) if each.row > 3]
    assert [(each.row, each.kind) for each in late if each.state is RowState.ACCEPTED] == [(5, "to"), (5, "cc")]
    assert [each.row for each in late if "duplicate of row " in each.reply] == [4, 4, 6, 6, 7, 7]


@pytest.mark.parametrize("duplicates", ["send", "group"])
async def test_a_suppressed_recipient_suppresses_the_copies_too(tmp_path: Path, duplicates: str) -> None:
    """Of all its rows; somebody in Cc who is listed gets no copy of any. The list is filled after the load."""
    kept = SuppressionList(tmp_path / "gone.db")
    kept.add([Suppressed("bob@example.org", "")])
    people = [*PEOPLE, {"email": "cid@example.org", "child": "Ida", "boss": "other@example.net"}]
    people.append(people[-1] | {"child": "Eva"})
    campaign = make(tmp_path, duplicates, people, suppression=[kept.path], relay="smtp://127.0.0.1:1?security=none")
    async with campaign.open() as opened:
        await opened.begin()
    kept.add([Suppressed("ANN@example.org", ""), Suppressed("other@example.net", "")])
    async with ScriptedRelay() as relay:
        await campaign.run(relay=url(relay))
    assert {message.forward_paths for message in relay.received} == {("cid@example.org",)}
    assert len(relay.received) == (2 if duplicates == "send" else 1)
    copies = [each for each in await entries(campaign) if each.kind == "cc"]
    assert {each.state for each in copies} == {RowState.SUPPRESSED}


@pytest.mark.parametrize("duplicates", ["send", "group"])
async def test_whoever_is_forgotten_is_in_no_row(tmp_path: Path, duplicates: str) -> None:
    """Neither as a mailbox with several rows, nor in a cell of a group of others, nor in the cells of a copy."""
    people = [*PEOPLE, PEOPLE[1] | {"child": "ann@example.org"}, PEOPLE[1] | {"child": "Lea"}]
    campaign = make(tmp_path, duplicates, people)
    async with ScriptedRelay() as relay:
        await campaign.run(relay=url(relay))
    path = tmp_path / "news.ledger"
    [counted] = await forget("ann@example.org", ledgers=[path], dry_run=True)
    async with await SqliteLedger.open(path, name="news", from_domain="example.org") as ledger:
        found = await ledger.forget("ann@example.org")
        assert found.rows.total() == 2
        assert counted.rows == found
        assert (await ledger.counts()).total == len([entry async for entry in ledger.entries()])
    for text in (b"ann@example.org", b"Ann@example.org", b"Zoe", b"Tom"):
        assert text not in path.read_bytes()
    assert b"Max" in path.read_bytes()
    more = tmp_path / "more.csv"
    more.write_text("email,child,boss\nann@example.org,New,boss@example.net\nANN@example.org,New2,boss@example.net\n")
    async with ScriptedRelay() as relay:
        await campaign.run(add=more, relay=url(relay))
        assert relay.received == []


async def test_a_bounce_finds_the_row_or_the_copy_it_is_about(tmp_path: Path) -> None:
    """By the Message-ID one row or its copy; by the address all rows of a mailbox, but one copy."""
    campaign = make(tmp_path, "send")
    async with ScriptedRelay() as relay:
        await campaign.run(relay=url(relay))
    token = (await entries(campaign))[-1].message_id.partition("@")[0]  # of row 3
    path = tmp_path / "news.ledger"
    for key, address, expected in (
        (token, "boss@example.net", [(3, "cc")]),
        (token, "ann@example.org", [(3, "cc"), (3, "to")]),
        ("ann@example.org", "ann@example.org", [(1, "to"), (3, "cc"), (3, "to")]),
        ("boss@example.net", "boss@example.net", [(1, "cc"), (1, "to"), (3, "cc"), (3, "to")]),
    ):
        bounce = Bounce(address, True, "5.1.1", "gone", "", (), report=f"{key} {address}".replace(" ", "-"))
        async with await SqliteLedger.open(path, name="news", from_domain="example.org") as ledger:
            await ledger.record_bounces({key: bounce})
            assert {each.token for each in await ledger.find_bounced({key: bounce})} == {key}
        found = [each for each in await entries(campaign) if each.state is RowState.REJECTED]
        assert sorted((each.row, each.kind) for each in found) == expected


async def test_each_address_of_a_repaired_cell_has_copies(tmp_path: Path) -> None:
    """A further address is a row behind the last one, and its message has the copies of its cells."""
    people = [{"email": "Ann <ann@example.org>; dora@example.org", "child": "Zoe", "boss": "boss@example.net"}]
    campaign = make(tmp_path, "send", people, repair=True)
    async with ScriptedRelay() as relay:
        await campaign.run(relay=url(relay))
    assert await outcomes(campaign) == [
        (1, "to", "ann@example.org", "accepted"),
        (1, "cc", "boss@example.net", "accepted"),
        (2, "to", "dora@example.org", "accepted"),
        (2, "cc", "boss@example.net", "accepted"),
    ]
    assert {message.email["To"] for message in relay.received} == {"Ann <ann@example.org>", "dora@example.org"}

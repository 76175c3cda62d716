"""Campaigns in which a mailbox has several rows: what is sent, what the ledger has, and later runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncsmtp import Campaign, Entry, LedgerMismatch, RowState, SqliteLedger
from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.ledger.suppression_list import Suppressed, SuppressionList
from asyncsmtp.testing import ScriptedRelay, Stage
from tests.bulk.test_campaign import refusing, url

PEOPLE = [
    {"email": "ann@example.org", "child": "Zoe"},
    {"email": "bob@example.org", "child": "Max"},
    {"email": "Ann@example.org", "child": "Tom"},
    {"email": "ann@example.org", "child": "Tom"},
]
LIST = "{% for each in rows %}{{ each.child }},{% endfor %}"


def make(folder: Path, duplicates: str, relay: ScriptedRelay, **settings: object) -> Campaign:
    given: dict[str, object] = {
        "name": "news",
        "recipients": PEOPLE,
        "from_": "news@example.org",
        "subject": "For {{ child }}",
        "text": LIST if duplicates == "group" else "{{ child }}",
        "folder": folder,
        "relay": url(relay),
        "duplicates": duplicates,
    }
    return Campaign(**given | settings)  # type: ignore[arg-type]


async def results(campaign: Campaign, *states: str) -> list[Entry]:
    return [entry async for entry in campaign.results(states or None)]


async def test_send_mails_every_row_with_an_outcome_of_its_own(tmp_path: Path) -> None:
    """Also two rows that are equal; each message has a Message-ID of its own."""
    async with ScriptedRelay({Stage.END_OF_DATA: {2: "550 5.7.1 no"}}) as relay:
        campaign = make(tmp_path, "send", relay, sessions=1, concurrency=1)
        await campaign.run()
        entries = await results(campaign)
        assert [str(entry.state) for entry in entries] == ["accepted", "rejected", "accepted", "accepted"]
        assert len({entry.message_id for entry in entries}) == 4
        assert sorted(message.email["Subject"] for message in relay.received) == ["For Tom", "For Tom", "For Zoe"]
        assert [message.email["To"] for message in relay.received].count("Ann@example.org") == 1
        await campaign.run()
        assert len(relay.received) == 3


async def test_group_sends_one_message_with_all_rows(tmp_path: Path) -> None:
    """The ledger has one outcome for the mailbox, and `results` tells it of each row."""
    async with ScriptedRelay(refusing(ann="550 5.1.1 no such user")) as relay:
        campaign = make(tmp_path, "group", relay)
        result = await campaign.run()
        assert (result.counts["accepted"], result.counts["rejected"], result.counts["suppressed"]) == (1, 1, 2)
        ann, bob, tom, equal = await results(campaign)
        assert [str(entry.state) for entry in (ann, bob, tom, equal)] == [
            "rejected",
            "accepted",
            "rejected",
            "rejected",
        ]
        assert (tom.code, tom.reply, tom.message_id) == (ann.code, ann.reply, ann.message_id)
        assert (tom.address, dict(tom.fields)) == ("Ann@example.org", PEOPLE[2])
        assert dict(ann.fields) == PEOPLE[0]
        assert [entry.row for entry in await results(campaign, "rejected")] == [1, 3, 4]
        assert await results(campaign, "suppressed") == []
        assert await campaign.resolve("resend", states="rejected") == 1
    async with ScriptedRelay() as relay:
        await make(tmp_path, "group", relay).run()
        [message] = relay.received
        assert message.email["Subject"] == "For Zoe"
        assert message.email.get_content().strip() == "Zoe,Tom,Tom,"


@pytest.mark.parametrize("body", ["html", "markdown"])
async def test_rows_are_listed_in_converted_parts(tmp_path: Path, body: str) -> None:
    """A table of Markdown, a list of HTML; the number of rows decides about the conversion."""
    html = "<ul>{% for each in rows %}<li>{{ each.child }}</li>{% endfor %}</ul>"
    (tmp_path / "message.md").write_text("{% for each in rows %}\n- {{ each.child }}\n{% endfor %}\n")
    message: dict[str, object] = {"text": None, "html": html}
    if body == "markdown":
        message = {"text": None, "html": tmp_path / "message.md"}
    async with ScriptedRelay() as relay:
        assert (await make(tmp_path, "group", relay, **message).run()).counts["accepted"] == 2
        shown = {mail.email["To"]: mail.email.get_body(("html",)).get_content() for mail in relay.received}
    assert shown["ann@example.org"].count("<li>") == 3
    assert shown["bob@example.org"].count("<li>") == 1


@pytest.mark.parametrize(("before", "after"), [("first", "send"), ("send", "group"), ("group", "first")])
async def test_another_setting_is_refused_once_the_campaign_has_begun(tmp_path: Path, before: str, after: str) -> None:
    """Somebody would get twice what they have; before the first message the rows are loaded again."""
    text = {"text": "{{ child }}"}
    async with ScriptedRelay({Stage.RCPT: {1: "451 4.7.1 later"}}) as relay:
        await make(tmp_path, before, relay, **text).run()
        number = len(relay.received)
        with pytest.raises(LedgerMismatch, match=r"duplicates (changed|was added|was taken away) since the campaign"):
            await make(tmp_path, after, relay, **text).run()
        assert len(relay.received) == number


async def test_another_setting_before_the_first_message_loads_the_rows_again(tmp_path: Path) -> None:
    async with ScriptedRelay() as relay:
        async with make(tmp_path, "first", relay).open() as opened:
            await opened.begin()
        assert (await make(tmp_path, "send", relay).run()).counts["accepted"] == 4


@pytest.mark.parametrize(("duplicates", "new"), [("first", 1), ("send", 2), ("group", 1)])
async def test_a_file_that_is_added_twice_is_sent_once(tmp_path: Path, duplicates: str, new: int) -> None:
    """Equal rows of a later file are duplicates, whatever the setting: somebody may run a command again."""
    more = tmp_path / "more.csv"
    more.write_text("email,child\nann@example.org,Zoe\nann@example.org,Ida\ndora@example.org,Kim\n")
    async with ScriptedRelay() as relay:
        campaign = make(tmp_path, duplicates, relay)
        before = (await campaign.run()).counts["accepted"]
        for _ in range(2):
            after = (await campaign.run(add=more)).counts["accepted"]
            assert after - before == new
        entries = await results(campaign)
    reasons = [entry.reply for entry in entries if entry.state is RowState.SUPPRESSED and entry.row > 4]
    assert len(reasons) == 6 - new
    assert all(reason.startswith("duplicate of row ") for reason in reasons)


@pytest.mark.parametrize("duplicates", ["send", "group"])
async def test_a_suppressed_mailbox_gets_none_of_its_messages(tmp_path: Path, duplicates: str) -> None:
    """The list is asked for the address, whatever the ledger's key is; by a list that is filled later as well."""
    kept = SuppressionList(tmp_path / "gone.db")
    kept.add([Suppressed("bob@example.org", "")])
    async with ScriptedRelay() as relay:
        campaign = make(tmp_path, duplicates, relay, suppression=[kept.path])
        async with campaign.open() as opened:
            await opened.begin()
        kept.add([Suppressed("ANN@example.org", "unsubscribed")])
        await campaign.run()
        assert relay.received == []
        assert {str(entry.state) for entry in await results(campaign)} == {"suppressed"}
        assert "on a suppression list" in (await results(campaign))[3].reply


async def test_a_bounce_belongs_to_the_row_of_its_token(tmp_path: Path) -> None:
    """Without a token it is about the mailbox, which is gone for every row that has it."""
    async with ScriptedRelay() as relay:
        campaign = make(tmp_path, "send", relay)
        await campaign.run()
        token = (await results(campaign))[2].message_id.partition("@")[0]
        path = tmp_path / "news.ledger"
        async with await SqliteLedger.open(path, name="news", from_domain="example.org") as ledger:
            bounce = Bounce("ann@example.org", True, "5.1.1", "gone", "", (), report="one")
            assert len(await ledger.record_bounces({token: bounce})) == 1
            found = await ledger.find_bounced({token: bounce})
            assert [(row.token, row.address) for row in found] == [(token, "Ann@example.org")]
        assert [str(entry.state) for entry in await results(campaign)] == [
            "accepted",
            "accepted",
            "rejected",
            "accepted",
        ]
        async with await SqliteLedger.open(path, name="news", from_domain="example.org") as ledger:
            bounce = Bounce("ann@example.org", True, "5.1.1", "gone", "", (), report="two")
            assert len(await ledger.record_bounces({"ann@example.org": bounce})) == 2
            assert {row.token for row in await ledger.find_bounced({"ann@example.org": bounce})} == {"ann@example.org"}
        assert [str(entry.state) for entry in await results(campaign)] == [
            "rejected",
            "accepted",
            "rejected",
            "rejected",
        ]


async def test_the_name_beside_an_address_is_shown_in_to(tmp_path: Path) -> None:
    """`repair` finds it; templates have it as `display_name`."""
    people = [{"email": "Ann Doe <ann@example.org>; mailto:bob@example.org", "child": "Zoe"}]
    async with ScriptedRelay() as relay:
        campaign = make(tmp_path, "first", relay, recipients=people, repair=True, text="{{ display_name }}|{{ email }}")
        assert (await campaign.run()).counts["accepted"] == 2
        shown = {mail.email["To"]: mail.email.get_content().strip() for mail in relay.received}
    assert shown == {"Ann Doe <ann@example.org>": "Ann Doe|ann@example.org", "bob@example.org": "|bob@example.org"}


@pytest.mark.parametrize("changed", [{"repair": True}, {"trim": False}])
async def test_how_cells_are_read_is_part_of_the_campaign(tmp_path: Path, changed: dict[str, bool]) -> None:
    async with ScriptedRelay({Stage.RCPT: {1: "451 4.7.1 later"}}) as relay:
        await make(tmp_path, "first", relay).run()
        with pytest.raises(LedgerMismatch, match=f"{next(iter(changed))} was added since the campaign"):
            await make(tmp_path, "first", relay, **changed).run()

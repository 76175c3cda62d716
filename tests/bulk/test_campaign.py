"""`Campaign`: the library's interface to a mailing, against a relay on loopback."""

from __future__ import annotations

import asyncio
import gc
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import asyncsmtp
from asyncsmtp import (
    Campaign,
    CampaignHalted,
    CampaignResult,
    ConfigError,
    Entry,
    ExitReason,
    Mailbox,
    RecipientError,
    Relay,
    RelayConfig,
    RowState,
    SqliteLedger,
    TemplateError,
)
from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.errors import InvalidArgument, LedgerBusy, LedgerEmpty, LedgerMismatch, LocalProtocolError
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import NO_REPLY, Fin, Rule, ScriptedRelay, Stage, StageContext, Wait
from tests.cli.serving import serving

PEOPLE = [{"email": f"{name.lower()}@example.org", "name": name} for name in ("Ann", "Bob", "Cid")]
FILE = """\
[campaign]
name = "news"
from = "Example News <news@example.org>"
subject = "News for {{ name }}"
recipients = "people.csv"
text = "message.txt"
"""


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the relay got; it has no event for that."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def url(relay: ScriptedRelay) -> str:
    return f"smtp://127.0.0.1:{relay.port}?security=none"


def refusing(**replies: str) -> dict[Stage, Rule]:
    """A script that answers RCPT by the local part."""

    def rule(context: StageContext) -> str | None:
        return next((reply for local, reply in replies.items() if f"<{local}@".encode() in context.line), None)

    return {Stage.RCPT: rule}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A campaign file with three people."""
    lines = "".join(f"{row['email']},{row['name']}\n" for row in PEOPLE)
    (tmp_path / "people.csv").write_text(f"email,name\n{lines}", encoding="utf-8")
    (tmp_path / "message.txt").write_text("Hello {{ name }}\n", encoding="utf-8")
    (tmp_path / "campaign.toml").write_text(FILE, encoding="utf-8")
    return tmp_path / "campaign.toml"


def make(tmp_path: Path, recipients: object = PEOPLE, **settings: object) -> Campaign:
    """A campaign from parameters; tests pass wrong ones as well."""
    given: dict[str, object] = {
        "name": "news",
        "recipients": recipients,
        "from_": "Example News <news@example.org>",
        "subject": "News for {{ name }}",
        "text": "Hello {{ name }}",
        "folder": tmp_path,
    }
    return Campaign(**given | settings)  # type: ignore[arg-type]


async def entries(campaign: Campaign, *states: str | RowState) -> list[Entry]:
    return [entry async for entry in campaign.results(states or None)]


async def test_a_campaign_file_is_run(file: Path) -> None:
    """Everyone gets a message; the result has the counts of all states."""
    async with ScriptedRelay() as relay:
        result = await Campaign.from_file(file, relay=url(relay)).run()
    assert isinstance(result, CampaignResult)
    assert result.counts["accepted"] == 3
    assert set(result.counts) == {str(state) for state in RowState}
    assert (result.exit_reason, result.resumes_at) == (ExitReason.COMPLETE, None)
    assert {message.email["Subject"] for message in relay.received} == {"News for Ann", "News for Bob", "News for Cid"}
    assert (file.parent / "news.ledger").exists()


async def test_a_hard_bounce_before_a_refused_rset_is_rejected(file: Path) -> None:
    """FT-12: 550 5.1.1 to RCPT, then 503 to RSET: the row was deferred, and tried again for days."""
    script = refusing(bob="550 5.1.1 no such user") | {Stage.RSET: "503 5.5.1 bad sequence of commands"}
    async with ScriptedRelay(script) as relay:
        campaign = Campaign.from_file(file, relay=url(relay))
        result = await campaign.run()
    assert (result.counts["accepted"], result.counts["rejected"], result.counts["deferred"]) == (2, 1, 0)
    [rejected] = await entries(campaign, RowState.REJECTED)
    assert "no such user" in str(rejected)


async def test_a_row_in_doubt_has_the_words_of_the_relay(file: Path) -> None:
    """FT-16: all of them, in the results too."""
    script = {Stage.END_OF_DATA: {2: (b"250 2.0.0: queued as 4711: wai", Fin())}}
    async with ScriptedRelay(script) as relay:
        campaign = Campaign.from_file(file, relay=url(relay))
        await campaign.run()
    [doubtful] = await entries(campaign, RowState.IN_DOUBT)
    assert "250 2.0.0: queued as 4711: wai" in str(doubtful)


async def test_a_path_may_be_a_string(file: Path) -> None:
    async with ScriptedRelay() as relay:
        result = await Campaign.from_file(str(file)).run(relay=url(relay), ledger=str(file.parent / "other.ledger"))
    assert result.counts["accepted"] == 3
    assert (file.parent / "other.ledger").exists()
    assert not (file.parent / "news.ledger").exists()


async def test_parameters_go_before_the_file(file: Path) -> None:
    async with ScriptedRelay() as relay:
        campaign = Campaign.from_file(file, subject="Other", recipients=PEOPLE[:1], relay=url(relay))
        assert (await campaign.run()).counts["accepted"] == 1
    assert relay.received[0].email["Subject"] == "Other"


async def test_a_recipients_file_gives_the_name_and_the_folder(file: Path) -> None:
    """As the options of the command do; the text may be a file, too."""
    async with ScriptedRelay() as relay:
        campaign = Campaign(
            recipients=file.parent / "people.csv",
            from_="news@example.org",
            subject="x",
            text=file.parent / "message.txt",
            relay=url(relay),
        )
        await campaign.run()
    assert campaign.name == "people"
    assert (file.parent / "people.ledger").exists()
    assert "Hello Ann" in str(relay.received[0].email)


async def test_rows_of_a_program_are_mailed(tmp_path: Path) -> None:
    """A list of mappings, a relay as a value, a template in the call."""
    async with ScriptedRelay() as relay:
        way = Relay("127.0.0.1", relay.port, Security.PLAINTEXT)
        result = await make(tmp_path, relay=way).run()
    assert result.counts["accepted"] == 3
    assert {message.forward_paths[0] for message in relay.received} == {row["email"] for row in PEOPLE}
    assert "Hello Ann" in {message.email.get_content().strip() for message in relay.received}


async def test_an_async_iterable_is_read_once(tmp_path: Path) -> None:
    """A cursor cannot be read again: the rows are saved, and the second run has them."""
    reads = 0

    async def rows() -> AsyncIterator[Mapping[str, object]]:
        nonlocal reads
        reads += 1
        for number in range(1200):
            yield {"id": number, "email": f"p{number}@example.org", "name": None, "vip": True}

    async with ScriptedRelay() as relay:
        campaign = make(tmp_path, rows(), text="{{ id }} {{ vip }}", subject="x", relay=url(relay))
        assert (await campaign.check()).report.recipients == 1200
        first = await campaign.run(limit=2)
        assert (first.counts["accepted"], first.counts["pending"], first.exit_reason) == (2, 1198, ExitReason.LIMIT)
        await campaign.run(limit=1)
    assert reads == 1
    assert sorted(message.email.get_content().strip() for message in relay.received) == ["0 true", "1 true", "2 true"]


async def test_rows_that_were_read_in_part_are_not_the_campaign(tmp_path: Path) -> None:
    """The rest of an iterator would be mailed as if it were all; a list is read again."""
    rows: list[object] = [*PEOPLE, "nobody"]
    started = asyncio.Event()

    async def slow() -> AsyncIterator[object]:
        yield PEOPLE[0]
        started.set()
        await asyncio.sleep(30)

    async with ScriptedRelay() as relay:
        interrupted = make(tmp_path, slow(), relay=url(relay))
        check = asyncio.create_task(interrupted.check())
        await started.wait()
        check.cancel()
        await asyncio.gather(check, return_exceptions=True)
        broken = make(tmp_path, iter([*rows, *PEOPLE]), relay=url(relay))
        with pytest.raises(TypeError):
            await broken.check()
        for campaign in (interrupted, broken):
            with pytest.raises(ConfigError, match="recipients= was read in part and cannot be read again") as caught:
                await campaign.run()
            assert caught.value.advice == "make a new Campaign"
        again = make(tmp_path, rows, relay=url(relay))
        with pytest.raises(TypeError):
            await again.check()
        rows.pop()
        assert (await again.run()).counts["accepted"] == len(relay.received) == 3


@pytest.mark.slow
async def test_the_saved_rows_are_the_owner_s_and_go_with_the_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    campaign = make(tmp_path)
    await campaign.prepare()
    (saved,) = tmp_path.glob("asyncsmtp-*.jsonl")  # noqa: ASYNC240
    assert saved.stat().st_mode & 0o77 == 0
    del campaign
    gc.collect()
    assert not saved.exists()


async def test_the_same_rows_resume_and_others_do_not(tmp_path: Path) -> None:
    """Another object, as after a restart of the program: the same rows are the same campaign."""
    async with ScriptedRelay() as relay:
        await make(tmp_path, relay=url(relay)).run(limit=1)
        result = await make(tmp_path, relay=url(relay)).run()
        assert result.counts["accepted"] == len(relay.received) == 3
        with pytest.raises(LedgerMismatch, match=r"recipients changed.*a file of their own, with add=$"):
            await make(tmp_path, [{"email": "dan@example.org", "name": "Dan"}], relay=url(relay)).run()
        with pytest.raises(LedgerMismatch, match="text") as mismatch:
            await make(tmp_path, text="Bye {{ name }}", relay=url(relay)).run()
        assert "add=" not in str(mismatch.value)  # other recipients are no help


async def test_outcomes_are_iterated(tmp_path: Path) -> None:
    async with ScriptedRelay(refusing(bob="550 5.1.1 no such user")) as relay:
        run = make(tmp_path, relay=url(relay)).run()
        assert run.result is None
        found = {outcome.address: outcome async for outcome in run}
    bob = found["bob@example.org"]
    assert (bob.row, bob.state, bob.code, bob.status, bob.reply) == (
        2,
        RowState.REJECTED,
        550,
        "5.1.1",
        "5.1.1 no such user",
    )
    assert (bob.attempt, bob.fields["name"], bob.host) == (1, "Bob", f"127.0.0.1:{relay.port}")
    assert found["ann@example.org"].state is RowState.ACCEPTED
    assert run.result is not None
    assert (run.result.counts["accepted"], run.result.counts["rejected"]) == (2, 1)
    assert run.result.exit_reason is ExitReason.COMPLETE


def many(number: int = 40) -> list[dict[str, str]]:
    return [{"email": f"p{each}@example.org", "name": f"P{each}"} for each in range(number)]


async def test_a_loop_that_is_left_ends_the_run_with_its_block(tmp_path: Path) -> None:
    """What is in flight is answered and recorded; the rest is pending, and nothing is in doubt."""
    async with ScriptedRelay() as relay:
        campaign = make(tmp_path, many(), relay=url(relay), concurrency=2, sessions=1)
        async with campaign.run() as run:
            async for _ in run:
                break
        assert run.result is not None
        assert run.result.exit_reason is ExitReason.STOPPED
        assert run.result.counts["accepted"] == len(relay.received) < 40
        assert run.result.counts["in doubt"] == run.result.counts["sending"] == 0
        assert (await campaign.run()).counts["accepted"] == len(relay.received) == 40


async def test_a_loop_that_is_left_without_a_block_is_waited_for(tmp_path: Path) -> None:
    """The next use of the campaign comes after the end of that run."""
    async with ScriptedRelay() as relay:
        campaign = make(tmp_path, many(), relay=url(relay), concurrency=2, sessions=1)
        async for _ in campaign.run():
            break
        counts = await campaign.counts()
        assert counts["accepted"] == len(relay.received) < 40
        assert counts["sending"] == 0
        assert (await campaign.run()).counts["accepted"] == len(relay.received) == 40


async def test_loops_that_are_left_follow_each_other(tmp_path: Path) -> None:
    """Each waits for the end of the one before it, and no row is in doubt."""
    async with ScriptedRelay() as relay:
        campaign = make(tmp_path, many(), relay=url(relay), concurrency=2, sessions=1)
        for _ in range(3):
            async for _ in campaign.run():
                break
        counts = await campaign.counts()
        assert counts["accepted"] == len(relay.received) < 40
        assert counts["sending"] == counts["in doubt"] == 0
        assert (await campaign.run()).counts["accepted"] == len(relay.received) == 40


async def test_a_loop_that_somebody_still_has_is_not_waited_for(tmp_path: Path) -> None:
    """It could go on: the ledger is busy."""
    async with ScriptedRelay() as relay:
        campaign = make(tmp_path, many(), relay=url(relay))
        async with aclosing(aiter(campaign.run())) as outcomes:
            await anext(outcomes)
            with pytest.raises(LedgerBusy):
                await campaign.run()
            assert len(await entries(campaign)) == 40


async def test_a_run_is_used_once(tmp_path: Path) -> None:
    """Awaited again it has its result; further outcomes, or another try after an error, take another run."""
    async with ScriptedRelay() as relay:
        campaign = make(tmp_path, many(4), relay=url(relay))
        awaited = campaign.run(limit=1)
        assert await awaited is await awaited
        left = campaign.run()
        async for _ in left:
            break
        assert await left is left.result is not None
        looped = campaign.run()
        assert len([outcome async for outcome in looped]) == 4 - left.result.counts["accepted"]
        assert await looped is looped.result
        for run in (awaited, left, looped):
            with pytest.raises(LocalProtocolError, match=r"call campaign\.run\(\) again"):
                aiter(run)
        failed = make(tmp_path, [], relay=url(relay)).run()
        with pytest.raises(RecipientError):
            await failed
        with pytest.raises(LocalProtocolError, match="this run is over"):
            await failed


def test_a_run_is_a_coroutine(tmp_path: Path) -> None:
    """For `asyncio.run`; a task of it can be cancelled."""
    with serving(ScriptedRelay({Stage.END_OF_DATA: {2: Wait(30)}})) as relay:
        campaign = make(tmp_path, relay=url(relay), concurrency=1, sessions=1)
        result: CampaignResult = asyncio.run(campaign.run(limit=1))
        assert (result.counts["accepted"], result.exit_reason) == (1, ExitReason.LIMIT)

        async def cancel() -> None:
            task = asyncio.create_task(campaign.run())
            await until(lambda: relay.count_stage(Stage.END_OF_DATA) > 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cancel())
        assert asyncio.run(campaign.counts())["in doubt"] == 1


def test_a_run_that_nobody_awaits_is_warned_of(tmp_path: Path) -> None:
    campaign = make(tmp_path)
    with pytest.warns(RuntimeWarning, match="the run of <Campaign 'news'> was never awaited"):
        campaign.run()
    campaign.run().close()


async def test_stop_ends_a_run(tmp_path: Path) -> None:
    async with ScriptedRelay() as relay:
        run = make(tmp_path, many(), relay=url(relay), concurrency=1, sessions=1).run()
        async for _ in run:
            run.stop()
    assert run.result is not None
    assert (run.result.exit_reason, run.result.counts["sending"]) == (ExitReason.STOPPED, 0)
    assert 0 < run.result.counts["accepted"] == len(relay.received) < 40


@pytest.mark.parametrize("iterated", [True, False])
async def test_a_cancelled_run_leaves_in_doubt_what_may_have_arrived(tmp_path: Path, iterated: bool) -> None:
    """The content was sent, the reply had not come; the others are pending, and the ledger is free."""
    async with ScriptedRelay({Stage.END_OF_DATA: (Wait(30),)}) as relay:
        campaign = make(tmp_path, relay=url(relay), concurrency=1, sessions=1)

        async def run() -> None:
            if iterated:
                async for _ in campaign.run():
                    pass
            else:
                await campaign.run()

        task = asyncio.create_task(run())
        await until(lambda: relay.count_stage(Stage.END_OF_DATA) > 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    counts = await campaign.counts()
    assert (counts["in doubt"], counts["pending"], counts["sending"]) == (1, 2, 0)


async def test_a_deferred_row_is_tried_by_the_next_run(file: Path) -> None:
    """`resumes_at` says when; with no delay, at once."""
    async with ScriptedRelay(refusing(bob="451 4.3.0 later")) as relay:
        campaign = Campaign.from_file(file, relay=url(relay), retry_delay="1h", attempts=3)
        result = await campaign.run()
        assert (result.exit_reason, result.counts["deferred"]) == (ExitReason.WAITING, 1)
        assert result.resumes_at is not None
        assert (await campaign.run()).resumes_at == result.resumes_at  # nobody was tried
        (bob,) = await entries(campaign, "deferred")
        assert (bob.attempts, bob.due_at) == (1, result.resumes_at)


async def test_wait_stays_for_further_attempts(tmp_path: Path) -> None:
    """Each outcome of a row is given; the numbers of its attempts differ."""
    seen: set[bytes] = set()

    def greylist(context: StageContext) -> str | None:
        if context.line in seen:
            return None
        seen.add(context.line)
        return "451 4.7.1 greylisted"

    async with ScriptedRelay({Stage.RCPT: greylist}) as relay:
        run = make(tmp_path, relay=url(relay), retry_delay=0.1).run(wait=True)
        attempts = [outcome.attempt async for outcome in run]
    assert sorted(attempts) == [1, 1, 1, 2, 2, 2]
    assert run.result is not None
    assert run.result.exit_reason is ExitReason.COMPLETE


@pytest.mark.parametrize("in_file", [True, False])
async def test_the_time_for_further_attempts_ends(file: Path, in_file: bool) -> None:
    """`for` in [retry], or `retry_for=`: the last refusal is final."""
    settings: dict[str, object] = {"retry_delay": 0.1, "retry_for": 0.05}
    if in_file:
        file.write_text(f'{FILE}[retry]\ndelay = "0.1s"\nfor = "0.05s"\n', encoding="utf-8")  # noqa: ASYNC240
        settings = {}
    async with ScriptedRelay(refusing(bob="451 4.3.0 later")) as relay:
        campaign = Campaign.from_file(file, relay=url(relay), **settings)  # type: ignore[arg-type]
        result = await campaign.run(wait=True)
        (bob,) = await entries(campaign, "rejected")
    assert (result.exit_reason, bob.attempts) == (ExitReason.COMPLETE, 2)
    assert bob.reply.startswith("given up after attempt 2")


async def test_results_and_a_decision(tmp_path: Path) -> None:
    """A lost reply is in doubt; a person decides, and the next run sends it again."""
    script: Mapping[Stage, Rule] = {Stage.END_OF_DATA: {2: NO_REPLY}}
    async with ScriptedRelay(script) as relay:
        campaign = make(tmp_path, relay=url(relay), concurrency=1, sessions=1)
        run = asyncio.create_task(_run(campaign))
        await until(lambda: len(relay.received) >= 2)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        (doubtful,) = await entries(campaign, "in_doubt")
        assert doubtful == (await entries(campaign, RowState.IN_DOUBT))[0] == (await entries(campaign, "in doubt"))[0]
        assert [entry.row for entry in await entries(campaign)] == [1, 2, 3]
        assert await campaign.resolve("resend", rows=[99]) == 0
        assert await campaign.resolve("resend", rows=[doubtful.row]) == 1
        result = await campaign.run()
        assert result.counts["accepted"] == 3
        assert len(relay.received) == 4
        assert await campaign.resolve("skip") == 0


async def _run(campaign: Campaign) -> None:
    await campaign.run()


async def test_before_it_has_begun(tmp_path: Path) -> None:
    campaign = make(tmp_path)
    assert set((await campaign.counts()).values()) == {0}
    with pytest.raises(LedgerEmpty):
        await entries(campaign)
    with pytest.raises(LedgerEmpty):
        await campaign.resolve("skip")


async def test_a_check_sends_nothing_and_makes_no_ledger(file: Path) -> None:
    """Rows, the first message, and what a provider may object to."""
    (file.parent / "secret").write_text("a secret of some length", encoding="utf-8")
    (file.parent / "secret").chmod(0o600)
    unsubscribe = {"url": "https://example.org/{{ token }}", "secret_file": file.parent / "secret"}
    campaign = Campaign.from_file(file, relay="smtp://127.0.0.1:1?security=none", unsubscribe=unsubscribe)
    result = await campaign.check()
    assert result, result.findings
    objected = await Campaign.from_file(file, subject="BUY IT RIGHT NOW").check()  # an objection stops no run
    assert "objection" in {finding.weight for finding in objected.findings}
    assert objected
    assert (result.report.rows, result.report.recipients, result.file) == (3, 3, str(file.parent / "people.csv"))
    assert result.report.sample is not None
    assert {finding.rule for finding in result.findings}
    assert not list(file.parent.glob("*.ledger*"))
    (file.parent / "people.csv").write_text("email,name\nnobody,Ann\n", encoding="utf-8")
    assert not await campaign.check()


@pytest.mark.parametrize(
    ("text", "why"), [("{{ nom }}", "text, line 1"), ("{% if %}", "text, line 1"), ("a\n{{ 1 / 0 }}", "text, line 2")]
)
async def test_a_broken_template_is_an_error_with_its_line(tmp_path: Path, text: str, why: str) -> None:
    """At `check`, and at `run` before anything is sent."""
    async with ScriptedRelay() as relay:
        campaign = make(tmp_path, text=text, relay=url(relay))
        with pytest.raises(TemplateError, match=why):
            await campaign.check()
        with pytest.raises(TemplateError, match=why):
            await campaign.run()
        assert relay.connections == 0


async def test_strict_and_empty_campaigns_send_nothing(tmp_path: Path) -> None:
    async with ScriptedRelay() as relay:
        odd = make(tmp_path, [*PEOPLE, {"email": "not an address", "name": "Dan"}], relay=url(relay))
        with pytest.raises(RecipientError, match="row 4"):
            await odd.run(strict=True)
        nobody = make(tmp_path, [{"email": "", "name": "Dan"}], relay=url(relay))
        with pytest.raises(RecipientError, match=r"nobody would be mailed, since row 1 \(line 1\): “email” is blank"):
            await nobody.run()
        with pytest.raises(RecipientError, match="no rows"):
            await make(tmp_path, [], relay=url(relay)).run()
        assert relay.connections == 0
        assert (await odd.run()).counts["rejected"] == 1


async def test_a_ledger_that_is_open_stays_open(tmp_path: Path) -> None:
    async with ScriptedRelay() as relay:  # noqa: SIM117  # the ledger is read when both are closed
        async with await SqliteLedger.open(tmp_path / "own.ledger", name="news", from_domain="example.org") as ledger:
            campaign = make(tmp_path, relay=url(relay), ledger=ledger)
            assert (await campaign.run()).counts["accepted"] == 3
            assert (await campaign.counts())["accepted"] == 3
            assert len(await entries(campaign)) == 3
            assert await campaign.resolve("skip") == 0
            assert (await ledger.counts())[RowState.ACCEPTED] == 3
    assert not (tmp_path / "news.ledger").exists()


async def test_several_relays_share_the_messages(tmp_path: Path) -> None:
    async with ScriptedRelay() as one, ScriptedRelay() as two:
        campaign = make(tmp_path, many(), relay=[url(one), RelayConfig(relay=url(two), sessions=2)])
        assert (await campaign.run()).counts["accepted"] == 40
        assert len(one.received) + len(two.received) == 40
        assert one.received
        assert two.received
        other = make(tmp_path, many(), name="other", relay=[url(one), url(two)])
        before = len(two.received)
        await other.run(relay=url(one))
        assert len(two.received) == before


async def test_a_single_relay_may_have_a_rate_of_its_own(tmp_path: Path) -> None:
    """As one of several; without one it is as fast as it can be."""
    async with ScriptedRelay() as relay:
        limited = RelayConfig(relay=url(relay), rate=Rate.parse_all("2/h"))
        result = await make(tmp_path, relay=[limited]).run()
        assert (result.exit_reason, result.counts["accepted"]) == (ExitReason.WAITING, 2)
        assert (await make(tmp_path, name="other", relay=[url(relay)]).run()).counts["accepted"] == 3


@pytest.mark.parametrize(
    ("settings", "state", "hours"),
    [({"attempts": 1}, "rejected", 0), ({"retry_delay": "1h"}, "deferred", 1), ({"retry_delay": 0}, "deferred", 0)],
)
async def test_how_often_a_row_is_tried_is_said_by_the_campaign(
    file: Path, settings: dict[str, object], state: str, hours: int
) -> None:
    """The defaults are those of a mail server: 5 minutes, then more, for four days."""
    async with ScriptedRelay(refusing(bob="451 4.3.0 later")) as relay:
        result = await Campaign.from_file(file, relay=url(relay), **settings).run()  # type: ignore[arg-type]
    assert result.counts[state] == 1
    if hours:
        assert result.resumes_at is not None
        assert timedelta(hours=hours) * 0.99 < result.resumes_at - datetime.now(UTC) < timedelta(hours=hours) * 1.2
    else:
        assert result.resumes_at is None


async def test_further_recipients_are_added(file: Path) -> None:
    more = file.parent / "more.csv"
    more.write_text("email,name\ndan@example.org,Dan\nann@example.org,Ann\n", encoding="utf-8")
    async with ScriptedRelay() as relay:
        campaign = Campaign.from_file(file, relay=url(relay))
        with pytest.raises(ConfigError, match="has begun"):
            await campaign.run(add=more)
        await campaign.run()
        result = await campaign.run(add=str(more))
    assert (result.counts["accepted"], result.counts["suppressed"]) == (4, 1)


async def test_the_steps_of_a_run_may_be_taken_one_by_one(file: Path) -> None:
    """For a program that asks somebody in between."""
    async with ScriptedRelay() as relay:
        campaign = Campaign.from_file(file, relay=url(relay))
        async with campaign.open() as opened:
            assert (opened.has_begun, opened.has_rows_to_load) == (False, True)
            assert (await opened.check()).report.recipients == 3
            await opened.load()
            assert (opened.has_begun, await opened.suppress(), await opened.count_ready()) == (True, 0, 3)
            assert await opened.find_first_address() == "ann@example.org"
            async with opened.start(limit=1) as run:
                await run.run()
        assert len(relay.received) == 1
        async with campaign.open() as opened:
            assert (opened.has_begun, opened.has_rows_to_load) == (True, False)


async def test_a_suppression_list_is_obeyed(file: Path) -> None:
    (file.parent / "gone.txt").write_text("bob@example.org\n", encoding="utf-8")
    async with ScriptedRelay() as relay:
        result = await Campaign.from_file(file, relay=url(relay), suppression=file.parent / "gone.txt").run()
    assert (result.counts["accepted"], result.counts["suppressed"]) == (2, 1)


async def test_a_quota_ends_the_run_and_says_when_it_resumes(tmp_path: Path) -> None:
    async with ScriptedRelay() as relay:
        campaign = make(tmp_path, relay=url(relay), rate="50/s, 2/day", shared_rates=False)
        result = await campaign.run()
    assert (result.exit_reason, result.counts["pending"]) == (ExitReason.WAITING, 1)
    assert result.resumes_at is not None


async def test_a_password_stands_beside_the_url_or_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never in the URL; the error says what is missing."""
    relay = ScriptedRelay(users={"ada": "hunter2"})
    monkeypatch.delenv("ASYNCSMTP_PASSWORD", raising=False)
    async with relay:
        way = f"smtp://ada@127.0.0.1:{relay.port}?security=none"
        with pytest.raises(InvalidArgument, match="no password for “ada”"):
            await make(tmp_path, relay=way).run()
        with pytest.raises(ConfigError, match="there is a password in the relay's URL"):
            await make(tmp_path, relay=way.replace("ada@", "ada:hunter2@")).run()
        with pytest.raises(asyncsmtp.InsecureConnection):
            await make(tmp_path, relay=way, password="hunter2").run()  # it was found, and not sent in clear
        with pytest.raises(asyncsmtp.InsecureConnection):
            await make(tmp_path, relay=way, token="ya29").run()
        with pytest.raises(ConfigError, match="pass password= or token="):
            make(tmp_path, relay=way, token="ya29", password="hunter2")
        monkeypatch.setenv("ASYNCSMTP_PASSWORD", "hunter2")
        with pytest.raises(asyncsmtp.InsecureConnection):
            await make(tmp_path, relay=way).run()
    with pytest.raises(ConfigError, match="no relay was given"):
        await make(tmp_path).run()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"recipients": 3}, "recipients= must be a path or an iterable of mappings; it is int"),
        ({"recipients": {"email": "ann@example.org"}}, "recipients= must be a path or an iterable"),
        ({"recipients": b"people.csv"}, "recipients= must be a path or an iterable"),
        ({"relay": 25}, "relay= must be a URL, a Relay, or several of them; it is int"),
        ({"relay": [3]}, "relay= must be a URL"),
        ({"ledger": 3}, "ledger= must be a path, a URL or a Ledger; it is int"),
        ({"ledger": SqliteLedger}, "ledger= must be a path, a URL or a Ledger; it is the class SqliteLedger"),
        ({"token": 3}, "token= must be text, a Secret or an async function; it is int"),
        ({"password": 3}, "password= must be text or a Secret; it is int"),
        ({"subject": 3}, "subject= must be text"),
        ({"subject": None}, "subject= must be text"),
        ({"text": b"Hello"}, "text= must be"),
        ({"folder": 3}, "folder= must be a path"),
        ({"sessions": "4"}, "sessions= must be a whole number from 1 to 10000; it is str"),
        ({"rate": 30}, 'rate= must be a text such as "30/s"'),
        ({"retry_for": []}, "retry_for= must be a span of time"),
        ({"concurency": 5}, "there is no parameter concurency=; did you mean concurrency=?"),
    ],
)
def test_a_wrong_type_is_a_type_error_at_the_call(tmp_path: Path, wrong: dict[str, object], why: str) -> None:
    with pytest.raises(TypeError) as caught:
        make(tmp_path, **wrong)
    assert why in str(caught.value)


def test_a_wrong_type_of_a_method_is_a_type_error_at_the_call(file: Path) -> None:
    campaign = Campaign.from_file(file)
    for wrong in ({"relay": 3}, {"ledger": 3}, {"limit": "3"}, {"add": 3}):
        with pytest.raises(TypeError, match=f"{next(iter(wrong))}= must be"):
            campaign.run(**wrong)
    with pytest.raises(TypeError, match="path= must be a path"):
        Campaign.from_file(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"sessions": 0}, "sessions= must be a whole number from 1 to 10000"),
        ({"in_doubt": "maybe"}, "in_doubt= must be one of hold, resend"),
        ({"rate": "fast"}, "rate= “fast” is not a valid rate"),
        ({"ledger": "mysql://ann:secret@example.org/x"}, "ledger= mysql:// is not supported: give a file"),
        ({"ledger": ":memory:"}, "ledger= :memory: is not supported: give a file"),
        ({"name": "../x"}, "name= “../x” must be letters"),
        ({"text": None}, "there is no message: pass text= or html="),
        (
            {"text": "message.txt"},
            "text= “message.txt” names a file; a str is the template itself: write Path('message.txt')",
        ),
        ({"html": "no such file.HTML"}, "html= “no such file.HTML” names a file"),
        ({"text": __file__}, f"write Path({__file__!r})"),
        ({"name": None}, "pass name="),
        ({"dkim": {"domain": "example.org", "selector": "s1"}}, "dkim= needs either key"),
        ({"dkim": {"domain": "example.org", "selector": "s1", "kee": "x"}}, "unknown key “kee”; did you mean “key”"),
    ],
)
def test_a_wrong_value_is_a_config_error_at_the_call(tmp_path: Path, wrong: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(tmp_path, **wrong)
    assert why in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_wrong_rows_states_and_decisions_are_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="recipients= must yield mappings"):
        await make(tmp_path, ["ann@example.org"]).check()
    with pytest.raises(TypeError, match="recipients= row 1: 'tags' must be text, not list"):
        await make(tmp_path, [{"email": "ann@example.org", "tags": ["a"]}]).check()
    for row, why in (
        ({5: "x"}, "row 1: a column is 5: it must be text"),
        ({"email": "x", None: ["y"]}, r"row 1: a column is None: it must be text \(csv.DictReader"),
        ({"n": float("nan")}, "row 1: 'n' must be text or a finite number, not nan"),
        ({"n": float("-inf")}, "row 1: 'n' must be text or a finite number, not -inf"),
    ):
        with pytest.raises(TypeError, match=why):
            await make(tmp_path, [row]).check()
    with pytest.raises(ConfigError, match="there is no state 'sent'"):
        await entries(make(tmp_path), "sent")
    with pytest.raises(ConfigError, match="there is no decision 'delete'"):
        await make(tmp_path).resolve("delete")
    campaign = make(tmp_path)
    with pytest.raises(ConfigError, match="there is no state 'sent'"):
        campaign.results("sent")
    for wrong in (5, [5], [None]):
        with pytest.raises(TypeError, match="states= must be str or RowState"):
            campaign.results(wrong)  # type: ignore[arg-type]
    for wrong_row in ("1", ["1"], [None]):
        with pytest.raises(TypeError, match="rows= must be int"):
            await campaign.resolve("skip", rows=wrong_row)  # type: ignore[arg-type]


async def test_one_state_or_row_stands_for_a_list_of_it(tmp_path: Path) -> None:
    """A state is also its word, and a key of the counts in each form."""
    async with ScriptedRelay(refusing(bob="550 5.1.1 no such user")) as relay:
        campaign = make(tmp_path, relay=url(relay))
        counts: Mapping[object, int] = (await campaign.run()).counts  # type: ignore[assignment]
    assert counts["accepted"] == counts[RowState.ACCEPTED] == counts["ACCEPTED".lower()] == 2
    assert counts["in_doubt"] == counts[RowState.IN_DOUBT] == 0
    with pytest.raises(KeyError, match="sent"):
        counts["sent"]
    (bob,) = [entry async for entry in campaign.results("rejected")]
    assert [bob] == [entry async for entry in campaign.results(RowState.REJECTED)]
    assert bob.state == "rejected"
    assert bob.state != "accepted"
    assert RowState.IN_DOUBT == "in_doubt" == RowState.IN_DOUBT
    assert (RowState.REJECTED == 4, RowState.REJECTED != 4, {4: 1}[RowState.REJECTED]) == (True, False, 1)
    assert await campaign.resolve("resend", rows=1, states="rejected") == 0
    assert await campaign.resolve("resend", rows=bob.row, states="rejected") == 1


REFUSING_ALL = {Stage.RCPT: "550 relay not permitted"}
MANY = [{"email": f"reader{n}@d{n % 7}.example", "name": f"Reader {n}"} for n in range(1, 201)]


async def test_what_was_rejected_before_a_halt_can_be_made_pending_again(tmp_path: Path) -> None:
    """FT-31: those rows and no others, by a program."""
    async with ScriptedRelay({Stage.RCPT: {1: "550 5.1.1 no such user"}}) as relay:
        campaign = make(tmp_path, MANY, relay=url(relay), concurrency=1)
        await campaign.run(limit=10)
    async with ScriptedRelay(REFUSING_ALL) as relay:
        with pytest.raises(CampaignHalted, match="with the same words, for recipients at several domains"):
            await campaign.run(relay=url(relay))
    assert (await campaign.counts())["rejected"] == 21
    assert await campaign.resolve("resend", halted=True) == 20
    assert await campaign.resolve("resend", halted=True) == 0
    (unknown,) = await entries(campaign, "rejected")
    assert unknown.status == "5.1.1"
    async with ScriptedRelay() as relay:
        assert (await campaign.run(relay=url(relay))).counts["accepted"] == 199


async def test_a_program_may_keep_going(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """FT-31: it uses up the list, and is warned once."""
    async with ScriptedRelay(REFUSING_ALL) as relay:
        result = await make(tmp_path, MANY, relay=url(relay)).run(keep_going=True)
    assert result.counts["rejected"] == 200
    assert sum("the campaign goes on, as keep_going asks for" in record.getMessage() for record in caplog.records) == 1


async def test_a_program_decides_about_rows_by_what_is_known_of_them(tmp_path: Path) -> None:
    """FT-31: as `asyncsmtp resolve` does."""
    replies = refusing(ann="550 5.7.1 Blocked", bob="554 5.2.2 mailbox full", cid="550 no such user")
    async with ScriptedRelay(replies) as relay:
        campaign = make(tmp_path, relay=url(relay))
        await campaign.run()
    now = datetime.now(UTC)
    for conditions in (
        {"codes": 551},
        {"codes": [550], "enhanced_codes": "5.2.2"},
        {"enhanced_codes": ["5.7.10"]},
        {"states": "rejected", "reply": "b_ocked"},
        {"states": "rejected", "since": now + timedelta(hours=1)},
        {"states": "rejected", "host": "other.example"},
        {"reply": "blocked"},  # rows in doubt
    ):
        assert await campaign.resolve("resend", **conditions) == 0, conditions  # type: ignore[arg-type]
    assert await campaign.resolve("resend", codes=[550, 554], reply="BLOCK", since=now - timedelta(hours=1)) == 1
    assert await campaign.resolve("resend", enhanced_codes="5.2.2", host="127.0.0.1") == 1
    assert await campaign.resolve("resend", codes=550, rows=[3]) == 1
    with pytest.raises(ConfigError, match="has no time zone"):
        await campaign.resolve("resend", since=datetime(2026, 1, 1))
    for name, value in {"codes": "550", "enhanced_codes": 5, "reply": 5, "host": b"", "halted": 1, "since": 5}.items():
        with pytest.raises(TypeError, match=f"{name}= must be"):
            await campaign.resolve("resend", **{name: value})  # type: ignore[arg-type]


async def test_what_a_row_of_a_program_lacks_is_a_problem_of_that_row(tmp_path: Path) -> None:
    """The first row names the columns, as the header of a file does."""
    campaign = make(tmp_path, [PEOPLE[0], {"email": "bob@example.org", "nom": "Bob"}, {"email": "cid@example.org"}])
    report = (await campaign.check()).report
    assert (report.recipients, report.problems) == (1, 2)
    assert "nom" in report.problem_rows[0].reason
    assert report.problem_rows[1].reason == "lacks “name”, which the first row has: None leaves a cell empty"
    blank = make(tmp_path, [PEOPLE[0], {"email": "bob@example.org", "name": None}])
    assert (await blank.check()).report.recipients == 2


async def test_the_address_column_may_be_named(tmp_path: Path) -> None:
    rows = [{"Mail": "ann@example.org", "Other Mail": "x@example.org", "Full name": "Ann"}]
    async with ScriptedRelay() as relay:
        campaign = make(tmp_path, rows, email_column="mail", columns={"name": "full name"}, relay=url(relay))
        await campaign.run()
    assert relay.received[0].forward_paths == ("ann@example.org",)
    assert Mailbox.parse(relay.received[0].reverse_path or "") == Mailbox("news", "example.org")


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"recipients": "a\0b"}, ConfigError),
        ({"recipients": [{"email": "ann@example.org", "n": 10**5000}]}, RecipientError),
        ({"recipients": [{1: "ann@example.org"}]}, TypeError),
        ({"folder": "a\0b"}, ConfigError),
        ({"ledger": ""}, ConfigError),
        ({"ledger": Path()}, ConfigError),
        ({"columns": {1: "email"}}, TypeError),
        ({"inline": {1: "logo.png"}}, TypeError),
        ({"headers": {1: "x"}}, TypeError),
        ({"domain_rates": {1: {"rate": "1/s"}}}, TypeError),
        ({"retry_for": float("nan")}, ConfigError),
        ({"where": "row.nope"}, InvalidArgument),
        ({"where": "name.__class__"}, InvalidArgument),
    ],
)
async def test_errors_are_of_the_package_or_a_type_error(
    tmp_path: Path, settings: dict[str, object], kind: type[Exception]
) -> None:
    """No other error of the standard library, and none of another library, reaches a program."""
    given = {"relay": "smtp://127.0.0.1:1?security=none", **settings}
    with pytest.raises(kind):
        await make(tmp_path, given.pop("recipients", PEOPLE), **given).run()


async def test_wrong_arguments_of_methods_are_reported(tmp_path: Path) -> None:
    campaign = make(tmp_path)
    with pytest.raises(ConfigError, match="limit= 0 must be at least 1"):
        campaign.run(limit=0)
    with pytest.raises(TypeError, match="name_server= must be text"):
        await campaign.check(dns=True, name_server=5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="too long"):
        Campaign.from_file("x" * 5000)
    async with ScriptedRelay() as relay:
        await campaign.run(relay=url(relay))
    assert await campaign.resolve("resend", rows=[10**30]) == 0

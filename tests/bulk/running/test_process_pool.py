"""One run over several processes: each row once, its outcome in the ledger, whichever process ends when."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import signal
import socket
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asyncsmtp import Campaign, ConfigError, Relay, RelayConfig, SMTPError
from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.running import process_pool
from asyncsmtp.bulk.running.frames import LENGTH, Frame, FrameChannel
from asyncsmtp.bulk.running.process_pool import JobComposer, _Child, _Children
from asyncsmtp.client.config.login_config import Token
from asyncsmtp.errors import AuthenticationRefused, CampaignHalted, ConnectionLost, DeliveryInDoubt, InvalidArgument
from asyncsmtp.protocol.envelope import Envelope, Mailbox
from asyncsmtp.testing import DEFAULT_REPLY, NO_REPLY, Action, Rule, ScriptedRelay, Stage, StageContext, Wait
from tests.bulk.test_campaign import FILE, entries, make, until, url
from tests.kill.processes import list_children

pytestmark = pytest.mark.timeout(120)


def people(number: int) -> list[dict[str, str]]:
    return [{"email": f"a{row}@example.org", "name": f"Name {row}"} for row in range(number)]


def recipients(relay: ScriptedRelay) -> Counter[str]:
    """Return how often the relay took a message for each recipient."""
    return Counter(path for message in relay.received for path in message.forward_paths)


def held(stage: Stage, after: int) -> dict[Stage, Rule]:
    """A script that answers a stage so many times, and then no more."""
    seen: list[bytes] = []

    def rule(context: StageContext) -> object:
        seen.append(context.line)
        return NO_REPLY if len(seen) > after else None

    return {stage: rule}  # type: ignore[dict-item]


async def wait_for_end(children: list[int]) -> None:
    """Wait until none of these processes is there."""
    async with asyncio.timeout(10):
        while set(children) & set(list_children(os.getpid())):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_each_row_is_sent_once_by_two_processes(tmp_path: Path) -> None:
    """Both have sessions of their own; afterwards neither is there."""
    seen: set[int] = set()

    def rule(context: StageContext) -> None:
        seen.update(list_children(os.getpid()))

    async with ScriptedRelay({Stage.END_OF_DATA: rule}) as relay:
        campaign = make(tmp_path, people(60), relay=url(relay), sessions=4)
        result = await campaign.run(processes=2)
    assert (result.counts["accepted"], set(recipients(relay).values())) == (60, {1})
    assert 2 <= relay.connections <= 4
    assert len(seen) == 2
    await wait_for_end([*seen])
    assert {entry.attempts for entry in await entries(campaign)} == {1}


async def test_messages_are_the_same_as_of_one_process(tmp_path: Path) -> None:
    """Byte for byte, but for the Message-ID, which no two campaigns share."""
    found = []
    for processes in (1, 3):
        (tmp_path / str(processes)).mkdir()
        async with ScriptedRelay() as relay:
            await make(tmp_path / str(processes), people(9), relay=url(relay)).run(processes=processes)
        letters = sorted(re.sub(rb"(?m)^(Message-ID|Date):.*\r\n", b"", message.content) for message in relay.received)
        found.append(letters)
    assert found[0] == found[1]


async def test_every_outcome_comes_back(tmp_path: Path) -> None:
    """Refused, deferred, and a row that cannot be composed: with the relay's words, and no try too many."""

    def rule(context: StageContext) -> str | None:
        if b"<a1@" in context.line:
            return "550 5.1.1 no such user"
        return "451 4.2.0 later" if b"<a2@" in context.line else None

    rows = people(4)
    rows[3]["name"] = "two\nlines"
    async with ScriptedRelay({Stage.RCPT: rule}) as relay:
        campaign = make(tmp_path, rows, relay=url(relay))
        await campaign.run(processes=2)
        rows = await entries(campaign)
    assert [str(row.state) for row in rows] == ["accepted", "rejected", "deferred", "rejected"]
    assert [row.code for row in rows[1:3]] == [550, 451]
    assert "no such user" in rows[1].reply
    assert rows[2].due_at is not None
    assert rows[3].code is None


async def test_those_in_cc_and_bcc_get_their_copies(tmp_path: Path) -> None:
    rows = [
        {**row, "cc": f"cc{number}@example.net", "bcc": f"b{number}@example.com"}
        for number, row in enumerate(people(5))
    ]
    async with ScriptedRelay() as relay:
        campaign = make(tmp_path, rows, relay=url(relay), cc="{{ cc }}", bcc="{{ bcc }}")
        result = await campaign.run(processes=2)
    assert (result.counts["accepted"], len(recipients(relay)), set(recipients(relay).values())) == (15, 15, {1})


async def test_several_relays_share_the_messages(tmp_path: Path) -> None:
    """By their weights and their rates; the second has one session, so one of the processes has it."""
    async with ScriptedRelay() as one, ScriptedRelay() as two:
        relays = [RelayConfig(relay=url(one), sessions=4, weight=3), RelayConfig(relay=url(two), sessions=1)]
        campaign = make(tmp_path, people(40), relay=relays)
        assert (await campaign.run(processes=2)).counts["accepted"] == 40
    assert len(one.received) + len(two.received) == 40
    assert len(two.received) >= 5
    assert two.connections == 1


async def test_a_campaign_file_with_dates_and_a_filter(tmp_path: Path) -> None:
    """The children read the recipients as the run did."""
    lines = "".join(f"a{row}@example.org,Name {row},{row}\n" for row in range(10))
    (tmp_path / "people.csv").write_text(f"email,name,number\n{lines}", encoding="utf-8")
    (tmp_path / "message.txt").write_text("Hello {{ name }}, {{ number | int + 1 }}\n", encoding="utf-8")
    (tmp_path / "campaign.toml").write_text(f"{FILE}where = 'number | int > 4'\n", encoding="utf-8")
    async with ScriptedRelay() as relay:
        result = await Campaign.from_file(tmp_path / "campaign.toml", relay=url(relay)).run(processes=2)
    assert (result.counts["accepted"], result.counts["suppressed"]) == (5, 5)


async def test_the_totals_of_the_run_have_the_messages_of_all(tmp_path: Path) -> None:
    """Number and bytes by relay, as in one process."""
    async with ScriptedRelay() as relay, make(tmp_path, people(20), relay=url(relay)).open() as opened:
        await opened.begin()
        async with opened.start(processes=2) as run:
            await run.run()
    (totals,) = run.rate_policy.totals.relays.values()
    assert (totals.messages, totals.size) == (20, sum(len(message.content) for message in relay.received))


# A process ends in the middle.


@pytest.mark.parametrize(
    ("stage", "state"), [(Stage.RCPT, "accepted"), (Stage.DATA, "accepted"), (Stage.END_OF_DATA, "in doubt")]
)
async def test_the_run_goes_on_when_a_process_is_killed(tmp_path: Path, stage: Stage, state: str) -> None:
    """What was past its mark is in doubt; what was not is sent by the other one; nobody gets two."""
    script = held(stage, 0)
    rule = script[stage]
    killed: list[int] = []

    def hold(context: StageContext) -> object:
        return rule(context) if not killed else None  # type: ignore[operator]

    async with ScriptedRelay({stage: hold}) as relay:  # type: ignore[dict-item]
        campaign = make(tmp_path, people(30), relay=url(relay), sessions=2, dialogue="lockstep")
        running = asyncio.ensure_future(campaign.run(processes=2))
        await until(lambda: relay.connections >= 1 and len(list_children(os.getpid())) == 2)
        await asyncio.sleep(0.3)  # one row is under way: the first goes alone
        for child in list_children(os.getpid()):
            if not killed and _has_socket_with(child, relay.port):
                killed.append(child)
                os.kill(child, signal.SIGKILL)
        result = await running
    assert killed
    found = Counter(str(entry.state) for entry in await entries(campaign))
    expected = Counter({"accepted": 30}) if state == "accepted" else Counter({"accepted": 29, "in doubt": 1})
    assert found == expected == +Counter(result.counts)
    assert max(recipients(relay).values()) == 1


def _has_socket_with(pid: int, port: int) -> bool:
    """Return whether a process has a connection to a port of this machine."""
    wanted = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[2].endswith(f":{port:04X}"):
            wanted.add(f"socket:[{fields[9]}]")
    with suppress(OSError):
        return any(os.readlink(each) in wanted for each in Path(f"/proc/{pid}/fd").iterdir())
    return False


async def test_the_run_ends_when_no_process_is_left(tmp_path: Path) -> None:
    """Rows that were not past their mark stay pending; the next run sends them."""
    async with ScriptedRelay(held(Stage.RCPT, 5)) as relay:
        campaign = make(tmp_path, people(30), relay=url(relay), sessions=2, dialogue="lockstep")
        running = asyncio.ensure_future(campaign.run(processes=2))
        await until(lambda: len(relay.received) >= 3)
        for child in list_children(os.getpid()):
            os.kill(child, signal.SIGKILL)
        with pytest.raises(SMTPError, match="the processes that send have ended"):
            await running
    counts = await campaign.counts()
    assert counts["pending"] + counts["accepted"] + counts["in doubt"] == 30
    assert counts["pending"] >= 20
    async with ScriptedRelay() as relay:
        result = await campaign.run(relay=url(relay))
    assert result.counts["pending"] == 0
    assert not list_children(os.getpid())


@pytest.mark.parametrize("stage", [Stage.RCPT, Stage.DATA, Stage.END_OF_DATA])
async def test_a_cancelled_run_gives_rows_back(tmp_path: Path, stage: Stage) -> None:
    """Pending unless their content is past its end, as in one process."""
    heard: list[bytes] = []

    def rule(context: StageContext) -> object:
        heard.append(context.line)
        return NO_REPLY if len(heard) > 3 else None

    async with ScriptedRelay({stage: rule}) as relay:  # type: ignore[dict-item]
        campaign = make(tmp_path, people(6), relay=url(relay), concurrency=6, sessions=1, dialogue="lockstep")
        running = asyncio.ensure_future(campaign.run(processes=2))  # one session: one process
        await until(lambda: len(heard) == 4)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    waiting = "in doubt" if stage is Stage.END_OF_DATA else "pending"
    assert [str(each.state) for each in await entries(campaign)] == ["accepted"] * 3 + [waiting] + ["pending"] * 2
    assert not list_children(os.getpid())


async def test_a_frozen_process_does_not_hold_up_a_cancellation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed; its row, which is past its mark, is in doubt."""
    monkeypatch.setattr(process_pool, "CANCEL_TIMEOUT", 0.2)
    monkeypatch.setattr(process_pool, "END_TIMEOUT", 0.5)
    async with ScriptedRelay(held(Stage.END_OF_DATA, 2)) as relay:
        campaign = make(tmp_path, people(6), relay=url(relay), sessions=1, dialogue="lockstep")
        running = asyncio.ensure_future(campaign.run(processes=2))
        await until(lambda: relay.dialogue.count("C: .") >= 3 or len(relay.received) >= 2)
        await asyncio.sleep(0.3)
        (child,) = list_children(os.getpid())
        os.kill(child, signal.SIGSTOP)
        running.cancel()
        began = time.monotonic()
        with suppress(asyncio.CancelledError):
            await running
    assert time.monotonic() - began < 10
    found = Counter(str(each.state) for each in await entries(campaign))
    assert found == {"accepted": 2, "in doubt": 1, "pending": 3}
    assert not list_children(os.getpid())


async def test_a_run_that_is_stopped_answers_what_has_begun(tmp_path: Path) -> None:
    async with ScriptedRelay() as relay:
        campaign = make(tmp_path, people(200), relay=url(relay), sessions=2)
        async with campaign.run(processes=2) as run:
            async for _ in run:
                break
        assert run.result is not None
    counts = run.result.counts
    assert counts["accepted"] == len(relay.received)
    assert counts["accepted"] + counts["pending"] == 200
    assert counts["pending"] > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_to_all_processes_is_for_the_first(tmp_path: Path, number: signal.Signals) -> None:
    """As a service manager sends it, or a terminal that closes: what has begun is answered, and not in doubt."""
    heard: list[bytes] = []

    def rule(context: StageContext) -> Action:
        heard.append(context.line)
        return (Wait(0.3), DEFAULT_REPLY)

    async with ScriptedRelay({Stage.END_OF_DATA: rule}) as relay:
        campaign = make(tmp_path, people(60), relay=url(relay), sessions=4)
        async with campaign.open() as opened:
            await opened.begin()
            async with opened.start(processes=2) as run:
                running = asyncio.create_task(run.run())
                await until(lambda: len(heard) >= 5)
                run.stop()
                for child in list_children(os.getpid()):
                    os.kill(child, number)
                await running
            counts = await opened.ledger.counts()
    assert (counts[RowState.IN_DOUBT], counts[RowState.ACCEPTED]) == (0, len(relay.received))


@pytest.mark.parametrize(
    ("frame", "delivered"),
    [
        ((Frame.ACCEPTED, 1, 250, ("2.0.0 ok",), "relay.example", 100), True),
        ((Frame.ERROR, 1, DeliveryInDoubt(Envelope(None, (Mailbox("a", "example.org"),)), "gone")), None),
        ((Frame.ERROR, 1, ConnectionLost("gone")), False),
        ((Frame.CANCELLED, 1), False),
    ],
    ids=["accepted", "in doubt", "lost", "cancelled"],
)
async def test_an_outcome_that_comes_with_the_cancellation_counts(
    frame: tuple[object, ...], delivered: bool | None
) -> None:
    """In one step of the loop: it was dropped, and the process that had sent it was killed after three seconds."""
    children = _Children(None, lambda _: None, [])
    killed: list[bool] = []
    process: Any = SimpleNamespace(kill=lambda: killed.append(True))
    child = _Child(process, [1], asyncio.get_running_loop().create_future())
    child.channel = SimpleNamespace(send=lambda *_: None)  # type: ignore[assignment]
    children._children.append(child)
    to = Mailbox("a", "example.org")
    message = JobComposer().compose(to, {}, message_id="x", date=datetime.now(UTC))
    sending = asyncio.create_task(children.send(0, message, None))
    await asyncio.sleep(0)
    children._receive(child, (Frame.MARK, 1))
    await asyncio.sleep(0)
    sending.cancel()
    children._receive(child, frame)
    if delivered:
        assert (await sending).accepted
    else:
        with pytest.raises(asyncio.CancelledError if delivered is False else DeliveryInDoubt):
            await sending
    assert not killed


@pytest.mark.parametrize("number", [0, 1, 200])
async def test_what_a_process_wrote_before_it_ended_is_read(number: int) -> None:
    """A write to an end that is closed came first: the outcomes before it were lost, and their rows in doubt."""
    mine, other = socket.socketpair()
    read: list[tuple[int, ...]] = []
    lost = asyncio.Event()
    channel = await FrameChannel.open(mine, read.append, lost.set)
    for each in range(number):
        content = pickle.dumps((Frame.MARK, each))
        other.send(LENGTH.pack(len(content)) + content)
    other.close()
    channel.send(Frame.STOP)
    channel._flush()
    async with asyncio.timeout(20):
        await lost.wait()
    assert read == [(Frame.MARK, each) for each in range(number)]


async def test_a_token_that_never_comes_does_not_hold_up_the_end(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def fetch() -> Token:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with ScriptedRelay(users={"ann": "letmein"}) as relay:
        there = replace(Relay.from_url(f"smtp://ann@{url(relay)[7:]}", token=fetch), cleartext_login=True)
        running = asyncio.ensure_future(make(tmp_path, people(3), relay=there, sessions=2).run(processes=2))
        await until(asked.is_set)
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=15)
        running.cancel()
    assert done
    assert not list_children(os.getpid())


# What is wrong from the start.


async def test_a_template_that_changes_while_the_run_begins_is_refused(tmp_path: Path) -> None:
    """Two halves of a campaign would get different letters."""
    (tmp_path / "message.txt").write_text("Hello {{ name }}\n", encoding="utf-8")
    async with ScriptedRelay() as relay:
        campaign = make(tmp_path, people(3), relay=url(relay), text=tmp_path / "message.txt")
        async with campaign.open() as opened:
            await opened.begin()
            (tmp_path / "message.txt").write_text("Good-bye {{ name }}\n", encoding="utf-8")
            with pytest.raises(ConfigError, match=r"message\.txt changed while the run began"):
                async with opened.start(processes=2):
                    raise AssertionError
            (tmp_path / "message.txt").unlink()
            with pytest.raises(ConfigError, match=r"message\.txt: does not exist"):
                async with opened.start(processes=2):
                    raise AssertionError
    assert relay.received == []
    assert not list_children(os.getpid())


async def test_a_process_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent; the rows stay pending."""
    async with ScriptedRelay() as relay:
        campaign = make(tmp_path, people(3), relay=url(relay))
        for executable, why in (("", "no Python interpreter"), ("/nowhere/python", "No such file"), (None, "ended")):
            with monkeypatch.context() as patch:
                if executable is None:
                    patch.setattr(process_pool, "_PROGRAM", "raise SystemExit(3)")
                else:
                    patch.setattr("sys.executable", executable)
                with pytest.raises(SMTPError, match=why):
                    await campaign.run(processes=2)
        assert (await campaign.counts())["pending"] == 3
        assert relay.connections == 0


@pytest.mark.parametrize(("number", "error"), [(0, InvalidArgument), (-1, InvalidArgument), ("2", TypeError)])
def test_the_number_must_be_one(tmp_path: Path, number: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="processes"):
        make(tmp_path).run(processes=number)  # type: ignore[arg-type]


async def test_a_refused_password_is_one_refused_login(tmp_path: Path) -> None:
    """The first message goes alone, whichever process has it."""
    async with ScriptedRelay({Stage.AUTH: "535 5.7.8 wrong"}, users={"ann": "right"}) as relay:
        there = replace(Relay.from_url(f"smtp://ann@{url(relay)[7:]}", password="wrong"), cleartext_login=True)
        campaign = make(tmp_path, people(20), relay=there)
        with pytest.raises(AuthenticationRefused):
            await campaign.run(processes=2)
        assert sum(line.startswith("C: AUTH") for line in relay.dialogue) == 1
    assert (await campaign.counts())["pending"] == 20


async def test_a_function_as_token_stays_in_the_process_of_the_run(tmp_path: Path) -> None:
    """It may be anything, and rotate what it holds: the others ask for its tokens."""
    asked = 0

    async def fetch() -> Token:
        nonlocal asked
        asked += 1
        return Token("letmein", 3600)

    async with ScriptedRelay(users={"ann": "letmein"}) as relay:
        there = replace(Relay.from_url(f"smtp://ann@{url(relay)[7:]}", token=fetch), cleartext_login=True)
        result = await make(tmp_path, people(20), relay=there, sessions=4).run(processes=2)
    assert result.counts["accepted"] == 20
    assert 1 <= asked <= 2


async def test_a_relay_that_refuses_everyone_halts_the_run(tmp_path: Path) -> None:
    """The circuit breaker sees the outcomes of all processes."""
    async with ScriptedRelay({Stage.MAIL: "550 5.7.1 not you"}) as relay:
        campaign = make(tmp_path, people(300), relay=url(relay))
        with pytest.raises(CampaignHalted):
            await campaign.run(processes=2)
    assert (await campaign.counts())["pending"] > 0

"""The failures of one message: which are tried again at once, wait for the relay, are the row's, or end the run."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.running.row_sender import MAX_TRIES, ReconnectPolicy
from asyncsmtp.bulk.running.runner import Run
from asyncsmtp.client.session.pending_message import BeforeEnd
from asyncsmtp.errors import (
    AuthenticationRefused,
    CampaignHalted,
    CertificateRefused,
    ConnectFailed,
    ConnectionLost,
    DeliveryInDoubt,
    ExtensionNotSupported,
    InsecureConnection,
    InvalidArgument,
    MessageError,
    PoolTimeout,
    Refused,
    RemoteProtocolError,
    ReplyTimeout,
    ServerNotAuthenticated,
    SMTPError,
    StartTlsInjection,
    UnexpectedReply,
)
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.commands import Command, Verb
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.replies import Reply
from tests.bulk.ledger.ledgers import states
from tests.bulk.running.test_runner import Plain, campaign
from tests.bulk.running.test_storms import YES
from tests.bulk.test_suppression import NAMES, listed, opened

EHLO = Command(Verb.EHLO, b"client.example")


def refused(code: int, kind: type[Refused] = Refused) -> Refused:
    return kind(EHLO, Reply(code, (b"no",)))


class Failing:
    """A pool that accepts one message and then raises `error`."""

    def __init__(self, error: SMTPError) -> None:
        self.error = error
        self.calls = 0

    async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
        self.calls += 1
        assert before_end is not None
        await before_end()
        if self.calls > 1:
            raise self.error
        return Delivery(message.envelope, YES, (YES,), (YES,), host="relay.example")


async def outcome_of(folder: Path, error: SMTPError) -> tuple[int, int, RowState, bool]:
    """Return tries of the second row, waits for the relay, the row's state, and whether the run raised the error."""
    pool, waits = Failing(error), 0

    async def sleep(seconds: float, event: asyncio.Event) -> None:
        nonlocal waits
        waits += 1

    raised = False
    async with campaign(folder, 2) as ledger:
        run = Run(Plain(), ledger, pool, concurrency=1, reconnect=ReconnectPolicy([1.0, 1.0], sleep=sleep))
        try:
            await run.run()
        except SMTPError as ended:
            raised = ended is error
        found = Counter((await states(ledger)).values())
    (state,) = (found - Counter([RowState.ACCEPTED])) or (RowState.ACCEPTED,)
    return pool.calls - 1, waits, state, raised


@pytest.mark.parametrize(
    "error",
    [ConnectionLost("gone"), ReplyTimeout(EHLO, 1.0), RemoteProtocolError("what?"), UnexpectedReply("250 to nothing")],
    ids=lambda error: type(error).__name__,
)
async def test_a_session_that_breaks_is_tried_again_and_then_deferred(tmp_path: Path, error: SMTPError) -> None:
    """Before the point of no return nothing was delivered; the mark does not say otherwise."""
    assert error.retryable
    assert await outcome_of(tmp_path, error) == (MAX_TRIES, 0, RowState.DEFERRED, False)


@pytest.mark.parametrize("error", [ConnectionLost("hung up"), ReplyTimeout(EHLO, 1.0), RemoteProtocolError("what?")])
@pytest.mark.parametrize("has_worked", [True, False])
async def test_a_relay_that_breaks_every_connection_ends_the_run_with_the_reason(
    tmp_path: Path, error: SMTPError, has_worked: bool
) -> None:
    """FT-18: two messages are deferred, since it might be them; then the relay is waited for, if it ever worked."""
    pool, waits, said = Failing(error), list[float](), list[str]()
    pool.calls = 0 if has_worked else 1

    async def sleep(seconds: float, event: asyncio.Event) -> None:
        waits.append(seconds)

    async with campaign(tmp_path, 50) as ledger:
        policy = ReconnectPolicy([1.0, 2.0], sleep=sleep, warn=said.append)
        with pytest.raises(CampaignHalted, match=f"messages lost their connection before .*: {error}") as caught:
            await Run(Plain(), ledger, pool, concurrency=1, reconnect=policy).run()
        found = Counter((await states(ledger)).values())
    assert caught.value.__cause__ is error
    assert (found[RowState.DEFERRED], found[RowState.PENDING]) == ((3, 46) if has_worked else (2, 48))
    assert waits == ([1.0, 2.0] if has_worked else [])
    assert [str(error) in sentence for sentence in said] == [True] * len(waits)


async def test_some_messages_that_break_their_connection_do_not_end_the_run(tmp_path: Path) -> None:
    """FT-18: with others accepted in between, the fault is theirs."""

    class Picky(Failing):
        async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
            self.calls += 1
            if int(str(message.envelope.forward_paths[0]).partition("@")[0].removeprefix("reader")) % 2:
                raise self.error
            assert before_end is not None
            await before_end()
            return Delivery(message.envelope, YES, (YES,), (YES,), host="relay.example")

    async with campaign(tmp_path, 40) as ledger:
        await Run(Plain(), ledger, Picky(ConnectionLost("hung up")), concurrency=1).run()
        found = Counter((await states(ledger)).values())
    assert found == {RowState.ACCEPTED: 20, RowState.DEFERRED: 20}


@pytest.mark.parametrize(
    "error", [ConnectFailed("nothing answers"), refused(421), refused(454)], ids=["unreachable", "421", "454"]
)
async def test_a_relay_that_is_unreachable_is_waited_for(tmp_path: Path, error: SMTPError) -> None:
    """The run ends when the delays are used up; the row stays pending."""
    assert error.retryable
    assert await outcome_of(tmp_path, error) == (3, 2, RowState.PENDING, True)


@pytest.mark.parametrize(
    "error",
    [
        CertificateRefused("another certificate", "ab" * 32),
        StartTlsInjection("bytes in clear"),
        refused(550),
        refused(454, AuthenticationRefused),
        refused(235, ServerNotAuthenticated),
        ExtensionNotSupported("STARTTLS", "the policy needs it"),
        InsecureConnection("in clear"),
        InvalidArgument("a control character"),
        PoolTimeout(1.0),
    ],
    ids=lambda error: f"{type(error).__name__}-{getattr(getattr(error, 'reply', None), 'code', '')}",
)
async def test_what_waiting_does_not_help_ends_the_run(tmp_path: Path, error: SMTPError) -> None:
    assert not error.retryable
    assert await outcome_of(tmp_path, error) == (1, 0, RowState.PENDING, True)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (MessageError("too long"), RowState.REJECTED),
        (ExtensionNotSupported("SMTPUTF8", "the address needs it"), RowState.REJECTED),
        (DeliveryInDoubt(Envelope.of("a@example.org", ["b@example.org"])), RowState.IN_DOUBT),
    ],
    ids=["message", "extension", "doubt"],
)
async def test_what_is_about_one_message_is_its_outcome(tmp_path: Path, error: SMTPError, state: RowState) -> None:
    """A message in doubt is never sent again."""
    assert not error.retryable
    assert await outcome_of(tmp_path, error) == (1, 0, state, False)


async def test_who_is_listed_while_the_relay_is_waited_for_gets_nothing(tmp_path: Path) -> None:
    path = listed(tmp_path / "no.txt", "somebody@example.com")
    accepted: list[str] = []
    calls = 0

    class Away:
        """A pool that cannot connect for the second message."""

        async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise ConnectFailed("nothing answers")
            assert before_end is not None
            await before_end()
            accepted.append(str(message.envelope.forward_paths[0]))
            return Delivery(message.envelope, YES, (YES,), (YES,), host="relay.example")

    async def sleep(seconds: float, event: asyncio.Event) -> None:
        listed(path, "somebody@example.com", NAMES[1])

    async with await opened(tmp_path, path) as ledger:
        await Run(Plain(), ledger, Away(), concurrency=1, reconnect=ReconnectPolicy([1.0], sleep=sleep)).run()
        assert (await states(ledger))[2] is RowState.SUPPRESSED
    assert len(accepted) == len(NAMES) - 1

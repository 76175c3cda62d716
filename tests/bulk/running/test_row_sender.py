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

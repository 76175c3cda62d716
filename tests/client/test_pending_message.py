"""A pending message: the meaning of the replies, or of their absence."""

from __future__ import annotations

import asyncio

import pytest

from asyncsmtp.client.session.pending_message import PendingMessage
from asyncsmtp.errors import ConnectionLost, DeliveryInDoubt
from asyncsmtp.protocol.commands import RSET, Command
from asyncsmtp.protocol.replies import Reply
from asyncsmtp.protocol.transaction import Transaction
from tests.client.support import message

pytestmark = pytest.mark.usefixtures("nothing_leaks")


def pending(*paths: str) -> tuple[PendingMessage, tuple[Command, ...]]:
    """Return a message whose whole envelope is written, and its commands."""
    made = message(to=paths or None)
    taken = PendingMessage(Transaction(made.envelope), made.content, None, asyncio.get_running_loop())
    return taken, taken.transaction.commands_to_send()


@pytest.mark.parametrize("reply", [Reply(550), Reply(451), Reply(354)])
async def test_a_refused_rset_is_known(reply: Reply) -> None:
    """FT-12: the session ends then; the wrong class of a positive reply is the protocol's to see."""
    taken, _ = pending()
    taken.transaction.receive_reply(RSET, reply)
    assert taken.transaction.reset_reply == reply
    assert taken.transaction.is_begun is reply.positive


async def test_a_refused_mail_decides_all_without_further_replies() -> None:
    """W-56."""
    taken, said = pending("a@example.net", "b@example.net")
    assert not taken.conclude()
    taken.transaction.receive_reply(said[0], Reply(550, (b"no",)))
    assert taken.conclude()
    assert {reply.code for reply in taken.transaction.build_delivery().replies} == {550}


async def test_only_the_refusal_of_every_recipient_decides() -> None:
    taken, said = pending("a@example.net", "b@example.net")
    taken.transaction.receive_reply(said[0], Reply(250))
    taken.transaction.receive_reply(said[1], Reply(550, (b"first",)))
    assert not taken.conclude()
    taken.transaction.receive_reply(said[2], Reply(450, (b"second",)))
    assert taken.conclude()
    assert [reply.code for reply in taken.transaction.build_delivery().replies] == [550, 450]


async def test_one_accepted_recipient_leaves_it_open() -> None:
    taken, said = pending("a@example.net", "b@example.net")
    for command, reply in zip(said, (Reply(250), Reply(550), Reply(250)), strict=False):
        taken.transaction.receive_reply(command, reply)
    assert not taken.conclude()


async def test_doubt_keeps_its_cause() -> None:
    taken, _ = pending()
    lost = ConnectionLost("the relay hung up: try again")
    taken.mark_in_doubt(lost)
    with pytest.raises(DeliveryInDoubt, match="the relay hung up after the content was sent to to1") as caught:
        await taken.result
    assert caught.value.__cause__ is lost


async def test_the_first_result_stands() -> None:
    taken, _ = pending()
    taken.fail(ConnectionLost("first"))
    taken.fail(ConnectionLost("second"))
    with pytest.raises(ConnectionLost, match="first"):
        await taken.result


async def test_a_sender_that_leaves_cancels_the_before_end_that_it_began() -> None:
    taken, _ = pending()
    mark = asyncio.ensure_future(asyncio.sleep(10))
    taken.marking = mark  # type: ignore[assignment]
    taken.collect()
    with pytest.raises(asyncio.CancelledError):
        await mark
    assert taken.collected

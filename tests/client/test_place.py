"""A place in the line: what the replies, or their absence, mean for one message."""

from __future__ import annotations

import asyncio

import pytest

from asyncsmtp.client.session.place import Place
from asyncsmtp.errors import ConnectionLost, DeliveryInDoubt, UnexpectedReply
from asyncsmtp.protocol.commands import RSET, Command
from asyncsmtp.protocol.replies import Reply
from asyncsmtp.protocol.transaction import Transaction
from tests.client.support import message

pytestmark = pytest.mark.usefixtures("nothing_leaks")


def place(*paths: str) -> tuple[Place, tuple[Command, ...]]:
    """A place whose whole envelope is said, and what was said."""
    made = message(to=paths or None)
    taken = Place(Transaction(made.envelope), made.content, None, asyncio.get_running_loop())
    return taken, taken.transaction.commands_to_send()


@pytest.mark.parametrize("reply", [Reply(550), Reply(451), Reply(354)])
async def test_a_refused_rset_is_the_reply_to_something_else(reply: Reply) -> None:
    """RFC 5321 §4.1.1.5: RSET is answered with 250; another code shows that the replies are shifted."""
    taken, _ = place()
    if reply.positive:
        taken.transaction.receive_reply(RSET, reply)  # the wrong class of a positive reply is the protocol's to see
    else:
        with pytest.raises(UnexpectedReply, match="RSET"):
            taken.transaction.receive_reply(RSET, reply)


async def test_a_refused_mail_decides_all_without_further_replies() -> None:
    """W-56."""
    taken, said = place("a@example.net", "b@example.net")
    assert not taken.conclude()
    taken.transaction.receive_reply(said[0], Reply(550, (b"no",)))
    assert taken.conclude()
    assert {reply.code for reply in taken.transaction.build_delivery().replies} == {550}


async def test_only_the_refusal_of_every_recipient_decides() -> None:
    taken, said = place("a@example.net", "b@example.net")
    taken.transaction.receive_reply(said[0], Reply(250))
    taken.transaction.receive_reply(said[1], Reply(550, (b"first",)))
    assert not taken.conclude()
    taken.transaction.receive_reply(said[2], Reply(450, (b"second",)))
    assert taken.conclude()
    assert [reply.code for reply in taken.transaction.build_delivery().replies] == [550, 450]


async def test_one_accepted_recipient_leaves_it_open() -> None:
    taken, said = place("a@example.net", "b@example.net")
    for command, reply in zip(said, (Reply(250), Reply(550), Reply(250)), strict=False):
        taken.transaction.receive_reply(command, reply)
    assert not taken.conclude()


async def test_doubt_keeps_its_cause() -> None:
    taken, _ = place()
    lost = ConnectionLost("the relay hung up: try again")
    taken.doubt(lost)
    with pytest.raises(DeliveryInDoubt, match="the relay hung up after the content was sent to to1") as caught:
        await taken.booked
    assert caught.value.__cause__ is lost


async def test_the_first_result_stands() -> None:
    taken, _ = place()
    taken.fail(ConnectionLost("first"))
    taken.fail(ConnectionLost("second"))
    with pytest.raises(ConnectionLost, match="first"):
        await taken.booked


async def test_who_leaves_cancels_the_mark_it_began() -> None:
    taken, _ = place()
    mark = asyncio.ensure_future(asyncio.sleep(10))
    taken.mark = mark  # type: ignore[assignment]
    taken.leave()
    with pytest.raises(asyncio.CancelledError):
        await mark
    assert taken.collected

"""A message for more recipients than a relay takes at once (RFC 9422): several transactions, one result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator

from asyncsmtp.client.session.deadline import Mark, counts_again
from asyncsmtp.client.session.place import BeforeEnd
from asyncsmtp.errors import DeliveryInDoubt
from asyncsmtp.protocol.content import AnyContent
from asyncsmtp.protocol.delivery import Delivery, Outcome
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.extensions import Limits
from asyncsmtp.protocol.replies import Reply

__all__ = ["in_parts", "transactions"]

Transacts = Callable[[Envelope, AnyContent, BeforeEnd | None], Coroutine[None, None, Delivery]]


def transactions(envelope: Envelope, limits: Limits | None) -> int:
    """How many a message takes: one, unless the relay takes fewer recipients at once and they may go in parts."""
    if limits is None or limits.rcpt_max is None or envelope.all_or_nothing:
        return 1
    return -(-len(envelope.forward_paths) // limits.rcpt_max)


async def in_parts(
    envelope: Envelope, content: AnyContent, before_end: BeforeEnd | None, limits: Limits, transact: Transacts
) -> Delivery:
    """Send to as many recipients at a time as the relay takes; `before_end` is called once, for the first part.

    Once a part was sent no failure may hide what became of it: recipients whose part could not be sent any more are
    deferred, with the reason. They have nothing.

    Raises:
        What `transact` raises for the first part. DeliveryInDoubt: also for a later one; its envelope is that part's,
        and its `delivery` has what became of the others. Likewise where it is cancelled when others have the message.
    """
    most = limits.rcpt_max or len(envelope.forward_paths)
    done: list[Delivery] = []
    why = ""
    for begin in range(0, len(envelope.forward_paths), most):
        part = envelope.subset(range(begin, min(begin + most, len(envelope.forward_paths))))
        if done and content.is_consumed:
            why = "the content was a stream, which cannot be read again"
            break
        try:
            done.append(await transact(part, content, _mark(before_end, first=not done)))
        except DeliveryInDoubt as doubt:
            if done:
                doubt.delivery = _joined(envelope, done, "the part before it, or this one, is in doubt")
            raise
        except Exception as error:
            if not done:
                raise
            why = str(error)
            break
        except asyncio.CancelledError as cancelled:
            if isinstance(before_end, Mark) and before_end.over and done:
                why = "its time was over"
                break
            if not any(Outcome.ACCEPTED in delivery.outcomes for delivery in done):
                raise
            given_up = DeliveryInDoubt(part, "the sender gave up waiting")
            given_up.delivery = _joined(envelope, done, "the sender gave up waiting")
            raise given_up from cancelled
    return _joined(envelope, done, why)


def _mark(before_end: BeforeEnd | None, *, first: bool) -> BeforeEnd | None:
    """What a part awaits before its end: the sender's mark is asked for once, a limit of his holds for each."""
    if first:
        return before_end
    counts_again(before_end)
    return before_end.passed if isinstance(before_end, Mark) else None


def _joined(envelope: Envelope, done: list[Delivery], why: str) -> Delivery:
    """One delivery of several, in their order; who is in none of them is deferred, for this reason."""
    first = next((delivery for delivery in done if delivery.mail.positive), done[0])
    if not first.mail.positive:  # of every part: no recipient was named
        return Delivery(envelope, first.mail, (), (), False, first.host, first.tls)
    fates = [fate for delivery in done for fate in _fates(delivery)]
    later = Reply(450, (f"not sent: {why}".encode(),))  # what no relay said
    fates += [(later, None)] * (len(envelope.forward_paths) - len(fates))
    content_replies = tuple(final for _, final in fates if final is not None)
    sent = any(delivery.content_sent for delivery in done)
    return Delivery(
        envelope, first.mail, tuple(reply for reply, _ in fates), content_replies, sent, first.host, first.tls
    )


def _fates(delivery: Delivery) -> Iterator[tuple[Reply, Reply | None]]:
    """For each recipient the reply to its RCPT, or what stood for it, and the reply to its content if it came to it."""
    if not delivery.mail.positive:
        yield from [(delivery.mail, None)] * len(delivery.envelope.forward_paths)
        return
    for reply, decisive in zip(delivery.recipients, delivery.replies, strict=True):
        yield reply, decisive if reply.positive else None

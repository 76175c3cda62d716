"""A message for more recipients than a relay takes at once (RFC 9422): several transactions, one result."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator

from asyncsmtp.client.session.place import BeforeEnd
from asyncsmtp.errors import ConnectionLost, DeliveryInDoubt, ReplyTimeout
from asyncsmtp.protocol.content import AnyContent
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.extensions import Limits
from asyncsmtp.protocol.replies import Reply

__all__ = ["in_parts", "is_too_long"]

Transacts = Callable[[Envelope, AnyContent, BeforeEnd | None], Coroutine[None, None, Delivery]]

LATER = Reply(450, (b"the connection was lost before this recipient was named",))  # what no relay said


def is_too_long(envelope: Envelope, limits: Limits) -> bool:
    """Whether the relay takes fewer recipients at once, and they need not all be in one transaction."""
    return limits.rcpt_max is not None and len(envelope.forward_paths) > limits.rcpt_max and not envelope.all_or_nothing


async def in_parts(
    envelope: Envelope, content: AnyContent, before_end: BeforeEnd | None, limits: Limits, transact: Transacts
) -> Delivery:
    """Send to as many recipients at a time as the relay takes; `before_end` is called once, for the first part.

    Recipients whose part could not be said any more after another's was are deferred: they have nothing.

    Raises:
        What `transact` raises for the first part. DeliveryInDoubt: also for a later one; its envelope is that part's,
        and its `delivery` has what became of the others.
    """
    most = limits.rcpt_max or len(envelope.forward_paths)
    done: list[Delivery] = []
    for begin in range(0, len(envelope.forward_paths), most):
        part = envelope.part(range(begin, min(begin + most, len(envelope.forward_paths))))
        if done and content.spent:
            break  # a stream that has run dry
        try:
            done.append(await transact(part, content, None if done else before_end))
        except (ConnectionLost, ReplyTimeout):
            if not done:
                raise
            break
        except DeliveryInDoubt as doubt:
            if done:
                doubt.delivery = _joined(envelope, done)
            raise
    return _joined(envelope, done)


def _joined(envelope: Envelope, done: list[Delivery]) -> Delivery:
    """One delivery of several, in their order; who is in none of them is deferred."""
    first = next((delivery for delivery in done if delivery.mail.positive), done[0])
    if not first.mail.positive:  # of every part: no recipient was named
        return Delivery(envelope, first.mail, (), (), False, first.host, first.tls)
    fates = [fate for delivery in done for fate in _fates(delivery)]
    fates += [(LATER, None)] * (len(envelope.forward_paths) - len(fates))
    finals = tuple(final for _, final in fates if final is not None)
    sent = any(delivery.content_sent for delivery in done)
    return Delivery(envelope, first.mail, tuple(reply for reply, _ in fates), finals, sent, first.host, first.tls)


def _fates(delivery: Delivery) -> Iterator[tuple[Reply, Reply | None]]:
    """For each recipient the reply to its RCPT, or what stood for it, and the reply to its content if it came to it."""
    if not delivery.mail.positive:
        yield from [(delivery.mail, None)] * len(delivery.envelope.forward_paths)
        return
    for reply, decisive in zip(delivery.recipients, delivery.replies(), strict=True):
        yield reply, decisive if reply.positive else None

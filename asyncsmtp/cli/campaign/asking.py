"""The sender of a campaign, for the DNS rules of `mail.checks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncsmtp.client.config.proxy import host_and_port, split_url

if TYPE_CHECKING:
    from asyncsmtp.cli.campaign.settings import Settings
    from asyncsmtp.mail.checks.dns_rules import SenderDomain
    from asyncsmtp.mail.message import Message

__all__ = ["sender_of"]


def sender_of(settings: Settings, sample: Message) -> SenderDomain:
    """Who sends a campaign, by its settings and one of its messages."""
    from asyncsmtp.mail.checks.dns_rules import SenderDomain
    from asyncsmtp.mail.checks.parsed_message import parse_message

    seen = parse_message(sample)
    urls = [url for url in (settings.relay, *(share.url for share in settings.shares)) if url is not None]
    places = [place for url in urls for place in split_url(url).netloc.rpartition("@")[2].split(",") if place]
    keys = [signature.load() for signature in settings.signatures]
    return SenderDomain(
        author=seen.author,
        reverse=seen.reverse or seen.author,
        keys=[(key.name, key.record) for key in keys],
        relays=[host_and_port(place)[0] for place in places],
    )

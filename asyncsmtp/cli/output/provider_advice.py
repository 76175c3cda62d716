"""Explanations of refusals that a mail provider is known for, for errors, summaries and `status`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from os import environ
from shlex import quote
from typing import TYPE_CHECKING

from asyncsmtp.errors import AuthenticationRefused, CampaignHalted, ConfigError, InvalidArgument, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncsmtp.bulk.rate_limit.rate import Rate
    from asyncsmtp.bulk.setup.config_types import RelayConfig
    from asyncsmtp.cli.command_line import CommandLine
    from asyncsmtp.client.config.provider_presets import Provider

__all__ = ["ProviderAdvice", "describe_quota", "explain_error", "explain_reason", "explain_reply"]


@dataclass(frozen=True, slots=True)
class ProviderAdvice:
    """The meaning of a provider's refusal, the time until which it refuses at most, and the advice."""

    meaning: str
    advice: str

    def __str__(self) -> str:
        return f"{self.meaning}: {self.advice}"


def explain_reply(
    reply: str, host: str = "", provider: str | None = None, at: datetime | None = None
) -> ProviderAdvice | None:
    """Explain a reply, given as code and text; None if it is nothing that the provider is known for.

    Args:
        host: the relay that refused. If it is a known provider's, that is the one; otherwise `provider` is.
        provider: the one that was named; None, or a domain: none.
        at: when it refused; None for now.
    """
    from asyncsmtp.client.config.provider_presets import find_provider, find_provider_by_host  # late: it takes a while

    found = find_provider_by_host(host)
    if found is None and provider is not None:
        with suppress(InvalidArgument):
            found = find_provider(provider)
    return None if found is None else _explain(found, reply, at)


def _explain(provider: Provider, reply: str, at: datetime | None) -> ProviderAdvice | None:
    refusal = provider.find_refusal(reply)
    if refusal is None:
        return None
    meaning = refusal.meaning
    if refusal.lifted_after is not None:
        until = (at or datetime.now(UTC)) + timedelta(seconds=refusal.lifted_after)
        meaning += f"; it accepts again by {until.astimezone():%Y-%m-%d %H:%M}"
    return ProviderAdvice(f"{provider.title}: {meaning}", refusal.advice)


def explain_reason(reason: str, provider: str | None = None, at: datetime | None = None) -> ProviderAdvice | None:
    """Explain a reason as `format_reason` makes it: code, text, and the relay in parentheses."""
    _, _, host = reason.rpartition(" (")
    return explain_reply(reason, host.removesuffix(")"), provider, at)


def describe_quota(provider: str | None, rates: Sequence[Rate], recipients: int) -> str | None:
    """Return what a provider accepts in a day and how to stay below it, if so many recipients are more than that.

    None too where it is not known, or where the campaign has rates: whoever set them knows the account.
    """
    if provider is None or rates:
        return None
    from asyncsmtp.bulk.rate_limit.rate import Rate
    from asyncsmtp.client.config.provider_presets import find_provider

    with suppress(InvalidArgument):
        found = find_provider(provider)
        quotas = [each.count for each in Rate.parse_all(found.rate) if each.seconds >= 3600] if found.rate else []
        if quotas and recipients > min(quotas):
            advice = f"add --rate {quote(found.rate)}, and --wait to send the rest on the following days"
            return f"{found.title} accepts {found.limits}: {advice}"
    return None


def explain_error(error: BaseException, line: CommandLine | None) -> ProviderAdvice | None:
    """Explain a refusal that ended a command; the provider is the one that the command line or the campaign names."""
    if isinstance(error, CampaignHalted):
        replies, host = [error.reply], error.host
    elif isinstance(error, Refused):
        replies, host = [str(error.reply)], ""
    else:
        return None
    if isinstance(error, AuthenticationRefused) and error.reply.code == 235:
        return None  # the server did not prove itself; the provider has refused nothing
    relays = [*_find_relays(line)] if line is not None else []
    named = [(host, relays[0][1] if len(relays) == 1 else None), *relays]
    found = (explain_reply(reply, each, provider) for reply in replies for each, provider in named)
    return next((each for each in found if each is not None), None)


def _find_relays(line: CommandLine) -> Iterator[tuple[str, str | None]]:
    """Yield the hosts of the relays that a command uses, each with its provider if that is named; "" for no host."""
    from asyncsmtp.bulk.setup.config import read_campaign_file  # late: only an error needs it

    file: Mapping[str, object] = {}
    if line.campaign is not None:
        with suppress(ConfigError):
            file = read_campaign_file(line.campaign)
    provider, url = (
        line.find_value(f"--{option}") or environ.get(f"ASYNCSMTP_{option.upper()}") or file.get(key)
        for option, key in (("provider", "relay.provider"), ("relay", "relay.url"))
    )
    further = file.get("relays")
    for where, name in [(url, provider), *((each.relay, each.provider) for each in _as_relays(further))]:
        known = name if isinstance(name, str) else None
        hosts = list(_hosts(where)) or ([""] if known else [])
        yield from ((host, known) for host in hosts)


def _as_relays(value: object) -> Sequence[RelayConfig]:
    return value if isinstance(value, tuple) else ()


def _hosts(url: object) -> Iterator[str]:
    from asyncsmtp.client.config.hostport import split_url

    if isinstance(url, str):
        with suppress(InvalidArgument):
            yield from split_url(url).netloc.rpartition("@")[2].split(",")

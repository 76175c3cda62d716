"""URL of the relay of a campaign or a command that names a provider: a preset, or a domain with SRV records.

RFC 6186; `_submissions` for TLS from the first byte: RFC 8314 §5.1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote, urlunsplit

from asyncsmtp.client.config.hostport import has_password, split_url
from asyncsmtp.client.config.provider_presets import find_preset, find_provider_by_host
from asyncsmtp.errors import ConfigError, RecipientError
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.setup.config_types import RelayConfig
    from asyncsmtp.client.config.relay import Relay

__all__ = ["complete_relay", "complete_relay_url", "find_relay_url", "find_submission_url", "require_user"]

_SERVICES = (("_submissions._tcp", "smtps"), ("_submission._tcp", "smtp"))  # the first that a domain has is taken
UNRESOLVED = "srv://"  # a scheme of our own, before the domain has been looked up
_USER_ADVICE = "give the user name: --user NAME, or user in [relay]"


def complete_relay_url(url: str | None, provider: str | None, user: str | None, sender: str | None) -> str:
    """Return the URL of a relay; `url` goes before the provider for host and port, and `user` before the URL's.

    Without a user the provider's is taken, or the address of the sender where that is the user name. A domain that was
    not looked up has a URL that is no relay's.

    Args:
        sender: the From, an address with a name or without.
    """
    preset = find_preset(provider)
    if url is None:
        url = preset.relay_url("") if preset else f"{UNRESOLVED}{provider}"
    if has_password(url):
        return url  # refused with advice where the relay is made
    parts = split_url(url)
    named, _, hosts = parts.netloc.rpartition("@")
    if user is not None:
        named = quote(user, safe="")
    elif not named and preset is not None and preset.username:
        named = quote(preset.username, safe="")
    elif not named and provider is not None and sender is not None and (preset is None or preset.is_address):
        named = quote(_find_address(sender), safe="")
    return urlunsplit(parts._replace(netloc=f"{named}@{hosts}" if named else hosts))


def complete_relay(relay: RelayConfig, sender: str) -> RelayConfig:
    """Return a relay of a campaign with the URL that its provider and its user make."""
    if not isinstance(relay.relay, str) or (relay.provider is None and relay.user is None):
        return relay
    return replace(relay, relay=complete_relay_url(relay.relay or None, relay.provider, relay.user, sender))


async def find_relay_url(relay: str | Relay | None, provider: str | None, name_server: str | None) -> str | None:
    """Return the URL of a provider that is a domain; None if there is nothing to look up.

    Raises:
        As `find_submission_url`.
    """
    if relay or provider is None or find_preset(provider) is not None:
        return None
    return await find_submission_url(provider, name_server)


def _find_address(sender: str) -> str:
    from asyncsmtp.mail.address import Address  # late: few campaigns name a provider

    try:
        return str(Address.parse(sender).mailbox)
    except RecipientError:  # a sender that is wrong is reported where messages are made
        return ""


def require_user(url: str, provider: str | None) -> None:
    """Raise ConfigError if a provider's relay has no user: none of them accepts mail without a login."""
    if provider is None or has_password(url) or split_url(url).netloc.rpartition("@")[0]:
        return
    preset = find_preset(provider)
    about = f"{preset.title} needs a login: {preset.login}" if preset else f"{provider} needs a login"
    raise ConfigError(about, _USER_ADVICE)


async def find_submission_url(domain: str, name_server: str | None = None) -> str:
    """Look up the submission server of a domain; return its URL, without a user.

    A server of another domain is taken only if it is a known provider's: an answer of DNS can be forged, and its
    certificate would be valid for the name in the answer (RFC 6186 §6).

    Raises:
        ConfigError: there is none, or it is of another domain. MissingDependency: dnspython is not installed.
    """
    from asyncsmtp.bulk.rate_limit.dns_resolver import DnsResolver  # an extra
    from asyncsmtp.mail.address import organizational_domain
    from asyncsmtp.mail.checks.dns_rules import DnsQueryFailed

    resolver = DnsResolver(name_server, purpose="a provider by its domain")
    for service, scheme in _SERVICES:
        try:
            answer = await resolver.resolve(f"{service}.{domain}", "SRV")
        except DnsQueryFailed as error:
            raise ConfigError(
                f"DNS does not say which server sends for {safe_text(domain, 80)}: {safe_text(str(error), 120)}",
                "give the server: --relay smtp://host:587, or url in [relay]",
            ) from error
        records = sorted(_parse_srv(text) for text in answer or ())
        if not records or not records[0][3]:  # none, or "." for a service that is not there
            continue
        _, _, port, host = records[0]
        same = organizational_domain(host) == organizational_domain(domain.lower())
        if not same and find_provider_by_host(host) is None:
            shown = safe_text(f"{scheme}://{host}:{port}", 120)
            raise ConfigError(
                f"DNS names {safe_text(host, 80)} for {safe_text(domain, 80)}, a server of another domain, and DNS can "
                "be forged",
                f"if it is the right one, give it: --relay {shown}",
            )
        return f"{scheme}://{host}:{port}"
    raise ConfigError(
        f"“{safe_text(domain, 80)}” is not a known provider, and has no SRV record for submission (RFC 6186)",
        "give its server: --relay smtp://host:587, or url in [relay]",
    )


def _parse_srv(record: str) -> tuple[int, int, int, str]:
    """Return priority, weight (negative: the heaviest sorts first), port and host of an SRV record."""
    priority, weight, port, host = record.split()
    return int(priority), -int(weight), int(port), host.rstrip(".").lower()

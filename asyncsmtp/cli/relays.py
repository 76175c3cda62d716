"""From a URL and the options beside it to a relay, its password found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.cli.secrets import passphrase, password, proxy_password

if TYPE_CHECKING:
    from asyncsmtp.client.config.login_config import ClientCertificate
    from asyncsmtp.client.config.proxy import Proxy
    from asyncsmtp.client.config.relay import Relay

__all__ = ["relay_of"]


def relay_of(
    url: str,
    *,
    ca_file: Path | None = None,
    dialogue: str | None = None,
    password_command: str | None = None,
    source_address: str | None = None,
    proxy: str | None = None,
    pins: Sequence[str] = (),
    client_cert: Path | None = None,
    client_key: Path | None = None,
    watched: bool = False,
) -> Relay:
    """Make a relay; ask for its password when the URL names a user. What stands beside the URL goes before it.

    Args:
        watched: someone waits at a terminal, so what is slow before the content is sent fails sooner.
    Raises:
        Failed: there is a password in the URL (it is not repeated), or none to be found; a file is missing.
        InvalidArgument: the URL is no relay's, or the proxy's is none.
    """
    from asyncsmtp.client.config.login_config import ClientCertificate
    from asyncsmtp.client.config.proxy import Proxy, has_password, host_and_port, split_url
    from asyncsmtp.client.config.relay import Dialogue, Relay, Timeouts

    if has_password(url) or (proxy is not None and has_password(proxy)):
        raise Failed(
            "there is a password in the relay's URL, or its proxy's, where others can read it: change it",
            "leave it out of the URL; set ASYNCSMTP_PASSWORD (ASYNCSMTP_PROXY_PASSWORD), or use --password-command",
        )
    if ca_file is not None and not ca_file.is_file():
        raise Failed(f"there is no CA file {ca_file}", "correct --ca-file, or ca_file in [relay]")
    if client_key is not None and client_cert is None:
        raise Failed("there is a client key and no client certificate", "add client_cert to [relay]")
    if "SSLKEYLOGFILE" in os.environ:  # the standard library honours it: whoever has that file can read the session
        console.say("warning: SSLKEYLOGFILE is set, so the keys of this session are written to a file")
    parts = split_url(url)
    user, _, hosts = parts.netloc.rpartition("@")
    host = host_and_port(hosts.partition(",")[0])[0] if hosts else ""
    found = password(unquote(user), host, password_command) if user else None
    relay = Relay.from_url(url, password=found)
    certificate = ClientCertificate(client_cert, client_key) if client_cert else relay.client_certificate
    return replace(
        relay,
        ca_file=ca_file or relay.ca_file,
        dialogue=Dialogue(dialogue) if dialogue else relay.dialogue,
        timeouts=Timeouts.interactive() if watched else relay.timeouts,
        source_address=source_address or relay.source_address,
        pins=tuple(pins) or relay.pins,
        client_certificate=_unlocked(certificate) if certificate else None,
        proxy=_known_to(Proxy.from_url(proxy) if proxy else relay.proxy),
    )


def _unlocked(certificate: ClientCertificate) -> ClientCertificate:
    """With the passphrase of its key."""
    for file in (certificate.file, certificate.key):
        if file is not None and not file.is_file():
            raise Failed(
                f"there is no client certificate {file}", "correct client_cert and client_key, in [relay] or in the URL"
            )
    return replace(certificate, passphrase=passphrase(certificate.key or certificate.file))


def _known_to(proxy: Proxy | None) -> Proxy | None:
    """With the password of its user."""
    if proxy is None or not proxy.username:
        return proxy
    return proxy.with_password(proxy_password(proxy.username, proxy.host))

"""`asyncsmtp check`: a relay step by step, or a campaign's whole pre-flight. Sends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asyncsmtp.cli.options import campaign_argument, option, relay_options, verbose_option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.exits import Exit
from asyncsmtp.cli.output.failures import Failed
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.client.config.relay import Relay
    from asyncsmtp.client.events.trace import Trace
    from asyncsmtp.client.session.session import Session
    from asyncsmtp.protocol.envelope import Mailbox

__all__ = ["command"]

PHASES = ("ehlo", "tls", "login", "mail", "rcpt")

_EPILOG = """\b
Examples:
  asyncsmtp check --relay smtp://127.0.0.1:2525?security=none
  asyncsmtp check demo/campaign.toml
"""


@click.command("check", epilog=_EPILOG)
@campaign_argument()
@relay_options
@option("--quit-after", type=click.Choice(PHASES), default="login", show_default=True, help="How far to go.")
@option("--from", "from_", metavar="ADDRESS", help="For --quit-after mail and rcpt.")
@option("--to", metavar="ADDRESS", help="For --quit-after rcpt: whether the relay would take it.")
@option("--dns", is_flag=True, help="Ask what is published of the sender: SPF, DKIM, DMARC, MX, PTR.")
@option("--name-server", metavar="ADDRESS", help="Ask this one: 192.0.2.1:53.")
@option("--json", "as_json", is_flag=True, help="What a provider would object to, as NDJSON.")
@verbose_option
def command(
    campaign: Path | None,
    relay: str | None,
    ca_file: Path | None,
    password_command: str | None,
    dialogue: str | None,
    quit_after: str,
    from_: str | None,
    to: str | None,
    dns: bool,
    name_server: str | None,
    as_json: bool,
    verbose: bool,
) -> Exit:
    """Look at a relay or a campaign; send nothing.

    With --relay: connect, TLS, what the relay offers, login. With a campaign:
    every row of the recipients and every template, and what a provider would
    object to in the first message, and with --dns in what is published of the
    sender; then the exit code is 1.
    """
    if campaign is None and relay is None:
        raise Failed(
            "there is nothing to check: neither a relay nor a campaign was given",
            "asyncsmtp check --relay smtp://user@host:587, or: asyncsmtp check demo/campaign.toml",
        )
    if relay is not None:
        from asyncsmtp.cli.relays import relay_of

        where = relay_of(relay, ca_file=ca_file, dialogue=dialogue, password_command=password_command, watched=True)
        asyncio.run(_look(where, quit_after, *_paths(quit_after, from_, to), verbose=verbose))
    if campaign is not None:
        from asyncsmtp.cli.campaign.preflighting import check_campaign

        return asyncio.run(
            check_campaign(campaign, as_json=as_json, dns=dns or name_server is not None, name_server=name_server)
        )
    return Exit.ACCEPTED


def _paths(quit_after: str, from_: str | None, to: str | None) -> tuple[Mailbox | None, Mailbox | None]:
    """The two addresses, as far as the phase needs them."""
    from asyncsmtp.protocol.envelope import Mailbox

    if quit_after == "rcpt" and to is None:
        raise Failed("--quit-after rcpt asks about an address, and none was given", "add --to bob@example.org")
    return Mailbox.parse(from_) if from_ else None, Mailbox.parse(to) if to else None


async def _look(relay: Relay, quit_after: str, from_: Mailbox | None, to: Mailbox | None, *, verbose: bool) -> None:
    """Open a session as far as `quit_after`, and tell what was seen."""
    from asyncsmtp.cli.output.transcript import Transcript
    from asyncsmtp.client.session.session import Session
    from asyncsmtp.protocol.opening_handshake import Security

    trace: Trace | None = Transcript(console.out) if verbose else None
    if quit_after == "ehlo" and relay.security is not Security.IMPLICIT_TLS:
        relay = replace(relay, security=Security.PLAINTEXT, pins=())
    if quit_after in ("ehlo", "tls"):
        relay = replace(relay, login=None)
    if verbose:
        console.out(f"=== trying {relay}")
    async with Session(relay, trace=trace) as session:
        facts = list(_facts(session))
        if quit_after in ("mail", "rcpt"):
            facts += await _probe(session, from_, to if quit_after == "rcpt" else None)
    for name, fact in facts:
        console.out(f"{name:<10} {safe_text(fact)}")


def _facts(session: Session) -> Iterator[tuple[str, str]]:
    yield "relay", str(session.relay)
    yield "greeting", str(session.greeting)
    yield "TLS", _tls(session)
    if session.tls_info is not None:
        yield "pin", session.tls_info.fingerprint
    words = (" ".join((keyword, *parameters)) for keyword, parameters in session.extensions.items())
    yield "offers", ", ".join(words) or "nothing"
    login = session.relay.login
    if login is not None:
        yield "login", f"accepted, as {login.username or login.authzid or 'whom the certificate names'}"


def _tls(session: Session) -> str:
    facts = session.tls_info
    if facts is None or session.tls is None:
        return "none: everything can be read on the way"
    certificate: dict[str, Any] = session.tls.getpeercert() or {}  # empty where nobody verified it
    if not certificate:
        return f"{facts.version} · {facts.cipher} · certificate {'pinned' if facts.verified else 'not verified'}"
    names = ", ".join(name for _, name in certificate.get("subjectAltName", ()))
    issuer = ", ".join(value for part in certificate.get("issuer", ()) for _, value in part)
    about = f"certificate of {names}, by {issuer}, until {certificate.get('notAfter')}"
    return f"{facts.version} · {facts.cipher} · {about}"


async def _probe(session: Session, from_: Mailbox | None, to: Mailbox | None) -> list[tuple[str, str]]:
    """Ask with MAIL, and RCPT, what the relay would do; RSET takes it back before QUIT."""
    from asyncsmtp.errors import Refused
    from asyncsmtp.protocol.commands import RSET, mail, rcpt

    commands = [mail(from_)] if to is None else [mail(from_), rcpt(to)]
    said = []
    for command in commands:
        reply = await session.ask(command)
        if not reply.positive:
            raise Refused(command, reply)
        said.append((command.verb.value.lower(), str(reply)))
    await session.ask(RSET)
    return said

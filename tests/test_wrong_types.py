"""A value of a wrong type is a TypeError at the call, which names the parameter: not an AttributeError in a task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

import pytest

from asyncsmtp import Pool, RecipientFile, Relay, Retry, Session, Template, Timeouts, build, send
from asyncsmtp.bulk.ledger.postgres.store import PostgresLedger
from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.bulk.rate_limit.rate_policy import RatePolicy
from asyncsmtp.bulk.rate_limit.shared_store import SharedRateStore
from asyncsmtp.bulk.running.runner import Run
from asyncsmtp.bulk.running.webhook import Webhook, open_webhook
from asyncsmtp.bulk.suppression import SuppressionList
from asyncsmtp.client.config.login_config import ClientCertificate, Login, Token
from asyncsmtp.client.config.relay import Proxy
from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.mail.signing.dkim import DkimKey, Signer
from asyncsmtp.protocol.auth.credentials import Secret

Call = Callable[[Any], object]
PEOPLE = ["a@x.example"]


def template(**given: Any) -> Template:
    return Template(**{"from_": "a@x.example", "subject": "x", "text": "x"} | given)


def message(**given: Any) -> object:
    return build(**{"from_": "a@x.example", "to": "b@x.example", "text": "x"} | given)


def run(**given: Any) -> Run:
    return Run(object(), object(), object(), **given)  # type: ignore[arg-type]


def closed(kind: Any, **given: Any) -> Awaitable[object]:
    arguments = {"name": "news", "from_domain": "x.example"} | given
    place = arguments.pop("path", "x") if kind is SqliteLedger else arguments.pop("url", "postgresql://x")
    return kind.open(place, **arguments)  # type: ignore[no-any-return]


CALLS: dict[str, list[Call]] = {
    "path": [
        lambda wrong: RecipientFile(wrong),
        lambda wrong: SuppressionList(wrong),
        lambda wrong: SharedRateStore(wrong, "x", []),
        lambda wrong: closed(SqliteLedger, path=wrong),
        lambda wrong: SqliteLedger.read(wrong),
        lambda wrong: Attachment.from_path(wrong),
        lambda wrong: DkimKey.from_file("x.example", "s1", wrong),
    ],
    "url": [
        lambda wrong: closed(PostgresLedger, url=wrong),
        lambda wrong: open_webhook(wrong).__aenter__(),
        lambda wrong: Relay.from_url(wrong),
        lambda wrong: Proxy.from_url(wrong),
    ],
    "name": [
        lambda wrong: closed(SqliteLedger, name=wrong),
        lambda wrong: closed(PostgresLedger, name=wrong),
        lambda wrong: Attachment(wrong, b"x"),
        lambda wrong: Relay.for_provider(wrong, "a@x.example", password="x"),
        lambda wrong: Relay("x", name=wrong),
    ],
    "from_domain": [
        lambda wrong: closed(SqliteLedger, from_domain=wrong),
        lambda wrong: closed(PostgresLedger, from_domain=wrong),
    ],
    "fingerprint": [
        lambda wrong: closed(SqliteLedger, fingerprint=wrong),
        lambda wrong: closed(PostgresLedger, fingerprint=wrong),
    ],
    "rates": [lambda wrong: RatePolicy([wrong])],
    "text": [lambda wrong: Rate.parse(wrong), lambda wrong: Rate.parse_all(wrong), lambda wrong: template(text=wrong)],
    "secret": [lambda wrong: Webhook(object(), wrong), lambda wrong: Token(wrong, 1.0)],  # type: ignore[arg-type]
    "concurrency": [lambda wrong: run(concurrency=wrong)],
    "sessions": [lambda wrong: run(sessions=wrong), lambda wrong: Pool("smtp://x", sessions=wrong)],
    "limit": [lambda wrong: run(limit=wrong)],
    "email": [lambda wrong: RecipientFile("x", email=wrong)],
    "delimiter": [lambda wrong: RecipientFile("x", delimiter=wrong)],
    "encoding": [lambda wrong: RecipientFile("x", encoding=wrong)],
    "skip_lines": [lambda wrong: RecipientFile("x", skip_lines=wrong)],
    "domain": [lambda wrong: DkimKey.from_pem(wrong, "s1", b"x")],
    "selector": [lambda wrong: DkimKey.from_pem("x.example", wrong, b"x")],
    "keys": [lambda wrong: Signer(wrong)],
    "subject": [lambda wrong: message(subject=wrong), lambda wrong: template(subject=wrong)],
    "html": [lambda wrong: message(html=wrong), lambda wrong: template(html=wrong)],
    "message_id": [
        lambda wrong: message(message_id=wrong),
        lambda wrong: template().compile([]).compose("b@x.example", {}, message_id=wrong),
    ],
    "date": [
        lambda wrong: message(date=wrong),
        lambda wrong: template().compile([]).compose("b@x.example", {}, date=wrong),
    ],
    "headers": [lambda wrong: message(headers=wrong), lambda wrong: template(headers=wrong)],
    "inline": [
        lambda wrong: message(inline=wrong),
        lambda wrong: message(html="x", inline={"logo": wrong}),
        lambda wrong: template(inline={"logo": wrong}),
    ],
    "attachments": [lambda wrong: message(attachments=[wrong]), lambda wrong: template(attachments=[wrong])],
    "to": [lambda wrong: template().compile([]).compose(wrong, {})],
    "fields": [lambda wrong: template(text="{{ name }}").compile(["name"]).compose("b@x.example", wrong)],
    "columns": [lambda wrong: template().compile(wrong), lambda wrong: template().compile([wrong])],
    "aliases": [lambda wrong: template().compile([], aliases=wrong)],
    "signer": [lambda wrong: template().compile([], signer=wrong), lambda wrong: Session("smtp://x", signer=wrong)],
    "smime_signer": [lambda wrong: template().compile([], smime_signer=wrong)],
    "data": [lambda wrong: Attachment("x", wrong)],
    "type": [lambda wrong: Attachment("x", b"x", wrong)],
    "host": [lambda wrong: Relay(wrong)],
    "port": [lambda wrong: Relay("x", wrong)],
    "window": [lambda wrong: Relay("x", window=wrong)],
    "timeouts": [lambda wrong: Relay("x", timeouts=wrong)],
    "mail": [lambda wrong: Timeouts(mail=wrong)],
    "username": [lambda wrong: Login(wrong, "x"), lambda wrong: Relay.for_provider("gmail", wrong, password="x")],
    "file": [lambda wrong: ClientCertificate(wrong)],
    "key": [lambda wrong: ClientCertificate("x", wrong)],
    "expires_in": [lambda wrong: Token(Secret("x"), wrong)],
    "sock": [lambda wrong: Session("smtp://x", sock=wrong)],
    "retry": [
        lambda wrong: Pool("smtp://x", retry=wrong),
        lambda wrong: send(message(), relay="smtp://x", retry=wrong),  # type: ignore[arg-type]
    ],
    "messages": [lambda wrong: Pool("smtp://x", messages=wrong)],
    "wait": [lambda wrong: Pool("smtp://x", wait=wrong)],
    "delay": [lambda wrong: Retry(delay=wrong)],
    "max_delay": [lambda wrong: Retry(max_delay=wrong)],
    "give_up_after": [lambda wrong: Retry(give_up_after=wrong)],
    "attempts": [lambda wrong: Retry(attempts=wrong)],
    "jitter": [lambda wrong: Retry(jitter=wrong)],
}


CASES = [(name, number) for name, calls in CALLS.items() for number in range(len(calls))]


@pytest.mark.parametrize(("parameter", "number"), CASES)
async def test_the_parameter_is_named(parameter: str, number: int) -> None:
    async def call() -> None:
        found = CALLS[parameter][number](object())
        if isawaitable(found):
            await found

    with pytest.raises(TypeError, match=rf"^{parameter}\b.* must "):
        await call()

"""A flight recorder: for each row, mark durable, then the end of its content, then the reply, then the outcome.

Two witnesses write into one list as it happens: the ledger's thread tells the loop what is durable, and the relay what
it has received and said. They share the loop and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from asyncsmtp.bulk.ledger.transitions import Transition
from asyncsmtp.bulk.running.runner import Run
from asyncsmtp.client.config.relay import Dialogue
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.retry import Retry
from asyncsmtp.mail.list_unsubscribe import Unsubscribe
from asyncsmtp.mail.signing.dkim import DkimKey, Signer
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.testing import Rule, ScriptedRelay, Stage, StageContext
from tests.bulk.ledger.ledgers import readers
from tests.bulk.running.test_runner import Plain, campaign
from tests.client.support import relay_of

ROWS = 60
ROW = re.compile(rb"^Reader (\d+)", re.MULTILINE)


class Recorder:
    """What happened, in order: (row, event)."""

    def __init__(self) -> None:
        self.events: list[tuple[int, str]] = []

    def at_the_dot(self, context: StageContext) -> str | None:
        found = ROW.search(context.content)
        assert found is not None
        row = int(found[1])
        self.events.append((row, "end of content"))
        self.events.append((row, "reply"))
        return "451 4.3.0 later" if row % 7 == 0 else None

    def durable(self, changes: Sequence[Transition]) -> None:
        for change in changes:
            self.events.append((change.row, "mark" if change.settlement is None else "settle"))

    def of(self, row: int) -> list[str]:
        return [event for number, event in self.events if number == row]


@pytest.mark.parametrize("dialogue", Dialogue)
async def test_each_row_is_marked_before_its_content_ends_and_settled_after_its_reply(
    tmp_path: Path, dialogue: Dialogue
) -> None:
    """BL-03: in each dialogue, over several sessions; an event that is missing, or in another place, is a duplicate."""
    recorder = Recorder()
    script: Mapping[Stage, Rule] = {Stage.END_OF_DATA: recorder.at_the_dot, Stage.BDAT: recorder.at_the_dot}
    async with ScriptedRelay(script) as server, campaign(tmp_path, ROWS) as ledger:
        written = ledger._queue.on_durable
        ledger._queue.on_durable = lambda changes: (recorder.durable(changes), written(changes))[1]
        async with Pool(relay_of(server, dialogue=dialogue), sessions=3) as pool:
            await Run(Plain(), ledger, pool, concurrency=20, retry=Retry(delay=0)).run()
    for row in range(1, ROWS + 1):
        assert recorder.of(row) == ["mark", "end of content", "reply", "settle"], row


async def test_a_message_has_the_same_octets_at_every_attempt(tmp_path: Path) -> None:
    """BL-23: over two runs, signed, with an attachment's boundary, a token and a Message-ID: a receiver can tell."""
    key = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    template = Template(
        from_="News <news@example.org>",
        subject="For {{ name }}",
        text="Reader {{ name }}: {{ unsubscribe_url }}\n",
        html="<p>{{ name }}</p>",
        unsubscribe=Unsubscribe("https://example.org/{{ token }}", b"0123456789abcdef"),
    )
    heard: dict[str, list[bytes]] = {}

    def later(context: StageContext) -> str:
        found = re.search(rb"^To: (.*)\r$", context.content, re.MULTILINE)
        assert found is not None
        heard.setdefault(found[1].decode(), []).append(context.content)
        return "451 4.3.0 later"

    for _ in range(3):
        async with (
            ScriptedRelay({Stage.END_OF_DATA: later}) as server,
            await SqliteLedger.open(tmp_path / "news.ledger", name="news", from_domain="example.org") as ledger,
            Pool(relay_of(server)) as pool,
        ):
            if not ledger.loaded:
                await ledger.load(readers(5))
            signer = Signer(DkimKey.from_pem("example.org", "s1", key))
            composer = template.compile(("email", "name"), signer=signer)
            await Run(composer, ledger, pool, retry=Retry(delay=0)).run()
    assert len(heard) == 5
    for attempts in heard.values():
        assert len(attempts) == 3
        assert len(set(attempts)) == 1
    assert len({attempts[0] for attempts in heard.values()}) == 5

"""A relay that echoes the password or the token, at every stage: it is written down nowhere."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import asyncsmtp
from asyncsmtp import Campaign, Login, Pool, Relay
from asyncsmtp.bulk.running import webhook as hooks
from asyncsmtp.client.config.relay import Dialogue
from asyncsmtp.errors import SMTPError
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import DEFAULT_REPLY, Action, Fin, Hang, Rst, Rule, ScriptedRelay, Stage, StageContext
from tests.bulk.running.test_webhook import server
from tests.client.support import QUICK, Trail, everything_of, message

USER = "ann@example.org"
CANARY = "hunter2/canary+0123456789-zyxwvu"  # as a password and as a token
PLAIN = b64encode(f"\0{USER}\0{CANARY}".encode()).decode()
XOAUTH2 = b64encode(f"user={USER}\1auth=Bearer {CANARY}\1\1".encode()).decode()
STATUS = b64encode(json.dumps({"status": CANARY}).encode()).decode()
FORMS = (
    CANARY,
    CANARY[8:24],
    b64encode(CANARY.encode()).decode()[:40],
    PLAIN,
    PLAIN.rstrip("=")[-24:],
    XOAUTH2,
    CANARY.encode().hex(),
)
SAID = f"you said {CANARY} or {PLAIN} or {XOAUTH2}"
FOLDED = [CANARY[:7], CANARY[7:19], CANARY[19:], PLAIN[:10], PLAIN[10:30], PLAIN[30:], CANARY.encode().hex()]


def lines(code: int, *, end: str = "\r\n") -> bytes:
    """One reply in many lines, which has each form cut in pieces, with and without an enhanced code."""
    status = f"{code // 100}.7.0 " if code // 100 != 3 else ""
    text = [f"{status}{piece}" for piece in FOLDED] + FOLDED
    return "".join(f"{code}-{line}\r\n" for line in text).encode() + f"{code} {status}{CANARY}{end}".encode()


def reply(code: int) -> str:
    return f"{code} {SAID}"


@dataclass(frozen=True)
class Echo:
    """A relay by its script, and how to log in to it."""

    script: Mapping[Stage, Rule]
    token: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)


def each(stage: Stage, *codes: int) -> dict[str, Echo]:
    """Replies of these codes at one stage, in one line and folded."""
    one = {f"{stage} {code}": Echo({stage: reply(code)}) for code in codes}
    return one | {f"{stage} {code} folded": Echo({stage: lines(code)}) for code in codes}


def broken(stage: Stage) -> dict[str, Echo]:
    """What is no reply: garbage, one without a line end, half a line and silence, a reply too many."""
    actions: dict[str, Action] = {
        "garbage": f"{SAID}\r\n".encode(),
        "a code of 999": f"999 {SAID}\r\n".encode(),
        "another code": f"250-{CANARY[:9]}\r\n550 {CANARY[9:]}\r\n".encode(),
        "bare LF": f"250 {SAID}\n".encode(),
        "cut off": (f"250 {SAID}"[:-30].encode(), Fin()),
        "421 cut off": (f"421 {SAID}".encode(), Fin()),
        "half and silence": (f"250-{SAID}\r\n250 {CANARY}".encode(), Hang()),
        "half and reset": (f"250 {SAID}".encode(), Rst()),
        "surplus": (DEFAULT_REPLY, f"250 {SAID}\r\n".encode()),
        "surplus half": (DEFAULT_REPLY, f"250 {SAID}".encode()),
        "surplus 421": (DEFAULT_REPLY, f"421 {SAID}\r\n".encode()),
    }
    return {f"{stage} {name}": Echo({stage: action}) for name, action in actions.items()}


def later(context: StageContext) -> Action | None:
    """The greeting of a later connection: a relay knows there what it was sent on the first."""
    return reply(220) if context.connection > 1 else None


def refuses_later(context: StageContext) -> Action | None:
    return (reply(554), Fin()) if context.connection > 1 else None


STREAMED = {"dialogue": Dialogue.STREAMED}
LOCKSTEP = {"dialogue": Dialogue.LOCKSTEP}
HANGS_UP = {2: Fin()}
PATHS: dict[str, Echo] = {
    **each(Stage.GREETING, 220, 421, 554),
    "a later greeting": Echo({Stage.GREETING: later, Stage.MAIL: HANGS_UP}),
    "a later greeting refuses": Echo({Stage.GREETING: refuses_later, Stage.MAIL: HANGS_UP}),
    **broken(Stage.GREETING),
    **each(Stage.EHLO, 421, 550),
    "EHLO keywords": Echo({Stage.EHLO: (f"250-relay {SAID}\r\n250-{CANARY}\r\n250 AUTH PLAIN {CANARY}")}),
    **broken(Stage.EHLO),
    **each(Stage.AUTH, 235, 334, 421, 454, 500, 535),
    **broken(Stage.AUTH),
    "AUTH 535 of a token": Echo({Stage.AUTH: reply(535)}, token=True),
    "AUTH 334 of a token": Echo({Stage.AUTH: f"334 {XOAUTH2}", Stage.RESPONSE: lines(535)}, token=True),
    "AUTH 334 with a status": Echo({Stage.AUTH: f"334 {STATUS}", Stage.RESPONSE: reply(535)}, token=True),
    "AUTH 334 of LOGIN": Echo({Stage.AUTH: f"334 {CANARY}", Stage.RESPONSE: reply(535)}),
    "AUTH silence": Echo({Stage.AUTH: Hang()}),
    **each(Stage.MAIL, 250, 421, 451, 550),
    "MAIL 550 to a token": Echo({Stage.MAIL: reply(550)}, token=True),
    **broken(Stage.MAIL),
    **each(Stage.RCPT, 250, 421, 452, 550),
    "RCPT 550 to a token": Echo({Stage.RCPT: lines(550)}, token=True),
    **broken(Stage.RCPT),
    **each(Stage.DATA, 354, 250, 451, 554),
    **broken(Stage.DATA),
    **each(Stage.END_OF_DATA, 250, 354, 421, 452, 554),
    "the end of data 250 to a token": Echo({Stage.END_OF_DATA: reply(250)}, token=True),
    **broken(Stage.END_OF_DATA),
    "an early refusal": Echo({Stage.DATA: (DEFAULT_REPLY, f"552 {SAID}\r\n".encode())}),
    "an early acceptance": Echo({Stage.DATA: (DEFAULT_REPLY, f"250 {SAID}\r\n".encode())}),
    "BDAT 250": Echo({Stage.BDAT: reply(250)}, settings=STREAMED),
    "BDAT 452": Echo({Stage.BDAT: lines(452)}, settings=STREAMED),
    "BDAT surplus": Echo({Stage.BDAT: (DEFAULT_REPLY, f"250 {SAID}\r\n".encode())}, settings=STREAMED),
    "RSET 250": Echo({Stage.RSET: reply(250), Stage.RCPT: "550 5.1.1 no"}, settings=LOCKSTEP),
    "RSET 503": Echo({Stage.RSET: lines(503), Stage.RCPT: "550 5.1.1 no"}),
    "RSET 250 of a stream": Echo({Stage.RSET: reply(250)}, settings=STREAMED),
    "RSET garbage": Echo({Stage.RSET: SAID.encode() + b"\r\n", Stage.RCPT: "550 5.1.1 no"}),
    **each(Stage.QUIT, 221, 250, 500),
}


def test_there_are_forty_paths_and_more() -> None:
    """FT-52, issue 13: each stage from the greeting to QUIT, in each way that it can go wrong."""
    assert len(PATHS) >= 40
    named = {name.split(" ")[0] for name in PATHS}
    stages = (Stage.GREETING, Stage.EHLO, Stage.AUTH, Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.END_OF_DATA, Stage.QUIT)
    assert {str(stage).split(" ")[0] for stage in stages} | {"BDAT", "RSET"} <= named


@asynccontextmanager
async def relay_for(path: Echo) -> AsyncIterator[Relay]:
    """The relay of a path, and the settings to use it."""
    mechanisms = ["XOAUTH2"] if path.token else ["PLAIN", "LOGIN"]
    async with ScriptedRelay(path.script, users={USER: CANARY}, mechanisms=mechanisms) as served:
        login = Login(USER, token=CANARY) if path.token else Login(USER, CANARY)
        yield Relay(
            served.host,
            served.port,
            Security.PLAINTEXT,
            login=login,
            cleartext_login=True,
            timeouts=QUICK,
            **path.settings,  # type: ignore[arg-type]
        )


async def send_by_pool(path: Echo) -> list[str]:
    """Send three messages; return all that the library shows of it."""
    shown: list[str] = []
    trail, events = Trail(), list[asyncsmtp.Event]()
    async with relay_for(path) as relay:
        pool = Pool(relay, sessions=2, trace=trail, on_event=events.append)
        async with pool:
            results = await asyncio.gather(*(pool.send(message(n)) for n in range(3)), return_exceptions=True)
            shown.append(repr(pool))
    for result in results:
        assert isinstance(result, asyncsmtp.Delivery | SMTPError)
        shown.append(everything_of(result) if isinstance(result, SMTPError) else f"{result!r} {list(result)} {result}")
    for event in events:
        shown.append(repr(event))
        error = getattr(event, "error", None)
        shown.append(everything_of(error) if error is not None else "")
    return [*shown, *trail.lines, repr(relay)]


async def send_by_campaign(path: Echo, folder: Path) -> list[str]:
    """Run a campaign of three rows; return its ledger, results and what its webhook was posted."""
    shown: list[str] = []
    async with relay_for(path) as relay, server(200) as posted:
        (folder / "campaign.toml").write_text(CAMPAIGN.format(url=posted.url), encoding="utf-8")
        campaign = Campaign.from_file(folder / "campaign.toml", relay=relay)
        try:
            result = await campaign.run()
            shown += [repr(result), str(result)]
        except SMTPError as error:
            shown.append(everything_of(error))
        shown += [f"{entry} {entry!r}" async for entry in campaign.results()]
        shown += [body.decode() for _, body in posted.requests]
    return shown + read_ledger(folder / "news.ledger")


def read_ledger(ledger: Path) -> list[str]:
    """Return all that its files hold, and its rows."""
    shown = [file.read_bytes().decode("latin-1") for file in ledger.parent.glob("*.ledger*")]
    database = sqlite3.connect(ledger)
    shown += list(database.iterdump())
    database.close()
    return shown


CAMPAIGN = """\
[campaign]
name = "news"
from = "Example News <news@example.org>"
subject = "News"
text = "message.txt"
recipients = "people.csv"
webhook = "{url}"
"""


@pytest.mark.parametrize("name", PATHS)
async def test_a_secret_that_a_relay_echoes_is_nowhere(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FT-52: not in the ledger, results, log, events, trace, webhook, nor in exceptions with all that they hold."""
    caplog.set_level(logging.DEBUG, logger="asyncsmtp")
    monkeypatch.setattr(hooks, "BATCH_DELAY", 0.01)
    (tmp_path / "message.txt").write_text("Hello\n", encoding="utf-8")
    (tmp_path / "people.csv").write_text(
        "email\nbob@example.org\ncid@example.org\ndora@example.org\n", encoding="utf-8"
    )
    async with asyncio.timeout(30):
        shown = await send_by_pool(PATHS[name])
        shown += await send_by_campaign(PATHS[name], tmp_path)
    shown += [caplog.text, *(f"{record.getMessage()} {record.args!r}" for record in caplog.records)]
    assert len("".join(shown)) > 1000
    found = [(form, text[max(0, text.find(form) - 100) :][:300]) for form in FORMS for text in shown if form in text]
    assert found == []

"""From a spreadsheet and a mailbox to 800 messages that were accepted, as somebody types it at a terminal."""

from __future__ import annotations

import csv
import io
import json
import re
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from openpyxl import Workbook

from asyncsmtp.bulk.setup.config import load_config
from asyncsmtp.testing import ScriptedRelay, Stage
from tests.cli.serving import serving
from tests.cli.terminal import converse

pytestmark = pytest.mark.timeout(600)  # interpreters are started, one for each command

ADDRESS, PASSWORD = "verein.beispiel@gmail.com", "abcd efgh ijkl mnop"
COLUMNS = ("Mitgliedsnr.", "Vorname", "Nachname", "E-Mail", "Ort", "Beitrag")
FIRST = ("Jörg", "Zoë", "Anna", "Günther", "Käthe", "Paul", "Björn", "Süleyman")
LAST = ("Müller", "Weiß", "Grün", "Österreicher", "Huber", "Jäger", "Maier")
NO_KEYRING = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
MESSAGE = """\
<p>Liebe/r {{ Vorname }} {{ Nachname }},</p>
<p>die Versammlung ist in {{ Ort }}. Der Beitrag beträgt {{ Beitrag }} €.</p>
"""


def members(number: int) -> list[tuple[str, ...]]:
    return [
        (f"M{row:04}", FIRST[row % len(FIRST)], LAST[row % len(LAST)], f"m{row}@example.org", "Köln", "48,50")
        for row in range(1, number + 1)
    ]


def save_workbook(path: Path, rows: list[tuple[str, ...]]) -> None:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for row in (COLUMNS, *rows):
        sheet.append(row)
    book.save(path)


def save_csv(path: Path, rows: list[tuple[str, ...]]) -> None:
    """As a German Excel saves “CSV (Trennzeichen-getrennt)”."""
    text = io.StringIO()
    csv.writer(text, delimiter=";", lineterminator="\r\n").writerows((COLUMNS, *rows))
    path.write_bytes(text.getvalue().encode("cp1252"))


@pytest.fixture
def gmail(server_tls: ssl.SSLContext) -> Iterator[ScriptedRelay]:
    """A server that demands STARTTLS and a login, and answers as Gmail does."""
    relay = ScriptedRelay(
        {Stage.GREETING: "220 smtp.gmail.com ESMTP a640c23a62f3a-b9 - gsmtp"},
        name="smtp.gmail.com",
        offers=("8BITMIME", "ENHANCEDSTATUSCODES", "PIPELINING", "CHUNKING", "SMTPUTF8"),
        mechanisms=("LOGIN", "PLAIN", "XOAUTH2"),
        tls=server_tls,
        users={ADDRESS: PASSWORD},
        auth_needs_tls=True,
        needs_auth=True,
        needs_tls=True,
        max_size=35_882_577,
        on_accept=lambda message: "OK  1764363600 a640c23a62f3a-b9 - gsmtp",
    )
    with serving(relay) as it:
        yield it


@pytest.fixture
def home(ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a message and the certificate of the authority; no password is anywhere."""
    monkeypatch.delenv("ASYNCSMTP_PASSWORD", raising=False)
    folder = tmp_path / "Verein Beispiel"
    folder.mkdir()
    (folder / "einladung.html").write_text(MESSAGE, "utf-8")
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return folder


INIT = [
    ("example.org>:", f"Verein Beispiel <{ADDRESS}>\n"),
    ("(Enter: gmail):", "\n"),
    ("Subject:", "Einladung für {{ Vorname }}\n"),
    ("Message, a file", "einladung.html\n"),
]


@pytest.mark.parametrize(("name", "save"), [("mitglieder.xlsx", save_workbook), ("mitglieder.csv", save_csv)])
@pytest.mark.slow
def test_800_members_in_four_commands(home: Path, gmail: ScriptedRelay, name: str, save: object) -> None:
    """After `pip install`: make a campaign, try the login, rehearse, send; no editor, and each with its questions."""
    assert callable(save)
    save(home / name, members(800))
    relay = {"ASYNCSMTP_RELAY": f"smtp://127.0.0.1:{gmail.port}"}  # in the place of smtp.gmail.com
    variables = {"ASYNCSMTP_CA_FILE": str(home.parent / "ca.pem"), **NO_KEYRING}
    password = (f"Password of {ADDRESS}", f"{PASSWORD}\n")
    encoding = [("(Enter: cp1252)", "\n")] if name.endswith(".csv") else []  # three cells are shown as it reads them
    commands = [
        (["init"], [(f"Enter: {name}", "\n"), *encoding, *INIT, ("Try the login now?", "\n")], {}),
        (["check", "campaign.toml", "--quit-after", "login"], [password], relay),
        (["bulk", "campaign.toml", "--sandbox"], [], {}),
        (["bulk", "campaign.toml"], [password, ("[y/N]", "y\n")], relay),
    ]
    assert len(commands) <= 5
    printed = []
    for words, answers, more in commands:
        code, text = converse(home, words, answers, {**variables, **more})
        assert code == 0, text
        assert PASSWORD not in text
        printed.append(text)
    made = printed[0]
    assert [line.split(":")[0] for line in made.splitlines() if line.startswith("  next")] == ["  next"] * 3
    assert "500 messages a day" in made
    assert "login      accepted" in printed[1]
    assert load_config(home / "campaign.toml").encoding == (None if name.endswith("xlsx") else "cp1252")
    check_received(gmail, 800)


def check_received(relay: ScriptedRelay, number: int) -> None:
    """Each member once, over TLS and after a login, by name and with every letter."""
    rows = {row[3]: row for row in members(number)}
    assert len(relay.received) == number
    assert {path for message in relay.received for path in message.forward_paths} == set(rows)
    assert all(each.accepted and each.user == ADDRESS for each in relay.auth_attempts)
    for message in relay.received:
        _, first, last, *_ = rows[message.forward_paths[0]]
        assert message.email["Subject"] == f"Einladung für {first}"
        html = message.email.get_body(("html",))
        assert html is not None
        assert f"Liebe/r {first} {last}," in html.get_content()
        assert "Köln. Der Beitrag beträgt 48,50 €" in html.get_content()


KEYRING = """\
import json, pathlib
FILE = pathlib.Path(__file__).with_name("entries.json")
def read(): return json.loads(FILE.read_text()) if FILE.exists() else {}
class Keyring: pass
def get_keyring(): return Keyring()
def get_password(service, user): return read().get(service + " " + user)
def set_password(service, user, text): FILE.write_text(json.dumps({**read(), service + " " + user: text}))
"""


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.slow
def test_the_keyring_keeps_the_password(home: Path, gmail: ScriptedRelay, keeps: bool) -> None:
    """It is offered once, with what Google wants, and tried; after that nothing asks for it."""
    package = home.parent / "package"
    package.mkdir()
    (package / "keyring.py").write_text(KEYRING, "utf-8")
    save_workbook(home / "mitglieder.xlsx", members(30))
    variables = {"ASYNCSMTP_CA_FILE": str(home.parent / "ca.pem"), "PYTHONPATH": str(package)}
    password = (f"Password of {ADDRESS}", f"{PASSWORD}\n")
    answers = [*INIT[:1], *INIT[2:], (password[0], password[1] if keeps else "\n"), ("Try the login now?", "y\n")]
    words = ["init", "--recipients", "mitglieder.xlsx", "--provider", "gmail"]
    words += ["--relay", f"smtp://127.0.0.1:{gmail.port}"]
    code, made = converse(home, words, answers + ([] if keeps else [password]), variables)
    assert code == 0, made
    assert "https://myaccount.google.com/apppasswords" in made
    assert f"login      accepted, as {ADDRESS}" in made
    entries = package / "entries.json"
    assert (json.loads(entries.read_text()) if keeps else entries.exists()) == (
        {f"asyncsmtp:127.0.0.1 {ADDRESS}": PASSWORD} if keeps else False
    )
    asked = [("[y/N]", "y\n")] if keeps else [password, ("[y/N]", "y\n")]
    code, text = converse(home, ["bulk", "campaign.toml"], asked, variables)
    assert code == 0, text
    check_received(gmail, 30)


@pytest.mark.parametrize("what", ["password", "relay"])
def test_a_login_that_fails_leaves_the_campaign(home: Path, gmail: ScriptedRelay, what: str) -> None:
    """It is reported with what to do, and the next commands are printed all the same."""
    save_workbook(home / "mitglieder.xlsx", members(3))
    variables = {"ASYNCSMTP_CA_FILE": str(home.parent / "ca.pem"), **NO_KEYRING}
    port = gmail.port if what == "password" else 9
    words = ["init", "--recipients", "mitglieder.xlsx", "--provider", "gmail", "--relay", f"smtp://127.0.0.1:{port}"]
    answers = [*INIT[:1], *INIT[2:], ("Try the login now?", "y\n"), (f"Password of {ADDRESS}", "wrong words\n")]
    code, made = converse(home, words, answers, variables)
    assert code == 0, made
    assert ("make an app password" in made) == (what == "password")
    assert ("127.0.0.1:9" in made) == (what == "relay")
    assert len(re.findall("^  next: ", made, re.MULTILINE)) == 3
    assert load_config(home / "campaign.toml").provider == "gmail"

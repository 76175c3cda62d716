"""Everything that people get wrong: one clear sentence, what to do next, a documented code, nothing lost."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from asyncsmtp.testing import DEFAULT_REPLY, ScriptedRelay, Stage, Wait
from tests.cli.ended import Command, Ended
from tests.cli.serving import serving

CANARY = "hunter2-c4n4ry"


def bulk(command: Command, campaign: Path, *options: object) -> tuple[Ended, ScriptedRelay]:
    """Run the campaign against a relay that would take everything."""
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", campaign, "--relay", f"smtp://127.0.0.1:{relay.port}?security=none", "--yes", *options)
    return ended, relay


def people(campaign: Path, octets: bytes) -> None:
    (campaign.parent / "people.csv").write_bytes(octets)


def replaced(campaign: Path, old: str, new: str) -> None:
    text = campaign.read_text(encoding="utf-8")
    assert old in text
    campaign.write_text(text.replace(old, new), encoding="utf-8")


def nothing_was_sent(ended: Ended, relay: ScriptedRelay, code: int = 2) -> None:
    assert ended.code == code, ended.err
    assert relay.connections == 0
    assert "\n  next: " in ended.err


def test_a_wrong_column(command: Command, campaign: Path) -> None:
    """The column that was asked for, and those there are."""
    ended, relay = bulk(command, campaign, "--email-column", "E-Mail")
    nothing_was_sent(ended, relay)
    assert "E-Mail" in ended.sentence
    assert "email" in ended.sentence


def test_an_unknown_name_in_a_template(command: Command, campaign: Path) -> None:
    """File, line, and the nearest column; the mailing that says “Dear ,” never leaves."""
    (campaign.parent / "message.txt").write_text("Hello\n{{ nmae }}\n", encoding="utf-8")
    ended, relay = bulk(command, campaign)
    nothing_was_sent(ended, relay)
    assert "message.txt, line 2" in ended.sentence
    assert "did you mean “name”" in ended.sentence


def test_an_unknown_name_in_the_subject(command: Command, campaign: Path) -> None:
    """The subject is a template too."""
    replaced(campaign, "{{ name }}", "{{ nmae }}")
    ended, relay = bulk(command, campaign)
    nothing_was_sent(ended, relay)
    assert "Subject" in ended.sentence


def test_a_missing_image(command: Command, campaign: Path) -> None:
    """The key, the name and the path."""
    replaced(campaign, 'text = "message.txt"', 'html = "message.html"\ninline = { logo = "logo.png" }')
    (campaign.parent / "message.html").write_text('<img src="cid:logo">', encoding="utf-8")
    ended, relay = bulk(command, campaign)
    nothing_was_sent(ended, relay)
    assert "inline logo" in ended.sentence
    assert "logo.png" in ended.sentence


def test_an_image_that_is_shown_but_not_given(command: Command, campaign: Path) -> None:
    """A broken picture in everybody's mail."""
    replaced(campaign, 'text = "message.txt"', 'html = "message.html"')
    (campaign.parent / "message.html").write_text('\n<img src="cid:logo">', encoding="utf-8")
    ended, relay = bulk(command, campaign)
    nothing_was_sent(ended, relay)
    assert "message.html, line 2" in ended.sentence
    assert "logo" in ended.sentence


def test_a_missing_template(command: Command, campaign: Path) -> None:
    """The key and the path."""
    (campaign.parent / "message.txt").unlink()
    ended, relay = bulk(command, campaign)
    nothing_was_sent(ended, relay)
    assert "[campaign] text" in ended.sentence
    assert "message.txt: does not exist" in ended.sentence


def test_a_template_in_another_encoding(command: Command, campaign: Path) -> None:
    """The line, and what to save it as."""
    (campaign.parent / "message.txt").write_bytes(b"Hello\ncaf\xe9\n")
    ended, relay = bulk(command, campaign)
    nothing_was_sent(ended, relay)
    assert "message.txt, line 2: not UTF-8" in ended.sentence


def test_missing_recipients(command: Command, campaign: Path) -> None:
    """The path."""
    (campaign.parent / "people.csv").unlink()
    ended, relay = bulk(command, campaign)
    nothing_was_sent(ended, relay)
    assert "people.csv" in ended.sentence


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        ("email,name\nann@example.org,Çid\n".encode("utf-32"), ()),
        ("email,name\nann@example.org,Çid\n".encode(), ("--encoding", "utf-16")),
        (b"email,name\nann@example.org,\x81id\n", ("--encoding", "cp1252")),
        (b"email,name\nann@example.org,Cid\n", ("--encoding", "cp0")),
        (b"email,name\nann@example.org,Cid\n", ("--encoding", "zlib")),
    ],
)
def test_recipients_in_another_encoding(
    command: Command, campaign: Path, octets: bytes, words: tuple[str, ...]
) -> None:
    """A file that is not in the encoding that was named, or in none that a spreadsheet saves."""
    people(campaign, octets)
    ended, relay = bulk(command, campaign, *words)
    nothing_was_sent(ended, relay)
    assert "CSV UTF-8" in ended.err or "is not an encoding" in ended.err or "needs a line of column names" in ended.err


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        ("email,name\nann@example.org,Çid\n".encode("utf-16"), "read as utf-16 (detected; set it with --encoding)"),
        ("email;name\nann@example.org;Jörg\n".encode("cp1252"), "read as cp1252 (detected"),
    ],
)
def test_a_detected_encoding_is_reported(command: Command, campaign: Path, octets: bytes, said: str) -> None:
    """TF-09: what a spreadsheet saved without being told UTF-8 is read, and a person hears how."""
    people(campaign, octets)
    ended, relay = bulk(command, campaign)
    assert ended.code == 0, ended.err
    assert said in ended.err
    name = relay.received[0].email.get_content().removeprefix("Hello ").strip()
    assert name in ("Çid", "Jörg")


def test_rows_that_cannot_be_mailed_are_named_and_the_others_are(command: Command, campaign: Path) -> None:
    """Blank, with a line break, injected, twice: each with its row and line; none of it reaches the wire."""
    people(
        campaign,
        b"email,name\n"
        b"ann@example.org,Ann\n"
        b",Blank\n"
        b'"bob@example.org\r\nRCPT TO:<z@example.org>",Newline\n'
        b'cid@example.org,"Cid\r\nBcc: z@example.org"\n'
        b"ann@example.org,Twice\n",
    )
    ended, relay = bulk(command, campaign)
    assert ended.code == 1
    assert [message.forward_paths for message in relay.received] == [("ann@example.org",)]
    assert "row 2 (line 3): “email” is blank" in ended.err
    assert "row 3 (line 4)" in ended.err
    assert "row 4" in ended.err
    assert "row 5: names the mailbox of row 1 again" in ended.err
    assert not any("z@example.org" in line for line in relay.dialogue)
    states = [json.loads(line)["state"] for line in command("results", campaign, "--json").out.splitlines()]
    assert states == ["accepted", "rejected", "rejected", "rejected", "suppressed"]


def test_the_relay_is_down(command: Command, campaign: Path) -> None:
    """69, and the same command goes on when it is back."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        ended = command("bulk", campaign, "--relay", f"smtp://127.0.0.1:{port}?security=none", "--yes")
    assert ended.code == 69
    assert f"127.0.0.1:{port}" in ended.sentence
    assert "still to send: 3" in ended.err
    ended, relay = bulk(command, campaign)
    assert ended.code == 0
    assert len(relay.received) == 3


def test_an_unknown_host(command: Command, campaign: Path) -> None:
    """A name that nobody has (RFC 6761 §6.4)."""
    ended = command("bulk", campaign, "--relay", "smtp://relay.invalid:25?security=none", "--yes")
    assert ended.code == 69
    assert "relay.invalid" in ended.sentence


@pytest.mark.parametrize(("octets", "hint"), [("HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP"), ("SSH-2.0-x\r\n", "SSH")])
def test_a_wrong_port(command: Command, campaign: Path, octets: str, hint: str) -> None:
    """WI-15: which service answered instead."""
    with serving(ScriptedRelay({Stage.GREETING: octets.encode()})) as relay:
        ended = command("bulk", campaign, "--relay", f"smtp://127.0.0.1:{relay.port}?security=none", "--yes")
    assert ended.code == 69
    assert hint in ended.sentence
    assert "still to send: 3" in ended.err


def test_a_refused_login(
    command: Command, campaign: Path, ca: trustme.CA, server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AU-12: one attempt, rows untouched, 77. AU-08, AU-09: the password is nowhere, though the relay repeats it."""
    ca.cert_pem.write_to_path(str(campaign.parent / "ca.pem"))
    monkeypatch.setenv("ASYNCSMTP_PASSWORD", CANARY)
    script = {Stage.AUTH: f"535 5.7.8 no such password: {CANARY}"}
    with serving(ScriptedRelay(script, tls=server_tls, users={"ann": "other"})) as relay:
        url = f"smtp://ann@127.0.0.1:{relay.port}"
        ended = command("bulk", campaign, "--relay", url, "--ca-file", "ca.pem", "--yes", "-v")
    assert ended.code == 77
    assert "535 5.7.8" in ended.sentence
    assert len([line for line in relay.dialogue if line.startswith("C: AUTH")]) == 1
    assert "still to send: 3" in ended.err
    assert CANARY not in ended.out + ended.err
    for path in campaign.parent.iterdir():
        assert CANARY.encode() not in path.read_bytes()


def test_a_login_in_clear(command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AU-01: nothing of the password leaves; the relay's offer of AUTH changes nothing."""
    monkeypatch.setenv("ASYNCSMTP_PASSWORD", CANARY)
    with serving(ScriptedRelay(users={"ann": CANARY})) as relay:
        ended = command("bulk", campaign, "--relay", f"smtp://ann@127.0.0.1:{relay.port}?security=none", "--yes")
    assert ended.code == 77
    assert "clear" in ended.sentence
    assert relay.auth_attempts == []
    assert CANARY not in ended.out + ended.err


def test_a_full_disk(command: Command, campaign: Path) -> None:
    """BL-08: 74, and what to do; nothing is sent that could not be recorded. No tmpfs: a limit on file size."""
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "from asyncsmtp.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    with serving(ScriptedRelay()) as relay:
        words = ["bulk", str(campaign), "--relay", f"smtp://127.0.0.1:{relay.port}?security=none", "--yes"]
        ended = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=15)
    assert ended.returncode == 74, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "next: " in ended.stderr
    assert relay.received == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(command: Command, campaign: Path) -> None:
    """The ledger has no place; it is told before anything is sent."""
    campaign.parent.chmod(0o500)
    ended, relay = bulk(command, campaign)
    campaign.parent.chmod(0o700)
    nothing_was_sent(ended, relay, 74)


def test_a_campaign_that_changed_since_it_began(command: Command, campaign: Path) -> None:
    """TF-10: half of the people one letter, half another? The file that changed is named."""
    assert bulk(command, campaign, "--limit", 1)[0].code == 75
    (campaign.parent / "message.txt").write_text("Another letter, {{ name }}\n", encoding="utf-8")
    ended, relay = bulk(command, campaign)
    nothing_was_sent(ended, relay)
    assert "message.txt changed" in ended.sentence


def test_a_changed_subject_is_a_changed_campaign(command: Command, campaign: Path) -> None:
    """TF-10: the settings that a message shows count as well; how it is sent does not."""
    assert bulk(command, campaign, "--limit", 1, "--sessions", 1)[0].code == 75
    ended, relay = bulk(command, campaign, "--subject", "Other")
    nothing_was_sent(ended, relay)
    assert "subject changed" in ended.sentence
    assert bulk(command, campaign, "--sessions", 3)[0].code == 0


def test_the_ledger_of_another_campaign(command: Command, campaign: Path) -> None:
    """One ledger, one campaign."""
    assert bulk(command, campaign, "--limit", 1)[0].code == 75
    ended, relay = bulk(command, campaign, "--name", "other", "--ledger", "news.ledger")
    nothing_was_sent(ended, relay)
    assert "“news”" in ended.sentence


@pytest.mark.parametrize(
    ("statement", "about"),
    [
        ("PRAGMA user_version = 99", "made by a newer asyncsmtp (schema 99"),
        ("PRAGMA application_id = 7", "not a ledger of asyncsmtp"),
    ],
)
def test_a_newer_or_foreign_ledger(command: Command, campaign: Path, statement: str, about: str) -> None:
    """BL-13: 74, nothing sent, and the file is as it was: put back, it goes on."""
    assert bulk(command, campaign, "--limit", 1)[0].code == 75
    ledger = campaign.parent / "news.ledger"
    with closing(sqlite3.connect(ledger)) as database:
        key = statement.split()[1]
        [before] = database.execute(f"PRAGMA {key}").fetchone()
        database.execute(statement)
    ended, relay = bulk(command, campaign)
    nothing_was_sent(ended, relay, 74)
    assert about in ended.sentence
    assert "disk" not in ended.err
    with closing(sqlite3.connect(ledger)) as database:
        database.execute(f"PRAGMA {key} = {before}")
    ended, relay = bulk(command, campaign)
    assert ended.code == 0
    assert len(relay.received) == 2


def test_a_file_that_is_no_ledger(command: Command, campaign: Path) -> None:
    """BL-13: somebody's notes are not overwritten."""
    notes = campaign.parent / "news.ledger"
    notes.write_text("what I must not forget\n", encoding="utf-8")
    ended, relay = bulk(command, campaign)
    nothing_was_sent(ended, relay, 74)
    assert "it is not a ledger" in ended.sentence
    assert notes.read_text(encoding="utf-8") == "what I must not forget\n"


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--rate", "fast", "“fast” is not a valid rate: give one such as 30/s"),
        ("--rate", "30/s, 0/day", "sends nothing: give both above 0"),
        ("--window", "office hours", "is not a valid window: give one such as"),
        ("--window", "09:00-17:00 Mars/Base", "is not a time zone"),
        ("--start-at", "soon", "must be a time such as"),
        ("--spread-until", "2026-13-01", "must be a time such as"),
        ("--retry-delay", "often", "must be a span of time"),
        ("--retry-for", "", "must be a span of time"),
    ],
)
def test_when_and_how_fast_are_refused_with_what_they_look_like(
    command: Command, campaign: Path, option: str, value: str, expected: str
) -> None:
    """Who asks for 10 a minute must not get 3,000 a second."""
    ended, relay = bulk(command, campaign, option, value or " ")
    nothing_was_sent(ended, relay)
    assert option in ended.sentence
    assert expected in ended.sentence


def test_a_password_in_the_campaign_s_url(command: Command, campaign: Path) -> None:
    """AU-08, TF-15: refused, and not repeated."""
    with campaign.open("a", encoding="utf-8") as file:
        file.write(f'[relay]\nurl = "smtp://ann:{CANARY}@127.0.0.1:1"\n')
    ended = command("bulk", campaign, "--yes")
    assert ended.code == 2
    assert "password in the relay's URL" in ended.sentence
    assert CANARY not in ended.err


def test_no_relay_at_all(command: Command, campaign: Path) -> None:
    """What to add, and how to rehearse without one."""
    ended = command("bulk", campaign, "--yes")
    assert ended.code == 2
    assert "--relay" in ended.err
    assert "--sandbox" in ended.err


def test_without_arguments(command: Command) -> None:
    """Rule 1: what is missing, and the command that fixes it."""
    ended = command("bulk")
    assert ended.code == 2
    assert "asyncsmtp init demo" in ended.err


def test_an_attachment_that_only_one_row_lacks(command: Command, campaign: Path) -> None:
    """That row is rejected with the reason, the others are mailed; TF-07: no cell reads outside the folder."""
    replaced(campaign, 'text = "message.txt"', 'text = "message.txt"\nattachments = ["files/{{ name }}.pdf"]')
    (campaign.parent / "files").mkdir()
    (campaign.parent / "secret.pdf").write_bytes(b"secret")
    for name in ("Ann", "Bob"):
        (campaign.parent / f"files/{name}.pdf").write_bytes(b"%PDF " + name.encode())
    people(campaign, b"email,name\nann@example.org,Ann\nbob@example.org,Bob\ncid@example.org,../secret\n")
    ended, relay = bulk(command, campaign)
    assert ended.code == 1
    assert len(relay.received) == 2
    assert "../secret" in command("results", campaign, "--failed").out
    assert not any(b"secret" in message.content for message in relay.received)


FILLS_UP = """
import resource, signal, sys
from asyncsmtp.cli.main import main

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
signal.signal(signal.SIGUSR1, lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_disk_that_fills_up_in_the_middle(command: Command, campaign: Path) -> None:
    """BL-08: 74 at once; what could not be recorded is told, in doubt at the next run, and never sent twice."""
    rows = "".join(f"p{row}@example.org,P{row}\n" for row in range(100))
    people(campaign, f"email,name\n{rows}".encode())
    with serving(ScriptedRelay({Stage.DATA: (Wait(0.01), DEFAULT_REPLY)})) as relay:
        words = ["bulk", str(campaign), "--relay", f"smtp://127.0.0.1:{relay.port}?security=none", "--yes"]
        arguments = [sys.executable, "-c", FILLS_UP, *words, "--sessions", "2"]
        with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
            try:
                while len(relay.received) < 10:
                    assert process.poll() is None
                    time.sleep(0.002)  # it is in another process: there is no event to await
                process.send_signal(signal.SIGUSR1)
                _, said = process.communicate(timeout=15)
            finally:
                process.kill()
    assert process.returncode == 74, said
    assert "Traceback" not in said
    assert "news.ledger" in said
    ended, rest = bulk(command, campaign)
    assert ended.code == 1  # some are in doubt
    assert "under way when the last run ended: in doubt" in ended.err
    twice = {m.forward_paths for m in relay.received} & {m.forward_paths for m in rest.received}
    assert twice == set()
    states = [json.loads(line)["state"] for line in command("results", campaign, "--json").out.splitlines()]
    assert set(states) == {"accepted", "in doubt"}
    assert len(relay.received) + len(rest.received) <= 100 <= len(states) + states.count("in doubt")


SECRET = '[unsubscribe]\nurl = "https://example.org/u/{{ token }}"\nsecret_file = '
SMIME = '[smime]\ncertificate = "crt"\nkey = '
SEND = ("--relay", "smtp://127.0.0.1:1?security=none", "--from", "a@example.org", "--to", "b@example.org")
DKIM = '[dkim]\ndomain = "example.org"\nselector = "s"\nkey = '


@pytest.mark.parametrize(("path", "why"), [("~nobody-here/x", "home"), ("a\\u0000b", "NUL")])
@pytest.mark.parametrize(
    ("before", "key"),
    [
        ("html = ", "[campaign] html"),
        ("attachments = [", "[campaign] attachments"),
        ("inline.logo = ", "[campaign] inline"),
        ("suppression = ", "[campaign] suppression"),
        ("ledger = ", "[campaign] ledger"),
        ("[relay]\nca_file = ", "[relay] ca_file"),
        ("[limits]\nshared = ", "[limits] shared"),
        (SECRET, "[unsubscribe]: secret_file"),
        (SMIME, "[smime]: key"),
        (DKIM, "[dkim]: key"),
    ],
)
def test_a_path_that_no_file_can_have(
    command: Command, campaign: Path, before: str, key: str, path: str, why: str
) -> None:
    """The home of somebody unknown, or a NUL: a mistake in the file like any other, told with its key."""
    with campaign.open("a", encoding="utf-8") as file:
        file.write(f'{before}"{path}"' + ("]" if before.endswith("[") else "") + "\n")
    ended = command("check", campaign)
    assert ended.code == 2, ended.err
    assert ended.sentence.startswith(f"{campaign}, {key}: ")
    assert why in ended.sentence
    assert "\n  next: correct it in the file" in ended.err


def test_an_option_whose_path_no_file_can_have(command: Command, campaign: Path) -> None:
    """Where no shell has expanded it, as in a variable of the environment."""
    ended = command("bulk", campaign, "--dry-run", "--text-template", "~nobody-here/x")
    assert (ended.code, ended.sentence.startswith("--text-template “~nobody-here/x”")) == (2, True)
    ended = command("send", *SEND, "--text", "@~nobody-here/x")
    assert (ended.code, ended.sentence.startswith("--text “~nobody-here/x”")) == (2, True)


def test_an_image_whose_path_no_file_can_have(command: Command, campaign: Path) -> None:
    """It stands in the HTML, not in the campaign file."""
    replaced(campaign, 'text = "message.txt"', 'html = "message.html"')
    (campaign.parent / "message.html").write_text('<img src="a%00.png">', encoding="utf-8")
    ended = command("check", campaign)
    assert ended.code == 2, ended.err
    assert "a\\x00.png" in ended.sentence


@pytest.mark.parametrize(
    ("before", "key"),
    [("webhook = ", "[campaign] webhook: "), ('[unsubscribe]\nsecret_file = "secret"\nurl = ', "[unsubscribe]: url: ")],
)
@pytest.mark.parametrize("host", ["[bad", "example.org:99999", "\u2100.example"])
def test_a_url_with_a_host_or_port_that_is_none(
    command: Command, campaign: Path, before: str, key: str, host: str
) -> None:
    """Brackets around anything but an IPv6 address are a mistake in the file, not a bug."""
    with campaign.open("a", encoding="utf-8") as file:
        file.write(f'{before}"https://{host}/{{{{ token }}}}"\n')
    ended = command("check", campaign)
    assert ended.code == 2, ended.err
    assert ended.sentence.startswith(f"{campaign}, {key}“https://{host}/")
    assert re.search("is not a (valid )?URL", ended.sentence)


def test_a_wrong_address_for_unsubscriptions(command: Command, campaign: Path) -> None:
    """The key, before the secret is asked for."""
    with campaign.open("a", encoding="utf-8") as file:
        file.write(f'{SECRET}"secret"\nmailto = "unsubscribe"\n')
    ended = command("check", campaign)
    assert ended.code == 2, ended.err
    assert ended.sentence.startswith(f"{campaign}, [unsubscribe]: mailto: “unsubscribe”")


@pytest.mark.parametrize(("key", "field"), [("from", "From"), ("reply_to", "Reply-To"), ("return_path", "return_path")])
def test_an_address_of_the_sender_without_a_domain(command: Command, campaign: Path, key: str, field: str) -> None:
    """Told once, rather than by refusing every row when it is sent."""
    replaced(campaign, 'from = "Example News <news@example.org>"\n', "")
    settings = {"from": "news@example.org", key: "postmaster"}
    replaced(campaign, "[campaign]\n", "[campaign]\n" + "".join(f'{k} = "{v}"\n' for k, v in settings.items()))
    ended, relay = bulk(command, campaign)
    nothing_was_sent(ended, relay)
    assert ended.sentence.startswith(f"{field}: “postmaster” has no domain")


@pytest.mark.parametrize("change", ["message.txt", "people.csv", "--subject"])
def test_a_campaign_of_which_nothing_was_sent_may_still_change(command: Command, campaign: Path, change: str) -> None:
    """FT-72: the relay was down; who corrects the text, or the list, in the meantime sends what is there now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"smtp://127.0.0.1:{free.getsockname()[1]}?security=none"
        assert command("bulk", campaign, "--relay", url, "--yes").code == 69
    words: tuple[str, ...] = ()
    if change == "message.txt":
        (campaign.parent / change).write_text("Better, {{ name }}\n", encoding="utf-8")
    elif change == "people.csv":
        people(campaign, b"email,name\ndora@example.org,Dora\n")
    else:
        words, change = (change, "Better"), "subject"
    ended, relay = bulk(command, campaign, *words)
    assert ended.code == 0, ended.err
    assert f"{change} changed, and nothing was sent yet: the recipients are loaded again" in ended.err
    assert len(relay.received) == (1 if change == "people.csv" else 3)
    if change == "message.txt":
        assert {message.email.get_content()[:6] for message in relay.received} == {"Better"}


def test_a_refused_login_is_no_beginning(command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-72: nor is a login that would have been in clear, nor a run of which every row was rejected by the checks."""
    monkeypatch.setenv("ASYNCSMTP_PASSWORD", CANARY)
    with serving(ScriptedRelay(users={"ann": CANARY})) as relay:
        ended = command("bulk", campaign, "--relay", f"smtp://ann@127.0.0.1:{relay.port}?security=none", "--yes")
    assert ended.code == 77
    (campaign.parent / "message.txt").write_text("Better, {{ name }}\n", encoding="utf-8")
    assert bulk(command, campaign)[0].code == 0


def test_a_list_that_changed_since_the_campaign_began_is_added(command: Command, campaign: Path) -> None:
    """FT-72: the error says how those who are new are mailed: it works, and nobody is mailed twice."""
    assert bulk(command, campaign, "--limit", 1)[0].code == 75
    before = (campaign.parent / "people.csv").read_bytes()
    people(campaign, before + b"dora@example.org,Dora\n")
    ended, relay = bulk(command, campaign)
    nothing_was_sent(ended, relay)
    assert "people.csv changed" in ended.sentence
    assert ended.sentence.endswith("further recipients are loaded from a file of their own, with --add")
    (campaign.parent / "more.csv").write_bytes((campaign.parent / "people.csv").read_bytes())
    people(campaign, before)
    ended, relay = bulk(command, campaign, "--add", "more.csv")
    assert (ended.code, len(relay.received)) == (0, 3)

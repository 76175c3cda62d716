"""`check`: what a relay says of itself, step by step, and nothing sent."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from asyncsmtp.testing import ScriptedRelay, Stage
from tests.cli.ended import Command
from tests.cli.serving import serving

CANARY = "hunter2-c4n4ry"


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


def test_it_shows_what_the_relay_offers(command: Command) -> None:
    """In clear, without a login; and QUIT is said."""
    with serving(ScriptedRelay(offers=["PIPELINING", "8BITMIME"])) as relay:
        ended = command("check", "--relay", f"smtp://127.0.0.1:{relay.port}?security=none")
    assert ended.code == 0
    assert "greeting   220" in ended.out
    assert "offers     PIPELINING, 8BITMIME, SIZE" in ended.out
    assert "TLS        none" in ended.out
    assert relay.dialogue[-2] == "C: QUIT"
    assert not any(line.startswith("C: MAIL") for line in relay.dialogue)


def test_a_relay_may_offer_nothing(command: Command) -> None:
    """RFC 5321 §4.1.1.1: its reply to EHLO is a single line."""
    with serving(ScriptedRelay({Stage.EHLO: "250 relay.example"})) as relay:
        ended = command("check", "--relay", f"smtp://127.0.0.1:{relay.port}?security=none")
    assert "offers     nothing\n" in ended.out


def test_it_shows_the_certificate_and_the_login(
    command: Command, server_tls: ssl.SSLContext, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 587-style relay: STARTTLS, then AUTH; the password is in nothing that is printed."""
    monkeypatch.setenv("ASYNCSMTP_PASSWORD", CANARY)
    with serving(ScriptedRelay(tls=server_tls, users={"ann": CANARY}, auth_needs_tls=True)) as relay:
        ended = command("check", "--relay", f"smtp://ann@127.0.0.1:{relay.port}", "--ca-file", ca_file, "-v")
    assert ended.code == 0, ended.err
    assert "TLSv1." in ended.out
    assert "certificate of relay.example, localhost, 127.0.0.1" in ended.out
    assert "login      accepted, as ann" in ended.out
    assert " ~> AUTH PLAIN ***" in ended.out
    assert " -> STARTTLS" in ended.out
    assert CANARY not in ended.out + ended.err


def test_it_shows_what_to_pin(command: Command, server_tls: ssl.SSLContext, ca_file: Path) -> None:
    """The fingerprint, which then takes the place of an authority; another is refused, and told."""
    with serving(ScriptedRelay(tls=server_tls)) as relay:
        where = f"smtp://127.0.0.1:{relay.port}"
        [line] = [
            line for line in command("check", "--relay", where, "--ca-file", ca_file).out.splitlines() if "pin " in line
        ]
        fingerprint = line.split()[1]
        ended = command("check", "--relay", f"{where}?verify=no&pin={fingerprint}")
        assert ended.code == 0, ended.err
        assert "certificate pinned" in ended.out
        assert command("check", "--relay", f"{where}?pin={fingerprint}", "--quit-after", "ehlo").code == 0
        other = command("check", "--relay", f"{where}?verify=no&pin={'00' * 32}")
        assert other.code == 69
        assert fingerprint in other.sentence
        unproved = command("check", "--relay", f"{where}?verify=no")
        assert "certificate not verified" in unproved.out


def test_a_certificate_of_ours_logs_in(
    command: Command, ca: trustme.CA, server_tls_for: Callable[..., ssl.SSLContext], ca_file: Path, tmp_path: Path
) -> None:
    """Row 42, EXTERNAL: files and mechanism from the URL."""
    context = server_tls_for("127.0.0.1")
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    issued = ca.issue_cert("ann@example.org")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "ann.pem"))
    with serving(ScriptedRelay(tls=context, users={"ann": ""}, mechanisms=["EXTERNAL"])) as relay:
        url = f"smtp://127.0.0.1:{relay.port}?client-cert={tmp_path / 'ann.pem'}&auth=EXTERNAL"
        ended = command("check", "--relay", url, "--ca-file", ca_file)
    assert ended.code == 0, ended.err
    assert "login      accepted, as whom the certificate names" in ended.out


def test_the_host_that_answered_is_shown(command: Command) -> None:
    """Of several; the other one is told too."""
    with serving(ScriptedRelay({Stage.GREETING: "421 4.3.2 not now"})) as busy, serving(ScriptedRelay()) as relay:
        ended = command("check", "--relay", f"smtp://127.0.0.1:{busy.port},127.0.0.1:{relay.port}?security=none")
    assert ended.code == 0
    assert f"relay      127.0.0.1:{relay.port}" in ended.out


def test_when_no_host_answers_each_is_named(command: Command) -> None:
    """ExitCode code 69, one sentence."""
    with serving(ScriptedRelay({Stage.GREETING: "421 4.3.2 not now"})) as busy:
        ended = command("check", "--relay", f"smtp://127.0.0.1:{busy.port},127.0.0.1:{busy.port}?security=none")
    assert ended.code == 69
    assert ended.sentence.count(f"127.0.0.1:{busy.port}") >= 2


def test_a_refused_login_ends_with_77(
    command: Command, server_tls: ssl.SSLContext, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One attempt, one sentence with the relay's words, the documented exit code."""
    monkeypatch.setenv("ASYNCSMTP_PASSWORD", CANARY)
    with serving(ScriptedRelay(tls=server_tls, users={"ann": "other"})) as relay:
        ended = command("check", "--relay", f"smtp://ann@127.0.0.1:{relay.port}", "--ca-file", ca_file)
    assert ended.code == 77
    assert "535" in ended.sentence
    assert len(relay.auth_attempts) == 1
    assert CANARY not in ended.out + ended.err


def test_a_login_in_clear_is_refused_before_a_letter_of_it(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """AU-01: the URL says security=none, the relay offers AUTH; nothing of the password leaves."""
    monkeypatch.setenv("ASYNCSMTP_PASSWORD", CANARY)
    with serving(ScriptedRelay(users={"ann": CANARY})) as relay:
        ended = command("check", "--relay", f"smtp://ann@127.0.0.1:{relay.port}?security=none")
    assert ended.code == 77
    assert "clear" in ended.sentence
    assert relay.auth_attempts == []


def test_an_unknown_certificate_is_named(command: Command, server_tls: ssl.SSLContext) -> None:
    """TL-05: a CA that this machine does not trust, and what to do about it."""
    with serving(ScriptedRelay(tls=server_tls)) as relay:
        ended = command("check", "--relay", f"smtp://127.0.0.1:{relay.port}")
    assert ended.code == 69
    assert "certificate" in ended.sentence


def test_a_stripped_starttls_is_refused(command: Command) -> None:
    """TL-03: without TLS nothing goes on, unless the URL says so."""
    with serving(ScriptedRelay()) as relay:
        ended = command("check", "--relay", f"smtp://127.0.0.1:{relay.port}")
    assert ended.code == 69
    assert "STARTTLS" in ended.sentence


@pytest.mark.parametrize(
    ("phase", "last"),
    [("ehlo", "C: EHLO"), ("mail", "C: MAIL FROM:<a@example.org>"), ("rcpt", "C: RCPT TO:<b@example.org>")],
)
def test_it_quits_after_the_phase_that_was_asked_for(command: Command, phase: str, last: str) -> None:
    """A probe: would the relay take this sender, this recipient? Nothing is sent."""
    with serving(ScriptedRelay()) as relay:
        ended = command(
            "check",
            *("--relay", f"smtp://127.0.0.1:{relay.port}?security=none"),
            *("--quit-after", phase, "--from", "a@example.org", "--to", "b@example.org"),
        )
    assert ended.code == 0, ended.err
    said = [line for line in relay.dialogue if line.startswith("C: ") and line not in ("C: RSET", "C: QUIT")]
    assert said[-1].startswith(last)
    assert relay.received == []


def test_a_recipient_whom_the_relay_refuses_is_reported_in_its_words(command: Command) -> None:
    """A refusal is the answer that was asked for, and the exit code has it."""
    with serving(ScriptedRelay({Stage.RCPT: "550 5.1.1 no such user"})) as relay:
        url = f"smtp://127.0.0.1:{relay.port}?security=none"
        ended = command("check", "--relay", url, "--quit-after", "rcpt", "--to", "b@example.org")
    assert ended.code == 1
    assert "550 5.1.1 no such user" in ended.sentence


def test_nothing_listens_there(command: Command) -> None:
    """Relay down: 69, and the host and port that were tried."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        ended = command("check", "--relay", f"smtp://127.0.0.1:{port}")
    assert ended.code == 69
    assert f"127.0.0.1:{port}" in ended.sentence


@contextmanager
def speaking(octets: bytes) -> Iterator[int]:
    """A server of some other protocol, which says `octets` to whoever connects; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(octets)
                connection.settimeout(5)
                while connection.recv(4096):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)


@pytest.mark.parametrize(
    ("octets", "hint"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
        (b"\x15\x03\x01\x00\x02\x02\x0a\r\n", "TLS"),
        (b"* OK IMAP4rev1 ready\r\n", "IMAP"),
    ],
)
def test_a_port_that_speaks_another_protocol_is_recognised(command: Command, octets: bytes, hint: str) -> None:
    """WI-15: wrong port is the commonest mistake; the sentence says which service answered."""
    with speaking(octets) as port:
        ended = command("check", "--relay", f"smtp://127.0.0.1:{port}?security=none")
    assert ended.code == 69
    assert hint in ended.sentence


def test_without_anything_to_check_it_says_what_to_type(command: Command) -> None:
    """Rule 1."""
    ended = command("check")
    assert ended.code == 2
    assert "asyncsmtp check --relay" in ended.err


def test_a_probe_of_a_recipient_needs_one(command: Command) -> None:
    """The option that is missing is named before anything is opened."""
    ended = command("check", "--relay", "smtp://127.0.0.1:1", "--quit-after", "rcpt")
    assert ended.code == 2
    assert "--to" in ended.err


def test_a_relay_can_come_from_the_environment(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option can be ASYNCSMTP_NAME."""
    with serving(ScriptedRelay()) as relay:
        monkeypatch.setenv("ASYNCSMTP_RELAY", f"smtp://127.0.0.1:{relay.port}?security=none")
        assert command("check").code == 0


def test_a_campaign_is_read_to_its_last_row(command: Command, campaign: Path) -> None:
    """Every message is composed; rows that cannot be mailed are named, and the exit code says that there are some."""
    campaign.write_text(campaign.read_text("utf-8") + WAY_OUT, encoding="utf-8")
    ended = command("check", campaign)
    assert ended.code == 0, ended.err
    assert "people.csv: 3 rows · 3 to be mailed" in ended.out
    people = campaign.parent / "people.csv"
    people.write_text(people.read_text(encoding="utf-8") + "dan,Dan\nann@example.org,Ann\n", encoding="utf-8")
    ended = command("check", campaign)
    assert ended.code == 1
    assert "row 4 (line 5): “dan” is not an e-mail address" in ended.out
    assert "1 duplicate · 1 cannot be mailed" in ended.out
    assert not list(campaign.parent.glob("*.ledger*"))


WAY_OUT = (
    'headers = { List-Unsubscribe = "<https://example.org/u>", List-Unsubscribe-Post = "List-Unsubscribe=One-Click" }\n'
)


def test_what_a_provider_would_object_to_is_reported(command: Command, campaign: Path) -> None:
    """Each finding with what to do; as NDJSON too; objections are in the exit code, notes are not."""
    campaign.write_text(campaign.read_text("utf-8").replace("News for", "READ THIS NOW"), encoding="utf-8")
    campaign.write_text(campaign.read_text("utf-8").replace("{{ name }}", "{{ name|upper }}"), encoding="utf-8")
    ended = command("check", campaign)
    assert ended.code == 1
    assert (
        "objection (subject): the subject is all capitals: READ THIS NOW ANN\n    write it in lower case" in ended.out
    )
    assert "note (unsigned): " in ended.out
    found = [json.loads(line) for line in command("check", campaign, "--json").out.splitlines()]
    weights = {one["rule"]: one["weight"] for one in found}
    assert weights == {"unsubscribe": "note", "unsigned": "note", "subject": "objection"}


@pytest.mark.parametrize(("rows", "weight"), [(4999, "note"), (5000, "objection")])
@pytest.mark.parametrize("rule", ["unsubscribe", "one-click"])
def test_what_is_demanded_of_large_lists_is_a_note_for_small_ones(
    command: Command, campaign: Path, rows: int, weight: str, rule: str
) -> None:
    """Gmail and Yahoo ask those who send 5,000 messages a day for List-Unsubscribe, and not a club of 800."""
    people = "".join(f"p{number}@example.org,P\n" for number in range(rows))
    (campaign.parent / "people.csv").write_text(f"email,name\n{people}", encoding="utf-8")
    if rule == "one-click":
        way_out = 'headers = { List-Unsubscribe = "<https://example.org/u>" }\n'
        campaign.write_text(campaign.read_text("utf-8") + way_out, encoding="utf-8")
    ended = command("check", campaign, "--json")
    [found] = [one for one in map(json.loads, ended.out.splitlines()) if one["rule"] == rule]
    assert found["weight"] == weight
    assert ended.code == (0 if weight == "note" else 1)
    assert ("demand it from 5,000 messages a day" in found["sentence"]) is (weight == "note")


def test_a_list_unsubscribe_that_is_wrong_is_an_objection_whatever_the_number(command: Command, campaign: Path) -> None:
    """It is there, and does not work."""
    wrong = 'headers = { List-Unsubscribe = "https://example.org/u" }\n'
    campaign.write_text(campaign.read_text("utf-8") + wrong, encoding="utf-8")
    ended = command("check", campaign)
    assert ended.code == 1
    assert "objection (unsubscribe): List-Unsubscribe has no URL in angle brackets" in ended.out


def test_the_sample_passes_every_rule(command: Command) -> None:
    """But for the signature, for which it would need a domain: that is a note."""
    assert command("init", "demo").code == 0
    ended = command("check", "demo/campaign.toml", "--json")
    assert [json.loads(line)["rule"] for line in ended.out.splitlines()] == ["unsigned"]
    assert ended.code == 0, ended.err


def test_a_header_that_is_there_twice_is_refused(command: Command, campaign: Path) -> None:
    """Names that differ in case alone are one field, of which readers take either."""
    twice = 'headers = { Feedback-ID = "a:b", feedback-id = "c:d" }\n'
    campaign.write_text(campaign.read_text("utf-8") + twice, encoding="utf-8")
    ended = command("check", campaign)
    assert ended.code == 2
    assert ended.sentence.endswith("also as “Feedback-ID”: remove one of them")


def test_merge_tags_of_other_programs_are_objections(command: Command, campaign: Path) -> None:
    """`check` lists them, and no run begins; an expression prints the text itself."""
    (campaign.parent / "message.txt").write_text("Hello {{ name }}\n\nDear [Name], *|FNAME|*\n", encoding="utf-8")
    ended = command("check", campaign)
    assert ended.code == 1
    assert "objection (merge-tag): message.txt, line 3: “[Name]” looks like a merge tag" in ended.out
    assert "objection (merge-tag): message.txt, line 3: “*|FNAME|*” looks" in ended.out
    assert "    write {{ name }}" in ended.out
    for arguments in (("--sandbox",), ("--relay", "smtp://127.0.0.1:9?security=none", "--yes"), ("--dry-run",)):
        ended = command("bulk", campaign, *arguments)
        assert ended.code not in (0, 1)
        assert "message.txt, line 3: “[Name]” looks like a merge tag" in ended.err
        assert "write {{ name }}" in ended.err
    assert not list(campaign.parent.glob("**/*.eml"))
    (campaign.parent / "message.txt").write_text("Hello {{ name }} {{ '[Name]' }}\n", encoding="utf-8")
    assert "merge-tag" not in command("check", campaign).out
    assert command("bulk", campaign, "--dry-run").code == 0


def test_a_likely_merge_tag_is_a_note(command: Command, campaign: Path) -> None:
    (campaign.parent / "message.txt").write_text("Hello {{ name }}, you have %%points%%\n", encoding="utf-8")
    assert "note (merge-tag): message.txt, line 1: “%%points%%”" in command("check", campaign).out
    ended = command("bulk", campaign, "--dry-run")
    assert ended.code == 0
    assert "note (merge-tag)" in ended.out


def test_what_mail_programs_do_not_support_is_a_note(command: Command, campaign: Path) -> None:
    """With file and line, in words and as JSON; it blocks nothing, and a run says nothing of it."""
    html = '<html>\n<p style="display: grid">Hello {{ name }}, ' + 60 * "x"
    (campaign.parent / "message.html").write_text(f'{html}\n{{% include "part.html" %}}</html>', "utf-8")
    (campaign.parent / "part.html").write_text("<p>\n<video></video>", "utf-8")
    campaign.write_text(f'{campaign.read_text("utf-8")}html = "message.html"\n', "utf-8")
    ended = command("check", campaign)
    assert "note (mail-client): message.html, line 2: Gmail, Outlook on Windows" in ended.out
    assert "do not support display: grid" in ended.out
    assert "note (mail-client): part.html, line 2: Gmail, Outlook and Yahoo Mail do not support <video>" in ended.out
    notes = [json.loads(line) for line in command("check", campaign, "--json").out.splitlines()]
    assert [each["weight"] for each in notes if each["rule"] == "mail-client"] == ["note", "note"]
    ended = command("bulk", campaign, "--sandbox")
    assert ended.code == 0
    assert "mail-client" not in ended.out + ended.err


def test_markdown_is_no_html_of_one_s_own(command: Command, campaign: Path) -> None:
    """What is made of it is this package's; a line of it would be nobody's."""
    (campaign.parent / "message.md").write_text("Hello {{ name }}\n\n<video></video>\n", "utf-8")
    campaign.write_text(campaign.read_text("utf-8").replace('text = "message.txt"', 'html = "message.md"'), "utf-8")
    assert "mail-client" not in command("check", campaign).out


def test_html_that_no_parser_takes(command: Command, campaign: Path) -> None:
    """`<![x` stopped the parser of the standard library with an error of its own."""
    (campaign.parent / "message.html").write_text("<p>Hello {{ name }}<![foo[x]]></p>", "utf-8")
    campaign.write_text(f'{campaign.read_text("utf-8")}html = "message.html"\n', "utf-8")
    assert command("check", campaign).code in (0, 1)


def test_rows_with_an_empty_greeting_are_named(command: Command, campaign: Path) -> None:
    """A note, since it may be meant: the exit code stays."""
    people = campaign.with_name("people.csv")
    people.write_text(people.read_text("utf-8").replace("bob@example.org,Bob", "bob@example.org,"), "utf-8")
    ended = command("check", campaign)
    assert "note (empty-cell): subject: “name” is empty in row 2" in ended.out
    assert ended.code == command("check", campaign, "--json").code == 0


@pytest.mark.parametrize("cells", ["nobody,", "bob@,", "a@b@example.org,"])
def test_a_row_that_is_not_mailed_has_no_empty_greeting(command: Command, campaign: Path, cells: str) -> None:
    """Its address is invalid."""
    people = campaign.with_name("people.csv")
    people.write_text(f"{people.read_text('utf-8')}{cells}\n".replace("Bob", ""), "utf-8")
    assert "“name” is empty in row 2\n" in command("check", campaign).out

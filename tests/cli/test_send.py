"""`send`: one message, and the dialogue from 220 to 221."""

from __future__ import annotations

import io
import json
import ssl
import sys
from pathlib import Path

import pytest
import trustme

from asyncsmtp.cli.commands.setup.init import sample_files
from asyncsmtp.testing import NO_REPLY, Fin, ScriptedRelay, Stage
from tests.cli.ended import Command, Ended
from tests.cli.serving import serving

CANARY = "hunter2-c4n4ry"
ADDRESSED = ("--from", "Ada <ada@example.org>", "--to", "bob@example.com")


def send(command: Command, relay: ScriptedRelay, *options: object) -> Ended:
    return command("send", "--relay", f"smtp://127.0.0.1:{relay.port}?security=none", *options)


def test_the_dialogue_is_shown_line_by_line(command: Command) -> None:
    """The origin exercise: 220, HELO's 250, MAIL FROM, RCPT TO, DATA's 354, the lone dot, QUIT's 221, each shown."""
    with serving(ScriptedRelay(offers=["8BITMIME"])) as relay:
        ended = send(command, relay, *ADDRESSED, "--subject", "Hi", "--text", "Hello\n", "-v")
    assert ended.code == 0, ended.err
    lines = [line for line in ended.out.splitlines() if "[127.0.0.1]" not in line]
    expected = [
        f"=== trying 127.0.0.1:{relay.port}",
        "<-  220 ",
        "<-  250-",
        "<-  250-8BITMIME",
        "<-  250 SIZE",
        " -> MAIL FROM:<ada@example.org>",
        "<-  250 ",
        " -> RCPT TO:<bob@example.com>",
        "<-  250 ",
        " -> DATA",
        "<-  354 ",
        " -> Date: ",
    ]
    for line, beginning in zip(lines, expected, strict=False):
        assert line.startswith(beginning)
    assert [line[:7] for line in lines[-6:-1]] == [" -> [7 ", " -> .", "<-  250", " -> QUI", "<-  221"]
    assert lines[-1].startswith("bob@example.com: accepted by 127.0.0.1:")


def test_a_wrong_greeting_is_reported_with_the_reply(command: Command) -> None:
    """The origin exercise: complain about any greeting but 220."""
    with serving(ScriptedRelay({Stage.GREETING: "554 5.7.1 go away"})) as relay:
        ended = send(command, relay, *ADDRESSED, "--text", "x")
    assert ended.code == 69
    assert "554 5.7.1 go away" in ended.sentence


def test_text_and_images_travel_in_one_mail(command: Command, tmp_path: Path) -> None:
    """The exercise's second option: text, HTML that shows an image, and an attachment; the library's parser judges."""
    (tmp_path / "logo.png").write_bytes(sample_files(1)["logo.png"])
    (tmp_path / "message.html").write_text('<p>Hällo</p><img src="cid:logo">', encoding="utf-8")
    (tmp_path / "terms.pdf").write_bytes(b"%PDF-1.7 \x00\xff")
    with serving(ScriptedRelay()) as relay:
        ended = send(
            *(command, relay, *ADDRESSED, "--cc", "cy@example.com", "--bcc", "dee@example.com", "--subject", "Grüße"),
            *("--text", "Hällo", "--html", "@message.html", "--inline", "logo=logo.png", "--attach", "terms.pdf"),
            *("--header", "X-Campaign: november", "--reply-to", "desk@example.org"),
        )
    assert ended.code == 0, ended.err
    (received,) = relay.received
    mail = received.email
    assert received.forward_paths == ("bob@example.com", "cy@example.com", "dee@example.com")
    assert (mail["Subject"], mail["X-Campaign"], mail["Reply-To"]) == ("Grüße", "november", "desk@example.org")
    assert mail["Bcc"] is None
    assert b"dee@example.com" not in received.content
    parts = {part.get_content_type(): part for part in mail.walk()}
    assert parts["text/plain"].get_content().strip() == "Hällo"
    assert 'src="cid:logo"' in parts["text/html"].get_content()
    assert parts["image/png"].get_content() == sample_files(1)["logo.png"]
    assert parts["image/png"]["Content-ID"] == "<logo>"
    assert parts["application/pdf"].get_content() == b"%PDF-1.7 \x00\xff"


def test_a_587_style_relay_gets_tls_and_a_login(
    command: Command, ca: trustme.CA, server_tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exercise's first option; AU-08: the password is in nothing that is printed."""
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("ASYNCSMTP_PASSWORD", CANARY)
    with serving(ScriptedRelay(tls=server_tls, users={"ann": CANARY}, needs_auth=True)) as relay:
        url = f"smtp://ann@127.0.0.1:{relay.port}"
        ended = command("send", "--relay", url, "--ca-file", "ca.pem", *ADDRESSED, "--text", "x", "-v")
    assert ended.code == 0, ended.err
    assert relay.received[0].tls
    assert relay.received[0].user == "ann"
    assert " ~> AUTH PLAIN ***" in ended.out
    assert "<~  235 " in ended.out
    assert CANARY not in ended.out + ended.err


def test_json_has_the_tls_version_and_cipher(
    command: Command, ca: trustme.CA, server_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    """Version, cipher, and whether the relay proved who it is."""
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with serving(ScriptedRelay(tls=server_tls)) as relay:
        url = f"smtp://127.0.0.1:{relay.port}"
        ended = command("send", "--relay", url, "--ca-file", "ca.pem", *ADDRESSED, "--text", "x", "--json")
    (record,) = map(json.loads, ended.out.splitlines())
    assert (record["tls"], record["verified"]) == ("TLSv1.3", True)
    assert record["cipher"].startswith("TLS_")


def test_a_finished_message_is_sent_as_it_is(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--eml`, from a file or standard input; the envelope comes from it, or from the options."""
    eml = b"From: ada@example.org\nTo: bob@example.com\nSubject: done\nX-Odd:  kept\n\nHello\n.\n"
    (tmp_path / "done.eml").write_bytes(eml)
    with serving(ScriptedRelay()) as relay:
        assert send(command, relay, "--eml", "done.eml").code == 0
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(eml)))
        assert send(command, relay, "--eml", "-", "--from", "<>", "--to", "Cy <cy@example.com>").code == 0
    first, second = relay.received
    assert first.content == second.content == eml.replace(b"\n", b"\r\n")
    assert (first.reverse_path, first.forward_paths) == ("ada@example.org", ("bob@example.com",))
    assert (second.reverse_path, second.forward_paths) == ("", ("cy@example.com",))


@pytest.mark.parametrize(
    ("reply", "code", "word"), [("550 5.1.1 no such user", 1, "rejected"), ("451 4.3.0 later", 75, "deferred")]
)
def test_a_refusal_is_reported_in_the_relay_s_words(command: Command, reply: str, code: int, word: str) -> None:
    """One recipient refused, the other accepted: both are told, the code says that not all were."""
    with serving(ScriptedRelay({Stage.RCPT: {1: reply}})) as relay:
        ended = send(command, relay, *ADDRESSED, "--to", "cy@example.com", "--text", "x")
    assert ended.code == code
    assert f"bob@example.com: {word} by 127.0.0.1:{relay.port}: {reply}" in ended.out
    assert "cy@example.com: accepted" in ended.out


def test_a_lost_reply_is_in_doubt(command: Command) -> None:
    """Neither success nor failure: it is said what to look for before sending again."""
    with serving(ScriptedRelay({Stage.END_OF_DATA: (NO_REPLY, Fin())})) as relay:
        ended = send(command, relay, *ADDRESSED, "--text", "x")
    assert ended.code == 1
    assert "the relay may have it" in ended.sentence


def test_json_keeps_stdout_to_itself(command: Command) -> None:
    """NDJSON on stdout; the dialogue goes to stderr."""
    with serving(ScriptedRelay()) as relay:
        ended = send(command, relay, *ADDRESSED, "--text", "x", "--json", "-v")
    (record,) = map(json.loads, ended.out.splitlines())
    assert (record["tls"], record["cipher"], record["verified"]) == (None, None, False)
    assert (record["email"], record["state"], record["code"]) == ("bob@example.com", "accepted", 250)
    assert " -> QUIT" in ended.err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "nobody to send from"),
        (("--from", "ada@example.org"), "nobody to send to"),
        (ADDRESSED, "there is nothing to send"),
        ((*ADDRESSED, "--text", "@missing.txt"), "--text missing.txt: no such file or directory"),
        ((*ADDRESSED, "--attach", "."), "--attach .: is a directory"),
        ((*ADDRESSED, "--text", "x", "--inline", "logo.png"), "--inline “logo.png” must look like NAME=FILE"),
        ((*ADDRESSED, "--text", "x", "--header", "X-Odd"), "--header “X-Odd” must look like NAME:VALUE"),
        ((*ADDRESSED, "--text", "x", "--header", "X: a\r\nBcc: z@example.org"), "X"),
        (("--from", "ada@example.org", "--to", "bob@example.com\r\nRCPT TO:<z@example.org>", "--text", "x"), "To:"),
        (("--from", "ada", "--to", "bob@example.com", "--text", "x"), "ada"),
        (("--eml", "missing.eml"), "--eml missing.eml: no such file or directory"),
        (("--eml", "x.eml", "--subject", "new"), "--subject cannot change a finished message"),
    ],
)
def test_a_bad_part_is_one_sentence_and_nothing_is_opened(
    command: Command, options: tuple[str, ...], expected: str
) -> None:
    """WO-01, MH-01: an injected line is refused before a connection; the option is named."""
    with serving(ScriptedRelay()) as relay:
        ended = send(command, relay, *options)
    assert ended.code == 2
    assert expected in ended.sentence
    assert "next: " in ended.err
    assert relay.connections == 0


@pytest.mark.parametrize(
    "to", ["user@", "<", "a@[", '"', "Team: b@x", "=?utf-8?q?a?=@example.com", "\udcff@example.com"]
)
@pytest.mark.parametrize("field", ["To", "From"])
def test_a_finished_message_with_half_an_address_is_one_sentence(
    command: Command, tmp_path: Path, field: str, to: str
) -> None:
    """FT-42: the library raises IndexError and the like, and the command ended with 70."""
    fields = {"From": "ada@example.org", "To": "bob@example.com"} | {field: to}
    section = "".join(f"{name}: {value}\n" for name, value in fields.items())
    (tmp_path / "half.eml").write_bytes(section.encode("utf-8", "surrogateescape") + b"\nHello\n")
    with serving(ScriptedRelay()) as relay:
        ended = send(command, relay, "--eml", "half.eml")
    assert ended.code == 2
    assert f"{field}: " in ended.sentence
    assert relay.connections == 0


def test_the_recipients_of_a_finished_message_may_be_in_groups(command: Command, tmp_path: Path) -> None:
    """FT-41, FT-46: comments, a group, and an address of a Japanese carrier go to the relay as they are."""
    to = "undisclosed-recipients:;, Team: bob@example.com (Bob), abc.@docomo.ne.jp;,"
    (tmp_path / "group.eml").write_text(f"From: ada@example.org\nTo: {to}\n\nHello\n")
    with serving(ScriptedRelay()) as relay:
        assert send(command, relay, "--eml", "group.eml").code == 0
        assert send(command, relay, "--from", "ada@example.org", "--to", to, "--text", "x").code == 0
    assert [each.forward_paths for each in relay.received] == [("bob@example.com", "abc.@docomo.ne.jp")] * 2


def test_without_a_relay_it_says_what_to_type(command: Command) -> None:
    """Rule 1."""
    ended = command("send", *ADDRESSED, "--text", "x")
    assert ended.code == 2
    assert "--relay smtp://" in ended.err


def test_several_recipients_from_the_environment_stand_on_lines(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name may hold spaces, so a space parts nothing."""
    monkeypatch.setenv("ASYNCSMTP_TO", "Bob Smith <bob@example.com>\ncy@example.com")
    with serving(ScriptedRelay()) as relay:
        assert send(command, relay, "--from", "ada@example.org", "--text", "x").code == 0
    assert relay.received[0].forward_paths == ("bob@example.com", "cy@example.com")

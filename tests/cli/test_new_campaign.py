"""`init --recipients`: a campaign for the user's own file, with options or with answers, that passes `check`."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from asyncsmtp.bulk.setup.config import load_config
from asyncsmtp.cli.output import console
from asyncsmtp.testing import ScriptedRelay
from tests.cli.ended import Command, Ended
from tests.cli.serving import serving
from tests.cli.terminal import converse
from tests.cli.test_hints import follow, hints

OPTIONS = ("--from", "Example News <news@example.org>", "--subject", "Post für {{ Vorname }}")
MEMBERS = "E-Mail;Vorname;Straße und Nr.\nann@example.org;Ann;Weg 1\nbob@example.org;Bärbel;Weg 2\n"


@pytest.fixture
def members(tmp_path: Path) -> Path:
    """A file as a spreadsheet saves it as “CSV UTF-8”."""
    path = tmp_path / "our members.csv"
    path.write_bytes(MEMBERS.encode("utf-8-sig"))
    return path


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Somebody at a terminal, who types what is written here."""
    monkeypatch.setattr(console, "is_interactive", lambda: True)
    typed = io.StringIO()
    monkeypatch.setattr(sys, "stdin", typed)
    return typed


def tell(answer: io.StringIO, *lines: str) -> None:
    answer.write("".join(f"{line}\n" for line in lines))
    answer.seek(0)


def write_and_check(command: Command, folder: Path) -> Ended:
    """Check the campaign once its message is written; before that, the starter's own text is objected to."""
    ended = command("check", "campaign.toml")
    assert ended.code == 1
    assert [line for line in ended.out.splitlines() if "objection" in line] == [
        "  objection (filler-text): the message has the text “Write your message here” of a template"
    ]
    for name in ("message.html", "message.txt"):
        text = (folder / name).read_text("utf-8")
        (folder / name).write_text(text.replace("Write your message here.", "The hall is open again."), "utf-8")
    return command("check", "campaign.toml")


def test_a_campaign_beside_the_recipients(command: Command, members: Path, tmp_path: Path) -> None:
    """It passes `check`; the message greets by a column of this file; the file stays as it is."""
    before = members.read_bytes()
    ended = command("init", "--recipients", members.name, *OPTIONS, "--name", "members")
    assert ended.code == 0, ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "campaign.toml", "message.html", "message.txt", "our members.csv",
    ]  # fmt: skip
    assert members.read_bytes() == before
    config = load_config(tmp_path / "campaign.toml")
    assert (config.name, config.email_column, config.subject) == ("members", "E-Mail", OPTIONS[3])
    assert 'recipients = "our members.csv"' in (tmp_path / "campaign.toml").read_text("utf-8")
    assert "Hello {{ Vorname }}," in (tmp_path / "message.txt").read_text("utf-8")
    checked = write_and_check(command, tmp_path)
    assert checked.out.startswith("our members.csv: 2 rows · 2 to be mailed")
    assert "detected" not in checked.out
    assert checked.code == 0, checked.out  # without List-Unsubscribe, as two members do not need it
    assert command("bulk", "campaign.toml", "--sandbox").code == 0


def test_the_columns_and_rows_are_shown(command: Command, members: Path) -> None:
    """A person sees whether the file was understood."""
    members.write_text(MEMBERS + "".join(f"p{number}@example.org;P{number};\n" for number in range(9)), "utf-8")
    lines = command("init", "--recipients", members, *OPTIONS).err.splitlines()
    assert lines[1].split() == ["E-Mail", "Vorname", "Straße", "und", "Nr."]
    assert [line.split()[0] for line in lines[2:5]] == ["ann@example.org", "bob@example.org", "p0@example.org"]
    assert "p1@example.org" not in lines[5]


def test_the_next_commands_work(command: Command, members: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are printed; the last one mails, through the relay that was named."""
    monkeypatch.setenv("ASYNCSMTP_YES", "1")
    with serving(ScriptedRelay()) as relay:
        url = f"smtp://127.0.0.1:{relay.port}?security=none"
        ended = command("init", "--recipients", members, *OPTIONS, "--relay", url)
        assert [line.split()[1] for line in hints(ended)] == ["preview", "bulk", "bulk"]
        found = follow(command, ended)
    assert all(each.code == 0 for each in found.values()), found
    assert len(relay.received) == 2


@pytest.mark.parametrize("folder", ["mailing/may", ".", "../elsewhere"])
def test_in_another_folder_the_recipients_stay(command: Command, members: Path, tmp_path: Path, folder: str) -> None:
    """They are named by a relative path, and so are templates that exist."""
    (tmp_path / "own.md").write_text("Dear {{ Vorname }}\n", "utf-8")
    home = tmp_path / "home"
    home.mkdir()
    os.chdir(home)
    words = ("--recipients", f"../{members.name}", *OPTIONS, "--template", "../own.md")
    ended = command("init", folder, *words)
    assert ended.code == 0, ended.err
    path = home / folder / "campaign.toml"
    assert [each.name for each in path.parent.glob("message.*")] == []
    assert not Path(path.read_text("utf-8").split('recipients = "')[1].split('"')[0]).is_absolute()
    os.chdir(tmp_path)
    assert "2 rows · 2 to be mailed" in command("check", path).out


def test_nothing_is_asked_without_a_terminal(command: Command, members: Path, tmp_path: Path) -> None:
    """What is missing is said in one sentence, with the options to add, and nothing is written."""
    ended = command("init", "--recipients", members)
    assert (ended.code, ended.sentence) == (2, "--from and --subject are missing")
    assert "add --from 'Example News <news@example.org>' --subject 'News'" in ended.err
    assert command("init", "--recipients", members, *OPTIONS[:2]).sentence == "--subject is missing"
    assert [path.name for path in tmp_path.iterdir()] == [members.name]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--recipients", "gone.csv", *OPTIONS), "the recipients gone.csv are not a file that is there"),
        (("--recipients", "our members.csv", "--from", "nobody", "--subject", "x"), "--from: “nobody” is not an"),
        (("--recipients", "our members.csv", *OPTIONS, "--relay", "ftp://x"), "--relay: "),
        (("--recipients", "our members.csv", *OPTIONS, "--email-column", "Mial"), "has no column “Mial”"),
        (("--recipients", "our members.csv", *OPTIONS[:2], "--subject", "{{ Vorame }}"), "Vorame"),
        (("--recipients", "our members.csv", *OPTIONS, "--template", "gone.html"), "gone.html"),
        (("--recipients", "our members.csv", *OPTIONS, "--rows", "3"), "--rows is about the sample"),
        (("demo", "--subject", "x"), "--subject is about a campaign of your own"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_used_leaves_nothing_behind(
    command: Command, members: Path, tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    """The same command with the option corrected works."""
    ended = command("init", *words)
    assert ended.code == 2
    assert sentence in ended.sentence
    assert [path.name for path in tmp_path.iterdir()] == [members.name]


def test_files_that_exist_are_left_alone(command: Command, members: Path, tmp_path: Path) -> None:
    """A second campaign has files of its own."""
    (tmp_path / "message.txt").write_text("mine", "utf-8")
    for name, path in (("spring", "campaign.toml"), ("summer", "summer.toml"), ("summer", "summer-2.toml")):
        assert command("init", "--recipients", members, *OPTIONS, "--name", name).code == 0
        assert load_config(tmp_path / path).name == name
    assert (tmp_path / "message.txt").read_text("utf-8") == "mine"
    assert (tmp_path / "spring.txt").exists()


@pytest.mark.parametrize("column", ['a "b" c', "{{ x }}", "50 %", "naïve col", "#}", "row", "back\\slash"])
def test_odd_columns_have_a_message_that_works(command: Command, tmp_path: Path, column: str) -> None:
    """Whatever a column is called, what is written passes."""
    cell = column.replace('"', '""')
    (tmp_path / "odd.csv").write_text(f'email,"{cell}"\nann@example.org,x\n', "utf-8")
    ended = command("init", "--recipients", "odd.csv", "--from", "a@example.org", "--subject", 'A "quoted" \\ one')
    assert ended.code == 0, ended.err
    assert command("bulk", "campaign.toml", "--sandbox").code == 0


def test_a_person_is_asked_for_what_is_missing(
    command: Command, members: Path, tmp_path: Path, answer: io.StringIO
) -> None:
    """An answer that cannot be used is asked for again; Enter leaves out the relay, and takes a starter."""
    message = ("gone.md", "our members.csv", "")
    tell(
        answer,
        "gone.csv",
        members.name,
        "",
        "nobody",
        "news@example.org",
        "ftp://x",
        "gmial",
        "",
        "",
        "Hello",
        *message,
    )
    ended = command("init")
    assert ended.code == 0, ended.err
    assert ended.err.count("Sender, such as") == 3
    assert ended.err.count("  this needs an answer") == 2  # sender and subject: no option was typed
    assert ended.err.count("Subject:") == 2
    assert ended.err.count("Message, a file") == 3
    assert "did you mean “gmail”?" in ended.err
    config = load_config(tmp_path / "campaign.toml")
    assert (config.from_, config.subject, config.relay) == ("news@example.org", "Hello", None)
    assert "write the relay's url or provider below [relay] in campaign.toml" in ended.err
    assert "write your message in message.html and message.txt" in ended.err


def test_a_person_is_asked_which_column_has_the_addresses(
    command: Command, tmp_path: Path, answer: io.StringIO
) -> None:
    """Two columns may hold it; the names of all are shown."""
    (tmp_path / "two.csv").write_text("private,work\na@example.org,b@example.org\n", "utf-8")
    tell(answer, "wrok", "work", "", "")
    ended = command("init", "--recipients", "two.csv", *OPTIONS[:2], "--subject", "Hello")
    assert ended.code == 0, ended.err
    assert "has no column “wrok” (did you mean “work”?)" in ended.err
    assert load_config(tmp_path / "campaign.toml").email_column == "work"


def test_the_end_of_the_input_writes_nothing(
    command: Command, members: Path, tmp_path: Path, answer: io.StringIO
) -> None:
    """Ctrl-D is a no."""
    tell(answer, members.name)
    ended = command("init")
    assert ended.code == 2
    assert ended.sentence == "the input has ended: nothing was written"
    assert [path.name for path in tmp_path.iterdir()] == [members.name]


@pytest.mark.timeout(150)
def test_on_a_real_terminal(members: Path, tmp_path: Path) -> None:
    """`asyncsmtp init`, and the answers typed when the questions come; Enter takes the only file of the folder."""
    answers = [
        (f".jsonl; Enter: {members.name}):", "\n"),
        (".org>:", "news@example.org\n"),
        ("later):", "\n"),
        ("Subject:", "Hi\n"),
        ("you edit):", "\n"),
    ]
    code, printed = converse(tmp_path, ["init"], answers)
    assert code == 0, printed
    assert "Vorname" in printed
    assert load_config(tmp_path / "campaign.toml").subject == "Hi"


@pytest.mark.timeout(150)
def test_ctrl_c_at_a_question_writes_nothing(members: Path, tmp_path: Path) -> None:
    """At once, and not after the line."""
    code, printed = converse(tmp_path, ["init"], [(".jsonl", f"{members.name}\n"), (".org>:", "\x03")])
    assert code == 130, printed
    assert "interrupted" in printed
    assert [path.name for path in tmp_path.iterdir()] == [members.name]


# Providers, messages and encodings.


def read(tmp_path: Path) -> str:
    return (tmp_path / "campaign.toml").read_text("utf-8")


@pytest.mark.parametrize(
    ("sender", "typed", "section"),
    [
        ("ann@gmail.com", ["", "Hi"], 'provider = "gmail"\n\n# [limits]'),
        ("Ann <ann@web.de>", ["", "Hi"], 'provider = "web.de"\nuser = "ann"'),
        ("ann@firm.example", ["outlook", "Hi"], 'provider = "outlook"\n'),
        ("ann@firm.example", ["ses", "", "AKIA", "Hi"], 'provider = "ses"\nuser = "AKIA"\n'),
        ("ann@firm.example", ["sendgrid", "Hi"], 'provider = "sendgrid"\n'),
        ("ann@firm.example", ["smtp://ann@mail.firm.example", "Hi"], 'url = "smtp://ann@mail.firm.example"\n'),
    ],
    ids=["known", "local part", "another", "user", "fixed user", "url"],
)
def test_the_provider_is_chosen_or_guessed(
    command: Command, members: Path, tmp_path: Path, answer: io.StringIO, monkeypatch: pytest.MonkeyPatch,
    sender: str, typed: list[str], section: str,
) -> None:  # fmt: skip
    """The domain of the sender says it, or an answer does; a user name is asked for where it is not the address."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    more = ["ann"] if sender.endswith("web.de>") else []
    tell(answer, sender, *typed[:1], *more, *typed[1:], "", "")
    ended = command("init", "--recipients", members)
    assert ended.code == 0, ended.err
    assert section in read(tmp_path)
    assert ended.err.count("  next: ") == 3


@pytest.mark.parametrize(
    ("provider", "sentence"),
    [("gmial", "did you mean “gmail”?"), ("ses", "Amazon SES needs a login: the SMTP user name and password")],
)
def test_a_provider_that_cannot_be_used(
    command: Command, members: Path, tmp_path: Path, provider: str, sentence: str
) -> None:
    """Nothing is asked without a terminal, and nothing is written."""
    ended = command("init", "--recipients", members, *OPTIONS, "--provider", provider)
    assert ended.code == 2
    assert sentence in ended.sentence
    assert [path.name for path in tmp_path.iterdir()] == [members.name]


@pytest.mark.parametrize(
    ("name", "text", "keys"),
    [
        ("own.html", "<p>Dear {{ Vorname }}</p>", 'html = "own.html"\ntext_from_html = true'),
        ("own.md", "# Dear {{ Vorname }}", 'html = "own.md"\n\n[relay]'),
        ("own.txt", "Dear {{ Vorname }}", 'text = "own.txt"\n\n[relay]'),
    ],
)
def test_a_message_of_one_s_own_passes_the_check(
    command: Command, members: Path, tmp_path: Path, name: str, text: str, keys: str
) -> None:
    """HTML gets a text part, Markdown makes both, and text is enough."""
    (tmp_path / name).write_text(text, "utf-8")
    option = "--text-template" if name.endswith("txt") else "--template"
    assert command("init", "--recipients", members, *OPTIONS, option, name).code == 0
    assert keys in read(tmp_path)
    assert not list(tmp_path.glob("message.*"))
    checked = command("check", "campaign.toml")
    assert checked.code == 0, checked.out


@pytest.mark.parametrize("encoding", ["cp1250", "cp850"])
def test_an_encoding_that_is_given_is_written_down(command: Command, tmp_path: Path, encoding: str) -> None:
    """No later command asks for it, or guesses another."""
    (tmp_path / "klub.csv").write_bytes("email;Jméno\nann@example.org;Zoë Müller\n".encode(encoding, "replace"))
    ended = command("init", "--recipients", "klub.csv", *OPTIONS[:2], "--subject", "Hi", "--encoding", encoding)
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    assert load_config(tmp_path / "campaign.toml").encoding == encoding
    assert command("bulk", "campaign.toml", "--sandbox").code == 0


def test_lines_above_the_names_of_the_columns_are_written_down(command: Command, tmp_path: Path) -> None:
    """A title, as spreadsheets have one."""
    (tmp_path / "club.csv").write_text("Members 2026\n\nemail,Vorname\nann@example.org,Ann\n", "utf-8")
    assert command("init", "--recipients", "club.csv", *OPTIONS).code == 0
    assert load_config(tmp_path / "campaign.toml").skip_lines == 2
    assert write_and_check(command, tmp_path).code == 0


def test_an_encoding_that_is_not_certain_is_asked_for(
    command: Command, members: Path, tmp_path: Path, answer: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With cells as it reads them; Enter takes the most likely one, and no later command has to ask again."""
    members.write_bytes(MEMBERS.encode("cp1252"))
    tell(answer, "", "news@example.org", "", "Hi", "")
    ended = command("init", "--recipients", members)
    assert ended.code == 0, ended.err
    assert "cp1252 reads “Straße und Nr.”" in ended.err
    assert "Encoding of the file, such as cp1252 (Enter: cp1252):" in ended.err
    assert load_config(tmp_path / "campaign.toml").encoding == "cp1252"
    monkeypatch.setattr(console, "is_interactive", lambda: False)
    assert write_and_check(command, tmp_path).code == 0


def test_without_a_terminal_the_encoding_is_an_option(command: Command, members: Path, tmp_path: Path) -> None:
    """The sentence has the cells, and the command that makes the campaign."""
    members.write_bytes(MEMBERS.encode("cp1252"))
    ended = command("init", "--recipients", members, *OPTIONS)
    assert ended.code == 2
    assert "its encoding is not certain: cp1252 reads “Straße und Nr.”" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == [members.name]
    follow(command, ended)
    assert load_config(tmp_path / "campaign.toml").encoding == "cp1252"

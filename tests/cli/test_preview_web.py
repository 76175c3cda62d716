"""`preview` in the browser: when it is the page and when the terminal form, and a message through the real relay."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from asyncsmtp.bulk.setup.config import load_config
from asyncsmtp.cli.commands.preview import send_to_one
from asyncsmtp.testing import ScriptedRelay, Stage
from asyncsmtp.web.live_campaign import SendResult
from tests.cli.ended import Command
from tests.cli.serving import serving

WITHOUT_DISPLAY = {"DISPLAY": "", "WAYLAND_DISPLAY": "", "BROWSER": ""}
LONGEST = 60  # seconds for a command to begin or end, on a busy machine


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables of this process; empty ones are not set."""
    return {name: value for name, value in {**os.environ, **WITHOUT_DISPLAY, **variables}.items() if value}


@contextmanager
def running(folder: Path, *words: str) -> Iterator[str]:
    """Run the command without a terminal until it has printed the address; then end it by Ctrl-C."""
    line = [sys.executable, "-m", "asyncsmtp", "preview", *words]
    run = subprocess.Popen(
        line, cwd=folder, env=environment({}), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert run.stdout is not None
        assert select.select([run.stdout], [], [], LONGEST)[0]
        address = run.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), run.communicate(timeout=LONGEST)
        yield address
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=LONGEST)
        assert (run.returncode, "Traceback" in err) == (0, False), err
    finally:
        run.kill()
        run.wait(LONGEST)


def ask(address: str, path: str = "/", body: object = None) -> str:
    """As a program reads it, with the token."""
    base, _, token = address.partition("/?token=")
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(base + path, data, {"Authorization": f"Bearer {token}"}), timeout=LONGEST) as answer:
        text: str = answer.read().decode()
        return text


def read_until(address: str, text: str, path: str = "/") -> str:
    deadline = time.monotonic() + LONGEST
    while text not in (page := ask(address, path)):
        assert time.monotonic() < deadline, page
        time.sleep(0.05)
    return page


def test_the_page_is_there_while_the_command_runs(campaign: Path) -> None:
    """It shows the first message, follows what is saved, and is gone afterwards."""
    with running(campaign.parent, "campaign.toml", "--no-open") as address:
        read_until(address, "News for Ann")
        (campaign.parent / "message.txt").write_text("Servus {{ name }}\n", encoding="utf-8")
        read_until(address, "Servus Bob", "/?row=2&view=text")
    with pytest.raises(URLError):
        ask(address)


def test_a_row_and_a_port_are_chosen(campaign: Path) -> None:
    with running(campaign.parent, "campaign.toml", "--port", "0", "--row", "3") as address:
        read_until(address, "News for Cid")
        port = address.partition("127.0.0.1:")[2].partition("/")[0]
        line = [sys.executable, "-m", "asyncsmtp", "preview", "campaign.toml", "--port", port]
        taken = subprocess.run(line, cwd=campaign.parent, capture_output=True, text=True, timeout=LONGEST, check=False)
        assert taken.returncode == 2
        assert f"port {port} of 127.0.0.1 cannot be used" in taken.stderr
        with pytest.raises(HTTPError, match="401"):
            ask(address.replace("token=", "token=x"))


def test_a_campaign_that_is_broken_is_shown(campaign: Path) -> None:
    """It can be repaired while the page is open; a file that is not there at all is an error at once."""
    text = campaign.read_text("utf-8")
    campaign.write_text(text.replace("{{ name }}", "{{ nmae }}"), encoding="utf-8")
    with running(campaign.parent, "campaign.toml", "--no-open") as address:
        read_until(address, "campaign.toml, line 4")
        campaign.write_text(text, encoding="utf-8")
        read_until(address, "News for Ann")


def test_a_campaign_that_is_not_there(command: Command) -> None:
    ended = command("preview", "none.toml", "--no-open")
    assert (ended.code, "none.toml" in ended.sentence) == (2, True)


def test_options_that_do_not_go_together(command: Command, campaign: Path) -> None:
    for words in (["--no-open"], ["--open"], ["--port", 0]):
        ended = command("preview", campaign, "--output", "out", *words)
        assert (ended.code, "--output writes files" in ended.sentence) == (2, True)


def test_without_the_extra(command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the page was asked for: one sentence, with the command that installs it. Else the terminal form."""
    for package in ("uvicorn", "watchfiles"):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, package, None)
            ended = command("preview", campaign, "--no-open")
            assert (ended.code, "pip install 'asyncsmtp[web]'" in ended.sentence) == (2, True)
            ended = command("preview", campaign)
            assert (ended.code, ended.out.splitlines()[0], ended.err) == (0, "row 1", "")


def test_where_stdout_is_no_terminal_nothing_changes(
    command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripts read the terminal form, with a display too."""
    monkeypatch.setenv("DISPLAY", ":0")
    ended = command("preview", campaign, "--row", 2)
    assert (ended.code, ended.out.splitlines()[0], ended.err) == (0, "row 2", "")


# On a terminal.


def on_terminal(folder: Path, words: Sequence[str], variables: Mapping[str, str], until: str) -> tuple[int, str]:
    """Run the command on a terminal; press Ctrl-C once `until` was printed. Return how it ended and what it printed."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(folder)
        command = [sys.executable, "-m", "asyncsmtp", "preview", *words]
        os.execve(sys.executable, command, environment({**variables, "COLUMNS": "200"}))
    printed, deadline, pressed = "", time.monotonic() + LONGEST, False
    try:
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(terminal, 65536)
            except OSError:  # it has ended
                break
            if not data:
                break
            printed += data.decode(errors="replace")
            if until in printed and not pressed:
                pressed = True
                os.kill(pid, signal.SIGINT)
        else:
            os.kill(pid, signal.SIGKILL)
    finally:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            time.sleep(1)
            ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        os.close(terminal)
    return os.waitstatus_to_exitcode(status), printed


def test_with_a_display_the_browser_is_opened(campaign: Path) -> None:
    """At the address of the page, which is printed as well."""
    browser = campaign.parent / "browser"
    browser.write_text('#!/bin/sh\necho "$1" > "$0.opened"\n', encoding="utf-8")
    browser.chmod(0o700)
    code, printed = on_terminal(campaign.parent, ["campaign.toml"], {"BROWSER": f"{browser} %s"}, "Ctrl-C ends it")
    assert code == 0, printed
    [address] = re.findall(r"http://127\.0\.0\.1:\d+/\?token=\S+", printed)
    opened = campaign.parent / "browser.opened"
    deadline = time.monotonic() + LONGEST
    while not opened.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert opened.read_text("utf-8").strip() == address


def test_without_a_display_it_is_the_terminal_form_with_a_hint(campaign: Path) -> None:
    code, printed = on_terminal(campaign.parent, ["campaign.toml", "--row", "2"], {}, "never printed")
    assert (code, printed.splitlines()[0]) == (0, "row 2")
    assert "next: asyncsmtp preview campaign.toml --row 2 --no-open" in printed


# One message through the relay of the campaign.


@pytest.fixture
def sends(campaign: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(campaign.parent)
    yield campaign
    assert not list(campaign.parent.glob("*.ledger*"))  # nothing is written down


def send(campaign: Path, address: str) -> SendResult:
    """Send the message of row 2, as the page does."""
    from asyncsmtp.bulk.campaign import Campaign

    async def run() -> SendResult:
        config = load_config(campaign)
        prepared = await Campaign.from_config(config).prepare()
        async for batch in prepared.file.batches():
            return await send_to_one(config, prepared, batch[1], address)  # type: ignore[arg-type]
        raise AssertionError

    return asyncio.run(run())


def with_relay(campaign: Path, url: str) -> None:
    campaign.write_text(f'{campaign.read_text("utf-8")}\n[relay]\nurl = "{url}"\n', encoding="utf-8")


def test_a_message_goes_to_one_address_and_nowhere_else(sends: Path) -> None:
    """The message of the row, with the relay's answer; once."""
    with serving(ScriptedRelay()) as relay:
        with_relay(sends, f"smtp://127.0.0.1:{relay.port}?security=none")
        result = send(sends, "me@example.org")
    assert result.state == "accepted"
    assert result.sentence.startswith("accepted by 127.0.0.1")
    assert "250" in result.sentence
    [received] = relay.received
    assert received.forward_paths == ("me@example.org",)
    assert received.email["To"] == "me@example.org"
    assert received.email["Subject"] == "News for Bob"
    assert not received.email["Message-ID"].startswith("<preview.")


@pytest.mark.parametrize(("reply", "state"), [("550 5.1.1 no such user", "rejected"), ("451 4.7.1 later", "deferred")])
def test_a_refusal_is_in_the_words_of_the_relay(sends: Path, reply: str, state: str) -> None:
    with serving(ScriptedRelay({Stage.RCPT: (f"{reply}",)})) as relay:
        with_relay(sends, f"smtp://127.0.0.1:{relay.port}?security=none")
        result = send(sends, "me@example.org")
    assert result.state == state
    assert reply[4:] in result.sentence
    assert result.advice


@pytest.mark.parametrize(
    ("url", "address", "words"),
    [
        ("smtp://127.0.0.1:1?security=none", "me@example.org", "127.0.0.1"),
        ("", "me@example.org", "the campaign has no relay to send through"),
        ("smtp://127.0.0.1:1?security=none", "nobody", "the address: “nobody” is not an e-mail address"),
        ("smtps://ann@127.0.0.1:1", "me@example.org", "no password for ann"),
    ],
)
def test_what_keeps_it_from_being_sent_is_said_with_the_next_step(
    sends: Path, url: str, address: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection, no relay, no address, no password: nobody is asked at the terminal."""
    monkeypatch.delenv("ASYNCSMTP_PASSWORD", raising=False)
    if url:
        with_relay(sends, url)
    result = send(sends, address)
    assert result.state == "failed"
    assert words in result.sentence
    assert result.advice
    assert "command again" not in result.advice


@pytest.mark.parametrize("where", ["file", "option"])
def test_the_button_sends_through_the_relay(campaign: Path, where: str) -> None:
    """From the request to the relay, with the command that runs; the relay is that of the file, or of the option."""
    with serving(ScriptedRelay()) as relay:
        url = f"smtp://127.0.0.1:{relay.port}?security=none"
        with_relay(campaign, url if where == "file" else "smtp://127.0.0.1:1?security=none")
        options = [] if where == "file" else ["--relay", url]
        with running(campaign.parent, "campaign.toml", "--no-open", *options) as address:
            read_until(address, "News for Ann")
            result = json.loads(ask(address, "/rows/3/send", {"to": "me@example.org"}))
    assert result["state"] == "accepted"
    [received] = relay.received
    assert received.email["Subject"] == "News for Cid"

"""From a URL to a relay: its password found, and never one in the URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncsmtp.cli.failures import Failed
from asyncsmtp.cli.relays import relay_of
from asyncsmtp.client.relay import Dialogue
from asyncsmtp.errors import BadArgument

CANARY = "hunter2-c4n4ry"


@pytest.mark.parametrize(
    "url",
    [
        f"smtp://user:{CANARY}@relay.example:587",
        f"smtps://user:{CANARY}@relay.example",
        f"http://user:{CANARY}@relay.example",
        f"user:{CANARY}@relay.example",
        f"smtp//user:{CANARY}@relay.example",
        f"smtp://:{CANARY}@relay.example",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    """AU-08, CT-04: `ps` shows it; whatever else is wrong with the URL, it is not printed."""
    with pytest.raises(Failed, match="there is a password in the relay's URL") as caught:
        relay_of(url)
    assert CANARY not in str(caught.value) + caught.value.failure.advice


def test_a_user_in_the_url_needs_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked of the sources, by the user's name as it is and not as the URL writes it."""
    monkeypatch.setenv("ASYNCSMTP_PASSWORD", CANARY)
    relay = relay_of("smtp://ann%40example.org@relay.example:587")
    assert relay.login is not None
    assert relay.login.username == "ann@example.org"
    assert CANARY not in repr(relay)


def test_the_options_go_before_the_url(tmp_path: Path) -> None:
    """Later wins; what no option says, the URL does."""
    ca = tmp_path / "ca.pem"
    ca.write_text("")
    relay = relay_of("smtp://relay.example?dialogue=lockstep", ca_file=ca)
    assert relay.dialogue is Dialogue.LOCKSTEP
    assert relay.ca_file == ca
    assert relay_of("smtp://relay.example?dialogue=lockstep", dialogue="pipelined").dialogue is Dialogue.PIPELINED


def test_a_missing_ca_file_is_told_before_anything_is_opened(tmp_path: Path) -> None:
    """The option's name, not an error of the TLS library."""
    with pytest.raises(Failed, match="there is no CA file"):
        relay_of("smtp://relay.example", ca_file=tmp_path / "nothing.pem")


def test_what_is_no_relay_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own sentence."""
    with pytest.raises(BadArgument, match="is no relay"):
        relay_of("relay.example:25")


def test_a_key_log_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """TL-15: an environment that writes session keys to a file should be no secret."""
    monkeypatch.setenv("SSLKEYLOGFILE", "/dev/null")
    relay_of("smtp://relay.example")
    assert "SSLKEYLOGFILE is set" in capsys.readouterr().err

"""From a URL to a relay: its password found, and never one in the URL."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from asyncsmtp.cli.options import make_cli_relay
from asyncsmtp.cli.output.error_messages import CommandError
from asyncsmtp.client.config.login_config import ClientCertificate
from asyncsmtp.client.config.relay import Dialogue, Proxy, ProxyKind
from asyncsmtp.errors import ConfigError, InvalidArgument
from asyncsmtp.protocol.auth.auth import Secret

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
        f"smtp://me@gmail.com:{CANARY}@relay.example",
        f"me@gmail.com:{CANARY}@relay.example:587",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    """FT-53, AU-08, CT-04: `ps` shows it; whatever else is wrong with the URL, it is not printed."""
    with pytest.raises(ConfigError, match="there is a password in the relay's URL") as caught:
        make_cli_relay(url)
    assert CANARY not in str(caught.value) + caught.value.advice


def test_a_user_in_the_url_needs_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked of the sources, by the user's name as it is and not as the URL writes it."""
    monkeypatch.setenv("ASYNCSMTP_PASSWORD", CANARY)
    relay = make_cli_relay("smtp://ann%40example.org@relay.example:587")
    assert relay.login is not None
    assert relay.login.username == "ann@example.org"
    assert CANARY not in repr(relay)


def test_the_options_go_before_the_url(tmp_path: Path) -> None:
    """Later wins; what no option says, the URL does."""
    ca = tmp_path / "ca.pem"
    ca.write_text("")
    relay = make_cli_relay("smtp://relay.example?dialogue=lockstep", ca_file=ca)
    assert relay.dialogue is Dialogue.LOCKSTEP
    assert relay.ca_file == ca
    assert make_cli_relay("smtp://relay.example?dialogue=lockstep", dialogue="pipelined").dialogue is Dialogue.PIPELINED


def test_a_missing_ca_file_is_reported_before_anything_is_opened(tmp_path: Path) -> None:
    """The option's name, not an error of the TLS library."""
    with pytest.raises(ConfigError, match="there is no CA file"):
        make_cli_relay("smtp://relay.example", ca_file=tmp_path / "nothing.pem")


def test_a_url_that_is_not_a_relay_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own sentence."""
    with pytest.raises(InvalidArgument, match="is not a relay"):
        make_cli_relay("relay.example:25")


def test_a_key_log_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """TL-15: an environment that writes session keys to a file should be no secret."""
    monkeypatch.setenv("SSLKEYLOGFILE", "/dev/null")
    make_cli_relay("smtp://relay.example")
    assert "SSLKEYLOGFILE is set" in capsys.readouterr().err


def test_what_stands_beside_the_url_goes_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of [relay], or the query of the URL; a proxy's password and a key's passphrase have their variables."""
    certificate, key = tmp_path / "ann.pem", tmp_path / "ann.key"
    certificate.write_text("certificate")
    key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    monkeypatch.setenv("ASYNCSMTP_PROXY_PASSWORD", CANARY)
    monkeypatch.setenv("ASYNCSMTP_KEY_PASSPHRASE", CANARY)
    pins = ("ab" * 32,)
    url = f"smtp://relay.example?proxy=http://bob@other.example&client-cert={certificate}&client-key={key}"
    for relay in (
        make_cli_relay(
            "smtp://relay.example?source-address=192.0.2.1",
            source_address="192.0.2.9",
            proxy="http://bob@other.example",
            pins=pins,
            client_cert=certificate,
            client_key=key,
        ),
        make_cli_relay(f"{url}&pin={pins[0]}&source-address=192.0.2.9"),
    ):
        assert relay.source_address == "192.0.2.9"
        assert relay.pins == pins
        assert relay.proxy == Proxy(ProxyKind.HTTP, "other.example", None, "bob", Secret(CANARY))
        assert relay.client_certificate == ClientCertificate(certificate, key, Secret(CANARY))
        assert CANARY not in repr(relay)
    key.write_text("-----BEGIN PRIVATE KEY-----")
    clear = make_cli_relay("smtp://relay.example", client_cert=certificate, client_key=key).client_certificate
    assert clear is not None
    assert clear.passphrase is None


@pytest.mark.parametrize(
    "place", [{"proxy": f"socks5://u:{CANARY}@p"}, {"url": f"smtp://relay.example?proxy=socks5://u:{CANARY}@p:1080"}]
)
def test_a_password_in_a_proxys_url_is_refused_and_not_repeated(place: dict[str, str]) -> None:
    """AU-08."""
    with pytest.raises(ConfigError, match="there is a password") as caught:
        make_cli_relay(**{"url": "smtp://relay.example", **place})  # type: ignore[arg-type]
    assert CANARY not in str(caught.value) + caught.value.advice


def test_what_is_missing_is_reported_before_anything_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files by their names, secrets by their variables."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    locked = tmp_path / "locked.key"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    for place, why in (
        ({"client_cert": tmp_path / "ann.pem"}, "there is no client certificate"),
        ({"client_key": locked}, "no client certificate"),
        ({"client_cert": locked}, "no passphrase"),
        ({"proxy": "socks5://bob@p"}, "no password for bob at the proxy p"),
    ):
        with pytest.raises((CommandError, ConfigError), match=why):
            make_cli_relay("smtp://relay.example", **place)  # type: ignore[arg-type]


def test_several_hosts_share_one_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The password is looked for under the first of them."""
    monkeypatch.setenv("ASYNCSMTP_PASSWORD", CANARY)
    relay = make_cli_relay("smtp://ann@one.example:25,two.example")
    assert [str(host) for host in relay.single_host_relays] == ["one.example:25", "two.example:587"]
    assert relay.login is not None

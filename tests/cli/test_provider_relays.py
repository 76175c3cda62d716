"""`--provider` and `[relay] provider`: a server that demands STARTTLS and AUTH as Gmail does, and domains with SRV."""

from __future__ import annotations

import socket
import ssl
import sys
from pathlib import Path

import pytest
import trustme

from asyncsmtp.testing import ScriptedRelay, Stage
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.name_server import Zone, naming

ADDRESS, PASSWORD = "ann@gmail.com", "abcd efgh ijkl mnop"
MESSAGE = ("--from", f"Ann <{ADDRESS}>", "--to", "bob@example.com", "--subject", "Hi", "--text", "Hello")


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The certificate of the authority; the password is in the environment."""
    monkeypatch.setenv("ASYNCSMTP_PASSWORD", PASSWORD)
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


def gmail(tls: ssl.SSLContext, users: dict[str, str] | None = None) -> ScriptedRelay:
    """A server that takes no mail without TLS and a login, and no login without TLS."""
    return ScriptedRelay(
        tls=tls, users=users or {ADDRESS: PASSWORD}, auth_needs_tls=True, needs_auth=True, needs_tls=True
    )


def local(relay: ScriptedRelay) -> str:
    return f"smtp://127.0.0.1:{relay.port}"


def test_send_logs_in_as_the_sender(command: Command, ca_file: Path, server_tls: ssl.SSLContext) -> None:
    """The URL beside the provider wins for host and port; the user is the address of From."""
    with serving(gmail(server_tls)) as relay:
        ended = command("send", "--provider", "gmail", "--relay", local(relay), "--ca-file", ca_file, *MESSAGE)
    assert ended.code == 0, ended.err
    assert [(each.user, each.accepted) for each in relay.auth_attempts] == [(ADDRESS, True)]


@pytest.mark.parametrize("place", ["file", "option", "variable"])
def test_a_campaign_names_its_provider(
    command: Command, campaign: Path, ca_file: Path, server_tls: ssl.SSLContext, place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """In the file, as an option, or in the environment; all three rows are accepted."""
    text = campaign.read_text("utf-8").replace("news@example.org", ADDRESS)
    with serving(gmail(server_tls)) as relay:
        options = ["--provider", "gmail"] if place == "option" else []
        if place == "variable":
            monkeypatch.setenv("ASYNCSMTP_PROVIDER", "gmail")
        section = f'[relay]\nurl = "{local(relay)}"\n' + ('provider = "gmail"\n' if place == "file" else "")
        campaign.write_text(text + section, encoding="utf-8")
        ended = command("bulk", campaign, "--ca-file", ca_file, "--yes", *options)
        assert ended.code == 0, ended.err
        assert len(relay.received) == 3
        assert {each.user for each in relay.auth_attempts} == {ADDRESS}


def test_the_user_may_be_another_one(command: Command, ca_file: Path, server_tls: ssl.SSLContext) -> None:
    """--user goes before the provider's own, and that before the sender."""
    for options, user in [(("--user", "a:b@c/d"), "a:b@c/d"), ((), "apikey")]:
        with serving(gmail(server_tls, {user: PASSWORD})) as relay:
            url = ("--relay", local(relay), "--ca-file", ca_file)
            ended = command("send", "--provider", "sendgrid", *url, *options, *MESSAGE)
        assert ended.code == 0, ended.err
        assert [each.user for each in relay.auth_attempts] == [user]


def test_check_opens_a_session_with_the_provider(command: Command, ca_file: Path, server_tls: ssl.SSLContext) -> None:
    """With --from for the user."""
    with serving(gmail(server_tls)) as relay:
        url = ("--relay", local(relay), "--ca-file", ca_file)
        ended = command("check", "--provider", "gmail", *url, "--from", ADDRESS)
    assert ended.code == 0, ended.err
    assert f"accepted, as {ADDRESS}" in ended.out


def test_a_login_that_is_not_given_is_asked_for(command: Command, ca_file: Path) -> None:
    """Before anything is sent: what it is, and which option."""
    for line in (["check", "--provider", "ses"], ["send", "--provider", "ses-eu-west-1", *MESSAGE]):
        ended = command(*line)
        assert ended.code == 2
        assert "needs a login: the SMTP user name and password that SES creates" in ended.sentence
        assert "--user NAME" in ended.err


@pytest.mark.parametrize(
    "line",
    [
        ["send", "--provider", "gmial", *MESSAGE],
        ["check", "--provider", "gmial"],
        ["bulk", "campaign.toml", "--provider", "gmial"],
    ],
)
def test_an_unknown_provider_is_an_error_with_the_nearest(command: Command, campaign: Path, line: list[str]) -> None:
    """A typing mistake costs one look."""
    ended = command(*line)
    assert ended.code == 2
    assert "“gmial” is not a known provider; did you mean “gmail”?" in ended.sentence


def test_an_unknown_provider_in_the_file_is_named_with_its_key(command: Command, campaign: Path) -> None:
    """The file, the section and the key."""
    campaign.write_text(campaign.read_text("utf-8") + '[relay]\nprovider = "sendgird"\n', encoding="utf-8")
    ended = command("check", campaign)
    assert ended.code == 2
    assert "[relay] provider: “sendgird” is not a known provider; did you mean “sendgrid”?" in ended.sentence


# A domain of one's own: SRV records (RFC 6186).


def run_with_zone(command: Command, campaign: Path, domain: str, zone: Zone, *options: object) -> tuple[int, str]:
    """Run a campaign whose provider is a domain, against a name server on loopback."""
    with naming(zone) as server:
        text = campaign.read_text("utf-8").replace("news@example.org", f"news@{domain}")
        text += f'[relay]\nprovider = "{domain}"\n[limits]\nname_server = "127.0.0.1:{server.port}"\n'
        campaign.write_text(text, encoding="utf-8")
        ended = command("bulk", campaign, "--yes", *options)
    return ended.code, ended.err


def test_the_server_of_a_domain_is_found_by_its_srv_record(
    command: Command, campaign: Path, ca_file: Path, server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record has the port; the login is the sender's address."""
    with serving(gmail(server_tls, {"news@relay.example": PASSWORD})) as relay:
        srv = ["20 0 1 other.relay.example.", "10 1 2 light.relay.example.", f"10 5 {relay.port} relay.example."]
        zone: Zone = {("_submission._tcp.relay.example", "SRV"): srv}
        monkeypatch.setitem(sys.modules, "uvloop", None)  # it has a resolver of its own
        monkeypatch.setattr(socket, "getaddrinfo", _to_loopback)
        code, err = run_with_zone(command, campaign, "relay.example", zone, "--ca-file", ca_file)
        assert code == 0, err
        assert len(relay.received) == 3
        assert {each.user for each in relay.auth_attempts} == {"news@relay.example"}


def _to_loopback(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ({}, "has no SRV record for submission"),
        ({("_submission._tcp.firm.example", "SRV"): ["0 0 0 ."]}, "has no SRV record for submission"),
        (
            {("_submissions._tcp.firm.example", "SRV"): ["0 1 465 mail.thief.test."]},
            "DNS names mail.thief.test for firm.example, a server of another domain",
        ),
    ],
)
def test_a_domain_without_a_server_of_its_own_sends_nothing(
    command: Command, campaign: Path, ca_file: Path, records: Zone, words: str
) -> None:
    """A password never goes to whoever an answer of DNS names."""
    code, err = run_with_zone(command, campaign, "firm.example", {"firm.example": [], **records})
    assert code == 2
    assert words in err


def test_a_known_provider_s_server_is_taken_for_another_domain(
    command: Command, campaign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A domain that is hosted by Fastmail: the next thing that is missing is the password."""
    zone: Zone = {("_submissions._tcp.firm.example", "SRV"): ["0 1 465 smtp.fastmail.com."]}
    monkeypatch.setattr("asyncsmtp.cli.secret_sources._from_keyring", lambda *_: None)
    code, err = run_with_zone(command, campaign, "firm.example", zone)
    assert code == 2
    assert "no password for news@firm.example at smtp.fastmail.com" in err


# Several relays.


def relays_of(*tables: str) -> str:
    return "".join(f"[[relays]]\nsessions = 1\n{table}\n" for table in tables)


@pytest.mark.parametrize("main", ["file", "option", "none"])
def test_several_relays_name_their_providers(
    command: Command, campaign: Path, ca_file: Path, server_tls: ssl.SSLContext, main: str
) -> None:
    """Each has its own user; --provider or [relay] is one more, and all have a share."""
    text = campaign.read_text("utf-8").replace("news@example.org", ADDRESS)
    users = {ADDRESS: PASSWORD, "apikey": PASSWORD, "bob@firm.example": PASSWORD}
    with serving(gmail(server_tls, users)) as relay:
        url = f'url = "{local(relay)}"\n'
        text += f'[relay]\n{url}provider = "gmail"\n' if main == "file" else ""
        text += relays_of(f'{url}provider = "sendgrid"', f'{url}provider = "gmail"\nuser = "bob@firm.example"')
        campaign.write_text(text, encoding="utf-8")
        words = ["--provider", "gmail", "--relay", local(relay)] if main == "option" else []
        ended = command("bulk", campaign, "--yes", "--ca-file", ca_file, *words)
        assert ended.code == 0, ended.err
        assert len(relay.received) == 3
    expected = {"apikey", "bob@firm.example"} | (set() if main == "none" else {ADDRESS})
    assert {each.user for each in relay.auth_attempts} == expected


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ('provider = "gmial"', "relays: provider: “gmial” is not a known provider; did you mean “gmail”?"),
        ("weight = 2", "each is a section with a url or a provider"),
        ('provider = "ses"', "Amazon SES needs a login"),
        ('user = "ann"', "each is a section with a url or a provider"),
    ],
)
def test_a_relay_of_several_that_cannot_be_used(
    command: Command, campaign: Path, ca_file: Path, table: str, sentence: str
) -> None:
    """Before anything is sent, as in [relay]."""
    campaign.write_text(campaign.read_text("utf-8") + relays_of(table), encoding="utf-8")
    ended = command("bulk", campaign, "--yes")
    assert ended.code == 2
    assert sentence in ended.sentence.replace("[relays]", "relays")


def test_one_of_several_relays_is_a_domain(
    command: Command, campaign: Path, ca_file: Path, server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its SRV record is looked up as that of [relay] is."""
    with serving(gmail(server_tls, {"news@relay.example": PASSWORD})) as relay:
        monkeypatch.setitem(sys.modules, "uvloop", None)  # it has a resolver of its own
        monkeypatch.setattr(socket, "getaddrinfo", _to_loopback)
        zone: Zone = {("_submission._tcp.relay.example", "SRV"): [f"10 5 {relay.port} relay.example."]}
        with naming(zone) as server:
            text = campaign.read_text("utf-8").replace("news@example.org", "news@relay.example")
            text += f'[limits]\nname_server = "127.0.0.1:{server.port}"\n' + relays_of('provider = "relay.example"')
            campaign.write_text(text, encoding="utf-8")
            ended = command("bulk", campaign, "--yes", "--ca-file", ca_file)
    assert ended.code == 0, ended.err
    assert len(relay.received) == 3


def test_a_refusal_of_one_of_several_is_explained(
    command: Command, campaign: Path, ca_file: Path, server_tls: ssl.SSLContext
) -> None:
    """By the provider whose relay it was."""
    text = campaign.read_text("utf-8").replace("news@example.org", ADDRESS)
    script = {Stage.AUTH: "535 5.7.8 Username and Password not accepted"}
    with serving(ScriptedRelay(script, tls=server_tls, users={ADDRESS: PASSWORD}, auth_needs_tls=True)) as relay:
        campaign.write_text(text + relays_of(f'url = "{local(relay)}"\nprovider = "gmail"'), encoding="utf-8")
        ended = command("bulk", campaign, "--yes", "--ca-file", ca_file)
    assert ended.code == 77
    assert "make an app password" in ended.err

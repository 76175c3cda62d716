"""Refusals in the words of providers, by a server that demands STARTTLS and AUTH: what they mean, and what to do."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from asyncsmtp import errors
from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.cli.command_line import CommandLine
from asyncsmtp.cli.main import asyncsmtp
from asyncsmtp.cli.output.error_messages import explain
from asyncsmtp.cli.output.provider_advice import describe_quota, explain_reason, explain_reply
from asyncsmtp.protocol.commands import Command as SmtpCommand
from asyncsmtp.protocol.commands import Verb
from asyncsmtp.protocol.replies import Reply
from asyncsmtp.testing import Rule, ScriptedRelay, Stage, StageContext
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_provider_relays import ADDRESS, MESSAGE, PASSWORD, local

BAD_CREDENTIALS = (
    "535-5.7.8 Username and Password not accepted. For more information, go to\n"
    "535 5.7.8  https://support.google.com/mail/?p=BadCredentials a1-20020a - gsmtp"
)
DAILY_LIMIT = (
    "550-5.4.5 Daily user sending limit exceeded. For more information on Gmail\n"
    "550 5.4.5 sending limits go to https://support.google.com/a/answer/166852 a1-20020a - gsmtp"
)


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The certificate of the authority; the password is in the environment."""
    monkeypatch.setenv("ASYNCSMTP_PASSWORD", PASSWORD)
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


def server(tls: ssl.SSLContext, script: Mapping[Stage, Rule]) -> ScriptedRelay:
    """A server that takes no mail without TLS and a login."""
    users = {ADDRESS: PASSWORD}
    return ScriptedRelay(script, tls=tls, users=users, auth_needs_tls=True, needs_auth=True, needs_tls=True)


def multiline(reply: str) -> str:
    return reply.replace("\n", "\r\n")


@pytest.mark.parametrize("verb", ["send", "check", "bulk"])
def test_a_login_that_gmail_refuses_is_explained(
    command: Command, campaign: Path, ca_file: Path, server_tls: ssl.SSLContext, verb: str
) -> None:
    """With where to make an app password; the exit code is that of a refused login."""
    lines = {
        "send": ["send", *MESSAGE],
        "check": ["check", "--from", ADDRESS],
        "bulk": ["bulk", campaign, "--yes", "--user", ADDRESS],
    }
    relay = ScriptedRelay(
        {Stage.AUTH: multiline(BAD_CREDENTIALS)}, tls=server_tls, users={ADDRESS: PASSWORD}, auth_needs_tls=True
    )
    with serving(relay):
        ended = command(*lines[verb], "--provider", "gmail", "--relay", local(relay), "--ca-file", ca_file)
    assert ended.code == 77, ended.err
    assert "535 5.7.8 Username and Password not accepted" in ended.sentence
    assert "next: Gmail: Google does not accept this user name and password" in ended.err
    assert "https://myaccount.google.com/apppasswords" in ended.err
    assert PASSWORD not in ended.err


def test_smtp_auth_that_is_off_is_explained(
    command: Command, campaign: Path, ca_file: Path, server_tls: ssl.SSLContext
) -> None:
    """Who can turn it on; the provider is named in the campaign file."""
    words = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant."
    relay = ScriptedRelay({Stage.AUTH: words}, tls=server_tls, users={ADDRESS: PASSWORD}, auth_needs_tls=True)
    with serving(relay):
        section = f'[relay]\nurl = "{local(relay)}"\nprovider = "microsoft365"\n'
        campaign.write_text(campaign.read_text("utf-8") + section, encoding="utf-8")
        ended = command("bulk", campaign, "--yes", "--ca-file", ca_file)
    assert ended.code == 77
    assert "next: Microsoft 365: SMTP AUTH is turned off" in ended.err
    assert "ask the Exchange administrator to turn on Authenticated SMTP" in ended.err


def write_campaign(campaign: Path, relay: ScriptedRelay, provider: str, rows: int) -> None:
    """A campaign through that provider, for so many people at twenty domains."""
    people = "".join(f"reader{n}@d{n % 20}.example,Reader {n}\n" for n in range(rows))
    (campaign.parent / "people.csv").write_text(f"email,name\n{people}", encoding="utf-8")
    section = f'[relay]\nurl = "{local(relay)}"\nprovider = "{provider}"\nuser = "{ADDRESS}"\n'
    campaign.write_text(campaign.read_text("utf-8") + section, encoding="utf-8")


def test_a_quota_that_is_used_up_is_explained_with_the_time_to_go_on(
    command: Command, campaign: Path, ca_file: Path, server_tls: ssl.SSLContext
) -> None:
    """The run halts; the summary and the error say when Gmail accepts again, `status` says the same the day after."""

    def refuse(context: StageContext) -> str:
        return multiline(DAILY_LIMIT.replace("a1-20020a", f"a{context.occurrence}-20020a"))

    with serving(server(server_tls, {Stage.END_OF_DATA: refuse})) as relay:
        write_campaign(campaign, relay, "gmail", 60)
        ended = command("bulk", campaign, "--yes", "--ca-file", ca_file)
    assert ended.code == 69, ended.err
    assert "the campaign stops" in ended.sentence
    found = re.findall(r"Gmail: the messages or recipients .* it accepts again by ([\d-]+ \d\d:\d\d)", ended.err)
    assert len(found) == 2  # in the summary and as the next step
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    for text in found:
        assert abs(datetime.strptime(text, "%Y-%m-%d %H:%M").astimezone() - tomorrow) < timedelta(minutes=10)
    assert re.search(r"--rate 2000/day \(Workspace\); then, before the same command: asyncsmtp resolve", ended.err)
    shown = command("status", campaign).out
    assert shown.count("it accepts again by") == 1
    assert f"it accepts again by {tomorrow.astimezone():%Y-%m-%d}" in shown


def test_a_from_that_the_login_may_not_use_is_explained(
    command: Command, campaign: Path, ca_file: Path, server_tls: ssl.SSLContext
) -> None:
    """Few rows do not halt the run; `bulk` and `status` explain it all the same, once for all of them."""
    words = f"554 5.2.252 SendAsDenied; {ADDRESS} not allowed to send as news@example.org; [Hostname=AM0]"
    with serving(server(server_tls, {Stage.END_OF_DATA: words})) as relay:
        write_campaign(campaign, relay, "microsoft365", 3)
        ended = command("bulk", campaign, "--yes", "--ca-file", ca_file)
    assert ended.code == 1, ended.err
    explained = "Microsoft 365: the login may not send as the address in From: use the address of the login in From"
    assert ended.err.count(explained) == 1
    assert command("status", campaign).out.count(explained) == 1


def test_an_unverified_identity_is_explained_by_send(
    command: Command, ca_file: Path, server_tls: ssl.SSLContext
) -> None:
    """Amazon's sandbox."""
    words = "554 Message rejected: Email address is not verified. The following identities failed the check"
    with serving(server(server_tls, {Stage.END_OF_DATA: words})) as relay:
        url = ("--relay", local(relay), "--ca-file", ca_file, "--user", ADDRESS)
        ended = command("send", "--provider", "ses-eu-west-1", *url, *MESSAGE)
    assert ended.code == 1
    assert "Amazon SES (eu-west-1): an address is not verified" in ended.err
    assert "request production access to leave the sandbox" in ended.err


def test_what_is_not_known_of_the_provider_is_said_as_before(
    command: Command, ca_file: Path, server_tls: ssl.SSLContext
) -> None:
    """A mailbox that does not exist is no matter of the account; nor is a refusal by an unknown relay explained."""
    with serving(server(server_tls, {Stage.RCPT: "550 5.1.1 no such user"})) as relay:
        url = ("--relay", local(relay), "--ca-file", ca_file)
        ended = command("send", "--provider", "gmail", *url, *MESSAGE)
    assert ended.code == 1
    assert "Gmail" not in ended.err
    assert explain_reply("535 5.7.8 Username and Password not accepted", "mail.example.org:587") is None
    assert explain_reply("535 5.7.8 no", "mail.example.org:587", "example.org") is None


def test_a_known_host_needs_no_name() -> None:
    """The relay that refused is the provider's, whatever was named; of several relays each has its own words."""
    known = explain_reason(
        "454 Throttling failure: Daily message quota exceeded. (email-smtp.eu-west-1.amazonaws.com:587)"
    )
    assert known is not None
    assert known.meaning.startswith("Amazon SES: ")
    other = explain_reason("535 5.7.8 no (smtp.gmail.com:587)", "microsoft365")
    assert other is not None
    assert other.meaning.startswith("Gmail: ")


@pytest.mark.parametrize(
    "words",
    [
        ("send", "--relay", "smtp://ann@smtp.gmail.com:587"),
        ("send", "--relay=smtp://one.example,smtp.gmail.com:587"),
        ("check", "--provider=gmail"),
        ("bulk", "--provider", "gmail", "nowhere.toml"),
    ],
)
def test_the_provider_is_found_on_the_command_line(words: tuple[str, ...]) -> None:
    """By its name, or by the host of its relay; a campaign file that cannot be read changes nothing."""
    error = errors.AuthenticationRefused(SmtpCommand(Verb.AUTH, b"PLAIN"), Reply(534, (b"5.7.9 Application-specific",)))
    assert explain(error, CommandLine(words, asyncsmtp)).advice.startswith("Gmail: Google wants an app password")


def test_an_impostor_is_never_explained_away() -> None:
    """A server that accepted the login without proof has refused nothing."""
    error = errors.ServerNotAuthenticated(SmtpCommand(Verb.AUTH, b"SCRAM"), Reply(235, (b"535 5.7.8",)))
    assert "Gmail" not in explain(error, CommandLine(("check", "--provider", "gmail"), asyncsmtp)).advice


def test_more_recipients_than_gmail_accepts_in_a_day_are_remarked_before_sending(
    command: Command, campaign: Path, ca_file: Path, server_tls: ssl.SSLContext
) -> None:
    """With the rate to set; who has set one is told nothing, and neither is a rehearsal."""
    words = "Gmail accepts 500 messages a day, 100 recipients a message: add --rate 500/day, and --wait"
    with serving(server(server_tls, {})) as relay:
        write_campaign(campaign, relay, "gmail", 501)
        rehearsed = command("bulk", campaign, "--sandbox")
        limited = command("bulk", campaign, "--yes", "--ca-file", ca_file, "--rate", "500/day", "--limit", 1)
        ended = command("bulk", campaign, "--yes", "--ca-file", ca_file, "--limit", 3)
    assert words not in rehearsed.err + limited.err + ended.err
    assert describe_quota("gmail", (), 500) is None
    assert (describe_quota("gmail", (), 501) or "").startswith(words)
    assert describe_quota("gmail", (Rate.parse("20/s"),), 501) is None
    assert (
        describe_quota("example.org", (), 501) is describe_quota("aol", (), 501) is describe_quota(None, (), 9) is None
    )


def test_the_remark_comes_with_the_question(command: Command, campaign: Path, ca_file: Path) -> None:
    """Nobody has to agree before having read it."""
    rows = "".join(f"reader{n}@example.org,Reader {n}\n" for n in range(501))
    (campaign.parent / "people.csv").write_text(f"email,name\n{rows}", encoding="utf-8")
    text = campaign.read_text("utf-8").replace("news@example.org", ADDRESS)
    campaign.write_text(text + '[relay]\nprovider = "gmail"\n', encoding="utf-8")
    ended = command("bulk", campaign)  # no terminal: it would have to be agreed to
    assert ended.code == 2
    assert "Gmail accepts 500 messages a day" in ended.err
    assert "through smtp.gmail.com:587" in ended.err

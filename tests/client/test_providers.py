"""Presets of mail providers: they can be named, their relays can be made, and their refusals are known."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.client import PROVIDERS, Provider, find_provider, find_provider_by_host
from asyncsmtp.client.config.relay import Relay
from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.opening_handshake import Security

WANTED = [
    "gmail",
    "google-workspace",
    "outlook",
    "microsoft365",
    "icloud",
    "yahoo",
    "aol",
    "fastmail",
    "zoho",
    "gmx",
    "web.de",
    "mailbox.org",
    "proton-bridge",
    "ses",
    "sendgrid",
    "mailgun",
    "postmark",
    "brevo",
    "mailjet",
    "sparkpost",
    "resend",
    "ovh",
    "ionos",
    "infomaniak",
    "mailtrap",
]


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda each: each.name)
def test_each_provider_has_a_relay_with_tls_and_a_source(provider: Provider) -> None:
    """Credentials never leave in clear; every fact can be looked up again."""
    relay = Relay.for_provider(provider.name, "ann@example.org", password="secret")
    assert relay.address == (provider.host.replace("{region}", provider.region), provider.port)
    assert relay.security in (Security.STARTTLS, Security.IMPLICIT_TLS)
    assert relay.login is not None
    assert relay.login.username == "ann@example.org"
    assert all(source.startswith("https://") for source in provider.sources)
    assert provider.sources
    assert provider.login
    assert provider.limits
    assert find_provider(provider.name.upper()) is provider


def test_the_providers_that_people_have_are_there() -> None:
    """At least two dozen."""
    assert set(WANTED) <= PROVIDERS.keys()
    assert len(PROVIDERS) >= 24


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda each: each.name)
def test_rates_and_patterns_are_valid(provider: Provider) -> None:
    """What is printed as --rate is one; each refusal says what it means and what to do."""
    assert not provider.rate or Rate.parse_all(provider.rate)
    for refusal in provider.refusals:
        assert re.compile(refusal.pattern)
        assert refusal.meaning
        assert refusal.advice
        for rate in re.findall(r"--rate ('[^']*'|\S+/\w+)", refusal.advice):
            assert Rate.parse_all(rate.strip("'"))


def test_a_user_name_that_is_the_same_for_everyone_need_not_be_given() -> None:
    """SendGrid's is the word apikey."""
    login = Relay.for_provider("sendgrid", password="SG.key").login
    assert login is not None
    assert login.username == "apikey"


def test_a_login_that_is_missing_is_described() -> None:
    """Amazon's user name is neither an address nor an access key."""
    with pytest.raises(InvalidArgument, match="Amazon SES needs username= and password=: the SMTP user name"):
        Relay.for_provider("ses", password="secret")


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("ses", "email-smtp.us-east-1.amazonaws.com"),
        ("ses-eu-west-1", "email-smtp.eu-west-1.amazonaws.com"),
        ("amazon-ses", "email-smtp.us-east-1.amazonaws.com"),
        ("SES-AP-SOUTHEAST-2", "email-smtp.ap-southeast-2.amazonaws.com"),
    ],
)
def test_amazon_has_a_host_in_each_region(name: str, host: str) -> None:
    """Credentials of one region are refused by the others."""
    assert Relay.for_provider(name, "AKIA", password="secret").host == host
    found = find_provider_by_host(f"{host}:587")
    assert found is not None
    assert found.name == "ses"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("gmial", "gmail"), ("sendgird", "sendgrid"), ("micrsoft365", "microsoft365"), ("mail box.org", "mailbox.org")],
)
def test_an_unknown_provider_is_an_error_with_the_nearest_name(typed: str, meant: str) -> None:
    """A typing mistake costs one look."""
    with pytest.raises(InvalidArgument, match=f"“{typed}” is not a known provider; did you mean “{meant}”"):
        find_provider(typed)


@pytest.mark.parametrize("typed", ["ses-mars", "ses-eu-west-1.evil.example/", "", "x\n"])
def test_a_name_that_is_near_no_other_is_an_error_too(typed: str) -> None:
    """It lists those that there are, and prints nothing raw."""
    with pytest.raises(InvalidArgument, match="is not a known provider") as caught:
        find_provider(typed)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "host", ["smtp.gmail.com.example.org", "evilsmtp.gmail.com", "smtpxgmail.com", "127.0.0.1", "", "gmail.com"]
)
def test_only_the_provider_s_own_host_is_recognized(host: str) -> None:
    """What another server says is not explained in the provider's name; nor is everything on this machine Proton's."""
    assert find_provider_by_host(host) is None


@pytest.mark.parametrize(
    ("name", "reply", "words"),
    [
        ("gmail", "535 5.7.8 Username and Password not accepted. For more, go to / 5.7.8 https://…", "app"),
        ("google-workspace", "534 5.7.9 Application-specific password required.", "app password"),
        ("gmail", "550 5.4.5 Daily user sending limit exceeded. For more information on Gmail", "--rate 500/day"),
        ("google-relay", "550 5.7.1 Daily SMTP relay limit exceeded for customer.", "--rate"),
        ("gmail", "421 4.7.28 Our system has detected an unusual rate of unsolicited mail", "lower --rate"),
        ("microsoft365", "535 5.7.139 unsuccessful, SmtpClientAuthentication is off", "Authenticated SMTP"),
        ("microsoft365", "535 5.7.3 Authentication unsuccessful [AM0PR04.eurprd04.prod.outlook.com]", "OAuth"),
        ("outlook", "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.", "OAuth"),
        ("microsoft365", "550 5.7.60 SMTP; Client does not have permissions to send as this sender", "Send as"),
        ("microsoft365", "554 5.2.252 SendAsDenied; ann@example.org not allowed to send as bob@example.org", "Send as"),
        ("microsoft365", "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException", "Send as"),
        ("microsoft365", "432 4.3.2 Concurrent connections limit exceeded.", "--sessions 3"),
        ("ses", "554 Message rejected: Email address is not verified. The following identities failed", "sandbox"),
        ("ses-eu-west-1", "454 Throttling failure: Daily message quota exceeded.", "quota"),
        ("ses", "454 Throttling failure: Maximum sending rate exceeded.", "--rate"),
        ("ses", "535 Authentication Credentials Invalid", "SMTP credentials"),
        ("sendgrid", "550 The from address does not match a verified Sender Identity.", "verify"),
        ("sendgrid", "451 Authentication failed: Maximum credits exceeded", "plan"),
        ("ionos", "450 Requested mail action not taken: mailbox unavailable / 450 Mail send limit exceeded.", "--rate"),
        ("icloud", "550 5.7.1 ann@icloud.com: You have exceeded your daily sending limit.", "--rate 1000/day"),
        ("zoho", "553 Relaying disallowed as bob@example.org", "in From"),
        ("gmx", "535 Authentication credentials invalid", "POP3"),
        ("brevo", "525 5.7.1 Unauthorized IP address", "Authorized IPs"),
        ("sparkpost", "550 5.7.1 Unconfigured Sending Domain <example.org>", "verify"),
    ],
)  # fmt: skip
def test_refusals_are_recognized_by_the_provider_s_own_words(name: str, reply: str, words: str) -> None:
    """Each gets the advice for it, not that of another."""
    refusal = find_provider(name).find_refusal(reply)
    assert refusal is not None
    assert words in refusal.advice


@pytest.mark.parametrize(
    "reply",
    ["550 5.1.1 The email account that you tried to reach does not exist", "250 2.0.0 OK", "452 4.2.2 full", ""],
)
@pytest.mark.parametrize("name", ["gmail", "microsoft365", "ses", "sendgrid", "zoho", "yahoo"])
def test_what_is_about_a_recipient_is_not_explained(name: str, reply: str) -> None:
    """An unknown mailbox is no matter of the account."""
    assert find_provider(name).find_refusal(reply) is None


def test_nothing_is_loaded_before_a_provider_is_named() -> None:
    """The start of a program and of the command must not get slower."""
    program = (
        "import sys, asyncsmtp.client.config.relay, asyncsmtp.cli.main, asyncsmtp.cli.commands.bulk\n"
        "print([name for name in sys.modules if 'provider' in name])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


USUAL_NAMES = {
    "gmail": "google googlemail gmail.com GMAIL", "google-workspace": "gsuite workspace",
    "outlook": "hotmail live outlook.com hotmail.com", "microsoft365": "office365 o365 exchange-online",
    "icloud": "apple me icloud.com", "web.de": "webde", "mailbox.org": "mailbox", "yahoo": "yahoo.com",
    "proton-bridge": "proton protonmail", "ses": "amazon-ses aws", "brevo": "sendinblue", "ionos": "1und1",
    "gmx": "gmx.net gmx.de", "gmx-com": "gmx.com", "mandrill": "mailchimp", "aol": "aol.com",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "usual"), [(name, each) for name, all_ in USUAL_NAMES.items() for each in all_.split()]
)
def test_a_provider_has_the_names_that_people_use(name: str, usual: str) -> None:
    """Its former one, that of its owner, the domain of its addresses."""
    assert find_provider(usual) is find_provider(name)
    assert find_provider(f" {usual} ").name == name

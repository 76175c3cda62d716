"""A campaign file is read strictly: nothing in it is ever silently ignored."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.bulk.setup.config import KEYS, SECTIONS, read_campaign_file
from asyncsmtp.bulk.setup.config_types import Choice, Count, check_flag
from asyncsmtp.errors import ConfigError


def refusal(path: Path, text: str) -> str:
    """The sentence and advice that a file with `text` is refused with."""
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_campaign_file(path)
    assert caught.value.advice
    return f"{caught.value.why} | {caught.value.advice}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "campaign.toml"


def test_every_key_is_read(path: Path) -> None:
    """The whole table, each key once, paths relative to the file."""
    path.write_text(
        """
        [campaign]
        name = "november-news"
        from = "Example News <news@example.com>"
        trim = false
        repair = true
        duplicates = "group"
        subject = "News for {{ name }}"
        recipients = "people.csv"
        email = "E-Mail Address"
        delimiter = ";"
        encoding = "cp1252"
        skip_lines = 2
        sheet = 3
        where = "country == 'AT'"
        offset = 10
        html = "message.html"
        text = "texts/message.txt"
        inline_styles = true
        text_from_html = true
        attachments = ["terms.pdf", "invoices/{{ customer_no }}.pdf"]
        optional_attachments = ["photos/{{ customer_no }}-*.jpg"]
        inline = { logo = "logo.png" }
        headers = { X-Campaign = "november" }
        to_name = "{{ name }}"
        cc = "{{ boss }}"
        bcc = "archive@example.com"
        reply_to = "desk@example.com"
        return_path = "bounces+{{ token }}@example.com"
        webhook = "https://example.com/outcomes"
        suppression = ["suppressed.db", "bounced.txt"]
        suppress_rejected = true
        retention = "90d"
        ledger = "postgresql://news@db.example.com/mail"
        [template]
        delimiters = ["<<", ">>"]
        [relay]
        url = "smtp://news@mail.example.com:587"
        sessions = 4
        max_per_connection = 100
        provider = "mailgun"
        user = "postmaster@example.org"
        dialogue = "lockstep"
        ca_file = "ca.pem"
        password_command = "pass show mail"
        source_address = "192.0.2.1"
        proxy = "socks5://proxy.example"
        pin = "ab"
        client_cert = "ann.pem"
        client_key = "ann.key"
        [[relays]]
        url = "smtps://news@other.example.com"
        weight = 2
        sessions = 3
        max_per_connection = 50
        rate = "5/s"
        [columns]
        name = "Full name"
        [unsubscribe]
        url = "https://example.com/u/{{ token }}"
        secret_file = "secret"
        [dkim]
        domain = "example.com"
        selector = "s1"
        key = "dkim.pem"
        [smime]
        certificate = "news.pem"
        key = "news.key"
        [limits]
        concurrency = 7
        rate = ["30/s", "100000/day"]
        adapt = false
        shared = true
        name_server = "192.0.2.53"
        window = "Mon-Fri 09:00-17:00 Europe/Vienna"
        time_zone_column = "tz"
        start_at = 2026-12-01T09:00:00+01:00
        spread_until = "2026-12-01 17:00"
        [limits.domain."Gmail.com"]
        rate = ["10/s"]
        [limits.provider."google.com"]
        rate = "20/s"
        [warmup]
        start = "200/day"
        until = "20000/day"
        [retry]
        for = "1d12h"
        delay = "90s"
        attempts = 5
        in_doubt = "resend"
        """,
        encoding="utf-8",
    )
    values = read_campaign_file(path)
    assert set(values) == set(KEYS)
    assert values["campaign.text"] == path.parent / "texts/message.txt"
    assert values["campaign.inline"] == {"logo": path.parent / "logo.png"}
    assert values["campaign.attachments"] == ("terms.pdf", "invoices/{{ customer_no }}.pdf")
    assert values["template.delimiters"] == ("<<", ">>")
    assert values["limits.concurrency"] == 7
    assert values["campaign.suppression"] == (path.parent / "suppressed.db", path.parent / "bounced.txt")
    assert values["limits.rate"] == (Rate(30, 1), Rate(100_000, 86_400))
    assert values["limits.domain"] == {"gmail.com": (Rate(10, 1),)}
    assert values["limits.start_at"] == datetime(2026, 12, 1, 8, tzinfo=UTC)
    assert (values["retry.for"], values["retry.delay"]) == (129_600, 90)
    assert values["relay.client_key"] == path.parent / "ann.key"
    assert values["relay.pin"] == ("ab",)


def test_pins_may_be_several(path: Path) -> None:
    """The certificate in use, and the one that comes after it."""
    path.write_text('[relay]\npin = ["ab", "cd"]', encoding="utf-8")
    assert read_campaign_file(path) == {"relay.pin": ("ab", "cd")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[campaign]\nsubjct = 'x'", "[campaign]: unknown key “subjct”; did you mean “subject”?"),
        ("[campaign]\nconcurency = 3", "did you mean “concurrency” in [limits]?"),
        ("[relay]\nzzz = 3", "[relay] may have url, provider, user, sessions"),
        ("[campain]\nname = 'x'", "unknown section [campain]; did you mean [campaign]?"),
        ("name = 'x'", "“name” stands before any section | put it under [campaign]"),
        ("[relay]\nsessions = 0", "[relay] sessions: must be a whole number from 1 to 10000"),
        ("[relay]\nsessions = true", "must be a whole number"),
        ("[relay]\ndialogue = 'fast'", "must be one of lockstep, pipelined"),
        ("[campaign]\nfrom = 3", "[campaign] from: must be text"),
        ("[campaign]\nattachments = 'a.pdf'", "must be a list of texts"),
        ("[campaign]\ninline = ['a.png']", "must be a table of texts"),
        ("[campaign]\nname = '../x'", "must be letters, digits"),
        (
            "[campaign]\nrecipients = 'p.json'",
            "is JSON, not JSON lines, which this version cannot read: save it as CSV",
        ),
        ("[campaign]\ninline_styles = 'yes'", "must be true or false"),
        ("[campaign]\ndelimiter = ':'", "must be one of , ; | tab"),
        ("[campaign\nname", "is not TOML"),
        ("[campaign]\nname = 'a\\u001bb", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_section(path: Path, text: str, expected: str) -> None:
    """A misspelt key that is ignored is a mail with the wrong subject, a thousand times."""
    assert expected in refusal(path, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[relays]]\nweight = 1", "each is a section with a url"),
        ("[[relays]]\nurl = 'smtp://x'\nweight = 0", "weight must be a number above 0"),
        ("[[relays]]\nurl = 'smtp://x'\nsessions = 0", "sessions must be a whole number from 1"),
        ("[[relays]]\nurl = 'smtp://x'\nmax_per_connection = 0", "max_per_connection must be a whole number from 1"),
        ("[[relays]]\nurl = 'smtp://x'\nhost = 'y'", "unknown key “host”"),
        ("[[relays]]\nurl = 'smtp://x'\nrate = 'fast'", "“fast” is not a valid rate"),
        ("[smime]\ncertificate = 'a.pem'", "key is missing"),
        ("[smime]\ncertificate = 'a.pem'\nkey = 'a.key'\npassword = 'x'", "unknown key “password”"),
        ("[smime]\ncertificate = 3", "certificate must be the name of a file"),
        ("[limits]\nrate = 30", 'must be a text such as "30/s", or a list of such'),
        ("[limits]\nrate = []", 'must be a text such as "30/s"'),
        ("[limits]\ndomain = 3", "must be tables such as [limits.domain"),
        ('[limits.domain."a.example"]\nspeed = "1/s"', "“a.example”: must be tables such as"),
        ('[limits.domain."a.example"]\nrate = "x"', "“x” is not a valid rate"),
        ('[limits.domain."ann@a.example"]\nrate = "1/s"', "“ann@a.example”: must be tables"),
        ("[limits]\nadapt = 1", "must be true or false"),
        ("[limits]\nstart_at = 2026-12-01", "must be a time such as"),
        ("[limits]\nwindow = 9", "must be a text such as"),
    ],
)
def test_what_is_wrong_with_limits_is_named(path: Path, text: str, expected: str) -> None:
    assert expected in refusal(path, text)


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_secret_in_the_file_is_refused_and_not_repeated(path: Path, mode: int) -> None:
    """TF-15, AU-08: neither kept nor echoed; and one that others could read must be changed."""
    path.write_text("[relay]\n")
    path.chmod(mode)
    said = refusal(path, "[relay]\npassword = 'hunter2'")
    assert "hunter2" not in said
    assert "ASYNCSMTP_PASSWORD" in said
    assert ("change it" in said) == (mode == 0o644)


def test_a_missing_file_says_how_to_get_one(path: Path) -> None:
    """Rule 7: the next thing to type."""
    with pytest.raises(ConfigError, match="there is no campaign file") as caught:
        read_campaign_file(path)
    assert "asyncsmtp init demo" in caught.value.advice


def test_another_encoding_is_named_with_its_byte(path: Path) -> None:
    """A file saved as Latin-1 by an editor."""
    path.write_bytes(b"[campaign]\nname = 'caf\xe9'\n")
    with pytest.raises(ConfigError, match="byte 22 is not UTF-8"):
        read_campaign_file(path)


def test_a_byte_order_mark_is_no_fault(path: Path) -> None:
    """Editors on Windows write one."""
    path.write_bytes(b"\xef\xbb\xbf[campaign]\nname = 'x'\n")
    assert read_campaign_file(path) == {"campaign.name": "x"}


def test_recipients_given_in_place_of_the_campaign_are_not_swallowed(path: Path) -> None:
    """A list of 3 GB named by mistake is not read into memory."""
    path.write_bytes(b"a" * (1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="too large for a campaign file"):
        read_campaign_file(path)


def test_a_folder_in_place_of_the_file_is_reported(tmp_path: Path) -> None:
    """`asyncsmtp bulk demo`."""
    with pytest.raises(ConfigError, match="is a folder") as caught:
        read_campaign_file(tmp_path)
    assert "campaign.toml" in caught.value.advice


@pytest.mark.parametrize("section", SECTIONS)
def test_a_misspelt_key_names_the_nearest_one(path: Path, section: str) -> None:
    """For each key that there is, in each section: the schema is what is asked."""
    names = [name.partition(".")[2] for name in KEYS if name.startswith(f"{section}.")]
    for name in names:
        wrong = f"{name}x"
        assert f"[{section}]: unknown key “{wrong}”; did you mean “{name}”?" in refusal(
            path, f"[{section}]\n{wrong} = 1"
        )


@pytest.mark.parametrize(
    ("section", "wrong", "meant"),
    [("dkim", "selectr", "selector"), ("smime", "certificat", "certificate"), ("unsubscribe", "mail_to", "mailto")],
)
def test_a_misspelt_key_of_a_table_names_the_nearest_one(path: Path, section: str, wrong: str, meant: str) -> None:
    url = 'url = "https://example.org/{{ token }}"\n' if section == "unsubscribe" else ""
    said = refusal(path, f'[{section}]\n{url}{wrong} = "x"')
    assert f"[{section}]: unknown key “{wrong}”; did you mean “{meant}”?" in said


def test_every_key_declares_what_the_help_and_the_page_need() -> None:
    """One declaration has all of it: a text, and a name for its value where it is an option."""
    for key in KEYS.values():
        assert key.help.endswith("."), key.name
        assert key.field
        assert key.variable.startswith("ASYNCSMTP_") == bool(key.options)
        if key.options and not isinstance(key.check, Choice | Count) and key.check is not check_flag:
            assert key.metavar in METAVARS, key.name


METAVARS = (
    *("CHARACTER", "COLUMN", "COMMAND", "CONDITION", "CSV", "FILE", "FILE|URL", "LIST", "MAILBOX", "N", "NAME"),
    *("NAME=COLUMN", "RATES", "SPAN", "TEXT", "TIME", "URL", "WINDOW"),
)

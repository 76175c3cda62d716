"""One value from file and options; what is missing is told with what to type."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from asyncsmtp.bulk.setup.config import CampaignConfig, build_config
from asyncsmtp.bulk.setup.config_types import check_moment
from asyncsmtp.errors import ConfigError

FILE = {
    "campaign.from": "a@example.org",
    "campaign.subject": "News",
    "campaign.recipients": Path("lists/people.csv"),
    "campaign.text": Path("lists/message.txt"),
    "relay.sessions": 3,
}


def test_an_option_goes_before_the_file() -> None:
    """Later wins; an option that was not given leaves the file's value alone."""
    settings = build_config(FILE, {"campaign.subject": "Other", "relay.sessions": None}, Path("lists/campaign.toml"))
    assert settings.subject == "Other"
    assert settings.sessions == 3


def test_options_alone_are_a_campaign() -> None:
    """Its name and its ledger's place come from the recipients."""
    settings = build_config(
        {},
        {
            "campaign.recipients": "lists/people.csv",
            "campaign.html": "m.html",
            "campaign.from": "a@example.org",
            "campaign.subject": "x",
        },
    )
    assert settings.name == "people"
    assert settings.ledger_location == Path("lists/people.ledger")
    assert settings.html == Path("m.html")


def test_a_rehearsal_has_a_ledger_of_its_own() -> None:
    """What the embedded relay accepted was mailed to nobody."""
    settings = build_config(FILE, {}, Path("lists/campaign.toml"))
    assert settings.ledger_location == Path("lists/people.ledger")
    assert settings.sandbox_ledger == Path("lists/people.sandbox.ledger")


def test_the_defaults_are_those_of_the_documentation() -> None:
    """cli.md: ten sessions, a hundred in hand, hold; the dialogue is the relay's own choice."""
    settings = build_config(FILE | {"relay.sessions": 10}, {}, None)
    defaults = CampaignConfig(
        folder=Path("lists"),
        source=None,
        name="people",
        from_="a@example.org",
        subject="News",
        recipients=Path("lists/people.csv"),
        text=Path("lists/message.txt"),
    )
    assert settings == defaults
    assert (defaults.sessions, defaults.concurrency, defaults.dialogue, defaults.in_doubt) == (10, 100, None, "hold")


@pytest.mark.parametrize(
    ("missing", "option"),
    [("recipients", "--recipients"), ("from", "--from"), ("subject", "--subject"), ("text", "--template")],
)
def test_what_is_missing_is_reported_with_what_to_type(missing: str, option: str) -> None:
    """In the words of whoever wrote a file, or gave options."""
    rest = {key: value for key, value in FILE.items() if key != f"campaign.{missing}"}
    with pytest.raises(ConfigError, match=r"campaign\.toml, \[campaign\]: .* is missing") as caught:
        build_config(rest, {}, Path("campaign.toml"))
    assert option in caught.value.advice
    with pytest.raises(ConfigError) as caught:
        build_config(rest, {}, None)
    assert option in caught.value.why


@pytest.mark.parametrize("hours", range(0, 24, 3))
def test_a_time_without_a_date_is_the_next_one(hours: int) -> None:
    """That of today, or, where it is past, that of tomorrow; the clocks may be changed in between."""
    now = datetime.now().astimezone()
    found = check_moment(f"{now + timedelta(hours=hours, minutes=30):%H:%M:%S}", Path())
    assert timedelta(hours=hours - 1) < found - now < timedelta(hours=hours + 2)
    assert found > now


def test_an_option_of_the_wrong_kind_is_named() -> None:
    """The option, not the key of a file that nobody wrote."""
    with pytest.raises(ConfigError, match=r"^--delimiter must be one of"):
        build_config(FILE, {"campaign.delimiter": ":"})

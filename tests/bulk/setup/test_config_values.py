"""One value from file and options; what is missing is told with what to type."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from asyncsmtp.bulk.setup.config import KEYS, CampaignConfig, build_config
from asyncsmtp.bulk.setup.config_types import Count, WrongType, check_moment, parse_duration
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


RANGES = {name: key.check for name, key in KEYS.items() if isinstance(key.check, Count)}


@pytest.mark.parametrize("name", RANGES)
def test_a_number_may_be_the_least_and_the_most_of_its_range(name: str) -> None:
    """Each number of a campaign file: the sentence names the range, and its ends belong to it."""
    check = RANGES[name]
    most = check.maximum or 10**9
    assert build_config(FILE, {name: check.minimum}) != build_config(FILE, {name: most})
    for value in (check.minimum - 1, *((most + 1,) if check.maximum else ())):
        with pytest.raises(ConfigError, match=f"must be a whole number from {check.minimum}"):
            build_config(FILE, {name: value})


def test_the_ranges_are_those_of_the_documentation() -> None:
    """Nobody has more than ten thousand connections; rows to skip are not limited."""
    unlimited = {"campaign.offset", "campaign.skip_lines"}
    assert {name: (check.minimum, check.maximum) for name, check in RANGES.items()} == {
        name: (0, None) if name in unlimited else (1, 10_000) for name in RANGES
    }


def test_a_name_may_have_a_hundred_characters() -> None:
    """It names a file, with more characters behind it."""
    assert build_config(FILE, {"campaign.name": "n" * 100}).name == "n" * 100
    for name in ("n" * 101, ".news", " news", "a/b", "a\nb"):
        with pytest.raises(ConfigError, match=r"^--name .*must be letters, digits, - and _ only"):
            build_config(FILE, {"campaign.name": name})
    assert build_config(FILE, {"campaign.name": "news 2026-11_final.v2"}).name == "news 2026-11_final.v2"


@pytest.mark.parametrize(("year", "is_valid"), [(1970, False), (1971, True), (9998, True), (9999, False)])
def test_a_time_is_one_that_every_zone_can_show(year: int, is_valid: bool) -> None:
    text = f"{year}-07-01 12:00"
    if is_valid:
        assert check_moment(text, Path()).astimezone().year == year
    else:
        with pytest.raises(ValueError, match="must be a time from the year 1971 to 9998"):
            check_moment(text, Path())


def test_the_parts_of_a_duration_are_added() -> None:
    """Days, hours, minutes and seconds, each of which may be left out; spaces and case do not matter."""
    assert parse_duration("1d2h3m4.5s") == parse_duration(" 1D 2H 3M 4.5S") == 93_784.5
    assert [parse_duration(text) for text in ("2d", "2h", "2m", "2s")] == [172_800, 7_200, 120, 2]
    for text in ("", " ", "5", "5x", "m", "1m1h", "1.5h"):
        with pytest.raises(ValueError, match="must be a span of time in quotes") as caught:
            parse_duration(text)
        assert not isinstance(caught.value, WrongType)
    for value in (5, None, ["5m"]):
        with pytest.raises(WrongType, match="must be a span of time in quotes"):
            parse_duration(value)


SAMPLES: dict[str, object] = {
    "text": "x", "blank": " ", "number": 1, "fraction": 1.5, "flag": True, "texts": ["x"], "nothing": [],
    "numbers": [1], "table": {"x": "y"}, "table of numbers": {"x": 1}, "numbered": {1: "x"}, "path": Path("x"),
    "bytes": b"x", "time": datetime(2026, 12, 1, 9), "other": object(),
}  # fmt: skip
TYPES = {
    "campaign.recipients campaign.html campaign.text campaign.ledger relay.ca_file relay.client_cert relay.client_key":
    {"text", "path"},
    "campaign.from campaign.subject campaign.reply_to campaign.return_path campaign.name campaign.email_column "
    "campaign.to_name campaign.cc campaign.bcc "
    "campaign.where campaign.encoding relay.url relay.user relay.password_command relay.source_address relay.proxy "
    "limits.name_server limits.time_zone_column": {"text"},
    "campaign.suppression": {"text", "texts", "nothing", "path"},
    "campaign.suppress_rejected campaign.inline_styles campaign.text_from_html campaign.trim campaign.repair "
    "limits.adapt": {"flag"},
    "campaign.sheet": {"text", "number"},
    "columns": {"nothing", "table"},
    "campaign.offset campaign.skip_lines relay.sessions relay.max_per_connection limits.concurrency retry.attempts":
    {"number"},
    "campaign.attachments campaign.optional_attachments": {"texts", "nothing"},
    "campaign.inline campaign.headers": {"table"},
    "relay.pin relays": {"text", "texts", "nothing"},
    "limits.shared": {"text", "flag", "path"},
    "limits.start_at limits.spread_until": {"time"},
    "dkim": {"nothing"},
}  # fmt: skip


@pytest.mark.parametrize("name", KEYS)
def test_each_key_takes_values_of_its_types_and_no_other(name: str) -> None:
    """What has the wrong type is told apart from a wrong text: a program that passes it gets a TypeError."""
    accepted, wrong_types = set(), set()
    for kind, value in SAMPLES.items():
        try:
            KEYS[name].check(value, Path())
            accepted.add(kind)
        except WrongType:
            wrong_types.add(kind)
        except ValueError:
            pass
    assert accepted == next((types for names, types in TYPES.items() if name in names.split()), set())
    if name != "campaign.delimiter":  # one character: whatever else it is given is not one
        assert wrong_types >= {"bytes", "other", "fraction"} - accepted


@pytest.mark.parametrize(
    ("name", "kind"),
    [("p.json", "JSON, not JSON lines"), ("p.ZIP", "an archive"), ("p.csv.gz", "compressed"), ("p.pdf", "a PDF")],
)
def test_a_file_that_cannot_be_read_is_known_by_its_name(name: str, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {kind}, which this version cannot read: save it as CSV"):
        build_config(FILE, {"campaign.recipients": name})


@pytest.mark.parametrize("value", ["tab", "\\t", "\t", ",", ";", "|"])
def test_a_delimiter_may_be_a_tab_by_name(value: str) -> None:
    """A shell makes it hard to type one."""
    assert build_config(FILE, {"campaign.delimiter": value}).delimiter == ("\t" if "t" in value else value)

"""[columns] and --column: the templates' names for columns whose own are somebody else's."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from asyncsmtp.bulk.setup.config import build_config
from asyncsmtp.bulk.setup.config_types import check_columns
from asyncsmtp.errors import ConfigError
from asyncsmtp.testing import ScriptedRelay
from tests.cli.ended import Command
from tests.cli.serving import serving
from tests.cli.test_bulk import relay_at

PEOPLE = (
    "E-Mail,Second E-Mail,Full name\nann@example.org,x@example.org,Ann Ångström\nbob@example.org,y@example.org,Bob\n"
)
COLUMNS = '\n[columns]\nemail = "e-mail"\nname = "Full  Name"\n'  # spelt as people spell


@pytest.fixture
def foreign(campaign: Path) -> Path:
    """A campaign whose recipients come from somewhere else."""
    (campaign.parent / "people.csv").write_text(PEOPLE, encoding="utf-8")
    return campaign


def test_a_column_is_used_by_the_name_that_the_campaign_file_gives_it(command: Command, foreign: Path) -> None:
    """In the text, in the subject, in --where, and for the address; the results keep the columns of the file."""
    (foreign.parent / "people.csv").write_text(PEOPLE + "nobody,,Cid\n", encoding="utf-8")
    foreign.write_text(foreign.read_text("utf-8") + "where = \"name != 'Bob'\"\n" + COLUMNS, "utf-8")
    with serving(ScriptedRelay()) as relay:
        ended = command("bulk", foreign, *relay_at(relay), "--yes")
    assert ended.code == 1, ended.err
    assert "a guess" not in ended.err
    (mail,) = relay.received
    assert mail.forward_paths == ("ann@example.org",)
    assert mail.email["Subject"] == "News for Ann Ångström"
    assert "Hello Ann Ångström" in mail.email.get_content()
    (row,) = csv.DictReader(io.StringIO(command("results", foreign, "--failed").out))
    assert list(row)[:3] == ["E-Mail", "Second E-Mail", "Full name"]


def test_a_column_is_named_on_the_command_line_and_that_goes_before_the_file(command: Command, foreign: Path) -> None:
    """Name by name: what the file says of the others stays."""
    foreign.write_text(foreign.read_text("utf-8") + COLUMNS.replace("Full  Name", "no such"), "utf-8")
    ended = command("bulk", foreign, "--sandbox", "--column", "name=Full name")
    assert ended.code == 0, ended.err


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("Ful name", "has no column “Ful name” (did you mean “Full name”?); it has “E-Mail”, “Second E-Mail”"),
        ("\x1b[31m", "has no column “\\x1b[31m”; it has"),
    ],
)
def test_an_unknown_column_is_reported_before_anything_is_loaded(
    command: Command, foreign: Path, wanted: str, told: str
) -> None:
    """With the nearest one; there is no ledger, and nobody was connected to."""
    with serving(ScriptedRelay()) as relay:
        words = ("--column", f"name={wanted}", "--column", "email=E-Mail")
        ended = command("bulk", foreign, *relay_at(relay), "--yes", *words)
    assert ended.code == 2
    assert told in ended.sentence
    assert not (foreign.parent / "news.ledger").exists()
    assert relay.received == []


@pytest.mark.parametrize("other", ["name=Second E-Mail", "email=Second E-Mail"])
def test_a_campaign_that_goes_on_with_other_columns_is_refused(command: Command, foreign: Path, other: str) -> None:
    """TF-10: the mapping is part of the fingerprint, and the message says which name it is."""
    words = ("--column", "name=Full name", "--column", "email=E-Mail")
    with serving(ScriptedRelay()) as relay:
        assert command("bulk", foreign, *relay_at(relay), "--yes", "--limit", "1", *words).code == 75
        words = tuple(other if word.startswith(other.partition("=")[0] + "=") else word for word in words)
        ended = command("bulk", foreign, *relay_at(relay), "--yes", *words)
        assert ended.code == 2
        assert re.search(rf"column {other.partition('=')[0]} changed since the campaign", ended.sentence)
        words = ("--column", "name= full NAME", "--email-column", "E-Mail")  # the same ones, said otherwise
        assert command("bulk", foreign, *relay_at(relay), "--yes", *words).code == 0
    assert len(relay.received) == 2


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("Full name", "must be names and columns"),
        (("Full name",), "must be names and columns"),
        ({"name": 3}, "“name”: must be names"),
        ({"full name": "x"}, "“full name” cannot be a name"),
        ({"row": "x"}, "“row” cannot be a name"),
        (("a=x", "a=y"), "“a” is given two columns"),
    ],
)
def test_an_invalid_mapping_is_rejected(value: object, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        check_columns(value, Path())


def test_two_columns_for_the_address_are_rejected() -> None:
    """One of them would silently not be used."""
    file = {"campaign.email": "A", "columns": {"email": "B"}}
    with pytest.raises(ConfigError, match="the addresses are in “A” and in “B”"):
        build_config(file, {}, Path("campaign.toml"))

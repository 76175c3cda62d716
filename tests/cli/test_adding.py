"""`bulk --add`: a further file is judged as the first one was, before any of it is taken in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncsmtp.testing import ScriptedRelay
from tests.cli.ended import Command, Ended
from tests.cli.serving import serving
from tests.cli.test_bulk import relay_at, results


@pytest.fixture
def relay() -> Iterator[ScriptedRelay]:
    with serving(ScriptedRelay()) as relay:
        yield relay


class Begun:
    """A campaign whose first file was mailed, to which others are added."""

    def __init__(self, command: Command, campaign: Path, relay: ScriptedRelay) -> None:
        self._command, self._campaign, self._relay = command, campaign, relay

    def settle(self, lines: str) -> None:
        """Further lines of the campaign file."""
        self._campaign.write_text(self._campaign.read_text("utf-8") + lines, encoding="utf-8")

    def people(self, octets: bytes) -> None:
        """Another file of recipients to begin with."""
        (self._campaign.parent / "people.csv").write_bytes(octets)

    def begin(self) -> None:
        ended = self._command("bulk", self._campaign, *relay_at(self._relay), "--yes")
        assert ended.code == 0, ended.err
        self._before = len(self._relay.received), len(results(self._command, self._campaign))

    def add(self, octets: bytes, *words: str) -> Ended:
        """Add a file of these octets."""
        (self._campaign.parent / "more.csv").write_bytes(octets)
        return self._command("bulk", self._campaign, *relay_at(self._relay), "--add", "more.csv", *words)

    def added(self) -> list[dict[str, object]]:
        """The rows that were added, as the results have them."""
        return results(self._command, self._campaign)[self._before[1] :]

    def failed(self) -> list[dict[str, object]]:
        """The rows that failed, with their cells."""
        return results(self._command, self._campaign, "--failed")

    def subjects(self) -> list[str]:
        """Of the messages since."""
        return sorted(str(message.email["Subject"]) for message in self._relay.received[self._before[0] :])


@pytest.fixture
def begun(command: Command, campaign: Path, relay: ScriptedRelay) -> Begun:
    return Begun(command, campaign, relay)


def test_it_is_read_in_the_encoding_of_the_campaign_file(begun: Begun) -> None:
    """What `encoding` says goes before a guess: cp1250 and cp1252 cannot be told apart."""
    begun.settle('encoding = "cp1250"\n')
    begun.begin()
    ended = begun.add("email,name\ndan@example.org,Jiří Dvořák\n".encode("cp1250"), "--yes")
    assert ended.code == 0, ended.err
    assert "a guess" not in ended.err
    assert begun.subjects() == ["News for Jiří Dvořák"]


def test_it_is_parted_by_the_delimiter_of_the_campaign_file(begun: Begun) -> None:
    """A header with two delimiters does not tell which one is meant; `delimiter` does."""
    begun.settle('delimiter = ";"\n')
    begun.people(b"email;name;a,b,c,d\nann@example.org;Ann;1,2,3,4\n")
    begun.begin()
    ended = begun.add(b"email;name;a,b,c,d\ndan@example.org;Dan;1,2,3,4\n", "--yes")
    assert ended.code == 0, ended.err
    assert begun.subjects() == ["News for Dan"]


def test_a_detected_encoding_is_reported(begun: Begun) -> None:
    """As it is of the first file."""
    begun.begin()
    ended = begun.add("email,name\ndan@example.org,Jörg\n".encode("cp1252"), "--yes")
    assert "read as cp1252 (detected; set it with --encoding)" in ended.err
    assert begun.subjects() == ["News for Jörg"]


ODD = b"email,name\nnobody,X\ndan@example.org,Dan\ndan@example.org,Dan\n"


def test_its_rows_that_cannot_be_mailed_are_reported(begun: Begun) -> None:
    """With what is wrong, before the others are mailed."""
    begun.begin()
    ended = begun.add(ODD, "--yes")
    assert "more.csv: 3 rows · 1 to be mailed · 1 duplicate · 1 cannot be mailed" in ended.err
    assert "row 1 (line 2): " in ended.err
    assert "row 3: names the mailbox of row 2 again" in ended.err
    assert [row["state"] for row in begun.added()] == ["rejected", "accepted", "suppressed"]


@pytest.mark.parametrize(
    ("octets", "words", "told"),
    [
        (ODD, ("--yes", "--strict"), "in the whole file problems: 1, duplicates: 1, remarks: 0"),
        (b"email,name\nnobody,X\n", ("--yes",), "more.csv: nobody would be mailed"),
        (b"email,nom\ndan@example.org,Dan\n", ("--yes",), "lacks the columns “name”"),
        (b"email,name\ndan@example.org,Dan\n", (), "would send up to 1 message from Example News"),
    ],
    ids=["strict", "nobody", "columns", "nobody to ask"],
)
def test_nothing_is_added_when_it_is_refused(begun: Begun, octets: bytes, words: tuple[str, ...], told: str) -> None:
    """Neither mailed now nor by the next run."""
    begun.begin()
    ended = begun.add(octets, *words)
    assert ended.code == 2
    assert told in ended.sentence
    assert begun.added() == []
    assert begun.subjects() == []


def test_who_was_mailed_already_is_nothing_odd(begun: Begun) -> None:
    """`--strict` is about the file alone: a list that has grown may be added whole."""
    begun.begin()
    assert begun.add(b"email,name\nann@example.org,Ann\ndan@example.org,Dan\n", "--yes", "--strict").code == 0
    assert begun.subjects() == ["News for Dan"]


def test_the_offset_is_of_the_first_file_and_the_condition_of_all(begun: Begun) -> None:
    """`offset` counts the rows to begin behind; a file that is added has no such rows, but `where` is about each."""
    begun.settle("offset = 2\nwhere = \"name != 'Eve'\"\n")
    begun.begin()
    ended = begun.add(b"email,name\ndan@example.org,Dan\neve@example.org,Eve\n", "--yes")
    assert ended.code == 0, ended.err
    assert "2 rows · 1 to be mailed · 1 left out" in ended.err
    assert begun.subjects() == ["News for Dan"]
    assert [row["state"] for row in begun.added()] == ["accepted", "suppressed"]


def test_its_columns_may_be_spelt_otherwise(begun: Begun) -> None:
    """[columns] bears another case and other spaces, and the results have one spelling of them all."""
    begun.people(b"E-Mail,Full name\nann@example.org,Ann\n")
    begun.settle('\n[columns]\nemail = "e-mail"\nname = "full name"\n')
    begun.begin()
    ended = begun.add(b"FULL  NAME,e-mail\nDan,dan@example.org\nEve,nobody\n", "--yes")
    assert ended.code == 1, ended.err
    assert begun.subjects() == ["News for Dan"]
    (failed,) = begun.failed()
    assert failed["fields"] == {"Full name": "Eve", "E-Mail": "nobody"}


def test_a_dry_run_is_about_what_would_be_added(begun: Begun) -> None:
    """It composes every message of that file."""
    begun.begin()
    ended = begun.add(ODD, "--dry-run")
    assert ended.code == 1
    assert "more.csv: 3 rows · 1 to be mailed" in ended.out
    assert begun.added() == []
